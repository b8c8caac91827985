"""AgentKit as the dispatcher sees it: whether to send now, how much, and why not."""

import logging
from datetime import datetime

from opscore.clock import Clock
from opscore.models import ClaimScope, Failure, FailureCode, MessageType, Outcome, Task
from opscore.workflow.breaker import Breaker
from opscore.workflow.queue import Gate, Reason

logger = logging.getLogger(__name__)

_AT_FAULT = frozenset(
    {
        FailureCode.UNREACHABLE,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.UPSTREAM_ERROR,
        FailureCode.UNAUTHORIZED,
        FailureCode.TLS,
    }
)


class Upstream:
    """Keeps the breaker. `limit` is how many messages may be under way when all is well."""

    def __init__(self, clock: Clock, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._breaker = Breaker()
        self._troubled_since: datetime | None = None

    @property
    def open_until(self) -> datetime | None:
        until = self._breaker.open_until
        return until if until is not None and until > self._clock.now() else None

    @property
    def is_on_trial(self) -> bool:
        """A message sent now tries out whether AgentKit works again."""
        return self._breaker.ramp is not None

    def room(self, under_way: int) -> int:
        """How many more messages may be sent now."""
        return self._breaker.room(self._clock.now(), under_way, self._limit)

    def note(self, task: Task, outcome: Outcome, hung: bool = False) -> None:
        """`hung`: the task waited for long although it has another way."""
        if isinstance(outcome, Failure) and blames(task, outcome):
            self._distrust(outcome, hung)
            return
        if _says_nothing(task, outcome):
            return
        if self._breaker.failures and self.is_on_trial:
            logger.info(
                "Circuit breaker for AgentKit closed: it answers again; few messages at first."
            )
        self._breaker = self._breaker.succeeded(self._limit)
        if self._breaker.ramp is None:
            self._troubled_since = None

    def gate(self, under_way: int, still_open: ClaimScope | None) -> Gate | None:
        """Why nothing more may be sent now."""
        if self.room(under_way):
            return None
        message = "AgentKit failed several times in a row; it is tried again shortly."
        if self.open_until is None and self.is_on_trial:
            message = "AgentKit is being tried out again, with few messages at first."
        elif self.open_until is None:
            return None
        return Gate(Reason.BREAKER_OPEN, message, self._troubled_since, self.open_until, still_open)

    def _distrust(self, failure: Failure, hung: bool) -> None:
        now = self._clock.now()
        was_open = self._breaker.is_open(now)
        # Every further try would keep a task waiting as long.
        at_once = hung or failure.code is FailureCode.UNAUTHORIZED
        self._breaker = self._breaker.failed(now, at_once)
        if self._breaker.is_open(now) and not was_open:
            self._troubled_since = self._troubled_since or now
            logger.warning(
                "Circuit breaker for AgentKit opened: %s Tasks that need AgentKit wait.",
                failure.message,
            )


def blames(task: Task, failure: Failure) -> bool:
    """Return whether the failure is AgentKit's own; that of a slow or failing tool is not."""
    return failure.code in _AT_FAULT and not _says_nothing(task, failure)


def _says_nothing(task: Task, outcome: Outcome) -> bool:
    """Whether the outcome is no news of AgentKit: it answers for a tool when the tool has."""
    if not isinstance(outcome, Failure):
        return False
    is_tool = task.message_type is MessageType.TOOL_INVOCATION
    is_slow_tool = is_tool and outcome.code is FailureCode.OUTCOME_UNKNOWN
    return is_slow_tool or outcome.code is FailureCode.NOT_SENT
