"""When to try again. Pure: the jitter is drawn from the task's own id."""

import hashlib
from datetime import timedelta

from opscore.models import Backoff, Failure, RetryPolicy, Task

_LONGEST_EXPONENT = 32
# What costs no retry ends only when the other side mends: without a pause it would be a storm.
_SHORTEST_FREE = timedelta(milliseconds=100)
_LOST_TOGETHER = 2
_SHORTEST_PARTING = timedelta(seconds=1)


def may_retry(policy: RetryPolicy, task: Task, failure: Failure) -> bool:
    if failure.terminal or _is_excluded(policy, failure):
        return False
    return failure.free or task.retries < policy.max_retries


def retry_delay(policy: RetryPolicy, task: Task, failure: Failure) -> timedelta:
    """What the other side asked for, or else the policy's backoff with full jitter."""
    if failure.retry_after is not None:
        return failure.retry_after
    delay = backoff(policy, max(1, task.attempt))
    if policy.jitter:
        delay *= _draw(f"{task.id}/{task.attempt}")
    return max(delay, _SHORTEST_FREE) if failure.free else delay


def pause_after_lost_lease(task: Task, lost: int) -> timedelta:
    """Of tasks that are lost together one may be what kills its dispatchers; the second time they
    part, so that it takes the others with it no more."""
    if lost < _LOST_TOGETHER:
        return timedelta()
    return (1 << lost - _LOST_TOGETHER) * _SHORTEST_PARTING * _draw(f"{task.id}/lost/{lost}")


def backoff(policy: RetryPolicy, attempt: int) -> timedelta:
    """The longest wait after the given attempt."""
    factor = {
        Backoff.FIXED: 1,
        Backoff.LINEAR: attempt,
        Backoff.EXPONENTIAL: 1 << min(attempt - 1, _LONGEST_EXPONENT),
    }[policy.backoff]
    # Multiplying first could overflow a timedelta.
    if policy.initial_delay and factor > policy.max_delay / policy.initial_delay:
        return policy.max_delay
    return min(policy.initial_delay * factor, policy.max_delay)


def _is_excluded(policy: RetryPolicy, failure: Failure) -> bool:
    message = failure.message.lower()
    codes = (failure.code.value, failure.shown_code)
    return any(word in codes or word.lower() in message for word in policy.non_retryable)


def _draw(seed: str) -> float:
    """A number in [0, 1) that is the same whoever decides."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest()) / 2**48
