"""The values of a JSON text are counted without building them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.json_rules import MAX_MEMBERS, count_members, has_too_many_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a,[]{}"\\ '),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='b,[{"\\'), inner),
)


def members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(members(item) for item in value.values())
    if isinstance(value, list):
        return len(value) + sum(members(item) for item in value)
    return 0


@given(VALUES, st.sampled_from([None, 2]))
def test_count_is_that_of_the_value(value: Any, indent: int | None) -> None:
    assert count_members(json.dumps(value, indent=indent).encode()) == members(value)


@pytest.mark.fault("F108")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"[" + b"1," * (MAX_MEMBERS - 1) + b"1]", False),
        (b"[" + b"1," * MAX_MEMBERS + b"1]", True),
        (b"[" + b"[]," * (MAX_MEMBERS - 1) + b"[]]", False),
        (b'["' + b",[{" * 100_000 + b'"]', False),
        (b'["' + b"\\\\" * 100_000 + b'","' + b"," * 100_000 + b'"]', False),
        (b"[" * 100_000, True),
        (b"", False),
    ],
)
def test_only_more_than_the_limit_is_too_many(raw: bytes, expected: bool) -> None:
    assert has_too_many_members(raw) is expected
