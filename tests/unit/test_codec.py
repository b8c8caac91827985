"""Records come back from their JSON as they went in, and are not made twice for nothing."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from opscore.models import Delivery, Hold, HoldReason, TaskStatus
from opscore.storage.sql import codec
from opscore.storage.sql.recent import Latest, Recent
from tests import builders
from tests.builders import at, definition, step

AGENT = builders.agent(
    "a1",
    metadata={"a": [1, None, {"b": "ü"}]},
    hold=Hold(HoldReason.REPORTED_ERROR, at(1), at(2)),
    last_seen_at=at(3),
)
TASK = builders.task(
    status=TaskStatus.DISPATCHED,
    parameters={"deep": {"list": [1.5, "x", False]}},
    via=Delivery.DIRECT,
    lease_until=at(9),
    error={"code": "x", "message": "y"},
    result=["any", 1],
)
SESSION = builders.session(
    definition=definition(step("one", delay=builders.seconds(1.5)), step("two")),
    input={"topic": "x"},
    results={"one": {"n": 1}},
    metadata={"m": None},
)


def _session_again() -> Any:
    doc, text = codec.dump_session(SESSION), codec.dump(SESSION.definition)
    codec.note_session(doc, text, SESSION)
    codec.forget_recent()
    return codec.load_session(doc, text)


def _agent_again() -> Any:
    doc = codec.dump_agent(AGENT)
    codec.forget_recent()
    return codec.load_agent(doc)


def _task_again() -> Any:
    doc = codec.dump_task(TASK)
    codec.forget_recent()
    return codec.load_task(doc)


@pytest.mark.parametrize(
    ("again", "value"), [(_agent_again, AGENT), (_task_again, TASK), (_session_again, SESSION)]
)
def test_a_record_comes_back_as_it_went_in(again: Callable[[], Any], value: Any) -> None:
    found = again()
    assert found == value
    assert found is not value


def test_what_was_written_is_read_without_being_decoded() -> None:
    doc = codec.dump_agent(AGENT)
    assert codec.load_agent(doc) is AGENT
    assert codec.load_agent(codec.dump_agent(replace(AGENT, rev=AGENT.rev + 1))) != AGENT


@pytest.mark.fault("F117")
def test_a_large_session_that_was_just_written_is_not_decoded_again() -> None:
    session = replace(SESSION, results={"one": {"rows": ["x" * 1000] * 250}})
    doc, definition = codec.dump_session(session), codec.dump(session.definition)
    codec.note_session(doc, definition, session)
    fresh = doc.encode().decode(), definition.encode().decode()
    assert codec.load_session(*fresh) is session


def test_only_the_latest_texts_are_kept_and_large_ones_take_no_place_of_small_ones() -> None:
    made: list[str] = []

    def load(text: str) -> str:
        made.append(text)
        return text

    recent = Recent(load, len, most=2)
    large = "x" * 10_000
    larger, largest = large + "x", large + "xx"
    for text in ("a", "a", large, large, "b", larger, "a", "c", largest, "a", large, "c"):
        assert recent.get(text) == text
    assert made == ["a", large, "b", larger, "c", largest, "a", large]


def test_the_latest_are_kept_as_far_as_there_is_room() -> None:
    latest: Latest[str, int] = Latest(room=10)
    for number, (key, size) in enumerate([("a", 4), ("b", 6), ("a", 3), ("c", 2), ("d", 11)]):
        latest.put(key, number, size)
    assert [latest.get(key) for key in "abcd"] == [2, None, 3, None]
    latest.clear()
    latest.put("e", 5, 10)
    assert [latest.get(key) for key in "ae"] == [None, 5]


_LARGE = 100_000
_MANY = 400


def _large(number: int) -> Any:
    return definition(step(parameters={"text": f"{number:010}" * (_LARGE // 10)}))


def _read_small_sessions() -> None:
    text = codec.dump(_large(0)).encode()
    for number in range(_MANY):
        session = replace(SESSION, id=f"session-{number}")
        # Each comes from the database in a text of its own.
        codec.load_session(codec.dump_session(session), text.decode())


def _read_definitions() -> None:
    for number in range(_MANY):
        codec.load_definition(codec.dump(_large(number)))


def _write_definitions() -> codec.DefinitionTexts:
    texts = codec.DefinitionTexts()
    for number in range(_MANY):
        texts.of(_large(number))
    return texts


@pytest.mark.parametrize(
    "use",
    [_read_small_sessions, _read_definitions, _write_definitions],
    ids=lambda one: one.__name__,
)
def test_what_is_kept_of_large_definitions_is_bounded(use: Callable[[], Any]) -> None:
    codec.forget_recent()
    tracemalloc.start()
    try:
        held = use()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del held
    codec.forget_recent()
    assert taken < _MANY * _LARGE * 0.6
