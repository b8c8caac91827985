"""The least AgentKit: takes every task, and tells when each came.

With --hold-first it counts them instead, and never answers the first one.
"""

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


posts = 0


def hold_first(head: bytes, _: bytes) -> bytes:
    global posts
    if not head.startswith(b"POST"):
        return answer(b"200 OK", json.dumps({"posts": posts}).encode())
    posts += 1
    return TAKEN if posts > 1 else b""


if __name__ == "__main__":
    chosen = hold_first if "--hold-first" in sys.argv else respond
    asyncio.run(serve_stub(int(sys.argv[1]), chosen))
