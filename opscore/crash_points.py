"""Named places where a test can have the process die, as kill -9 or a power cut would end it.

`OPSCORE_CRASH_POINT=name` ends the process when it first passes that place, `name:3` when it
passes it for the third time. Without it, passing one costs nothing that could be felt.
"""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from opscore.exceptions import ConfigurationError

VARIABLE = "OPSCORE_CRASH_POINT"

CRASH_POINTS: Mapping[str, str] = MappingProxyType(
    {
        "start.storage-open": "the storage is open, nobody knows of this replica",
        "replica.beat": "this replica has said that it lives",
        "replica.leases-ended": "leases of a replica that is dead are ended, others may be left",
        "replica.left": "this replica has said that it leaves",
        "start.templates-loaded": "the templates of the folder are saved, nothing runs yet",
        "start.running": "the service is about to claim, keep time and serve",
        "trigger.checked": "a trigger is found good, its session not written",
        "trigger.committed": "the session is written, the 202 not sent",
        "cancel.committed": "a session is written as cancelled, the answer not sent",
        "report.received": "a state report has come, nothing is written",
        "report.committed": "what a state report changes is written, the 202 not sent",
        "report.kept-early": "the report of an unknown agent is kept, the 404 not sent",
        "result.received": "a task's result has come, nothing is written",
        "result.committed": "a task's result is written, the answer not sent",
        "heartbeat.committed": "a task's heartbeat is written, the answer not sent",
        "webhook.verified": "a webhook's signature is right, nothing is written",
        "webhook.committed": "a webhook is applied, the answer not sent",
        "agent.changed": "an agent's new details are written, the answer not sent",
        "agent.deregistered": "an agent is written as gone, its tasks still wait for it",
        "stranded.failed": "a task of an agent that is gone has failed, others still wait",
        "workflow.checked": "a workflow's next revision is made, not written",
        "workflow.committed": "a workflow's revision is written, the answer not sent",
        "workflow.deleted": "a workflow is deleted, the answer not sent",
        "decide.facts-read": "the facts of a decision are read",
        "decide.decided": "a decision is made, nothing of it written",
        "apply.committed": "a change is written, nobody has been woken",
        "apply.told": "a change is written and everybody is woken",
        "forwarding.learned": "whether AgentKit forwards is learned, the event not written",
        "claim.before": "the dispatcher is about to claim",
        "claim.taken": "tasks are claimed, none is being sent",
        "post.before": "a claimed task is about to be sent",
        "post.answered": "a message has had its outcome, which is not written",
        "post.recorded": "the outcome of a message is written",
        "lease.before-renewal": "leases are about to be prolonged",
        "lease.renewed": "leases are prolonged",
        "abandon.before": "an agent is about to be told to stop",
        "abandon.told": "an agent was told to stop",
        "exchange.connected": "a connection is there, the message not sent",
        "exchange.head-read": "the head of an answer is read, its body not",
        "agentkit.answered": "AgentKit's answer is complete, nobody has read it",
        "direct.answered": "an agent's answer to a direct delivery is complete, nobody has read it",
        "timer.found": "due timers are found, none decided",
        "timer.decided": "a due timer is decided and written, others wait",
        "silence.found": "a silent agent is found, not yet counted as lost",
        "prune.before": "a batch of what has ended is about to be forgotten",
        "prune.batch-done": "a batch is forgotten, the next one not begun",
        "prune.recorded": "the event that tells what was forgotten is written",
        "drain.begun": "no more claims are made, messages are still under way",
        "drain.posts-ended": "no message is under way, last words may be",
        "drain.done": "the service is drained and still answers",
        "migration.before": "a migration of the schema is about to begin",
        "migration.statement-run": "a statement of a migration has run, within its transaction",
        "migration.recorded": "a migration is noted as done, within its transaction",
        "sqlite.file-locked": "the file belongs to this process, the schema is not looked at",
        "sqlite.schema-written": "the schema is up to date, not committed",
        "sqlite.schema-committed": "the schema is committed",
        "sqlite.begun": "a transaction has begun on SQLite",
        "sqlite.before-commit": "a transaction on SQLite is about to be committed",
        "sqlite.committed": "a transaction on SQLite is committed, nobody knows of it",
        "postgres.schema-written": "the schema is up to date, not committed",
        "postgres.schema-committed": "the schema is committed",
        "postgres.begun": "a transaction has begun on PostgreSQL",
        "postgres.before-commit": "a transaction on PostgreSQL is about to be committed",
        "postgres.committed": "a transaction on PostgreSQL is committed, nobody knows of it",
        "batch.taken": "changes are taken from the queue of writes",
        "batch.written": "a batch of changes is committed, those who wait are not told",
        "write.judged": "the stored side of a batch is held and fits, nothing is written",
        "write.sessions-written": "the sessions of a batch are written",
        "write.tasks-written": "the tasks of a batch are written, with their agents' slots",
        "write.agents-written": "the agents of a batch are written",
        "write.keys-written": "everything of a batch but its events is written",
        "write.events-written": "the whole of a batch is written, not committed",
        "claim.planned": "tasks and agents for a claim are chosen, nothing is held",
        "claim.locked": "tasks and agents of a claim are held, nothing is written",
        "claim.marked": "the tasks of a claim are written, their agents' slots are not",
        "claim.slots-taken": "tasks and slots of a claim are written, its events are not",
        "lease.found": "leases that are still held are found, none prolonged",
        "lease.prolonged": "the prolonged leases are written, not committed",
        "prune.events-gone": "old events are deleted, not committed",
        "prune.agents-gone": "agents that are gone are deleted, their places in queues are not",
        "prune.tasks-gone": "the tasks of old sessions are deleted, the sessions are not",
        "prune.sessions-gone": "old sessions are deleted, their definitions are not",
    }
)


@dataclass
class _Armed:
    """Counts the passages of one point; threads may pass it at the same time."""

    name: str
    left: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, name: str) -> None:
        if name != self.name:
            return
        with self._lock:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def crash_point(name: str) -> None:
    """The process ends here if it is told to."""
    if _armed is not None:
        _armed.pass_by(name)


def arm(text: str | None) -> None:
    """Choose where the process dies: `name`, `name:nth`, or nothing. Raise ConfigurationError."""
    global _armed
    if not text:
        _armed = None
        return
    name, _, nth = text.partition(":")
    if name not in CRASH_POINTS:
        raise ConfigurationError(
            f"{VARIABLE} names no crash point; docs/reference/reliability.md lists them."
        )
    if nth and not (nth.isascii() and nth.isdigit() and 0 < int(nth) < 1_000_000):
        raise ConfigurationError(
            f"{VARIABLE}: write name or name:nth, with nth from 1 to 999999, such as {name}:3."
        )
    _armed = _Armed(name, int(nth or 1))
