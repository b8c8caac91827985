"""State reports as a load."""

import json
from datetime import UTC, datetime, timedelta
from itertools import cycle

from tests.load.bare_app import KEY
from tests.load.http_parts import request
from tests.load.load_client import RequestMaker

CONNECTIONS = 64


def reports() -> RequestMaker:
    """Reports made beforehand, so that the load itself costs little; their times rise."""
    now = datetime.now(UTC)

    def made(agent: str, number: int) -> bytes:
        body = {
            "agentId": agent,
            "timestamp": (now + timedelta(microseconds=number)).isoformat(),
            "state": "idle",
            "details": {"note": "bench"},
        }
        return request("POST", f"/v1/opscore/agent/{agent}/state", json.dumps(body).encode(), KEY)

    agents = (f"agent-{number}" for number in range(CONNECTIONS))
    queues = [cycle([made(agent, number) for number in range(1000)]) for agent in agents]
    return lambda number: next(queues[number])
