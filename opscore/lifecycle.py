"""Use cases: what agents, AgentKit and operators ask of the service."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from opscore.agentkit_client.addresses import check_endpoint
from opscore.crash_points import crash_point
from opscore.exceptions import (
    AgentNotFoundError,
    ConflictError,
    SessionNotFoundError,
    TaskNotFoundError,
)
from opscore.ids import new_id
from opscore.models import (
    ANY_ENDPOINT,
    AgentState,
    Candidate,
    DispatchMode,
    EndpointPolicy,
    LaneFacts,
    Registration,
    SessionStatus,
    StateReport,
    StateWord,
    Task,
    TaskResult,
    WebhookReceipt,
    WorkflowSession,
)
from opscore.session_starter import SessionStarter, Started, Trigger, unknown_agent
from opscore.workflow import decisions
from opscore.workflow.catalog import Catalog
from opscore.workflow.engine import Engine
from opscore.workflow.progress import explain_progress, possible_actions
from opscore.workflow.queue import Explanation, Gate, PendingReason, explain, pending_reason
from opscore.workflow.session_waiter import SessionWaiter

_RECEIPT_AGE = timedelta(minutes=10)
_CANDIDATES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Limits:
    queue: int = 1_000_000
    queue_bytes: int = 1024**3
    endpoints: EndpointPolicy = ANY_ENDPOINT


class Lifecycle:
    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        limits: Limits,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._endpoints = limits.endpoints
        self._starter = SessionStarter(engine, catalog, limits.queue, limits.queue_bytes, make_id)
        self._waiter = SessionWaiter(engine)

    # --- agents ---------------------------------------------------------------------------

    async def register_agent(
        self, registration: Registration, signature: str | None = None
    ) -> tuple[Candidate, bool]:
        """The agent as it is now, and whether it is new."""
        if registration.contact_endpoint is not None:
            check_endpoint(registration.contact_endpoint, self._endpoints)
        registered = await self._engine.register(registration, self._receipt(signature))
        return await self.get_agent(registration.agent_id), registered.created

    async def get_agent(self, agent_id: str) -> Candidate:
        candidate = await self._storage.agent(agent_id)
        if candidate is None:
            raise unknown_agent()
        return candidate

    async def update_agent(
        self, agent_id: str, changes: dict[str, Any], draining: bool | None = None
    ) -> Candidate:
        """Change the given fields, and only these, all at once."""
        endpoint = changes.get("contact_endpoint")
        if endpoint is not None:
            check_endpoint(endpoint, self._endpoints)
        change = await self._engine.change_agent(
            agent_id, lambda agent, ctx: decisions.update_agent(agent, changes, draining, ctx)
        )
        if change is None:
            raise unknown_agent()
        crash_point("agent.changed")
        return await self.get_agent(agent_id)

    async def deregister_agent(self, agent_id: str, signature: str | None = None) -> Candidate:
        """Give the agent no more tasks; those that wait for it alone fail soon after."""
        receipt = self._receipt(signature)
        change = await self._engine.change_agent(
            agent_id, lambda agent, ctx: decisions.deregister_agent(agent, ctx, receipt)
        )
        if change is None:
            if receipt is not None:
                await self._engine.keep_receipt(receipt)
            raise unknown_agent()
        crash_point("agent.deregistered")
        return await self.get_agent(agent_id)

    async def drain_agent(self, agent_id: str) -> Candidate:
        return await self.update_agent(agent_id, {}, draining=True)

    def _receipt(self, signature: str | None) -> WebhookReceipt | None:
        if signature is None:
            return None
        return WebhookReceipt(signature, self._engine.clock.now() + _RECEIPT_AGE)

    # --- states ---------------------------------------------------------------------------

    async def set_state(self, report: StateReport) -> str | None:
        """Take a state report; return the sentence that says why it moved no task, if it should."""
        crash_point("report.received")
        change = await self._engine.agent_reported(report)
        if change is None:
            raise AgentNotFoundError(
                "No agent has this id. The report is kept for a minute and counts if the "
                "agent's registration follows."
            )
        crash_point("report.committed")
        return change.uncounted

    async def get_state(self, agent_id: str) -> AgentState:
        """The newest state that the agent reported, or that it has not reported any yet."""
        agent = (await self.get_agent(agent_id)).agent
        return agent.state or AgentState(
            state="UNKNOWN",
            word=StateWord.UNKNOWN,
            details={"reason": "Initial registration"},
            timestamp=agent.registered_at,
            received_at=agent.registered_at,
        )

    # --- sessions -------------------------------------------------------------------------

    async def start_session(self, trigger: Trigger, key: str | None = None) -> Started:
        """Start a workflow. With a key, the same request again gives the same session."""
        return await self._starter.start(trigger, key)

    @property
    def draining(self) -> bool:
        return self._starter.draining

    def drain(self) -> None:
        """Start no sessions from now on, and end the waits for the end of sessions."""
        self._starter.draining = True
        self._waiter.stop()

    async def wait_for_end(self, session_id: str, seconds: float) -> WorkflowSession | None:
        """Return the session once it has ended; None if it has not after so many seconds."""
        return await self._waiter.wait(session_id, seconds) if seconds else None

    async def get_session(self, session_id: str) -> WorkflowSession:
        session = await self._storage.session(session_id)
        if session is None:
            raise _no_session()
        return session

    async def update_session(self, session_id: str, metadata: dict[str, Any]) -> WorkflowSession:
        """Merge into the session's metadata; null takes a key away."""
        if await self._engine.update_session(session_id, metadata) is None:
            raise _no_session()
        return await self.get_session(session_id)

    async def cancel_session(self, session_id: str, reason: str) -> WorkflowSession:
        """End it now: waiting tasks never run, running ones are told to stop."""
        session = await self.get_session(session_id)
        if session.status is SessionStatus.CANCELLED:
            return session
        if session.status.ended:
            raise ConflictError(f"The session has ended already; it is {session.status.value}.")
        await self._engine.cancel_session(session_id, reason)
        crash_point("cancel.committed")
        return await self.get_session(session_id)

    async def retry_session(self, session_id: str) -> WorkflowSession:
        """Go on from the task that it failed at; earlier results are kept."""
        if await self._engine.retry_session(session_id) is None:
            raise _no_session()
        return await self.get_session(session_id)

    # --- tasks ----------------------------------------------------------------------------

    async def get_task(self, task_id: str) -> Task:
        facts = await self._storage.task_facts(task_id)
        if facts is None:
            raise _no_task()
        return facts.task

    async def report_result(self, task_id: str, result: TaskResult) -> bool:
        """Whether it counted; a late or doubled one is recorded and changes nothing."""
        crash_point("result.received")
        change = await self._engine.task_reported(task_id, result)
        if change is None:
            raise _no_task()
        crash_point("result.committed")
        return bool(change.tasks)

    async def heartbeat(self, task_id: str, progress: Any, attempt: int | None) -> Task:
        if await self._engine.task_heartbeat(task_id, progress, attempt) is None:
            raise _no_task()
        crash_point("heartbeat.committed")
        return await self.get_task(task_id)

    async def retry_task(self, task_id: str, attempt: int | None = None) -> Task:
        """Have it tried again now, whatever it is doing."""
        if await self._engine.retry_task(task_id, attempt) is None:
            raise _no_task()
        return await self.get_task(task_id)

    async def cancel_task(self, task_id: str, reason: str) -> Task:
        """End it as failed; its fallback or the end of its session follows."""
        if await self._engine.cancel_task(task_id, reason) is None:
            raise _no_task()
        return await self.get_task(task_id)

    @property
    def mode(self) -> DispatchMode:
        return self._engine.policy.mode

    async def explain(self, task: Task, gate: Gate | None) -> Explanation:
        """Say why the task waits or what happens to it, and what an operator can do."""
        facts = await self._storage.task_facts(task.id)
        if facts is None:
            raise _no_task()
        if facts.task.status.waiting:
            lane = await self._storage.lane(facts.task, _CANDIDATES_SHOWN)
            found = explain(facts.task, lane, gate, self.mode)
        else:
            found = explain_progress(facts)
        return replace(found, actions=possible_actions(facts))

    async def open_tasks(
        self, session: WorkflowSession, gate: Gate | None
    ) -> list[tuple[Task, PendingReason]]:
        """The tasks that the session waits for, each with what it waits for itself."""
        facts = None if session.status.ended else await self._storage.session_facts(session.id)
        tasks = [task for task in facts.tasks if not task.status.ended] if facts else []
        return [(task, (await self.explain(task, gate)).reason) for task in tasks]

    async def pending_reasons(
        self, tasks: tuple[Task, ...], gate: Gate | None
    ) -> dict[str, PendingReason]:
        """Why each of the waiting tasks waits."""
        lanes: dict[str, LaneFacts] = {}
        reasons: dict[str, PendingReason] = {}
        for task in tasks:
            if not task.status.waiting:
                continue
            if task.lane not in lanes:
                facts = await self._storage.lane(task, _CANDIDATES_SHOWN)
                # The place in the queue is each task's own; who asks for one task gets it.
                lanes[task.lane] = replace(facts, ahead=None)
            reasons[task.id] = pending_reason(task, lanes[task.lane], gate, self.mode)
        return reasons


def _no_session() -> SessionNotFoundError:
    return SessionNotFoundError("No session has this id; ended ones are kept only for a while.")


def _no_task() -> TaskNotFoundError:
    return TaskNotFoundError("No task has this id; ended ones are kept only for a while.")
