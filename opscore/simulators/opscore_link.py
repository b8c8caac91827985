"""What a simulated agent says to Ops-Core. Each report is tried once; a failure is only logged."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

REPORT_TIMEOUT = 30.0

logger = logging.getLogger(__name__)


class OpsCoreLink:
    """`url` is the service's base URL, without /v1/opscore."""

    def __init__(self, client: httpx.AsyncClient, url: str, api_key: str) -> None:
        self._client = client
        self._base = f"{url.rstrip('/')}/v1/opscore"
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
        }

    async def state(self, agent_id: str, word: str, details: Mapping[str, Any]) -> None:
        report = {
            "agentId": agent_id,
            "timestamp": datetime.now(UTC).isoformat(),
            "state": word,
            "details": details,
        }
        await self._tell(f"agent/{quote(agent_id, safe='')}/state", report)

    async def heartbeat(self, task_id: str, attempt: int | None, progress: Any) -> None:
        body = _with_attempt({"progress": progress}, attempt)
        await self._tell(f"task/{quote(task_id, safe='')}/heartbeat", body)

    async def completed(self, task_id: str, attempt: int | None, result: Any) -> None:
        body = _with_attempt({"status": "completed", "result": result}, attempt)
        await self._tell(f"task/{quote(task_id, safe='')}/result", body)

    async def failed(self, task_id: str, attempt: int | None, error: str) -> None:
        body = _with_attempt({"status": "failed", "error": error}, attempt)
        await self._tell(f"task/{quote(task_id, safe='')}/result", body)

    async def register(self, card: Mapping[str, Any]) -> httpx.Response:
        """Register an agent without AgentKit; the answer and its errors are the caller's."""
        return await self._post("agents", card)

    async def _tell(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            response = await self._post(path, body)
        except httpx.HTTPError as error:
            logger.error("the report to %s is lost: %r", path, error)
            return
        if response.status_code == httpx.codes.NOT_FOUND:
            logger.warning("the report to %s came before its registration, or is lost", path)
        elif not response.is_success:
            logger.error("the report to %s is lost: answered %d", path, response.status_code)

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return await self._client.post(
            f"{self._base}/{path}",
            content=json.dumps(body),
            headers=self._headers,
            timeout=REPORT_TIMEOUT,
        )


def _with_attempt(body: dict[str, Any], attempt: int | None) -> dict[str, Any]:
    return body if attempt is None else {**body, "attempt": attempt}
