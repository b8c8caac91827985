"""Transfer: everything out of a database portion by portion, and into an empty one."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from opscore.exceptions import ConfigurationError
from opscore.models import (
    AgentKitKnowledge,
    Event,
    IdempotencyRecord,
    WebhookReceipt,
    WorkflowRevision,
)
from opscore.models import WorkflowSession as Session
from opscore.storage.ordering import lanes_of
from opscore.storage.portable import (
    EarlyReport,
    KeptAgent,
    KeptTask,
    LastEvent,
    Portable,
    ServedTurn,
)
from opscore.storage.sql.codec import (
    DefinitionTexts,
    dump,
    load_agent,
    load_agentkit,
    load_definition,
    load_event,
    load_report,
    load_session,
    load_task,
    micros,
    moment,
)
from opscore.storage.sql.driver import Driver
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import (
    AGENT_COLUMNS,
    EVENT_COLUMNS,
    KNOWLEDGE_COLUMNS,
    SESSION_COLUMNS,
    TASK_COLUMNS,
    Rows,
    agent_row,
    agentkit_row,
    event_row,
    insert,
    lane_of,
    level_text,
    priority_of,
    session_row,
    task_row,
)
from opscore.storage.sql.tallies import WAITING_BYTES

_LEAST = -(1 << 62)
_PORTION_SIZE = 8 * 1024 * 1024
"""The length of texts that an export holds at a time: a single session may have 16 MiB."""


# --- out ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shelf:
    """Records of one kind, read in the order of their key.

    The key columns come first in each row. `size` is the length of a row's texts, and `rows` is
    what stands after FROM.
    """

    key: tuple[str, ...]
    columns: str
    rows: str
    size: str
    start: tuple[Any, ...]
    make: Callable[[Row], Portable]

    def portion(self, after: tuple[Any, ...], limit: int) -> Program[Sequence[Row]]:
        """Return the next rows, at most `limit` and of bounded size together, but at least one."""
        sizes = yield Fetch(self._select(self.size), (*after, limit))
        fitting = _count_fitting(row[0] for row in sizes)
        if not fitting:
            return ()
        columns = f"{', '.join(self.key)}, {self.columns}"
        return (yield Fetch(self._select(columns), (*after, fitting)))

    def _select(self, columns: str) -> str:
        key = ", ".join(self.key)
        marks = ", ".join("?" for _ in self.key)
        return f"SELECT {columns} FROM {self.rows} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT ?"


def _count_fitting(sizes: Iterable[int]) -> int:
    """Return how many of the first rows fit into a portion; the first one always does."""
    sums = accumulate(sizes)
    return sum(1 for place, total in enumerate(sums) if place == 0 or total <= _PORTION_SIZE)


_SHELVES = (
    Shelf(
        ("workflows.id", "revision"),
        "saved_at, definitions.doc",
        "workflows JOIN definitions ON definitions.hash = workflows.definition",
        "length(definitions.doc)",
        ("", 0),
        lambda row: WorkflowRevision(load_definition(row[3]), row[1], moment(row[2])),
    ),
    Shelf(
        ("id",),
        "doc, last_used",
        "agents",
        "length(doc)",
        ("",),
        lambda row: KeptAgent(load_agent(row[1]), row[2]),
    ),
    Shelf(
        ("sessions.created_at", "sessions.id"),
        "sessions.doc, definitions.doc",
        "sessions JOIN definitions ON definitions.hash = sessions.definition",
        "length(sessions.doc) + length(definitions.doc)",
        (_LEAST, ""),
        lambda row: load_session(row[2], row[3]),
    ),
    Shelf(
        ("created_at", "id"),
        "doc, status, turn, arrival",
        "tasks",
        "length(doc)",
        (_LEAST, ""),
        lambda row: KeptTask(load_task(row[2]), *(row[4:6] if row[3] == "queued" else (0, 0))),
    ),
    Shelf(
        ("level",),
        "turn",
        "turns",
        "length(level)",
        ("",),
        lambda row: ServedTurn(lane_of(row[0]), row[0][-2] == "1", priority_of(row[0]), row[1]),
    ),
    Shelf(
        ("seq",),
        "at, type, agent_id, session_id, task_id, data",
        "events",
        "length(data)",
        (_LEAST,),
        load_event,
    ),
    Shelf(
        ("agent_id",),
        "doc, received_at",
        "early_reports",
        "length(doc)",
        ("",),
        lambda row: EarlyReport(load_report(row[1]), moment(row[2])),
    ),
    Shelf(
        ("signature",),
        "expires_at",
        "webhook_receipts",
        "length(signature)",
        ("",),
        lambda row: WebhookReceipt(row[0], moment(row[1])),
    ),
    Shelf(
        ("key",),
        "fingerprint, session_id, expires_at, workflow_id",
        "idempotency_keys",
        "length(key)",
        ("",),
        lambda row: IdempotencyRecord(row[0], row[1], row[2], moment(row[3]), row[4]),
    ),
    Shelf(
        ("agentkit",),
        "doc",
        "agentkit_knowledge",
        "length(doc)",
        ("",),
        lambda row: load_agentkit(row[1]),
    ),
)


def _last_event() -> Program[LastEvent]:
    rows = yield Fetch("SELECT value FROM counters WHERE name = 'events'")
    return LastEvent(rows[0][0])


async def export(driver: Driver, batch: int) -> AsyncGenerator[Sequence[Portable], None]:
    async with driver.transaction(writing=False) as run:
        yield [await run(_last_event())]
        for shelf in _SHELVES:
            after = shelf.start
            while rows := await run(shelf.portion(after, batch)):
                yield [shelf.make(row) for row in rows]
                after = tuple(rows[-1][: len(after)])


# --- in -----------------------------------------------------------------------------------------

_FILLED = (
    "agents",
    "workflows",
    "sessions",
    "tasks",
    "events",
    "early_reports",
    "webhook_receipts",
    "idempotency_keys",
    "agentkit_knowledge",
)

# What follows from the records, and is kept beside them so that nobody has to count.
_DERIVED = (
    "UPDATE agents SET in_flight = (SELECT count(*) FROM tasks WHERE agent_id = agents.id "
    "AND (status = 'dispatched' OR status = 'running'))",
    "DELETE FROM tallies",
    "INSERT INTO tallies (name, value) SELECT 'agents', count(*) FROM agents",
    "INSERT INTO tallies (name, value) SELECT 'sessions', count(*) FROM sessions",
    "INSERT INTO tallies (name, value) SELECT 'events', count(*) FROM events",
    "INSERT INTO tallies (name, value) SELECT 'tasks.' || status, count(*) FROM tasks "
    "GROUP BY status",
    f"INSERT INTO tallies (name, value) SELECT '{WAITING_BYTES}', "
    "coalesce(sum(queue_bytes), 0) FROM tasks WHERE status = 'queued' OR status = 'delayed'",
)


async def load(driver: Driver, batches: AsyncIterable[Sequence[Portable]]) -> None:
    texts = DefinitionTexts()
    async with driver.transaction(writing=True) as run:
        await run(_begin(driver.dialect))
        async for batch in batches:
            await run(_store(batch, texts))
        await run(_derive())


def _begin(dialect: Dialect) -> Program[None]:
    """Hold what every writer of events needs, and see that nothing has been written yet."""
    yield Fetch(dialect.sql("SELECT value FROM counters ORDER BY name {lock}"))
    for table in _FILLED:
        if (yield Fetch(f"SELECT 1 FROM {table} LIMIT 1")):
            raise ConfigurationError(
                "OPSCORE_STORAGE_URL: the storage is not empty, and what is imported would mix "
                "with what is there; name an empty one."
            )
    yield Execute("DELETE FROM turns")


def _derive() -> Program[None]:
    for sql in _DERIVED:
        yield Execute(sql)


def _store(batch: Sequence[Portable], texts: DefinitionTexts) -> Program[None]:
    """A batch is of one kind."""
    if batch:
        yield from _STORES[type(batch[0])](batch, texts)


def _store_last_event(records: Sequence[LastEvent], _: DefinitionTexts) -> Program[None]:
    yield Execute(
        "UPDATE counters SET value = ? WHERE name = 'events'", [(one.seq,) for one in records]
    )


def _store_agents(records: Sequence[KeptAgent], _: DefinitionTexts) -> Program[None]:
    columns = (*AGENT_COLUMNS, "last_used")
    rows = [(*agent_row(one.agent), one.last_used) for one in records]
    yield Execute(insert("agents", columns), rows)
    lanes = [(lane, one.agent.id) for one in records for lane in dict.fromkeys(lanes_of(one.agent))]
    yield Execute(insert("agent_lanes", ("lane", "agent_id")), lanes)


def _store_definitions(
    records: Sequence[WorkflowRevision | Session], texts: DefinitionTexts
) -> Program[None]:
    yield Execute(
        f"{insert('definitions', ('hash', 'doc'))} ON CONFLICT (hash) DO NOTHING",
        sorted({texts.of(one.definition) for one in records}),
    )


def _store_workflows(records: Sequence[WorkflowRevision], texts: DefinitionTexts) -> Program[None]:
    yield from _store_definitions(records, texts)
    columns = ("id", "revision", "saved_at", "definition")
    yield Execute(
        insert("workflows", columns),
        [(r.id, r.revision, micros(r.saved_at), texts.of(r.definition)[0]) for r in records],
    )


def _store_sessions(records: Sequence[Session], texts: DefinitionTexts) -> Program[None]:
    yield from _store_definitions(records, texts)
    rows = [session_row(one, texts.of(one.definition)) for one in records]
    yield Execute(insert("sessions", SESSION_COLUMNS), rows)


def _plainly(
    table: str, columns: tuple[str, ...], row: Callable[[Any], tuple[Any, ...]]
) -> Callable[[Sequence[Any], DefinitionTexts], Program[None]]:
    def store(records: Sequence[Any], _: DefinitionTexts) -> Program[None]:
        rows: Rows = [row(one) for one in records]
        yield Execute(insert(table, columns), rows)

    return store


_STORES: Mapping[type, Callable[[Sequence[Any], DefinitionTexts], Program[None]]] = {
    LastEvent: _store_last_event,
    WorkflowRevision: _store_workflows,
    KeptAgent: _store_agents,
    Session: _store_sessions,
    KeptTask: _plainly(
        "tasks", TASK_COLUMNS, lambda one: task_row(one.task, one.turn, one.arrival)
    ),
    ServedTurn: _plainly(
        "turns",
        ("level", "turn"),
        lambda one: (level_text(one.lane, one.needs_agentkit, one.priority), one.turn),
    ),
    Event: _plainly("events", EVENT_COLUMNS, lambda one: event_row(one, one.seq)),
    EarlyReport: _plainly(
        "early_reports",
        ("agent_id", "received_at", "doc"),
        lambda one: (one.report.agent_id, micros(one.received_at), dump(one.report)),
    ),
    WebhookReceipt: _plainly(
        "webhook_receipts",
        ("signature", "expires_at"),
        lambda one: (one.signature, micros(one.expires_at)),
    ),
    IdempotencyRecord: _plainly(
        "idempotency_keys",
        ("key", "fingerprint", "session_id", "workflow_id", "expires_at"),
        lambda one: (
            one.key,
            one.fingerprint,
            one.session_id,
            one.workflow_id,
            micros(one.expires_at),
        ),
    ),
    AgentKitKnowledge: _plainly("agentkit_knowledge", KNOWLEDGE_COLUMNS, agentkit_row),
}
