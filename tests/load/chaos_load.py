"""The load of a chaos run: triggers with a key each, sent until acknowledged, and some cancels."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx

from tests.load.chaos_client import Insistent
from tests.load.chaos_processes import KEY
from tests.load.chaos_record import Ack
from tests.load.chaos_workflows import WORKFLOWS, definition

API = "http://replica/v1/opscore"
_PATIENCE = 300.0
_CANCEL_RATE = 0.04
_TWICE_RATE = 0.1
_CANCEL_WITHIN = 2.0


class Load:
    """`rate` is in sessions a second."""

    def __init__(self, seed: int, replicas: Sequence[str], rate: float) -> None:
        self.answers: Counter[str] = Counter()
        self.sent: list[str] = []
        self.acks: list[Ack] = []
        self.cancelled: list[str] = []
        self._draw = random.Random(f"{seed} load")
        transport = Insistent(
            replicas, random.Random(f"{seed} routes"), self.answers, patience=_PATIENCE
        )
        self.http = httpx.AsyncClient(
            transport=transport, headers={"Authorization": f"Bearer {KEY}"}, timeout=None
        )
        self._rate = rate
        self._under_way: set[asyncio.Task[None]] = set()

    async def save_workflows(self) -> None:
        for name in WORKFLOWS:
            answer = await self.http.post(f"{API}/workflows", json=definition(name))
            answer.raise_for_status()

    async def run(self, agents: Sequence[str]) -> None:
        """Start sessions until cancelled."""
        while True:
            await asyncio.sleep(self._draw.expovariate(self._rate))
            key = f"trigger-{len(self.sent) + 1}"
            self.sent.append(key)
            body = {
                "workflowDefinitionId": self._draw.choice(list(WORKFLOWS)),
                "initialPayload": {"key": key},
            }
            is_sent_twice = self._draw.random() < _TWICE_RATE
            cancel_after = self._draw.uniform(0, _CANCEL_WITHIN)
            is_cancelled = self._draw.random() < _CANCEL_RATE
            agent_id = self._draw.choice(agents)
            self._start(self._trigger(key, agent_id, body, cancel_after if is_cancelled else None))
            if is_sent_twice:
                self._start(self._trigger(key, agent_id, body, None))

    async def settle(self) -> None:
        """Until every trigger was acknowledged and every cancel answered."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def aclose(self) -> None:
        for task in self._under_way:
            task.cancel()
        await self.http.aclose()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _trigger(
        self, key: str, agent_id: str, body: Any, cancel_after: float | None
    ) -> None:
        answer = await self.http.post(
            f"{API}/agent/{agent_id}/workflow", json=body, headers={"Idempotency-Key": key}
        )
        if answer.status_code != 202:
            return
        session_id = answer.json()["sessionId"]
        self.acks.append(Ack(key, session_id))
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            await self._cancel(session_id)

    async def _cancel(self, session_id: str) -> None:
        """One that has ended already is refused with 409."""
        answer = await self.http.post(f"{API}/session/{session_id}/cancel")
        if answer.status_code == 202 and answer.json()["status"] == "cancelled":
            self.cancelled.append(session_id)
