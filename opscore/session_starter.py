"""Starting sessions: what a trigger must meet, and that a repeated one starts nothing twice."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import orjson

from opscore.crash_points import crash_point
from opscore.exceptions import (
    AgentNotFoundError,
    AgentRequiredError,
    ConflictError,
    DrainingError,
    Fault,
    IdempotencyInProgressError,
    IdempotencyKeyUsedError,
    IdempotencyMismatchError,
    QueueFullError,
    VersionConflictError,
)
from opscore.models import (
    IdempotencyRecord,
    MessageType,
    Standing,
    WorkflowDefinition,
    WorkflowRevision,
)
from opscore.workflow.catalog import Catalog
from opscore.workflow.engine import Engine

IDEMPOTENCY_AGE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A wish to start a workflow: a saved one by id, or the definition that came along.

    Without an agent every step must name its own, or a capability.
    """

    agent_id: str | None
    payload: dict[str, Any]
    workflow_id: str | None = None
    definition: WorkflowDefinition | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A session that was started, now or by the first request with the same key."""

    id: str
    workflow_id: str


class SessionStarter:
    """Starts sessions, unless the service drains or too much waits already."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        queue_limit: int,
        queue_bytes: int,
        make_id: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._catalog = catalog
        self._queue_limit = queue_limit
        self._queue_bytes = queue_bytes
        self._make_id = make_id
        self._keys_in_progress: set[str] = set()
        self.draining = False

    async def start(self, trigger: Trigger, key: str | None = None) -> Started:
        """Start a workflow. With a key, the same request again gives the same session."""
        if key is None:
            return await self._start(trigger, None)
        if key in self._keys_in_progress:
            raise IdempotencyInProgressError(
                "The first request with this Idempotency-Key is still at work; ask again shortly.",
                retry_after=1,
            )
        self._keys_in_progress.add(key)
        try:
            return await self._start_once(trigger, key)
        finally:
            self._keys_in_progress.discard(key)

    async def _start_once(self, trigger: Trigger, key: str) -> Started:
        fingerprint = _fingerprint(trigger)
        known = await self._storage.idempotency(key, self._engine.clock.now())
        if known is None:
            expires_at = self._engine.clock.now() + IDEMPOTENCY_AGE
            record = IdempotencyRecord(key, fingerprint, self._make_id(), expires_at)
            try:
                return await self._start(trigger, record)
            except IdempotencyKeyUsedError:
                known = await self._storage.idempotency(key, self._engine.clock.now())
        if known is None or known.fingerprint != fingerprint:
            raise IdempotencyMismatchError(
                "This Idempotency-Key was used with another request; take a new key."
            )
        return Started(known.session_id, known.workflow_id)

    async def _start(self, trigger: Trigger, record: IdempotencyRecord | None) -> Started:
        await self._check_room()
        if trigger.agent_id is not None:
            await self._check_agent(trigger.agent_id)
        definition, revision, saved = await self._definition(trigger)
        if trigger.agent_id is None:
            _check_names_agents(definition)
        if record is not None:
            record = replace(record, workflow_id=definition.id)
        session_id = record.session_id if record else self._make_id()
        crash_point("trigger.checked")
        start = partial(
            self._engine.start_session,
            session_id,
            definition,
            agent_id=trigger.agent_id,
            payload=trigger.payload,
            idempotency=record,
        )
        try:
            await start(revision=revision, saved=saved)
        except VersionConflictError:
            if saved is None:
                raise
            # Another definition was saved under the id meanwhile; that one stays.
            await start(revision=0)
        crash_point("trigger.committed")
        return Started(session_id, definition.id)

    async def _check_room(self) -> None:
        if self.draining:
            raise DrainingError("The service is shutting down; try again shortly.", retry_after=5)
        counts = await self._storage.counts()
        if counts.waiting >= self._queue_limit:
            raise QueueFullError(
                "As many tasks wait as OPSCORE_QUEUE_LIMIT allows; try again later.", retry_after=5
            )
        if counts.waiting_bytes >= self._queue_bytes:
            raise QueueFullError(
                "What waits takes as many bytes as OPSCORE_QUEUE_BYTES allows; try again later.",
                retry_after=5,
            )

    async def _check_agent(self, agent_id: str) -> None:
        candidate = await self._storage.agent(agent_id)
        if candidate is None:
            raise unknown_agent()
        agent = candidate.agent
        if agent.replaced_by is not None:
            raise ConflictError(f"The agent goes on as {agent.replaced_by}; use that id.")
        if agent.standing is Standing.DEREGISTERED:
            raise ConflictError("The agent was deregistered; choose another one.")

    async def _definition(
        self, trigger: Trigger
    ) -> tuple[WorkflowDefinition, int, WorkflowRevision | None]:
        """The definition to run, its revision, and what of it is yet to be saved.

        One that came along is saved if its id is new; else it runs and the saved one stays.
        """
        given = trigger.definition
        if given is None:
            known = await self._catalog.get_workflow_definition(trigger.workflow_id or "")
            return known.definition, known.revision, None
        saved = await self._storage.workflow(given.id)
        if saved is None:
            return given, 1, WorkflowRevision(given, 1, self._engine.clock.now())
        return given, saved.revision if saved.definition == given else 0, None


def unknown_agent() -> AgentNotFoundError:
    return AgentNotFoundError("No agent has this id; GET agents lists those that are known.")


def _fingerprint(trigger: Trigger) -> str:
    parts = [
        trigger.agent_id,
        trigger.workflow_id,
        repr(trigger.definition) if trigger.definition else None,
        trigger.payload,
    ]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check_names_agents(definition: WorkflowDefinition) -> None:
    message = "Name an agentId or an agentCapability here, or give the session an agentId."
    faults = [
        Fault(f"/tasks/{number}", message, "agent_required")
        for number, step in enumerate(definition.tasks)
        if step.message_type is MessageType.WORKFLOW_TASK
        and step.agent_id is None
        and step.agent_capability is None
    ]
    if faults:
        raise AgentRequiredError(
            "The session has no agent, but steps of its workflow need one: give an agentId, or "
            "name an agentId or agentCapability in each step that errors lists.",
            faults=faults,
        )
