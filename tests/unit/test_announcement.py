"""Announcements that break rules: the accepted parts and the notes on the rest."""

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from opscore.api.announcement import parse_announcement, take_announcement
from opscore.exceptions import ValidationError as InvalidError


def taken(**given: Any) -> tuple[dict[str, Any], list[str]]:
    details, notes = take_announcement({"agentId": "a1", **given})
    return details.model_dump(exclude_unset=True), notes


def test_sound_announcement_is_taken_without_a_note() -> None:
    given = {"agentName": "a", "capabilities": ["x"], "version": "1", "metadata": {"a": 1}}
    details, notes = taken(**given, contactEndpoint="http://127.0.0.1:1/", colour="red")
    assert notes == []
    assert details["capabilities"] == ("x",)
    assert details["metadata"] == {"a": 1}


def test_nulls_are_taken_without_a_note() -> None:
    names = ("agentName", "capabilities", "version", "contactEndpoint", "metadata")
    assert taken(**dict.fromkeys(names))[1] == []


@pytest.mark.parametrize(
    ("given", "expected", "note"),
    [
        ({"agentName": ""}, {"agent_name": None}, "agentName: left out"),
        ({"agentName": 5}, {"agent_name": None}, "agentName: left out"),
        ({"version": "1" * 101}, {"version": "1" * 100}, "version: shortened to 100"),
        ({"version": 2}, {"version": None}, "version: left out"),
        ({"capabilities": "x"}, {"capabilities": None}, "capabilities: left out (no list)"),
        (
            {"capabilities": ["", "x", 5, " "]},
            {"capabilities": ("x",)},
            "3 left out (empty or no text)",
        ),
        ({"capabilities": ["y" * 129]}, {"capabilities": ("y" * 128,)}, "1 shortened to 128"),
        ({"capabilities": []}, {"capabilities": ()}, None),
        ({"metadata": [1]}, {"metadata": None}, "metadata: left out (no object)"),
        ({"metadata": {"a": "x" * 65536}}, {"metadata": None}, "more than 64 KiB"),
        (
            {"registration_time": "soon"},
            {"registration_time": None},
            "registration_time: left out (no time)",
        ),
        (
            {"registrationTime": []},
            {"registration_time": None},
            "registration_time: left out (no time)",
        ),
    ],
)
def test_invalid_value_is_shortened_or_left_out_with_a_note(
    given: dict[str, Any], expected: dict[str, Any], note: str | None
) -> None:
    details, notes = taken(**given)
    assert {name: details[name] for name in expected} == expected
    assert len(notes) == (note is not None)
    assert (note or "") in "".join(notes)


def test_too_many_capabilities_keep_the_first() -> None:
    details, notes = taken(capabilities=[f"c{number}" for number in range(70)])
    assert details["capabilities"] == tuple(f"c{number}" for number in range(64))
    assert notes == ["capabilities: 6 left out (more than 64)"]


def test_long_names_that_begin_alike_stay_different() -> None:
    names = {taken(agentName="n" * 200 + end)[0]["agent_name"] for end in "ab"}
    assert {len(name) for name in names} == {200}
    assert len(names) == 2


@pytest.mark.parametrize("given", [{"agentId": "a b"}, {"contactEndpoint": ""}])
def test_bad_id_or_endpoint_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        taken(**given)


@pytest.mark.parametrize(
    "metadata",
    [b'{"a":"\\u0000"}', b'{"a":1152921504606846976}', b'{"a":1,"a":2}', b"[" * 70 + b"]" * 70],
)
def test_metadata_that_cannot_be_stored_is_left_out(metadata: bytes) -> None:
    raw = b'{"event_type":"REGISTER","agent_details":{"agentId":"a","metadata":' + metadata + b"}}"
    document, notes = parse_announcement(raw)
    assert document["agent_details"] == {"agentId": "a", "metadata": None}
    assert len(notes) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"agent_details":{"agentId":"a\\u0000","metadata":{"a":"\\u0000"}}}',
        b'{"agent_details":{"agentId":"a","agentId":"b","metadata":{}}}',
        b'{"agent_details":{"agentId":"a","metadata":1}' + b"[" * 70 + b"]" * 70,
        b'{"agent_details":{"metadata":{},"colour":' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"agent_details":{"metadata":{},"colour":' + b"[" * 700 + b"]" * 700 + b"}}",
        b'{"agent_details":{"metadata":' + b"[" * 9000 + b"]" * 9000 + b"}}",
        b"[" * 70 + b"]" * 70,
        b"{",
    ],
)
def test_anything_else_that_is_wrong_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_announcement(raw)


def test_metadata_is_measured_as_json() -> None:
    value = {"a": "é" * 32_768}
    assert len(orjson.dumps(value)) > 65536
    assert taken(metadata=value)[0]["metadata"] is None
