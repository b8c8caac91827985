"""Transfer: everything out of the dictionaries, and into empty ones."""

from collections.abc import Iterable
from operator import attrgetter

from opscore.models import (
    AgentKitKnowledge,
    Event,
    IdempotencyRecord,
    WebhookReceipt,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.memory.contents import Contents
from opscore.storage.portable import (
    EarlyReport,
    KeptAgent,
    KeptTask,
    LastEvent,
    Portable,
    ServedTurn,
)

_by_expiry = attrgetter("expires_at")


def snapshot(contents: Contents) -> list[Iterable[Portable]]:
    """Return the records by kind, as they are now.

    Only references are copied at this moment, since nobody else runs meanwhile; agents and tasks
    become portable when they are read. Records are frozen, so they stay as they were.
    """
    records = contents.records
    lanes, places = records.lanes, records.lanes.places()
    agents = [(agent, lanes.last_used(agent.id)) for agent in records.agents.values()]
    tasks = list(records.tasks.values())
    return [
        [LastEvent(records.events.last_seq)],
        [saved for revisions in records.workflows.values() for saved in revisions],
        (KeptAgent(agent, last_used) for agent, last_used in agents),
        list(records.sessions.values()),
        (KeptTask(task, *places.get(task.id, ())) for task in tasks),
        [ServedTurn(lane, *key, turn) for lane, key, turn in lanes.served_turns()],
        list(records.events.all()),
        [EarlyReport(report, at) for at, report in contents.early.values()],
        list(contents.receipts.values()),
        list(contents.keys.values()),
        list(contents.agentkits.values()),
    ]


def restore(contents: Contents, record: Portable) -> None:
    """Put a record where it belongs, as it was."""
    records = contents.records
    match record:
        case LastEvent(seq):
            records.events.restore_last_seq(seq)
        case WorkflowRevision():
            records.workflows.setdefault(record.id, []).append(record)
        case KeptAgent(agent, last_used):
            records.lanes.restore_use(agent.id, last_used)
            records.put_agent(agent)
        case WorkflowSession():
            records.put_session(record)
        case KeptTask(task, turn, arrival):
            records.put_task(task, (turn, arrival))
        case ServedTurn(lane, needs_agentkit, priority, turn):
            records.lanes.restore_turn(lane, (needs_agentkit, priority), turn)
        case Event():
            records.events.restore((record,))
        case EarlyReport(report, received_at):
            contents.early[report.agent_id] = (received_at, report)
        case WebhookReceipt():
            contents.receipts[record.signature] = record
        case IdempotencyRecord():
            contents.keys[record.key] = record
        case AgentKitKnowledge():
            contents.agentkits[record.agentkit] = record


def in_order(contents: Contents) -> None:
    """The dictionaries are kept in the order of time, and forget from their old end."""
    contents.records.order()
    contents.early = dict(sorted(contents.early.items(), key=lambda item: (item[1][0], item[0])))
    contents.receipts = {
        one.signature: one for one in sorted(contents.receipts.values(), key=_by_expiry)
    }
    contents.keys = {one.key: one for one in sorted(contents.keys.values(), key=_by_expiry)}
