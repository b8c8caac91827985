import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.exceptions import BadRequestError, ValidationError
from opscore.json_rules import MAX_DEPTH, MAX_INTEGER
from opscore.middleware.json_text import parse_json
from tests.timing import taking_less_than

# --- a slow reader of the same rules, written from the standard library alone -----------------


class Refused(Exception):
    pass


def reference(raw: bytes) -> Any:
    try:
        return _reference(raw)
    except (ValueError, RecursionError) as error:
        raise Refused from error


def _reference(raw: bytes) -> Any:
    value = json.loads(
        raw.decode(),
        object_pairs_hook=_unique,
        parse_int=_small,
        parse_float=_finite,
        parse_constant=_no_constant,
    )
    if _depth(value) > MAX_DEPTH or any(not _sound(text) for text in _texts(value)):
        raise Refused
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Refused
    return dict(pairs)


def _small(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise Refused
    return int(text)


def _finite(text: str) -> float:
    if float(text) in (float("inf"), float("-inf")):
        raise Refused
    return float(text)


def _no_constant(text: str) -> float:
    raise Refused


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []


def _sound(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


# --- texts near the edges of the rules --------------------------------------------------------

AWKWARD = [
    "", "a", "a", '"', '\\"', "\\", "\\\\", '":', '{"a":1,"a":2}', "[" * 70, "\\u0000", "\0", " :",
    "é", "\u2028", "0000000000000000", "12345678901234567890", ":",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "1.5", "1e5", "1E+05", "1e999", "-1e999", "NaN", "Infinity", "-Infinity",
    "9007199254740992", "9007199254740993", "-9007199254740992", "-9007199254740993",
    "0.30000000000000004", "1234567890123456.5", "1e-1234567890123456", "1234567890123456e1",
    "18446744073709551616", "1" * 5000, "01", "+1", "1.", ".5",
]  # fmt: skip
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n"])


@st.composite
def strings(draw: st.DrawFn) -> str:
    text = "".join(draw(st.lists(st.sampled_from(AWKWARD) | st.text(max_size=3), max_size=3)))
    return json.dumps(text, ensure_ascii=draw(st.booleans()))


def _object(draw: st.DrawFn, items: list[str]) -> str:
    members = [draw(strings()) + draw(SPACE) + ":" + draw(SPACE) + item for item in items]
    return "{" + ",".join(members) + draw(SPACE) + "}"


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    kind = draw(st.sampled_from(["string", "number", "word", "list", "object", "object"]))
    if kind == "string" or (depth == 0 and kind in ("list", "object")):
        return draw(strings())
    if kind == "number":
        return draw(st.sampled_from(NUMBERS) | st.floats().map(json.dumps))
    if kind == "word":
        return draw(st.sampled_from(["true", "false", "null"]))
    items = draw(st.lists(texts(depth - 1), max_size=4))
    if kind == "object":
        return _object(draw, items)
    return "[" + (draw(SPACE) + ",").join(items) + "]"


def agree(raw: bytes) -> None:
    try:
        expected = reference(raw)
    except Refused:
        with pytest.raises((ValidationError, BadRequestError)):
            parse_json(raw)
    else:
        assert parse_json(raw) == expected


@given(texts())
def test_parse_json_agrees_with_the_slow_reference(text: str) -> None:
    agree(text.encode("utf-8", "surrogatepass"))


@given(texts(), st.integers(0, 200), st.sampled_from([b'"', b"\\", b"{", b"]", b":", b",", b"\0"]))
def test_parse_json_agrees_on_damaged_texts(text: str, place: int, damage: bytes) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    agree(raw[:place] + damage + raw[place:])


@given(st.binary(max_size=30))
def test_parse_json_never_fails_otherwise(raw: bytes) -> None:
    agree(raw)


@given(st.integers(1, 70), st.integers(0, 70), st.sampled_from(["[]", "{}", '"[["', "1"]))
def test_F80_depth_is_counted_exactly(outer: int, inner: int, leaf: str) -> None:
    agree(("[" * outer + '{"a":' * inner + leaf + "}" * inner + "]" * outer).encode())


# --- the rules by name ------------------------------------------------------------------------

REFUSED = {
    "F76_nan": (b'{"a":NaN}', "syntax"),
    "F76_infinity": (b'{"a":[-Infinity]}', "syntax"),
    "F76_overflow": (b'{"a":1e999}', "syntax"),
    "F78_lone_surrogate": (rb'{"a":"\ud800"}', "syntax"),
    "F78_lone_low_surrogate": (rb'{"\udc00":1}', "syntax"),
    "F79_nul": (rb'{"a":["x\u0000"]}', "nul_character"),
    "F79_nul_in_key": (rb'{"\u0000":1}', "nul_character"),
    "F79_nul_after_backslash": (rb'{"a":"\\\u0000"}', "nul_character"),
    "F80_depth": (b"[" * 65 + b"]" * 65, "too_deep"),
    "F80_depth_20000": (b"[" * 20_000, "too_deep"),
    "F108_members": (b"[" + b"1," * 20_000 + b"1]", "too_many_members"),
    "F108_brackets": (b"[" * 100_000, "too_many_members"),
    "F80_depth_of_objects": (b'{"a":' * 500 + b"1" + b"}" * 500, "too_deep"),
    "F82_integer": (b'{"a":9007199254740993}', "integer_out_of_range"),
    "F82_negative": (b"[-9007199254740993]", "integer_out_of_range"),
    "F82_beyond_64_bits": (b"[18446744073709551616]", "integer_out_of_range"),
    "F82_200_digits": (b"[" + b"1" * 200 + b"]", "integer_out_of_range"),
    "F82_5000_digits": (b"[" + b"1" * 5000 + b"]", "syntax"),
    "F83_duplicate_key": (b'{"a":1,"a":2}', "duplicate_key"),
    "F83_duplicate_by_escape": (rb'{"a":1,"\u0061":2}', "duplicate_key"),
    "F83_duplicate_nested": (b'[{"x":{"a" :1,"a":1}}]', "duplicate_key"),
    "broken": (b'{"a":\n oops}', "syntax"),
    "empty": (b"", "syntax"),
    "trailing": (b"{} {}", "syntax"),
}


@pytest.mark.parametrize(("raw", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_F76_to_F83_refused_with_a_code(raw: bytes, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_json(raw)
    assert caught.value.faults[0].code == code


ACCEPTED = [
    b'{"a":1,"b":{"a":1}}',
    b"[" * 64 + b"]" * 64,
    b"[9007199254740992,-9007199254740992]",
    b"[0.30000000000000004,1234567890123456789.5]",
    rb'{"a":"\\u0000"}',
    rb'{"a":"{\"a\":1,\"a\":2}"}',
    b'{"a" : "x :y", "b"\n:":"}',
    rb'{"a":"\ud83d\ude00"}',
    b'{"a":"' + b"[" * 1000 + b'"}',
    b'"' + b"9" * 40 + b'"',
]


@pytest.mark.parametrize("raw", ACCEPTED)
def test_sound_texts_pass(raw: bytes) -> None:
    assert parse_json(raw) == orjson.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-16-be"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
    ],
)
def test_F84_other_encodings_are_bad_requests(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_json(raw)


@pytest.mark.parametrize(
    ("raw", "pointers"),
    [
        (b'{"a":1,"b":[{"c":1,"c":2}],"b":3}', ["/b/0/c", "/b"]),
        (b'{"a/b~c":[0,9007199254740993]}', ["/a~1b~0c/1"]),
        (rb'[["x","\u0000"]]', ["/0/1"]),
    ],
)
def test_faults_point_to_their_place(raw: bytes, pointers: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_json(raw)
    assert [fault.pointer for fault in caught.value.faults] == pointers


def test_faults_are_limited_in_number_and_length() -> None:
    many = b"[" + b",".join([b"9007199254740993"] * 500) + b"]"
    long_key = b'{"' + b"k" * 5000 + b'":9007199254740993}'
    assert len(_error(many).faults) == 50
    assert len(_error(long_key).faults[0].pointer) == 200


def test_a_long_text_is_refused_without_a_search_for_the_place() -> None:
    raw = b'{"a":1,"a":"' + b"x" * 100_000 + b'"}'
    assert [fault.code for fault in _error(raw).faults] == ["unacceptable"]


def test_broken_json_names_line_and_column() -> None:
    error = _error(b'{"a":1,\n "b": oops}')
    assert error.detail == "The body is not valid JSON at line 2, column 7."


@pytest.mark.parametrize("raw", [case[0] for case in REFUSED.values()])
def test_errors_never_echo_the_input(raw: bytes) -> None:
    canary = b"canary-7f3a"
    marked = raw.replace(b"oops", canary).replace(b"x", canary)
    error = _error(marked)
    assert "canary" not in error.detail
    assert not any("canary" in fault.message for fault in error.faults)


@pytest.mark.parametrize(
    "raw",
    [
        rb'"\"' * 300_000,
        b'{"' + b"\\" * 1_000_000,
        b"[" * 1_000_000,
        b"[" + b"[]," * 340_000,
        b'{"a":[' + b"1234567890123456789.5," * 45_000 + b"1]}",
        b'"' + rb"\\" * 500_000 + b'"',
        b"[]]" * 340_000,
    ],
)
def test_hostile_texts_take_linear_time(raw: bytes) -> None:
    with taking_less_than(3), suppress(ValidationError):
        parse_json(raw)


def _error(raw: bytes) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        parse_json(raw)
    return caught.value
