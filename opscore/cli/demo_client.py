"""What the demo asks the service, and how it reads the answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class SeenEvent:
    seq: int
    type: str
    at: datetime
    agent_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class DemoClient:
    """Any answer that is no success is raised as httpx.HTTPStatusError."""

    def __init__(self, url: str, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=5, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def answers(self, url: str) -> bool:
        """Whether a GET of this URL succeeds; a service that is not there yet says no."""
        try:
            return self._http.get(url).is_success
        except httpx.TransportError:
            return False

    def agent_names(self) -> dict[str, str]:
        page = self._get("agents")
        return {agent["agentId"]: agent["agentName"] for agent in page["items"]}

    def save_workflow(self, definition: Mapping[str, Any]) -> None:
        self._post("workflows", definition)

    def trigger(self, agent_id: str, workflow_id: str, payload: Mapping[str, Any]) -> str:
        body = {"workflowDefinitionId": workflow_id, "initialPayload": payload}
        answer = self._post(f"agent/{agent_id}/workflow", body)
        return str(answer["sessionId"])

    def session(self, session_id: str) -> dict[str, Any]:
        return self._get(f"session/{session_id}")

    def events(self, session_id: str, after: int) -> list[SeenEvent]:
        page = self._get(f"session/{session_id}/events", cursor=after)
        return [read_event(item) for item in page["items"]]

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._read(self._http.get(f"/v1/opscore/{path}", params=query))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._read(self._http.post(f"/v1/opscore/{path}", json=body))

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        response.raise_for_status()
        body: dict[str, Any] = response.json()
        return body


def read_event(item: Mapping[str, Any]) -> SeenEvent:
    return SeenEvent(
        seq=item["seq"],
        type=item["type"],
        at=datetime.fromisoformat(item["at"]),
        agent_id=item.get("agentId"),
        data=item.get("data") or {},
    )
