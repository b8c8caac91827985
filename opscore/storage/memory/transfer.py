"""Transfer: everything out of the dictionaries, and into empty ones."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from opscore.models import (
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


def shelves_of(contents: Contents) -> Iterator[Iterable[Portable]]:
    """The records by kind. They are frozen: whoever holds them sees them as they were."""
    records = contents.records
    lanes, places = records.lanes, records.lanes.places()
    yield (LastEvent(records.events.last_seq),)
    yield (saved for revisions in records.workflows.values() for saved in revisions)
    yield (KeptAgent(agent, lanes.last_used(agent.id)) for agent in records.agents.values())
    yield records.sessions.values()
    yield (KeptTask(task, *places.get(task.id, ())) for task in records.tasks.values())
    yield (ServedTurn(lane, *key, turn) for lane, key, turn in lanes.served_turns())
    yield records.events.all()
    yield (EarlyReport(report, at) for at, report in contents.early.values())
    yield contents.receipts.values()
    yield contents.keys.values()


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


def in_order(contents: Contents) -> None:
    """The dictionaries are kept in the order of time, and forget from their old end."""
    contents.records.order()
    contents.early = dict(sorted(contents.early.items(), key=lambda item: (item[1][0], item[0])))
    contents.receipts = {
        one.signature: one for one in sorted(contents.receipts.values(), key=_by_expiry)
    }
    contents.keys = {one.key: one for one in sorted(contents.keys.values(), key=_by_expiry)}
