"""Open entries: what an agent that names no task may still report about. Pure.

A message that an agent was sent leads to reports. While the attempt is in flight, they speak of
it. Once the attempt was taken from the agent (cancelled, timed out, lease lost), once the agent
was told to cancel, or once it answered directly, a report without a task id may still belong to
that: an entry stays open until the agent has reported or until the entry ends by itself.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from opscore.models import (
    Agent,
    Delivery,
    EntryKind,
    EventType,
    Failure,
    FailureCode,
    HoldReason,
    MessageType,
    OpenEntry,
    StateWord,
    Task,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft

_MAX_ENTRIES = 50

WITHOUT_OUTCOME = frozenset(
    {
        FailureCode.START_TIMEOUT,
        FailureCode.RUN_TIMEOUT,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.LEASE_LOST,
    }
)
"""Failures that say nothing of the agent's work: it may go on, and be reported later."""

_PERHAPS_NOT_SENT = frozenset(
    {FailureCode.LEASE_LOST, FailureCode.OUTCOME_UNKNOWN, FailureCode.UPSTREAM_ERROR}
)
_GATEWAY_STATUSES = frozenset({408, 500, 502, 504})
"""A gateway, AgentKit included, may answer so although the agent has the message."""


def leaves_outcome_open(failure: Failure) -> bool:
    """Return whether the agent may be at work although the attempt failed."""
    is_of_gateway = (
        failure.code is FailureCode.UPSTREAM_ERROR and failure.status in _GATEWAY_STATUSES
    )
    return is_of_gateway or failure.code in WITHOUT_OUTCOME


# --- opening ----------------------------------------------------------------------------------


def leave_unsettled(draft: Draft, task: Task, code: FailureCode | None = None) -> None:
    """Open an entry for an attempt that is taken from its agent without the agent's word.

    `code` is the failure, None for a cancel.
    """
    agent = draft.agent_by_id(task.agent_id)
    if agent is None or not _may_be_with_agent(task, agent, code, draft.ctx):
        return
    _leave(draft, agent, task, _holds(task, agent, code))


def _leave(draft: Draft, agent: Agent, task: Task, holds: bool) -> None:
    entry = _entry(draft, EntryKind.UNSETTLED, task, holds)
    _open(draft, agent, entry)
    if entry.holds:
        draft.event(
            EventType.AGENT_HELD,
            agent_id=agent.id,
            reason=HoldReason.UNSETTLED_ATTEMPT.value,
            until=entry.until.isoformat(),
            taskId=task.id,
        )


def expect_echo(draft: Draft, task: Task, kind: EntryKind) -> None:
    """Open an entry for a direct answer or a cancel message: `active`, `idle` may follow it."""
    agent = draft.agent_by_id(task.agent_id)
    if agent is None or task.message_type is MessageType.TOOL_INVOCATION:
        return
    _open(draft, agent, _entry(draft, kind, task, holds=False))


def tell_to_stop(draft: Draft, task: Task) -> None:
    """Have the agent told to cancel the attempt, and expect it to echo that message.

    An agent that does one thing at a time echoes it only once its work has ended.
    """
    draft.abandon(task)
    expect_echo(draft, task, EntryKind.CANCELLED)
    agent = draft.agent_by_id(task.agent_id)
    if agent is not None:
        entries = _mark_echo(agent.open_entries, (task.id, task.attempt), is_awaited=True)
        draft.agent(agent, open_entries=entries)


def take_back(draft: Draft, task: Task) -> None:
    """Take an attempt in flight from its agent, which has not said how it ended."""
    leave_unsettled(draft, task)
    tell_to_stop(draft, task)


def inherit_entries(
    draft: Draft, successor: Agent, predecessors: Iterable[Agent], at_work: Iterable[Task]
) -> None:
    """Leave open with an agent's new id what was open with its old ones.

    It may have registered again without a restart, and go on with the work of its old id.
    """
    by_id = {one.id: one for one in predecessors}
    for old in by_id.values():
        for entry in still_open(old.open_entries, draft.ctx.now):
            _open(draft, successor, entry)
    for task in at_work:
        holder = by_id.get(task.agent_id or "")
        if holder is not None and _may_be_with_agent(task, holder, None, draft.ctx):
            _leave(draft, successor, task, holds=successor.names_tasks is not True)


def _mark_echo(
    entries: tuple[OpenEntry, ...], task_attempt: tuple[str, int], *, is_awaited: bool
) -> tuple[OpenEntry, ...]:
    """Note whether the echo of a cancel is still to come, at the entry of the attempt."""
    return tuple(
        replace(entry, awaits_echo=is_awaited)
        if entry.task_attempt == task_attempt and not entry.kind.is_echo
        else entry
        for entry in entries
    )


def _holds(task: Task, agent: Agent, code: FailureCode | None) -> bool:
    """Return whether the agent gets no task for a while.

    An attempt that perhaps was never sent holds only an agent that is known to name no tasks.
    """
    is_direct = task.via is Delivery.DIRECT and code is not FailureCode.UPSTREAM_ERROR
    is_known_to_be_sent = task.active_at is not None or is_direct
    if code in _PERHAPS_NOT_SENT and not is_known_to_be_sent:
        return agent.names_tasks is False
    return agent.names_tasks is not True


