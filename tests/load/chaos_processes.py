"""The processes of a chaos run: replicas that are killed and come back, and their AgentKit."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

KEY = "key-of-the-chaos-runs"
SECRET = "secret-of-the-chaos-runs"
_OURS = ("OPSCORE_", "AGENTKIT_", "LOG_LEVEL")
_READY_WITHIN = 60.0


class Process:
    """One `opscore` command with one log; it can be started again under the same name."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str], *arguments: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._env = env
        self._arguments = arguments
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        with self.log.open("ab") as sink:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "opscore", *self._arguments],
                cwd=self._folder,
                env={**kept, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        assert self._popen is not None, f"{self.name} was not started"
        return self._popen

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        """In order, or at once where that takes too long."""
        if not self.is_running:
            return
        self.popen.send_signal(signal.SIGCONT)
        self.popen.terminate()
        try:
            self.popen.wait(25)
        except subprocess.TimeoutExpired:
            self.kill()

    def story(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join((f"--- the end of the log of {self.name} ---", *lines))


class NeverReadyError(Exception):
    pass


async def until_ready(
    url: str, process: Process, path: str = "/health/ready", within: float = _READY_WITHIN
) -> None:
    deadline = time.monotonic() + within
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=2) as http:
        while not await _is_ready(http, url + path):
            if time.monotonic() > deadline or not process.is_running:
                raise NeverReadyError(f"{process.name} is not ready.\n{process.story()}")
            await asyncio.sleep(0.05)


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


def replica(
    number: int, port: int, storage: str, mode: str, agentkit: str, folder: Path
) -> Process:
    """Deadlines are short and nothing is forgotten, so that all of it can be looked at."""
    settings = {
        "OPSCORE_API_KEY": KEY,
        "OPSCORE_WEBHOOK_SECRET": SECRET,
        "OPSCORE_PORT": str(port),
        "OPSCORE_STORAGE_URL": storage,
        "OPSCORE_DISPATCH_MODE": mode,
        "OPSCORE_PROBE_INTERVAL": "5",
        # The agents of a run are quick: none works longer on an attempt that was taken back.
        "OPSCORE_UNSETTLED_GRACE": "10",
        "OPSCORE_RETENTION_SESSIONS": "10000000",
        "OPSCORE_RETENTION_EVENTS": "1000000000",
        "OPSCORE_ACCESS_LOG": "false",
        "AGENTKIT_API_URL": agentkit,
        "AGENTKIT_TIMEOUT": "2",
    }
    return Process(f"replica-{number}", folder, settings, "serve")


def agentkit(port: int, webhook_url: str, fault_rate: float, seed: int, folder: Path) -> Process:
    switches = {
        "--port": port,
        "--webhook-url": webhook_url,
        "--webhook-secret": SECRET,
        "--fault-rate": fault_rate,
        # Time enough for a replica to die while it waits for the answer.
        "--slow": 0.2,
        "--late": 4,
        "--seed": seed,
    }
    arguments = [str(part) for switch in switches.items() for part in switch]
    return Process("agentkit", folder, {}, "simulate", "agentkit", *arguments)
