"""When to try again, and after how long."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.models import Backoff, Failure, FailureCode, RetryPolicy
from opscore.workflow.retry import backoff, may_retry, retry_delay
from tests.builders import seconds, task

ERROR = Failure(FailureCode.AGENT_ERROR, "The disk is Full.")
DURATIONS = st.timedeltas(timedelta(0), timedelta(days=30))


@pytest.mark.parametrize(
    ("retries", "failure", "again"),
    [
        (0, ERROR, True),
        (2, ERROR, True),
        (3, ERROR, False),
        (4, ERROR, False),
        (3, Failure(FailureCode.THROTTLED, "wait", free=True), True),
        (0, Failure(FailureCode.REJECTED, "no", terminal=True), False),
        (0, Failure(FailureCode.REJECTED, "no", terminal=True, free=True), False),
    ],
)
def test_whether_there_is_another_attempt(retries: int, failure: Failure, again: bool) -> None:
    assert may_retry(RetryPolicy(), task(retries=retries), failure) is again


@pytest.mark.parametrize(
    ("error", "again"),
    [
        ({"code": "bad_topic"}, False),
        ({"code": "bad_topic", "message": "No such topic."}, False),
        ({"code": "bad"}, True),
        ({"code": ["bad_topic"]}, True),
        ("bad_topic", True),
    ],
)
def test_code_of_an_agents_error_can_be_excluded_from_retries(error: Any, again: bool) -> None:
    failure = Failure(FailureCode.AGENT_ERROR, "The agent reported an error.", error=error)
    assert may_retry(RetryPolicy(non_retryable=("bad_topic",)), task(), failure) is again


def test_own_code_of_a_failure_stays_excluded_beside_the_agents() -> None:
    failure = Failure(FailureCode.AGENT_ERROR, "It failed.", error={"code": "bad_topic"})
    assert not may_retry(RetryPolicy(non_retryable=("agent_error",)), task(), failure)


def test_no_retry_may_be_allowed_at_all() -> None:
    assert not may_retry(RetryPolicy(max_retries=0), task(), ERROR)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("agent_error",), False),
        (("AGENT_ERROR",), True),
        (("agent_err",), True),
        (("disk is full",), False),
        (("DISK",), False),
        (("memory", "full"), False),
        (("memory",), True),
    ],
)
def test_a_failure_may_be_excluded_by_its_code_or_a_word(
    words: tuple[str, ...], again: bool
) -> None:
    assert may_retry(RetryPolicy(non_retryable=words), task(), ERROR) is again


def test_what_is_excluded_is_not_retried_for_free_either() -> None:
    policy = RetryPolicy(non_retryable=("throttled",))
    assert not may_retry(policy, task(), Failure(FailureCode.THROTTLED, "wait", free=True))


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        (Backoff.FIXED, [2, 2, 2, 2, 2]),
        (Backoff.LINEAR, [2, 4, 6, 8, 9]),
        (Backoff.EXPONENTIAL, [2, 4, 8, 9, 9]),
    ],
)
def test_the_three_backoffs(kind: Backoff, waits: list[float]) -> None:
    policy = RetryPolicy(backoff=kind, initial_delay=seconds(2), max_delay=seconds(9))
    assert [backoff(policy, attempt) for attempt in range(1, 6)] == [*map(seconds, waits)]


@pytest.mark.parametrize("kind", list(Backoff))
def test_no_delay_stays_no_delay(kind: Backoff) -> None:
    assert backoff(RetryPolicy(backoff=kind, initial_delay=seconds(0)), 50) == seconds(0)


def test_the_longest_wait_bounds_the_first_one_too() -> None:
    policy = RetryPolicy(backoff=Backoff.FIXED, initial_delay=seconds(9), max_delay=seconds(2))
    assert backoff(policy, 1) == seconds(2)


@given(st.sampled_from(Backoff), DURATIONS, DURATIONS, st.integers(1, 10**9))
def test_backoff_stays_in_its_bounds_and_never_shrinks(
    kind: Backoff, initial: timedelta, longest: timedelta, attempt: int
) -> None:
    policy = RetryPolicy(backoff=kind, initial_delay=initial, max_delay=longest)
    first, second = backoff(policy, attempt), backoff(policy, attempt + 1)
    assert min(initial, longest) <= first <= second <= longest


@given(st.uuids().map(str), st.integers(1, 100))
def test_F23_the_jitter_is_full_and_stays_below_the_backoff(task_id: str, attempt: int) -> None:
    one = task(id=task_id, attempt=attempt)
    delay = retry_delay(RetryPolicy(), one, ERROR)
    assert seconds(0) <= delay < backoff(RetryPolicy(), attempt)
    assert delay == retry_delay(RetryPolicy(), one, ERROR)


def test_F23_the_jitter_spreads_tasks_over_the_whole_time() -> None:
    policy = RetryPolicy(initial_delay=seconds(10))
    delays = [
        retry_delay(policy, task(id=str(number), attempt=1), ERROR) / seconds(10)
        for number in range(1000)
    ]
    tenths = Counter(int(delay * 10) for delay in delays)
    assert sorted(tenths) == list(range(10))
    assert min(tenths.values()) > 70


def test_each_attempt_draws_anew() -> None:
    policy = RetryPolicy(backoff=Backoff.FIXED)
    delays = {retry_delay(policy, task(attempt=attempt), ERROR) for attempt in range(1, 20)}
    assert len(delays) == 19


def test_without_jitter_the_backoff_is_taken_as_it_is() -> None:
    policy = RetryPolicy(jitter=False)
    waits = [retry_delay(policy, task(attempt=attempt), ERROR) for attempt in (0, 1, 2, 3)]
    assert waits == [*map(seconds, [1, 1, 2, 4])]


def test_F26_what_the_other_side_asks_for_is_done_without_jitter() -> None:
    failure = Failure(FailureCode.UPSTREAM_ERROR, "later", retry_after=seconds(600))
    assert retry_delay(RetryPolicy(), task(attempt=1), failure) == seconds(600)
    at_once = Failure(FailureCode.UPSTREAM_ERROR, "now", retry_after=seconds(0))
    assert retry_delay(RetryPolicy(), task(attempt=1), at_once) == seconds(0)
