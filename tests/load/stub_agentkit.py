"""The least AgentKit: takes every task, and tells when each came."""

import asyncio
import json
import sys
import time

from tests.load.http_parts import answer, serve_stub

_ACCEPTED = json.dumps(
    {
        "status": "success",
        "message": "Task accepted. Dispatch scheduled.",
        "data": {"dispatch_status": "scheduled"},
        "error_code": None,
    }
).encode()

TAKEN = answer(b"202 Accepted", _ACCEPTED)

arrivals: dict[str, float] = {}


def respond(head: bytes, body: bytes) -> bytes:
    if not head.startswith(b"POST"):
        return answer(b"200 OK", json.dumps(arrivals).encode())
    arrivals[json.loads(body)["opscore_session_id"]] = time.monotonic()
    return TAKEN


if __name__ == "__main__":
    asyncio.run(serve_stub(int(sys.argv[1]), respond))
