"""Agents that name no task in their reports, each with a ledger of what it was given and did."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from opscore.models import (
    Accepted,
    Answered,
    Delivery,
    Failure,
    FailureCode,
    StateReport,
    Task,
)
from tests.service.engine_world import Post, World

# The delay of a report, and the time an agent works on after an attempt was taken from it.
REPORT_TAKES = timedelta(seconds=4)
STOPS_WITHIN = timedelta(seconds=20)


@dataclass
class Message:
    """A task that an agent was given (`post`), or a request to cancel."""

    post: Post | None
    task: Task
    taken_back_at: datetime | None = None


@dataclass
class NamelessAgent:
    """Works on one message after another and reports `active` and `idle` without an id.

    One that `answers` works before it answers the message, and echoes each message with a pair;
    its answer to a message that came through AgentKit is lost there. The other accepts the
    message at once, and reports while it works.
    """

    id: str
    answers: bool
    world: World
    inbox: deque[Message] = field(default_factory=deque)
    working: Message | None = None
    outbox: deque[tuple[datetime, StateReport]] = field(default_factory=deque)
    said: list[StateReport] = field(default_factory=list)
    ledger: dict[str, set[int]] = field(default_factory=dict)
    done: int = 0

    # --- what happens to it ---------------------------------------------------------------

    def take(self, post: Post, via: Delivery, accept: bool) -> None:
        post.via = via
        self.inbox.append(Message(post, post.claim.task))
        if accept and not self._waits_for_answer(post):
            self.tell(post, Accepted())

    def _waits_for_answer(self, post: Post) -> bool:
        return self.answers and post.via is Delivery.DIRECT

    def be_told_to_stop(self, task: Task) -> None:
        if self.answers:
            self.inbox.append(Message(None, task))

    def tell(self, post: Post, outcome: Any) -> None:
        if post in self.world.posts:
            self.world.posts.remove(post)
            self.world.do(self.world.engine.task_outcome(post.claim, post.via, outcome))

    # --- what it does ---------------------------------------------------------------------

    def begin(self) -> None:
        if self.working is not None or not self.inbox:
            return
        message = self.inbox.popleft()
        if message.post is None:
            self._report("active")
            self._report("idle")
            return
        self.working = message
        if not self.answers:
            self._report("active")

    def finish(self, word: str) -> None:
        message = self.working
        if message is None or message.post is None:
            return
        self.working = None
        self._begin_to_count()
        self.done += 1
        self.ledger.setdefault(message.task.id, set()).add(self.done)
        result = {"did": message.task.id, "n": self.done}
        if self.answers:
            if self._waits_for_answer(message.post):
                failed = Failure(FailureCode.AGENT_ERROR, "The agent answered that it failed.")
                self.tell(message.post, failed if word == "error" else Answered(result))
            self._report("active")
            self._report("idle")
        else:
            self._report(word, result=result, error={"message": f"no {message.task.id}"})

    def deliver(self) -> None:
        """The oldest of its reports arrives."""
        if self.outbox:
            _, report = self.outbox.popleft()
            self.said.append(report)
            self.world.do(self.world.lifecycle.set_state(report))

    def say_again(self, pick: int) -> None:
        """The network repeats a report."""
        if self.said:
            repeated = self.said[-1 - pick % min(len(self.said), 20)]
            self.world.do(self.world.lifecycle.set_state(repeated))

    def be_quick(self, ahead: timedelta) -> None:
        """Nothing of it may take longer than an agent may, when so much time passes."""
        now = self.world.clock.now()
        for message in [*self.inbox, *([self.working] if self.working else [])]:
            message.taken_back_at = message.taken_back_at or self._taken_back(message, now)
        while any(self._is_overdue(one, now + ahead) for one in (*self.inbox, self.working)):
            self.begin()
            self.finish("idle")
        while self.outbox and now + ahead - self.outbox[0][0] > REPORT_TAKES:
            self.deliver()

    def _begin_to_count(self) -> None:
        """A request to cancel is read after the work: it may take its time from now on."""
        for message in self.inbox:
            if message.post is None:
                message.taken_back_at = self.world.clock.now()

    # --- helpers --------------------------------------------------------------------------

    def _taken_back(self, message: Message, now: datetime) -> datetime | None:
        stored = self.world.do(self.world.lifecycle.get_task(message.task.id))
        is_its_own = stored.status.in_flight and stored.attempt == message.task.attempt
        return None if is_its_own else now

    def _is_overdue(self, message: Message | None, until: datetime) -> bool:
        if message is None or message.taken_back_at is None:
            return False
        if message.post is None and self.working is not None:
            return False
        allowed = STOPS_WITHIN if message.post is not None else timedelta(seconds=1)
        return until - message.taken_back_at > allowed

    def _report(self, word: str, **details: Any) -> None:
        now = self.world.clock.now()
        stamp = now + timedelta(microseconds=len(self.said) + len(self.outbox))
        self.outbox.append((now, StateReport(self.id, word, details, stamp)))
