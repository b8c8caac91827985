"""AgentKit's own models of what it is sent: keys they do not name are dropped."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse


class Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class AgentMetadata(Wire):
    description: str | None = None
    config: dict[str, Any] | None = None


class Registration(Wire):
    agent_name: str = Field(alias="agentName", min_length=1)
    capabilities: list[str] = Field(default_factory=list)
    version: str
    contact_endpoint: HttpUrl = Field(alias="contactEndpoint")
    metadata: AgentMetadata | None = None


class SessionContext(Wire):
    session_id: str | None = Field(None, alias="sessionId")
    prior_messages: list[str] | None = Field(None, alias="priorMessages")


class RunMessage(Wire):
    """A message as AgentKit forwards it to the agent, with a `timestamp` added."""

    sender_id: str = Field(alias="senderId")
    message_type: str = Field(alias="messageType")
    payload: dict[str, Any]
    task_name: str | None = None
    opscore_session_id: str | None = None
    opscore_task_id: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    session_context: SessionContext | None = Field(None, alias="sessionContext")

    def to_json(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


async def validation_failed(_request: Request, error: Exception) -> JSONResponse:
    """The answer of a FastAPI service to a body that its model refuses."""
    assert isinstance(error, ValidationError)  # noqa: S101 - Starlette types handlers loosely
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    detail = [{**fault, "loc": ["body", *fault["loc"]]} for fault in faults]
    return JSONResponse({"detail": detail}, 422)
