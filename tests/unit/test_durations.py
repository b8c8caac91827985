"""Durations are read as people write them, and written as they can be read."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.durations import LONGEST, format_duration, parse_duration


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10s", timedelta(seconds=10)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("1d", timedelta(days=1)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("1.5h", timedelta(minutes=90)),
        (" 2s ", timedelta(seconds=2)),
        ("90", timedelta(seconds=90)),
        ("0.25", timedelta(milliseconds=250)),
        (90, timedelta(seconds=90)),
        (0.5, timedelta(milliseconds=500)),
        (0, timedelta(0)),
        ("0s", timedelta(0)),
        ("30d", LONGEST),
        (2_592_000, LONGEST),
    ],
)
def test_durations_are_read(value: object, expected: timedelta) -> None:
    assert parse_duration(value) == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "is not a duration"),
        ("s", "is not a duration"),
        ("5 m", "is not a duration"),
        ("30m1h", "is not a duration"),
        ("1h1h", "is not a duration"),
        ("5 minutes", "is not a duration"),
        ("5M", "is not a duration"),
        ("1e3", "is not a duration"),
        ("+5s", "is not a duration"),
        ("1.s", "is not a duration"),
        ("12:30:45", "is not a duration"),
        ("٣s", "is not a duration"),
        ("inf", "is not a duration"),
        ("9" * 5000, "is not a duration"),
        ("-5s", "cannot be negative"),
        (-1, "cannot be negative"),
        (-math.inf, "cannot be negative"),
        (math.nan, "Write a duration such as"),
        (math.inf, "at most 30 days"),
        ("31d", "at most 30 days"),
        ("30d1ms", "at most 30 days"),
        ("99999999999999999999d", "at most 30 days"),
        (10**400, "at most 30 days"),
        (True, "cannot be true or false"),
        (None, "Write a duration such as"),
        ([5], "Write a duration such as"),
    ],
)
def test_F89_bad_and_absurd_durations_are_refused_in_words(value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_duration(value)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=25), "1d1h"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(seconds=1, microseconds=1500), "1s1.5ms"),
        (timedelta(microseconds=7), "0.007ms"),
    ],
)
def test_durations_are_written_short(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=LONGEST))
def test_what_is_written_is_read_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration
