"""The message on the wire, key by key."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from opscore.agentkit_client import cancel_message, task_message
from opscore.agentkit_client.messages import encode
from opscore.models import MessageType
from tests.unit.agentkit_values import SESSION, TASK, make_claim, make_task


def wire(message: dict[str, Any]) -> Any:
    return orjson.loads(encode(message))


def test_a_workflow_task_is_written_as_agentkit_reads_it() -> None:
    assert wire(task_message(make_claim(make_task()))) == {
        "senderId": "opscore_system_id",
        "messageType": "workflow_task",
        "payload": {
            "task_name": "Gather sources",
            "task_parameters": {"topic": "tides"},
            "attempt": 2,
            "deadline": "2026-11-21T06:32:44.531120+00:00",
            "workflow_id": "research",
            "step_id": "gather",
        },
        "task_name": "Gather sources",
        "opscore_session_id": SESSION,
        "opscore_task_id": TASK,
        "sessionContext": {"sessionId": SESSION, "priorMessages": []},
    }


def prior(results: dict[str, Any]) -> list[str]:
    claim = make_claim(make_task())
    claim = replace(claim, session=replace(claim.session, results=results))
    messages: list[str] = wire(task_message(claim))["sessionContext"]["priorMessages"]
    return messages


def test_prior_messages_hold_the_results_of_earlier_steps() -> None:
    results = {"gather": {"notes": ["é"]}, "write": "a text", "count": 3, "rate": None}
    assert prior(results) == [
        'gather: {"notes":["é"]}',
        "write: a text",
        "count: 3",
        "rate: null",
    ]


def test_prior_messages_hold_at_most_the_newest_twenty_results() -> None:
    assert prior({f"s{n}": n for n in range(25)}) == [f"s{n}: {n}" for n in range(5, 25)]


@pytest.mark.parametrize("letter", ["x", "é", "🙂"])
def test_a_long_prior_message_is_cut_at_four_kib(letter: str) -> None:
    [message] = prior({"gather": letter * 5000})
    assert 4090 < len(message.encode()) <= 4096
    assert message.startswith(f"gather: {letter}")
    assert message.endswith(f"{letter} …")


def test_a_tool_invocation_names_its_tool_and_arguments() -> None:
    task = make_task(
        message_type=MessageType.TOOL_INVOCATION, tool_name="mock_tool", parameters={"a": 1}
    )
    message = wire(task_message(make_claim(task)))
    assert message["messageType"] == "tool_invocation"
    assert message["payload"]["tool_name"] == "mock_tool"
    assert message["payload"]["arguments"] == {"a": 1}
    assert message["payload"]["attempt"] == 2


def test_a_cancellation_carries_the_same_ids() -> None:
    task = make_task()
    message = wire(cancel_message(task))
    given = wire(task_message(make_claim(task)))
    assert message["messageType"] == "task_cancel"
    assert message["payload"] == {
        "task_name": "Gather sources",
        "attempt": 2,
        "workflow_id": "research",
        "step_id": "gather",
    }
    same = ("senderId", "task_name", "opscore_session_id", "opscore_task_id", "sessionContext")
    assert {key: message[key] for key in same} == {key: given[key] for key in same}


def test_a_task_without_a_name_goes_by_its_step() -> None:
    message = wire(task_message(make_claim(make_task(name=None))))
    assert message["task_name"] == message["payload"]["task_name"] == "gather"


@pytest.mark.parametrize(
    ("deadline", "written"),
    [
        (None, None),
        (
            datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-01T00:00:00+00:00",
        ),
    ],
)
def test_the_deadline_is_written_in_utc(deadline: datetime | None, written: str | None) -> None:
    message = wire(task_message(make_claim(make_task(run_deadline=deadline))))
    assert message["payload"]["deadline"] == written


def test_read_only_parameters_are_written_too() -> None:
    parameters = MappingProxyType({"nested": MappingProxyType({"a": (1, 2)})})
    message = wire(task_message(make_claim(make_task(parameters=parameters))))
    assert message["payload"]["task_parameters"] == {"nested": {"a": [1, 2]}}


@pytest.mark.parametrize("value", [object(), {1, 2}, "\ud800", 2**70, {1: 2}])
def test_F15_what_json_cannot_carry_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(task_message(make_claim(make_task(parameters={"value": value}))))
