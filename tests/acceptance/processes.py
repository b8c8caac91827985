"""Starts the service and agents as real processes, and looks at them over HTTP on loopback."""

import asyncio
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.storages import empty_url

OPSCORE = (sys.executable, "-m", "opscore")
READY_WITHIN = 60.0
GONE_WITHIN = 35.0
PATIENCE = 60.0
OURS = ("OPSCORE_", "AGENTKIT_", "LOG_LEVEL")

Value = TypeVar("Value")

# Those that run now: their logs belong into the report of a test that fails.
RUNNING: "list[Process]" = []


@dataclass
class Process:
    """One of our commands at work; everything it said stands in `log`."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]

    def find(self, pattern: str) -> str:
        """The first group of the pattern, once the process has said so."""
        deadline = time.monotonic() + READY_WITHIN
        while (found := re.search(pattern, self.said)) is None:
            ended = self.popen.poll() is not None and re.search(pattern, self.said) is None
            late = time.monotonic() > deadline
            assert not ended, f"{self.name} ended with {self.popen.returncode}:\n{self.said}"
            assert not late, f"{self.name} never said {pattern!r}:\n{self.said}"
            time.sleep(0.02)
        return found[1]

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self, within: float = GONE_WITHIN) -> int:
        """Its exit status, once it is gone."""
        return self.popen.wait(within)

    def stop(self) -> int:
        if self.popen.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        try:
            return self.ended()
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


@contextmanager
def process(
    name: str,
    folder: Path,
    *command: str,
    env: dict[str, str] | None = None,
    stderr: int | None = None,
) -> Iterator[Process]:
    """Run a command in an empty folder; it is gone when the block ends, however it ends."""
    log = folder / f"{name}-{secrets.token_hex(3)}.log"
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink if stderr is None else stderr,
        )
    started = Process(name, popen, log)
    RUNNING.append(started)
    try:
        yield started
    except BaseException as error:
        error.add_note(f"--- the log of {name} ---\n{started.said[-6000:]}")
        raise
    finally:
        RUNNING.remove(started)
        started.stop()
        if popen.stderr is not None:
            popen.stderr.close()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port for a later server: nobody else is given it, and until then it refuses connections."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """Ours, without the developer's own settings of the service."""
    return {key: value for key, value in os.environ.items() if not key.startswith(OURS)}


@dataclass
class Service:
    """A running `opscore serve`."""

    process: Process
    url: str
    key: str
    secret: str

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/v1/opscore/internal/agent/notify"

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        client = plain_client()
        client.base_url = httpx.URL(self.url)
        client.headers["Authorization"] = f"Bearer {self.key if key is None else key}"
        return client


def plain_client() -> httpx.AsyncClient:
    """A client for loopback; what TLS needs would take longer to load than most tests last."""
    return httpx.AsyncClient(timeout=30, trust_env=False, verify=False)


@contextmanager
def service(
    folder: Path,
    settings: Mapping[str, object] | None = None,
    *,
    name: str = "opscore",
    stderr: int | None = None,
    under: Sequence[str] = (),
) -> Iterator[Service]:
    """`opscore serve` with a random key and secret on a free port, ready to be used.

    `under` is a command that runs the one that follows it, such as `nice`.
    """
    key, secret = secrets.token_hex(16), secrets.token_hex(16)
    env = {"OPSCORE_API_KEY": key, "OPSCORE_WEBHOOK_SECRET": secret, "OPSCORE_PORT": "0"}
    env |= {name: str(value) for name, value in (settings or {}).items()}
    with process(name, folder, *under, *OPSCORE, "serve", env=env, stderr=stderr) as started:
        port = env["OPSCORE_PORT"]
        url = f"http://127.0.0.1:{port}"
        if port == "0":
            url = started.find(r"Uvicorn running on (http://[0-9.:]+)")
        wait_until_ready(url, started)
        yield Service(started, url, env["OPSCORE_API_KEY"], env["OPSCORE_WEBHOOK_SECRET"])


# The service that uses this kind of storage.
OnStorage = Callable[[str], Service]


@contextmanager
def service_on_each_storage(folder: Path, settings: Mapping[str, object]) -> Iterator[OnStorage]:
    """A service for each kind of storage, started for the first who asks for it."""
    with ExitStack() as stack:

        @cache
        def on(kind: str) -> Service:
            here = {"OPSCORE_STORAGE_URL": stack.enter_context(empty_url(kind))}
            return stack.enter_context(service(folder, {**settings, **here}, name=f"on-{kind}"))

        yield on


def wait_until_ready(url: str, of: Process | None = None) -> None:
    deadline = time.monotonic() + READY_WITHIN
    with httpx.Client(trust_env=False, verify=False) as http:
        while (why := _why_not_ready(http, url)) is not None:
            ended = None if of is None else of.popen.poll()
            assert ended is None, f"it ended with {ended} before it was ready"
            assert time.monotonic() < deadline, f"{url} is not ready: {why}"
            time.sleep(0.02)


def _why_not_ready(http: httpx.Client, url: str) -> str | None:
    try:
        answer = http.get(f"{url}/health/ready")
    except httpx.TransportError as error:
        return repr(error)
    return None if answer.status_code == 200 else answer.text


async def eventually(
    look: Callable[[], Awaitable[Value]],
    good: Callable[[Value], object],
    within: float = PATIENCE,
) -> Value:
    """What `look` sees as soon as it is good; an assertion with the last sight when it is late."""
    deadline = time.monotonic() + within
    while not good(seen := await look()):
        assert time.monotonic() < deadline, f"not within {within:g} s; last seen: {seen}"
        await asyncio.sleep(0.02)
    return seen
