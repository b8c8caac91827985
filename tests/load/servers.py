"""Servers for the measurements, each in a process of its own, always ended by its own id."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.load.bare_app import KEY

_READY_WITHIN = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def opscore(**settings: str) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """The service: its port, its process, and how many seconds it took to be ready."""
    port = free_port()
    environment = {
        **os.environ,
        "OPSCORE_API_KEY": KEY,
        "OPSCORE_WEBHOOK_SECRET": "secret-of-the-benchmarks",
        "OPSCORE_PORT": str(port),
        **settings,
    }
    with _process([sys.executable, "-m", "opscore", "serve"], environment) as process:
        yield port, process, _wait(port, "/health/ready", process)


@contextmanager
def bare_fastapi() -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.load.bare_app:app", "--port", str(port)]
    command += ["--http", "httptools", "--loop", "asyncio", "--no-access-log"]
    with _process(command, dict(os.environ)) as process:
        _wait(port, "/docs", process)
        yield port


@contextmanager
def stub_agentkit(*options: str) -> Iterator[int]:
    """Answers every task with 202 and notes when it came."""
    port = free_port()
    command = [sys.executable, "-m", "tests.load.stub_agentkit", str(port), *options]
    with _process(command, dict(os.environ)) as process:
        _wait(port, "/", process)
        yield port


@contextmanager
def stub_agents(port: int, *replicas: int, wait: float = 0) -> Iterator[None]:
    """AgentKit, who answers after a while, and agents who report each task finished at once."""
    command = [sys.executable, "-m", "tests.load.stub_agents", str(port), str(wait)]
    command += map(str, replicas)
    with _process(command, dict(os.environ)) as process:
        _wait(port, "/", process)
        yield


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(port: int, path: str, process: subprocess.Popen[bytes]) -> float:
    started = time.perf_counter()
    while time.perf_counter() - started < _READY_WITHIN:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once with status {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return time.perf_counter() - started
        except OSError:
            time.sleep(0.01)
    raise RuntimeError("the server did not get ready")