def _may_be_with_agent(task: Task, agent: Agent, code: FailureCode | None, ctx: Context) -> bool:
    """Return whether the agent may have the message of this attempt.

    One that AgentKit accepted is delivered if its forwards are proved, and not if they are
    disproved. While nothing is known, silence until a deadline tells against it; a cancel does
    not wait that long.
    """
    if task.message_type is MessageType.TOOL_INVOCATION:
        return False
    if task.active_at is not None or task.early is not None or task.via is not Delivery.AGENTKIT:
        return True
    if code is None:
        return not ctx.forwards_miss(agent)
    return ctx.forwards_reach(agent)


def _entry(draft: Draft, kind: EntryKind, task: Task, holds: bool) -> OpenEntry:
    policy, now = draft.ctx.policy, draft.ctx.now
    early = task.early.active_at if task.early else None
    return OpenEntry(
        kind,
        task.id,
        task.session_id,
        task.step_id,
        task.attempt,
        since=now,
        until=now + (policy.echo_window if kind.is_echo else policy.unsettled_grace),
        active=kind is not EntryKind.CANCELLED and (task.active_at or early) is not None,
        holds=holds and bool(policy.unsettled_grace),
    )


def _open(draft: Draft, agent: Agent, entry: OpenEntry) -> None:
    """An answer takes the place of the entry that its own attempt had."""
    agent = draft.latest(agent)
    kept = [
        one
        for one in still_open(agent.open_entries, draft.ctx.now)
        if (one.task_id, one.attempt, one.kind.is_echo) != (entry.task_id, entry.attempt, False)
        or entry.kind is not EntryKind.ANSWERED
    ]
    draft.agent(agent, open_entries=(*kept, entry)[-_MAX_ENTRIES:])


# --- settling ---------------------------------------------------------------------------------


def still_open(entries: Iterable[OpenEntry], now: datetime) -> tuple[OpenEntry, ...]:
    return tuple(entry for entry in entries if entry.until > now)


def settle(
    entries: tuple[OpenEntry, ...], word: StateWord, ctx: Context
) -> tuple[OpenEntry | None, tuple[OpenEntry, ...]]:
    """Take a report without a task id for one of these open entries.

    Return the entry that the report speaks of, None if it fits none, and what stays open. Of
    several entries the one that ends first is taken: an echo comes within seconds, the end of
    an attempt may take its time.
    """
    match word:
        case StateWord.ACTIVE:
            return _begin(entries, ctx)
        case StateWord.IDLE:
            return _end(entries, [entry for entry in entries if entry.active], ctx)
        case StateWord.FINISHED | StateWord.ERROR:
            begun = [entry for entry in entries if entry.active]
            attempts = [entry for entry in entries if not entry.kind.is_echo]
            return _end(entries, begun or attempts or list(entries), ctx)
        case _:
            return None, entries


def _begin(
    entries: tuple[OpenEntry, ...], ctx: Context
) -> tuple[OpenEntry | None, tuple[OpenEntry, ...]]:
    """Mark an entry as active; once all are, `active` is a heartbeat of the one that ends last."""
    quiet = [entry for entry in entries if not entry.active]
    chosen = min(quiet, key=_ends) if quiet else max(entries, key=_ends)
    until = chosen.until if chosen.kind.is_echo else ctx.now + ctx.policy.unsettled_grace
    begun = replace(chosen, active=True, until=max(chosen.until, until))
    return chosen, tuple(begun if entry is chosen else entry for entry in entries)


def _end(
    entries: tuple[OpenEntry, ...], fitting: list[OpenEntry], ctx: Context
) -> tuple[OpenEntry | None, tuple[OpenEntry, ...]]:
    if not fitting:
        return None, entries
    chosen = min(fitting, key=_ends)
    left = tuple(entry for entry in entries if entry is not chosen)
    if chosen.kind is EntryKind.CANCELLED:
        return chosen, _mark_echo(left, chosen.task_attempt, is_awaited=False)
    return chosen, (*left, *_echo_to_come(chosen, left, ctx))


def _echo_to_come(
    ended: OpenEntry, left: tuple[OpenEntry, ...], ctx: Context
) -> tuple[OpenEntry, ...]:
    """Return the entry for the echo of a cancel that the agent reads only after its work.

    It holds the agent: the next task must neither get the echo nor lose its own reports to it.
    """
    is_expected = any(entry.task_attempt == ended.task_attempt for entry in left)
    if not ended.awaits_echo or is_expected:
        return ()
    until = ctx.now + ctx.policy.echo_window
    echo = replace(ended, kind=EntryKind.CANCELLED, since=ctx.now, until=until, active=False)
    return (replace(echo, holds=ended.holds, awaits_echo=False),)


def _ends(entry: OpenEntry) -> datetime:
    return entry.until


def holding(entries: Iterable[OpenEntry], names_tasks: bool | None) -> tuple[OpenEntry, ...]:
    """Return the entries as they hold an agent of which this is known."""
    return tuple(
        replace(entry, holds=_may_hold(entry) and names_tasks is not True) for entry in entries
    )


def _may_hold(entry: OpenEntry) -> bool:
    return entry.holds or not entry.kind.is_echo
