"""What the state route is measured against: the same body model, one bearer dependency, no work."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

KEY = "key-of-the-benchmarks"

app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})
bearer = HTTPBearer()


class State(BaseModel):
    agentId: str  # noqa: N815 - as it is spelled on the wire
    timestamp: datetime | None = None
    state: str
    details: dict[str, Any] | None = None


class Answer(BaseModel):
    status: str
    message: str


async def check_key(key: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    if key.credentials != KEY:
        raise HTTPException(401)


@app.post("/v1/opscore/agent/{agent_id}/state", status_code=202, dependencies=[Depends(check_key)])
async def state(agent_id: str, body: State) -> Answer:
    return Answer(status="success", message="State update accepted")
