"""What requests must look like. JSON is camelCase; AgentKit's own payloads keep their spelling."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from opscore.api.validation import ID_PATTERN

NAME_LENGTH = 200
VERSION_LENGTH = 100
CAPABILITY_LENGTH = 128
CAPABILITIES_LIMIT = 64

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
Version = Annotated[str, Field(max_length=VERSION_LENGTH)]
Capability = Annotated[str, Field(min_length=1, max_length=CAPABILITY_LENGTH)]
Capabilities = Annotated[tuple[Capability, ...], Field(max_length=CAPABILITIES_LIMIT)]
StateWordText = Annotated[str, Field(min_length=1, max_length=64)]
Endpoint = Annotated[str, Field(min_length=1, max_length=2048)]
# Strict, because true would otherwise count as 1.
Concurrency = Annotated[int, Field(ge=1, le=1000, strict=True)]
Attempt = Annotated[int, Field(ge=1, le=2**53, strict=True)]

WaitSeconds = Annotated[float, Field(ge=0, le=60, strict=True, allow_inf_nan=False)]


def _in_utc(moment: datetime) -> datetime:
    """A time without a zone is taken as UTC."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time must lie between the years 1 and 9999 in UTC") from error


_MOMENT = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}],
    "description": "ISO 8601, in UTC unless it says otherwise, or unix seconds.",
}
Moment = Annotated[datetime, AfterValidator(_in_utc), WithJsonSchema(_MOMENT)]


class Request(BaseModel):
    """Spelled in camelCase; what is not known is refused, so that a slip is noticed."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
    )


class LenientRequest(Request):
    """For clients that we did not write: what is not known is passed over."""

    model_config = ConfigDict(extra="ignore")


# --- agents ------------------------------------------------------------------------------------


class AgentIn(Request):
    agent_id: Id | None = None
    agent_name: Name
    capabilities: Capabilities | None = None
    version: Version | None = None
    contact_endpoint: Endpoint | None = None
    metadata: dict[str, Any] | None = None
    concurrency: Concurrency | None = None


class AgentPatch(Request):
    """Only what is given is changed; null takes a value away where that makes sense.

    `draining` false puts the agent back to work.
    """

    agent_name: Name = ""
    capabilities: Capabilities = ()
    version: Version | None = None
    contact_endpoint: Endpoint | None = None
    metadata: dict[str, Any] | None = None
    concurrency: Concurrency = 1
    draining: bool | None = None


class StateIn(LenientRequest):
    """A state report. `details` may name the task it speaks of."""

    agent_id: Annotated[str, Field(max_length=255)]
    state: StateWordText
    timestamp: Moment | None = None
    details: dict[str, Any] | None = None


class AgentDetails(LenientRequest):
    """AgentKit's announcement of an agent."""

    agent_id: Id
    agent_name: Name | None = None
    capabilities: Capabilities | None = None
    version: Version | None = None
    contact_endpoint: Endpoint | None = None
    metadata: dict[str, Any] | None = None
    registration_time: Annotated[Moment | None, Field(alias="registration_time")] = None


# --- workflows and sessions --------------------------------------------------------------------


class WorkflowChoice(Request):
    """Exactly one of the two: the id of a saved workflow, or a definition."""

    workflow_definition_id: Annotated[str, Field(max_length=128)] | None = None
    workflow_definition: dict[str, Any] | None = None
    initial_payload: dict[str, Any] | None = None
    wait_seconds: WaitSeconds = 0

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.workflow_definition_id is None) == (self.workflow_definition is None):
            raise ValueError("give either workflowDefinitionId or workflowDefinition")
        return self


class TriggerIn(WorkflowChoice, LenientRequest):
    """Start a workflow with the agent in the path as the session's agent."""


class SessionIn(WorkflowChoice):
    """Start a workflow. Without `agentId` each step must name an agent or a capability."""

    agent_id: Annotated[str, Field(max_length=255)] | None = None


class SessionPatch(Request):
    """Merged into the metadata; null takes a key away."""

    metadata: Annotated[dict[str, Any], Field(max_length=100)]


class CancelIn(Request):
    reason: Annotated[str, Field(min_length=1, max_length=500)] = "cancelled by an operator"


# --- tasks -------------------------------------------------------------------------------------


class RetryIn(Request):
    """With `attempt` the retry is refused once the task has moved on to another attempt."""

    attempt: Attempt | None = None


class ResultIn(Request):
    """How a task ended, said by its agent."""

    status: Literal["completed", "failed"]
    result: Any = None
    error: Any = None
    attempt: Attempt | None = None


class HeartbeatIn(Request):
    progress: Any = None
    attempt: Attempt | None = None
