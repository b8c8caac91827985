"""The circuit breaker: open after failures in a row, then one probe, then a ramp."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.workflow.breaker import THRESHOLD, Breaker
from tests.builders import NOW, at

LIMIT = 50


def failed(times: int) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker = breaker.failed(NOW)
    return breaker


def test_F23_the_fifth_failure_in_a_row_opens_it() -> None:
    assert THRESHOLD == 5
    assert [failed(times).is_open(NOW) for times in range(7)] == [False] * 5 + [True] * 2


def test_a_success_in_between_begins_the_count_anew() -> None:
    assert failed(4).succeeded(LIMIT) == Breaker()
    assert not failed(4).succeeded(LIMIT).failed(NOW).is_open(NOW)


def test_a_success_of_a_sound_breaker_changes_nothing() -> None:
    breaker = Breaker()
    assert breaker.succeeded(LIMIT) is breaker


def test_F29_refused_credentials_open_it_at_once() -> None:
    assert Breaker().failed(NOW, at_once=True).is_open(NOW)


def test_while_open_nothing_is_sent_and_more_failures_change_nothing() -> None:
    breaker = failed(5)
    assert breaker.room(at(1.9), 0, LIMIT) == 0
    assert breaker.failed(at(1.9)) is breaker
    assert not breaker.is_open(at(2))


@pytest.mark.parametrize(
    ("under_way", "limit", "room"), [(0, 50, 1), (1, 50, 0), (3, 50, 0), (0, 0, 0)]
)
def test_F38_after_the_pause_one_probe_may_go(under_way: int, limit: int, room: int) -> None:
    assert failed(5).room(at(2), under_way, limit) == room


def test_the_pauses_double_up_to_half_a_minute() -> None:
    breaker, now, pauses = failed(5), NOW, []
    for _ in range(7):
        assert breaker.open_until is not None
        pauses.append((breaker.open_until - now).total_seconds())
        now = breaker.open_until
        breaker = breaker.failed(now)
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


def test_F38_trust_comes_back_by_a_ramp() -> None:
    breaker, room = failed(5), []
    while breaker.ramp is not None:
        room.append(breaker.room(at(2), 0, LIMIT))
        breaker = breaker.succeeded(LIMIT)
    assert room == [1, 2, 4, 8, 16, 32]
    assert breaker == Breaker()
    assert breaker.room(at(2), 10, LIMIT) == 40


def test_the_ramp_stands_under_the_general_limit() -> None:
    breaker = failed(5).succeeded(LIMIT).succeeded(LIMIT)
    assert breaker.ramp == 4
    assert breaker.room(at(2), 0, 3) == 3


def test_one_failure_on_the_ramp_opens_it_again_for_longer() -> None:
    breaker = failed(5).succeeded(LIMIT).failed(at(2))
    assert breaker.is_open(at(5.9))
    assert not breaker.is_open(at(6))
    assert breaker.ramp == 1


def test_after_full_trust_pauses_are_short_again() -> None:
    breaker = failed(5).failed(at(2))
    for _ in range(6):
        breaker = breaker.succeeded(LIMIT)
    for _ in range(5):
        breaker = breaker.failed(at(100))
    assert breaker.open_until == at(102)


@pytest.mark.parametrize(("under_way", "room"), [(0, 50), (49, 1), (50, 0), (60, 0)])
def test_without_failures_only_the_limit_counts(under_way: int, room: int) -> None:
    assert Breaker().room(NOW, under_way, LIMIT) == room


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 40)), max_size=60))
def test_whatever_happens_it_opens_for_a_bounded_time(steps: list[tuple[bool, bool, int]]) -> None:
    breaker, now = Breaker(), 0
    for succeeds, at_once, passed in steps:
        now += passed
        breaker = breaker.succeeded(LIMIT) if succeeds else breaker.failed(at(now), at_once)
        assert 0 <= breaker.room(at(now), 0, LIMIT) <= LIMIT
        assert breaker.room(at(now + 30), 0, LIMIT) >= 1


@pytest.mark.parametrize(("limit", "successes"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_ramp_ends_where_it_reaches_the_limit(limit: int, successes: int) -> None:
    breaker, needed = failed(5), 0
    while breaker.ramp is not None:
        breaker, needed = breaker.succeeded(limit), needed + 1
    assert needed == successes
