"""Decisions about whole sessions."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from opscore.models import (
    Change,
    EventType,
    IdempotencyRecord,
    SessionFacts,
    SessionStatus,
    WorkflowDefinition,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.metadata import check_metadata
from opscore.workflow.decisions.steps import cancel_tasks, start_step

# Shared by all the sessions that wait without any.
_NO_INPUT: Mapping[str, Any] = {}


def start_session(
    session_id: str,
    definition: WorkflowDefinition,
    revision: int,
    agent_id: str | None,
    payload: Mapping[str, Any],
    ctx: Context,
    idempotency: IdempotencyRecord | None = None,
    saved: WorkflowRevision | None = None,
) -> Change:
    """A new session and its first task; the payload is merged over that task's parameters.

    A definition that came along and is `saved` under its id is written with the session.
    """
    draft = Draft(ctx)
    if saved is not None:
        draft.event(EventType.WORKFLOW_SAVED, workflowId=saved.id, revision=saved.revision)
    session = WorkflowSession(
        id=session_id,
        definition=definition,
        workflow_revision=revision,
        created_at=ctx.now,
        agent_id=agent_id,
        input=payload or _NO_INPUT,
        deadline_at=session_deadline(definition, ctx.now),
    )
    session = draft.session(session)
    draft.session_event(EventType.SESSION_STARTED, session, workflowId=definition.id)
    start_step(draft, session, definition.first(), overrides=payload)
    return replace(draft.change(), idempotency=idempotency, workflow=saved)


def session_deadline(definition: WorkflowDefinition, now: datetime) -> datetime | None:
    return now + definition.timeout if definition.timeout else None


def cancel_session(facts: SessionFacts, reason: str, ctx: Context) -> Change:
    draft = Draft(ctx, *facts.agents)
    if not facts.session.status.ended:
        cancel_tasks(draft, facts.tasks, reason)
        session = draft.session(
            facts.session,
            status=SessionStatus.CANCELLED,
            ended_at=ctx.now,
            error={"code": "cancelled", "message": reason},
        )
        draft.session_event(EventType.SESSION_CANCELLED, session, reason=reason)
    return draft.change()


def update_session(session: WorkflowSession, metadata: Mapping[str, Any], ctx: Context) -> Change:
    """Merge into the metadata; a value of None takes its key away."""
    draft = Draft(ctx)
    merged = {**session.metadata, **metadata}
    kept = {key: value for key, value in merged.items() if value is not None}
    check_metadata(kept, "a session")
    session = draft.session(session, metadata=kept)
    draft.session_event(EventType.SESSION_UPDATED, session, keys=sorted(metadata))
    return draft.change()
