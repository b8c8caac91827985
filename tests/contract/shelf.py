"""Puts records on a storage and takes claims from it, by the contract alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from opscore.models import (
    Agent,
    Change,
    Claim,
    ClaimScope,
    Event,
    EventFilter,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at

LEASE = 15
Record = Agent | WorkflowSession | Task
R = TypeVar("R", bound=Record)


def session_id(number: int) -> str:
    return f"01939d3a-0000-7000-8000-{number:012d}"


def bump(record: R, **changes: Any) -> R:
    """The record's next version."""
    return replace(record, rev=record.rev + 1, **changes)


def one_run(number: int, **changes: Any) -> tuple[WorkflowSession, Task]:
    """A session of its own with one queued task; later numbers became ready later."""
    workflow_id = changes.pop("workflow_id", "flow")
    created = changes.pop("created_at", at(number / 1000))
    definition = builders.definition(id=workflow_id)
    session = builders.session(
        id=session_id(number), definition=definition, created_at=created, agent_id=None
    )
    values = {"session_id": session.id, "workflow_id": workflow_id, "created_at": created}
    return session, builders.task(**{"waiting_since": created, **values, **changes})


async def put(storage: Storage, *records: Record) -> None:
    """One change with all of these."""
    await storage.apply(
        Change(
            agents=tuple(one for one in records if isinstance(one, Agent)),
            sessions=tuple(one for one in records if isinstance(one, WorkflowSession)),
            tasks=tuple(one for one in records if isinstance(one, Task)),
        )
    )


async def queue(storage: Storage, numbers: Sequence[int], **changes: Any) -> list[Task]:
    """Tasks that become ready one after the other."""
    tasks = []
    for number in numbers:
        session, task = one_run(number, **changes)
        await put(storage, session, task)
        tasks.append(task)
    return tasks


async def claim(
    storage: Storage,
    limit: int = 100,
    *,
    owner: str = "d1",
    after: float = 0,
    scope: ClaimScope = ClaimScope.ALL,
) -> Sequence[Claim]:
    return await storage.claim(owner, at(after), at(after + LEASE), limit, scope)


def tasks_of(claims: Sequence[Claim]) -> list[str]:
    return [one.task.id for one in claims]


def agents_of(claims: Sequence[Claim]) -> list[str]:
    return [one.agent.id for one in claims]


async def stored(storage: Storage, task: Task) -> Task:
    facts = await storage.task_facts(task.id)
    assert facts is not None
    return facts.task


async def events(storage: Storage, **where: Any) -> tuple[Event, ...]:
    return (await storage.events(EventFilter(**where), 0, 1000)).items


def ended(task: Task) -> Task:
    return bump(task, status=TaskStatus.COMPLETED, ended_at=at(1), lease_until=None)
