"""Starts the services of a compose file as plain processes on loopback.

Each process gets the command and the settings that its container would get; only host names and
ports differ, because one machine has one of each.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OPSCORE = Path(sys.executable).with_name("opscore")
CONTAINER_PORTS = {"opscore": 8000, "agentkit": 8080, "agent-research": 8080, "agent-writer": 8080}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")
HEALTHY_WITHIN = 60.0
GONE_WITHIN = 30.0


@dataclass(frozen=True)
class Service:
    """A service as the compose file describes it, with its addresses on loopback."""

    name: str
    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]


def services(
    compose_file: Path, variables: Mapping[str, str], ports: Mapping[str, int], volume: Path
) -> list[Service]:
    """The services that always run, in the file's order: each comes after those it needs.

    `variables` stand for the file `.env`, and `volume` for the one that is mounted at /data.
    """
    document = yaml.safe_load(compose_file.read_text(encoding="utf-8"))
    return [
        _service(name, description, variables, ports, volume)
        for name, description in document["services"].items()
        if "profiles" not in description
    ]


@contextmanager
def running(wanted: list[Service], folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start each service once the one before it is healthy; end them all, the last one first."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for service in wanted:
            started[service.name] = _start(service, folder)
            _wait_until_healthy(service, started[service.name], folder)
        yield started
    finally:
        for process in reversed(started.values()):
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Send SIGTERM as a container's stop does, and return the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(GONE_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _service(
    name: str,
    description: dict[str, Any],
    variables: Mapping[str, str],
    ports: Mapping[str, int],
    volume: Path,
) -> Service:
    def here(text: object) -> str:
        local = _on_loopback(_interpolated(str(text), variables), name, ports)
        return local.replace("sqlite:////data/", f"sqlite:///{volume}/")

    place = {"OPSCORE_HOST": "127.0.0.1", "OPSCORE_PORT": str(ports[name])}
    given = dict(variables) if "env_file" in description else {}
    declared = {key: here(value) for key, value in description["environment"].items()}
    check = description.get("healthcheck", {}).get("test") or image_healthcheck()
    return Service(
        name=name,
        command=[here(word) for word in description["command"]],
        environment=given | declared | place,
        healthcheck=[here(word) for word in check if word != "CMD"],
    )


def image_healthcheck() -> list[str]:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found, "the Dockerfile has a HEALTHCHECK in exec form"
    words: list[str] = json.loads(found[1])
    return words


def _interpolated(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, kind, word = match.groups()
        if name in variables:
            return variables[name]
        assert kind == "-", f"{name} is required: {word}"
        return str(word)

    return VARIABLE.sub(value, text)


def _on_loopback(text: str, name: str, ports: Mapping[str, int]) -> str:
    for other, port in CONTAINER_PORTS.items():
        text = text.replace(f"//{other}:{port}", f"//127.0.0.1:{ports[other]}")
    text = text.replace(f"//127.0.0.1:{CONTAINER_PORTS[name]}/", f"//127.0.0.1:{ports[name]}/")
    own = {"--host=0.0.0.0": "--host=127.0.0.1"}
    own[f"--port={CONTAINER_PORTS[name]}"] = f"--port={ports[name]}"
    return own.get(text, text)


def _environment(service: Service) -> dict[str, str]:
    """Nothing of the developer's own settings reaches the process."""
    ours = ("OPSCORE_", "AGENTKIT_", "LOG_LEVEL")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return inherited | service.environment


def _start(service: Service, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{service.name}.log").open("wb") as log:
        return subprocess.Popen(
            [OPSCORE, *service.command],
            cwd=folder,
            env=_environment(service),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait_until_healthy(service: Service, process: subprocess.Popen[bytes], folder: Path) -> None:
    python, *arguments = service.healthcheck
    assert python == "python"
    deadline = time.monotonic() + HEALTHY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        check = subprocess.run(
            [sys.executable, *arguments],
            env=_environment(service),
            capture_output=True,
            check=False,
        )
        if check.returncode == 0:
            return
    log = (folder / f"{service.name}.log").read_text(errors="replace")[-4000:]
    raise AssertionError(f"{service.name} is not healthy; it said:\n{log}")
