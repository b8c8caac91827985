"""The least AgentKit with the quickest agents: each task is taken and reported finished at once."""

import asyncio
import json
import sys
import time

from tests.load.bare_app import KEY
from tests.load.http_parts import Answer, answer, content_length, request, serve_stub
from tests.load.stub_agentkit import TAKEN

_REPORTERS = 32


class Agents:
    """Report over a few connections, to each replica in turn; `done` counts the acked reports."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._tasks: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.done = 0
        self.last = 0.0

    def respond(self, head: bytes, body: bytes) -> Answer:
        if not head.startswith(b"POST"):
            seen = {"done": self.done, "last": self.last}
            return answer(b"200 OK", json.dumps(seen).encode())
        agent = head.split(b"/", 4)[3].decode()
        task = agent, json.loads(body)["opscore_task_id"]
        if self._wait:
            return self._take_later(*task)
        self._tasks.put_nowait(task)
        return TAKEN

    async def _take_later(self, agent: str, task: str) -> bytes:
        await asyncio.sleep(self._wait)
        self._tasks.put_nowait((agent, task))
        return TAKEN

    async def report(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            agent, task = await self._tasks.get()
            details = {"opscore_task_id": task, "result": "well done"}
            body = json.dumps({"agentId": agent, "state": "finished", "details": details})
            writer.write(request("POST", f"/v1/opscore/agent/{agent}/state", body.encode(), KEY))
            head = await reader.readuntil(b"\r\n\r\n")
            said = await reader.readexactly(content_length(head))
            if head[9:12] != b"202":
                raise RuntimeError(f"a report was answered {said!r}")
            self.done += 1
            self.last = time.monotonic()


async def serve(port: int, wait: float, replicas: list[int]) -> None:
    agents = Agents(wait)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_stub(port, agents.respond))
        for number in range(_REPORTERS):
            group.create_task(agents.report(replicas[number % len(replicas)]))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), [int(one) for one in sys.argv[3:]]))
