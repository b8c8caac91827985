"""Read the details of a report: the task and attempt that they name, the result, the error."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from opscore.models import Failure, FailureCode, StateReport

TASK_ID_KEYS = ("opscore_task_id", "taskId", "task_id")
ATTEMPT_KEYS = ("opscore_attempt", "attempt")

UNREADABLE_ATTEMPT = -1
"""Stands for an attempt that is given but is no number: it matches no attempt."""

_MAX_ATTEMPT_DIGITS = 9
_DIGEST_LENGTH = 12
_REMEMBERED_REPORTS = 50


def named_task(details: Mapping[str, Any]) -> str | None:
    """Return the task id that the details name."""
    for key in TASK_ID_KEYS:
        value = details.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def named_attempt(details: Mapping[str, Any]) -> int | None:
    """Return the attempt that the details name; a number written as text counts."""
    for key in ATTEMPT_KEYS:
        value = details.get(key)
        if value is not None:
            return _attempt(value)
    return None


def _attempt(value: Any) -> int:
    if type(value) is int and value >= 0:
        return value
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
    if is_digits and len(value) <= _MAX_ATTEMPT_DIGITS:
        return int(value)
    return UNREADABLE_ATTEMPT


def result_of(details: Mapping[str, Any]) -> Any:
    """Return `details.result`, or else the details without the keys that name the task."""
    if "result" in details:
        return details["result"]
    ours = (*TASK_ID_KEYS, *ATTEMPT_KEYS) if named_task(details) else ()
    return {key: value for key, value in details.items() if key not in ours}


def error_of(details: Mapping[str, Any]) -> Any:
    return details.get("error", details.get("message"))


def agent_error(error: Any) -> Failure:
    """Return the failure of an attempt whose agent reported this error."""
    message = error if isinstance(error, str) else "The agent reported an error."
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        message = error["message"]
    return Failure(FailureCode.AGENT_ERROR, message[:4096], error=error)


def digest_of(report: StateReport) -> str:
    """Return twelve digits that tell the report from others; empty for one without a time.

    A wrong match among 50 has a chance of one in 10^12.
    """
    if report.timestamp is None:
        return ""
    said = (report.timestamp, report.state, report.details)
    text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.blake2b(text, digest_size=_DIGEST_LENGTH // 2).hexdigest()


def is_remembered(digest: str, remembered: str) -> bool:
    """Return whether the digest is one of those remembered; every state report asks this."""
    at = remembered.find(digest) if digest else -1
    while at > 0 and at % _DIGEST_LENGTH:
        at = remembered.find(digest, at + 1)
    return at >= 0


def remember(digest: str, remembered: str) -> str:
    """Return the remembered digests with this one first, at most 50."""
    return (digest + remembered)[: _REMEMBERED_REPORTS * _DIGEST_LENGTH]
