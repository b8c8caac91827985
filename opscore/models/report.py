"""What comes in from outside: state reports, task reports, and how a delivery ended."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

RESULT_LIMIT = 256 * 1024
"""The most bytes that a result, an error or the details of a report may have."""


@dataclass(frozen=True, slots=True)
class StateReport:
    """`timestamp` is the agent's own, None where it gave none. `size` is the body's, in bytes."""

    agent_id: str
    state: str
    details: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The precise report: this task, this attempt if given, ended like this."""

    succeeded: bool
    result: Any = None
    error: Any = None
    attempt: int | None = None


class FailureCode(StrEnum):
    """Why an attempt failed. The value is what `nonRetryable` and operators name."""

    UNREACHABLE = "unreachable"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UPSTREAM_ERROR = "upstream_error"
    THROTTLED = "throttled"
    REJECTED = "rejected"
    UNAUTHORIZED = "unauthorized"
    AGENT_UNKNOWN = "agent_unknown"
    REDIRECTED = "redirected"
    FORBIDDEN_ENDPOINT = "forbidden_endpoint"
    NO_ENDPOINT = "no_endpoint"
    HOST_BUSY = "host_busy"
    NOT_SENT = "not_sent"
    TLS = "tls"
    TOOL_ERROR = "tool_error"
    AGENT_ERROR = "agent_error"
    QUEUE_TIMEOUT = "queue_timeout"
    START_TIMEOUT = "start_timeout"
    RUN_TIMEOUT = "run_timeout"
    LEASE_LOST = "lease_lost"
    AGENT_GONE = "agent_gone"
    CANCELLED = "cancelled"
    UNRESOLVED_REFERENCE = "unresolved_reference"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt. `free` spends no retry; `terminal` allows none.

    `retry_after` is what the other side asked for. `body` is what it said, bounded.
    """

    code: FailureCode
    message: str
    terminal: bool = False
    free: bool = False
    retry_after: timedelta | None = None
    status: int | None = None
    body: str | None = None
    error: Any = None

    @property
    def shown_code(self) -> str:
        """Return the code that the agent gave its error, or else the failure's own."""
        code = self.error.get("code") if isinstance(self.error, Mapping) else None
        if self.code is not FailureCode.AGENT_ERROR or not isinstance(code, str):
            return self.code.value
        is_usable = _AGENT_CODE.fullmatch(code) is not None and code not in _FAILURE_CODES
        return code if is_usable else self.code.value


_AGENT_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_FAILURE_CODES = frozenset(FailureCode)


def failure_code(error: Mapping[str, Any] | None) -> str | None:
    """Return the FailureCode of a stored error, which may show a code of the agent's own."""
    return None if error is None else error.get("failure", error.get("code"))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The other side took the message; nothing is known of the work yet.

    `unclear` says what in the answer was not understood, as whole sentences.
    """

    unclear: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer itself says that the task is completed."""

    result: Any


Outcome = Accepted | Answered | Failure


@dataclass(frozen=True, slots=True)
class Registration:
    """An announcement by webhook or operator; None leaves the known value as it is.

    `by_agentkit`: it came by AgentKit's webhook, and AgentKit gives each name to one agent only.
    `notes` say what was shortened or left out of what came.
    """

    agent_id: str
    name: str | None = None
    capabilities: tuple[str, ...] | None = None
    version: str | None = None
    contact_endpoint: str | None = None
    metadata: Mapping[str, Any] | None = None
    concurrency: int | None = None
    registration_time: datetime | None = None
    by_agentkit: bool = False
    notes: tuple[str, ...] = ()
