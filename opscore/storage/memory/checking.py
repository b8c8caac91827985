"""Whether a change fits what is stored."""

from collections.abc import Iterable, Mapping

from opscore.exceptions import (
    IdempotencyKeyUsedError,
    VersionConflictError,
    WebhookReplayedError,
)
from opscore.models import Agent, AgentKitKnowledge, Change, Task, WorkflowSession
from opscore.storage.fitting import has_heard, only_told_of
from opscore.storage.memory.contents import Contents

Record = Agent | WorkflowSession | Task


def check(contents: Contents, change: Change) -> None:
    """Raise what is in its way."""
    records = contents.records
    if not (
        _fit(change.sessions, records.sessions)
        and _fit(change.tasks, records.tasks)
        and _fit(change.agents, records.agents)
        and records.sessions.keys() >= only_told_of(change)
        and all(_has_heard(contents, agent) for agent in change.agents)
        and _fits_agentkit(contents, change.agentkit)
    ):
        raise VersionConflictError("The record was changed by someone else meanwhile.")
    if change.workflow is not None:
        revisions = records.workflows.get(change.workflow.id, [])
        if change.workflow.revision != (revisions[-1].revision if revisions else 0) + 1:
            raise VersionConflictError("The workflow was saved by someone else meanwhile.")
    if change.receipt is not None and change.receipt.signature in contents.receipts:
        raise WebhookReplayedError("This webhook was received before.")
    if change.idempotency is not None and change.idempotency.key in contents.keys:
        raise IdempotencyKeyUsedError("This Idempotency-Key is in use.")


def _fit(given: Iterable[Record], stored: Mapping[str, Record]) -> bool:
    return all(
        record.rev == (stored[record.id].rev if record.id in stored else 0) + 1 for record in given
    )


def _fits_agentkit(contents: Contents, learned: AgentKitKnowledge | None) -> bool:
    if learned is None:
        return True
    stored = contents.agentkits.get(learned.agentkit)
    return learned.rev == (stored.rev if stored else 0) + 1


def _has_heard(contents: Contents, agent: Agent) -> bool:
    if agent.rev > 1 or agent.id not in contents.early:
        return True
    received_at, early = contents.early[agent.id]
    return has_heard(agent, early, received_at)
