"""A batch of changes: what is stored of everything they touch, and which of them fit it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from opscore.exceptions import (
    IdempotencyKeyUsedError,
    OpsCoreError,
    VersionConflictError,
    WebhookReplayedError,
)
from opscore.models import Agent, Change, Task, TaskStatus, WorkflowSession
from opscore.storage.fitting import has_heard, only_told_of
from opscore.storage.sql.codec import DefinitionTexts, dump, load_report, moment
from opscore.storage.sql.program import Dialect, Fetch, Program, Row
from opscore.storage.sql.rows import flow_of, level_of
from opscore.storage.sql.tallies import Tally, tasks_tally, weight

Verdicts = list[OpsCoreError | None]

REGISTERING = 7265672
"""Passed by whoever stores a new agent or a report of an unknown one: neither has a row yet."""

# Each gives rows of one form: kind, id, number, three texts, three numbers.
_ARMS = {
    "task": "SELECT 'task' AS kind, id, rev AS number, status AS a, agent_id AS b, level AS c, "
    "turn AS m, arrival AS n, queue_bytes AS k FROM tasks WHERE id {among} ORDER BY id {lock}",
    "session": "SELECT 'session' AS kind, id, rev AS number, '' AS a, '' AS b, '' AS c, "
    "0 AS m, 0 AS n, 0 AS k FROM sessions WHERE id {among} ORDER BY id {lock}",
    "agent": "SELECT 'agent' AS kind, id, rev AS number, doc AS a, '' AS b, '' AS c, "
    "0 AS m, 0 AS n, 0 AS k FROM agents WHERE id {among} ORDER BY id {lock}",
    "early": "SELECT 'early' AS kind, agent_id AS id, received_at AS number, doc AS a, '' AS b, "
    "'' AS c, 0 AS m, 0 AS n, 0 AS k FROM early_reports WHERE agent_id {among}",
    "definition": "SELECT 'definition' AS kind, hash AS id, 0 AS number, '' AS a, '' AS b, "
    "'' AS c, 0 AS m, 0 AS n, 0 AS k FROM definitions WHERE hash {among} ORDER BY hash {share}",
    "workflow": "SELECT 'workflow' AS kind, id, max(revision) AS number, '' AS a, '' AS b, "
    "'' AS c, 0 AS m, 0 AS n, 0 AS k FROM workflows WHERE id {among} GROUP BY id",
    "receipt": "SELECT 'receipt' AS kind, signature AS id, 0 AS number, '' AS a, '' AS b, "
    "'' AS c, 0 AS m, 0 AS n, 0 AS k FROM webhook_receipts WHERE signature {among}",
    "key": "SELECT 'key' AS kind, key AS id, 0 AS number, '' AS a, '' AS b, '' AS c, "
    "0 AS m, 0 AS n, 0 AS k FROM idempotency_keys WHERE key {among}",
    "agentkit": "SELECT 'agentkit' AS kind, agentkit AS id, rev AS number, '' AS a, '' AS b, "
    "'' AS c, 0 AS m, 0 AS n, 0 AS k FROM agentkit_knowledge WHERE agentkit {among} "
    "ORDER BY agentkit {lock}",
    "flow": "SELECT 'flow' AS kind, one.value AS id, (SELECT max(turn) FROM tasks {by_flow} "
    "WHERE status = 'queued' AND flow = one.value) AS number, '' AS a, '' AS b, '' AS c, "
    "0 AS m, 0 AS n, 0 AS k FROM {each}(?) AS one",
    "level": "SELECT 'level' AS kind, level AS id, turn AS number, '' AS a, '' AS b, '' AS c, "
    "0 AS m, 0 AS n, 0 AS k FROM turns WHERE level {among}",
}


@dataclass
class Batch:
    stored_tasks: dict[str, Row] = field(default_factory=dict)
    """Id, rev, status, agent, level, turn, arrival and queue bytes."""
    stored_agents: dict[str, Row] = field(default_factory=dict)
    """Id, rev and doc."""
    early: dict[str, Row] = field(default_factory=dict)
    """Agent, time and doc of reports that came before a new agent."""
    stored_sessions: frozenset[str] = frozenset()
    definitions: frozenset[str] = frozenset()
    """Hashes of those that are stored and held."""
    flows: dict[str, int] = field(default_factory=dict)
    """The last turn of each."""
    served: dict[str, int] = field(default_factory=dict)
    """The last turn that was served at each level."""
    task_revs: dict[str, int] = field(default_factory=dict)
    session_revs: dict[str, int] = field(default_factory=dict)
    agent_revs: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    agentkit_revs: dict[str, int] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    tasks: dict[str, Task] = field(default_factory=dict)
    sessions: dict[str, WorkflowSession] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    accepted: list[Change] = field(default_factory=list)

    def judge(self, change: Change) -> OpsCoreError | None:
        """Take the change in, or say what is in its way."""
        error = self._error(change)
        if error is not None:
            return error
        for task in change.tasks:
            self.task_revs[task.id], self.tasks[task.id] = task.rev, task
        for session in change.sessions:
            self.session_revs[session.id], self.sessions[session.id] = session.rev, session
        for agent in change.agents:
            self.agent_revs[agent.id], self.agents[agent.id] = agent.rev, agent
        if change.workflow is not None:
            self.revisions[change.workflow.id] = change.workflow.revision
        if change.agentkit is not None:
            self.agentkit_revs[change.agentkit.agentkit] = change.agentkit.rev
        if change.receipt is not None:
            self.receipts.add(change.receipt.signature)
        if change.idempotency is not None:
            self.keys.add(change.idempotency.key)
        self.accepted.append(change)
        return None

    def tally(self) -> Tally:
        """How many records more there are of each kind."""
        stored = (self.stored_tasks[one] for one in self.tasks if one in self.stored_tasks)
        before = ((row[2], row[7]) for row in stored)
        tally = tasks_tally(before, map(weight, self.tasks.values()))
        tally["sessions"] = sum(one not in self.stored_sessions for one in self.sessions)
        tally["agents"] = sum(one not in self.stored_agents for one in self.agents)
        return tally

    def _error(self, change: Change) -> OpsCoreError | None:
        if not (
            _fit(change.tasks, self.task_revs)
            and _fit(change.sessions, self.session_revs)
            and _fit(change.agents, self.agent_revs)
            and self.session_revs.keys() >= only_told_of(change)
            and all(self._has_heard(agent) for agent in change.agents)
        ):
            return VersionConflictError("The record was changed by someone else meanwhile.")
        learned = change.agentkit
        if learned is not None:
            rev = self.agentkit_revs.get(learned.agentkit, 0)
            if learned.rev != rev + 1:
                return VersionConflictError("Another replica has learned of AgentKit meanwhile.")
        saved = change.workflow
        if saved is not None and saved.revision != self.revisions.get(saved.id, 0) + 1:
            return VersionConflictError("The workflow was saved by someone else meanwhile.")
        if change.receipt is not None and change.receipt.signature in self.receipts:
            return WebhookReplayedError("This webhook was received before.")
        if change.idempotency is not None and change.idempotency.key in self.keys:
            return IdempotencyKeyUsedError("This Idempotency-Key is in use.")
        return None

    def _has_heard(self, agent: Agent) -> bool:
        early = self.early.get(agent.id)
        return early is None or has_heard(agent, load_report(early[2]), moment(early[1]))


def _fit(records: Iterable[Task | WorkflowSession | Agent], revs: dict[str, int]) -> bool:
    return all(record.rev == revs.get(record.id, 0) + 1 for record in records)


def read_batch(
    dialect: Dialect, texts: DefinitionTexts, changes: Sequence[Change]
) -> Program[Batch]:
    """Read and hold, with one statement, the stored side of everything that the changes touch."""
    wanted = {kind: ids for kind, ids in _wanted(texts, changes).items() if ids}
    if not wanted:
        return Batch()
    sql = " UNION ALL ".join(f"SELECT * FROM ({_ARMS[kind]}) AS one_{kind}" for kind in wanted)
    if "early" in wanted:
        yield Fetch(dialect.one_at_a_time, (REGISTERING,))
    # Sorted, so that two writers hold rows in the same order.
    args = tuple(dump(sorted(ids)) for ids in wanted.values())
    rows = yield Fetch(dialect.sql(sql), args)
    return _batch(rows)


def _wanted(texts: DefinitionTexts, changes: Sequence[Change]) -> dict[str, set[str]]:
    """The ids to look for, by kind. Records come first: they are held in this order."""
    tasks = [task for change in changes for task in change.tasks]
    sessions = [session for change in changes for session in change.sessions]
    told = {one for change in changes for one in only_told_of(change)}
    queued = [task for task in tasks if task.status is TaskStatus.QUEUED]
    # Agents whose slots are given back are held too: all in one order, or two would wait in turn.
    freed = {task.agent_id for task in tasks if task.agent_id and not task.status.in_flight}
    saved = [change.workflow for change in changes if change.workflow]
    used = [session.definition for session in sessions if session.rev == 1]
    used += [workflow.definition for workflow in saved]
    return {
        "task": {task.id for task in tasks},
        "session": told | {session.id for session in sessions},
        "agent": freed | {agent.id for change in changes for agent in change.agents},
        "early": {agent.id for change in changes for agent in change.agents if agent.rev == 1},
        "definition": {texts.of(definition)[0] for definition in used},
        "workflow": {one.id for one in saved},
        "agentkit": {change.agentkit.agentkit for change in changes if change.agentkit},
        "receipt": {change.receipt.signature for change in changes if change.receipt},
        "key": {change.idempotency.key for change in changes if change.idempotency},
        "flow": {flow_of(task) for task in queued},
        "level": {level_of(task) for task in queued},
    }


def _batch(rows: Sequence[Row]) -> Batch:
    found: dict[str, dict[str, Row]] = {kind: {} for kind in _ARMS}
    for kind, *values in rows:
        found[kind][values[0]] = values

    def numbers(kind: str) -> dict[str, int]:
        return {one: values[1] or 0 for one, values in found[kind].items()}

    return Batch(
        stored_tasks=found["task"],
        stored_agents=found["agent"],
        early=found["early"],
        stored_sessions=frozenset(found["session"]),
        definitions=frozenset(found["definition"]),
        flows=numbers("flow"),
        served=numbers("level"),
        task_revs=numbers("task"),
        session_revs=numbers("session"),
        agent_revs=numbers("agent"),
        revisions=numbers("workflow"),
        agentkit_revs=numbers("agentkit"),
        receipts=set(found["receipt"]),
        keys=set(found["key"]),
    )
