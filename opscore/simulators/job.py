"""A task as a simulated agent sees it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from opscore.simulators.wire import RunMessage


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the work: a result, or the sentence that says why there is none."""

    result: Any = None
    error: str | None = None


@dataclass(slots=True)
class Job:
    """`fails` and `crashes` are decided when the task arrives, so that order decides, not time.

    An `abandoned` job ended with a restart of its agent: nothing is said of it.
    """

    task_id: str | None
    attempt: int | None
    parameters: dict[str, Any]
    fails: bool = False
    crashes: bool = False
    cancelled: bool = False
    abandoned: bool = False
    work: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self.work is not None:
            self.work.cancel()

    def abandon(self) -> None:
        self.abandoned = True
        self.cancel()


def job_of(message: RunMessage) -> Job:
    attempt = message.payload.get("attempt")
    parameters = message.payload.get("task_parameters")
    return Job(
        task_id=message.opscore_task_id,
        attempt=attempt if isinstance(attempt, int) else None,
        parameters=parameters if isinstance(parameters, dict) else {},
    )
