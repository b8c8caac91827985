"""The service on one storage and one port, life after life; see `life_server`."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opscore.crash_points import VARIABLE
from tests.acceptance.processes import clean_environment

_SERVER = (sys.executable, "-m", "tests.acceptance.life_server")
_ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL


@dataclass
class Life:
    pid: int
    end: "asyncio.Task[int]"

    def send(self, number: signal.Signals) -> None:
        if not self.end.done():
            os.kill(self.pid, number)

    async def killed(self) -> int:
        """Its exit status, once it is gone."""
        self.send(signal.SIGKILL)
        return await self.end


@dataclass
class Lives:
    """`env` is what every life has; one life must have ended before the next begins."""

    server: asyncio.subprocess.Process
    env: Mapping[str, str]
    log: Path
    _newest: Life | None = field(default=None)

    async def begin(self, crash: str = "", **env: str) -> Life:
        order = {"log": str(self.log), "env": {**self.env, **env, VARIABLE: crash}}
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(order).encode() + b"\n")
        pid = await self._number()
        self._newest = Life(pid, asyncio.create_task(self._number(), name=f"life {pid}"))
        return self._newest

    async def end(self) -> None:
        if self._newest is not None:
            await self._newest.killed()

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    async def _number(self) -> int:
        assert self.server.stdout is not None
        line = await self.server.stdout.readline()
        assert line, "the server of lives has ended"
        return int(line)


@asynccontextmanager
async def lives(env: Mapping[str, str], log: Path) -> AsyncIterator[Lives]:
    """No life outlives the block."""
    server = await asyncio.create_subprocess_exec(
        *_SERVER,
        cwd=log.parent,
        env={**clean_environment(), "PYTHONPATH": str(_ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    given = Lives(server, env, log)
    try:
        yield given
    except BaseException as error:
        error.add_note(f"--- the log of the lives ---\n{given.said[-2000:]}")
        raise
    finally:
        await given.end()
        assert server.stdin is not None
        server.stdin.close()
        await server.wait()
