"""Retry-After: seconds or a date, within bounds, and never a wait of nothing."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.agentkit_client.retry_after import (
    LONGEST_WAIT,
    SHORTEST_WAIT,
    read_retry_after,
)

NOW = datetime(2026, 11, 21, 6, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 120 ", 120),
        ("0", 1),
        ("600", 600),
        ("601", 600),
        ("999999999", 600),
        ("9" * 400, None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("1_0", None),
        ("nan", None),
        ("\u0661\u0662", None),
        ("soon", None),
        ("Sat, 21 Nov 2026 06:00:30 GMT", 30),
        ("Sat, 21 Nov 2026 06:00:30 -0000", 30),
        ("Sat, 21 Nov 2026 07:00:30 +0100", 30),
        ("Saturday, 21-Nov-26 06:00:30 GMT", 30),
        ("Sat Nov 21 06:00:30 2026", 30),
        ("Sat, 21 Nov 2026 06:00:00 GMT", 1),
        ("Sat, 21 Nov 2026 05:59:59 GMT", None),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 600),
        ("Mon, 30 Feb 2026 06:00:00 GMT", None),
        ("Sat, 21 Nov 2026 06:00:30 +999999999999", None),
    ],
)
def test_F26_seconds_and_dates(value: str | None, wait: int | None) -> None:
    expected = None if wait is None else timedelta(seconds=wait)
    assert read_retry_after(value, NOW) == expected


@given(st.text())
def test_F26_whatever_is_sent_the_wait_is_within_bounds(value: str) -> None:
    wait = read_retry_after(value, NOW)
    assert wait is None or SHORTEST_WAIT <= wait <= LONGEST_WAIT


@given(st.integers(min_value=0, max_value=10**9 - 1))
def test_F26_seconds_count_up_to_ten_minutes(seconds: int) -> None:
    assert read_retry_after(str(seconds), NOW) == timedelta(seconds=min(max(seconds, 1), 600))


@given(st.integers(min_value=1, max_value=100_000))
def test_F26_a_date_means_the_time_until_then(seconds: int) -> None:
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert read_retry_after(header, NOW) == timedelta(seconds=min(seconds, 600))
