"""Faults of requests in sentences of ours: every kind that the API's models can give."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opscore.api.schemas import AgentIn, AgentPatch, HeartbeatIn, ResultIn, SessionIn, StateIn
from opscore.api.validation import model_of, validation_error

LISTED = "It must be one of: completed, failed."


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Anything(BaseModel):
    model_config = ConfigDict(extra="forbid")

    flag: bool = True
    count: Annotated[int, Field(gt=1, lt=5)] = 2
    ratio: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] = 1
    colour: Colour = Colour.RED
    moment: datetime | None = None
    names: Annotated[list[str], Field(min_length=2)] = []
    kind: Literal["one", "two"] = "one"


def fault(model: type[BaseModel], body: Any) -> tuple[str, str, str]:
    """Pointer and message of the only fault, and the whole detail."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    error = validation_error(caught.value.errors(include_url=False), model)
    [only] = error.faults
    return only.pointer, only.message, error.detail


AGENT = {"agentName": "a"}


@pytest.mark.parametrize(
    ("model", "body", "pointer", "message"),
    [
        (AgentIn, {}, "/agentName", "This is required."),
        (AgentIn, [], "", "It must be an object."),
        (AgentIn, {"agentName": 5}, "/agentName", "It must be a text."),
        (AgentIn, {"agentName": ""}, "/agentName", "It must not be empty."),
        (AgentIn, {"agentName": "x" * 201}, "/agentName", "It may have at most 200 characters."),
        (AgentIn, {**AGENT, "concurrency": 0}, "/concurrency", "It must be at least 1."),
        (AgentIn, {**AGENT, "concurrency": 1001}, "/concurrency", "It must be at most 1000."),
        (AgentIn, {**AGENT, "concurrency": "2"}, "/concurrency", "It must be a whole number."),
        (AgentIn, {**AGENT, "concurrency": 1.5}, "/concurrency", "It must be a whole number."),
        (AgentIn, {**AGENT, "capabilities": "x"}, "/capabilities", "It must be a list."),
        (AgentIn, {**AGENT, "capabilities": [1]}, "/capabilities/0", "It must be a text."),
        (AgentIn, {**AGENT, "metadata": 1}, "/metadata", "It must be an object."),
        (ResultIn, {"status": "complete"}, "/status", f"{LISTED} Did you mean completed?"),
        (ResultIn, {"status": 5}, "/status", LISTED),
        (HeartbeatIn, {"attempt": True}, "/attempt", "It must be a whole number."),
        (
            SessionIn,
            {"workflowDefinitionId": "x", "waitSeconds": 61},
            "/waitSeconds",
            "It must be at most 60.",
        ),
        (SessionIn, {}, "", "Give either workflowDefinitionId or workflowDefinition."),
        (Anything, {"flag": "perhaps"}, "/flag", "It must be true or false."),
        (Anything, {"count": 1}, "/count", "It must be more than 1."),
        (Anything, {"count": 5}, "/count", "It must be less than 5."),
        (Anything, {"ratio": 0.1}, "/ratio", "It must be at least 0.5."),
        (Anything, {"ratio": "x"}, "/ratio", "It must be a number."),
        (Anything, {"ratio": float("nan")}, "/ratio", "It must be a number, not NaN or infinite."),
        (
            Anything,
            {"colour": "gren"},
            "/colour",
            "It must be one of: red, green. Did you mean green?",
        ),
        (Anything, {"names": ["x"]}, "/names", "It must have at least 2 entries."),
    ],
)
def test_value_fault_says_what_to_write(
    model: type[BaseModel], body: Any, pointer: str, message: str
) -> None:
    place, said, detail = fault(model, body)
    assert (place, said) == (pointer, message)
    assert detail == (f"{pointer[1:]}: {message}" if pointer else message)


def test_bad_id_and_bad_time_say_what_they_look_like() -> None:
    assert "begin with a letter" in fault(AgentIn, {**AGENT, "agentId": "-x"})[1]
    moments: list[Any] = ["yesterday", [], "2026-13-01"]
    for moment in moments:
        body = {"agentId": "a", "state": "idle", "timestamp": moment}
        assert "ISO 8601" in fault(StateIn, body)[1]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("capabilites", "Did you mean capabilities?"),
        ("agent_nam", "Did you mean agentName?"),
        ("CONCURRENCY", "Did you mean concurrency?"),
        (
            "zzz",
            "The fields here are: agentId, agentName, capabilities, version, "
            "contactEndpoint, metadata, concurrency.",
        ),
        ("x" * 5000, "concurrency."),
    ],
)
def test_unknown_field_is_told_with_a_suggestion(name: str, end: str) -> None:
    _, message, detail = fault(AgentIn, {**AGENT, name: 1})
    assert message == detail
    assert message.startswith("This field is not known.")
    assert message.endswith(end)


def test_several_faults_are_all_listed_and_many_only_counted() -> None:
    with pytest.raises(ValidationError) as caught:
        AgentPatch.model_validate({f"f{number}": 1 for number in range(60)})
    error = validation_error(caught.value.errors(), AgentPatch)
    assert len(error.faults) == 50
    assert error.detail == "The request is not valid; see errors. 10 more are not listed."


def test_no_sentence_shows_what_was_sent() -> None:
    canary = "canary-5f1e"
    for body in ({"agentName": [canary]}, {**AGENT, "agentId": f"-{canary}"}):
        assert canary not in "".join(fault(AgentIn, body))


def test_model_is_found_among_alternatives() -> None:
    assert model_of(AgentIn | None) is AgentIn
    assert model_of(dict[str, Any]) is None
