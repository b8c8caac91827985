"""What comes while others are under way goes together next: one statement, or commit, for many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

Worker = Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]
"""Gives the answer to each of the questions, or what was in its way."""

_AT_ONCE = 500
_TURNS = 20


class Together(Generic[Q, A]):
    """As many groups are under way at once as there are workers."""

    def __init__(self, name: str, workers: Sequence[Worker[Q, A]]) -> None:
        self._name = name
        self._idle = list(workers)
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer; raises what was in its way."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._idle:
            running = asyncio.create_task(self._run(self._idle.pop()), name=self._name)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        return await answer

    async def close(self) -> None:
        """Return when everything that was asked is answered."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self, worker: Worker[Q, A]) -> None:
        try:
            while self._waiting:
                await self._gather()
                group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                # Another worker may have taken them all.
                if group:
                    await _answer(worker, group)
        finally:
            self._idle.append(worker)

    async def _gather(self) -> None:
        """Let those join who are about to ask: on a busy loop one larger group costs less.

        On an idle one this takes no time.
        """
        for _ in range(_TURNS):
            before = len(self._waiting)
            await asyncio.sleep(0)
            if len(self._waiting) == before:
                return


async def _answer(worker: Worker[Q, A], group: Sequence[tuple[Q, "asyncio.Future[A]"]]) -> None:
    answers: Sequence[A | Exception]
    try:
        answers = await worker([question for question, _ in group])
    except Exception as error:  # noqa: BLE001 - handed to everybody who waits
        answers = [error] * len(group)
    for (_, waiting), answer in zip(group, answers, strict=True):
        if waiting.cancelled():
            continue
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)
