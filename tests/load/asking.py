"""Single questions to a server under load."""

import http.client
import json
from typing import Any

from tests.load.bare_app import KEY


def ask(port: int, method: str, path: str, body: object = None) -> Any:
    """The content of the answer; RuntimeError if it is not a good one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
    return json.loads(content)


def register(port: int, agent: str, **more: Any) -> None:
    ask(port, "POST", "/v1/opscore/agents", {"agentId": agent, "agentName": agent, **more})
