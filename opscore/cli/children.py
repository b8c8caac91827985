"""Child processes of the demo: started with a log file each, and always ended by their own id."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GRACE = 5.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessFailedError(Exception):
    """A child ended, or did not do what it was started for."""


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ProcessFailedError when the child is not alive any more."""
        status = self.process.poll()
        if status is not None:
            raise ProcessFailedError(self.story(f"ended unexpectedly with status {status}"))

    def story(self, what: str, lines: int = 15) -> str:
        """What happened, and the end of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        end = "\n".join(f"    {line}" for line in text[-lines:]) or "    (nothing)"
        return f"{self.name} {what}. The end of its log, {self.log}:\n{end}"


class Children:
    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._env = dict(env)
        self._started: list[Child] = []

    def start(self, name: str, *arguments: str) -> Child:
        """Start `opscore` with these arguments, in a folder without anybody's .env."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            # Its own session: Ctrl-C reaches the demo alone, which then ends its children.
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "opscore", *arguments],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._started.append(child)
        return child

    def check(self) -> None:
        for child in self._started:
            child.check()

    def stop(self) -> None:
        """Ask all of them to end, the youngest first, and kill who does not within the grace."""
        for child in reversed(self._started):
            child.process.terminate()
        for child in reversed(self._started):
            try:
                child.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does."""
    before = [signal.signal(number, signal.default_int_handler) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def children_in(folder: Path, env: Mapping[str, str]) -> Iterator[Children]:
    """Children that end with the block, however it ends; once it ends, signals are ignored."""
    children = Children(folder, env)
    with ended_by_signals():
        try:
            yield children
        finally:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
            children.stop()
