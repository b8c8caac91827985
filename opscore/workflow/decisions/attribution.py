"""Which task a state report speaks of, and what it does to it. Pure; one table of rules.

1. The same report again: of none.
2. A report that names a task: of that one.
3. A report without an id that is out of order: of none.
4. While entries of other tasks are open with the agent, or echoes of an earlier attempt: of one
   of these, never of the task in flight.
5. Otherwise of the only task in flight, unless that one probes AgentKit.
"""

from dataclasses import dataclass
from enum import Enum, auto

from opscore.models import (
    Agent,
    AgentFacts,
    FailureCode,
    OpenEntry,
    StateReport,
    StateWord,
    Task,
    TaskFacts,
    answers_for,
    failure_code,
    normalise_state,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.open_entries import WITHOUT_OUTCOME, settle, still_open
from opscore.workflow.decisions.report_contents import named_attempt, named_task
from opscore.workflow.decisions.report_times import ReportTime


class Effect(Enum):
    """The effect of a report on the task it speaks of."""

    NONE = auto()
    ACTIVE = auto()
    COMPLETE = auto()
    FAIL = auto()


_EFFECTS = {
    StateWord.ACTIVE: Effect.ACTIVE,
    StateWord.IDLE: Effect.COMPLETE,
    StateWord.FINISHED: Effect.COMPLETE,
    StateWord.ERROR: Effect.FAIL,
}


@dataclass(frozen=True, slots=True)
class Attribution:
    """The task or entry that a report was credited to.

    `subject` is the task that it moves, `late` one that it names and moves no more, `entry` the
    open entry that it speaks of. `open_entries` are those that stay open. `by_id` says that the
    report named the task. `uncounted` is the sentence that tells the agent why nothing moved.
    """

    open_entries: tuple[OpenEntry, ...]
    subject: TaskFacts | None = None
    effect: Effect = Effect.NONE
    late: Task | None = None
    entry: OpenEntry | None = None
    by_id: bool = False
    uncounted: str | None = None


def attribute(
    facts: AgentFacts, report: StateReport, when: ReportTime, ctx: Context
) -> Attribution:
    entries = still_open(facts.agent.open_entries, ctx.now)
    if when.repeated:
        return Attribution(entries, uncounted="The same report came before; it counted then.")
    if named_task(report.details) is not None:
        return _by_id(facts, report, entries)
    word = normalise_state(report.state)
    if when.out_of_order:
        return Attribution(entries, uncounted=_unless_plain(word, _OUT_OF_ORDER))
    only = facts.only.task if facts.only else None
    others = tuple(entry for entry in entries if not _is_explained_by(only, entry))
    if others:
        return _to_entries(entries, others, word, ctx)
    return _to_only(facts, word, entries)


def _is_explained_by(only: Task | None, entry: OpenEntry) -> bool:
    """Return whether the report may speak of the task in flight all the same.

    The work of an earlier attempt is that of its task. The echo of an earlier answer or cancel
    is no work.
    """
    return only is not None and entry.task_id == only.id and not entry.kind.is_echo


_OUT_OF_ORDER = (
    "The report is older than the agent's newest one and names no task; name the task in "
    "details.opscore_task_id."
)


def _unless_plain(word: StateWord, sentence: str) -> str | None:
    """A report that says nothing of work needs no explanation."""
    return sentence if word in _EFFECTS and word is not StateWord.IDLE else None


# --- with an id -------------------------------------------------------------------------------


def _by_id(facts: AgentFacts, report: StateReport, entries: tuple[OpenEntry, ...]) -> Attribution:
    if facts.named is None:
        sentence = "No task has the id that the report names; check details.opscore_task_id."
        return Attribution(entries, by_id=True, uncounted=sentence)
    task, word = facts.named.task, normalise_state(report.state)
    attempt = named_attempt(report.details)
    effect = effect_by_id(word, task, attempt)
    if effect in (Effect.COMPLETE, Effect.FAIL):
        entries = _without(entries, task, attempt)
    if _is_current(task, facts.agent, attempt):
        return Attribution(entries, facts.named, effect, by_id=True)
    late = task if effect is not Effect.NONE else None
    sentence = "The task has ended, or another attempt or agent has it by now."
    return Attribution(entries, late=late, by_id=True, uncounted=sentence if late else None)


def _without(
    entries: tuple[OpenEntry, ...], task: Task, attempt: int | None
) -> tuple[OpenEntry, ...]:
    """An ending that names its task settles the entries of that task."""
    return tuple(
        entry
        for entry in entries
        if entry.kind.is_echo or entry.task_id != task.id or attempt not in (None, entry.attempt)
    )


def _is_current(task: Task, agent: Agent, attempt: int | None) -> bool:
    """Return whether the report is about the attempt that counts now."""
    return (
        answers_for(agent, task.agent_id)
        and (attempt is None or attempt == task.attempt)
        and (task.status.in_flight or is_in_doubt(task))
    )


def is_in_doubt(task: Task) -> bool:
    """The last attempt was given up without an outcome, and the next one has not begun."""
    return task.status.waiting and failure_code(task.error) in WITHOUT_OUTCOME


def effect_by_id(word: StateWord, task: Task, attempt: int | None) -> Effect:
    """Return the effect of a report that names the task."""
    is_idle = word is StateWord.IDLE
    if is_idle and task.active_at is None and _may_follow_error(task, attempt):
        return Effect.NONE
    return _EFFECTS.get(word, Effect.NONE)


def _may_follow_error(task: Task, attempt: int | None) -> bool:
    """Agents say `error` and then `idle` of the same task: that is no completion."""
    failed = failure_code(task.error) == FailureCode.AGENT_ERROR
    is_of_this_attempt = task.active_at is not None or attempt == task.attempt
    return failed and not (task.status.in_flight and is_of_this_attempt)


# --- without an id ----------------------------------------------------------------------------


def _to_entries(
    entries: tuple[OpenEntry, ...],
    others: tuple[OpenEntry, ...],
    word: StateWord,
    ctx: Context,
) -> Attribution:
    entry, left = settle(others, word, ctx)
    kept = tuple(one for one in entries if one not in others) + left
    if entry is None:
        return Attribution(kept, uncounted=_unless_plain(word, _AMBIGUOUS))
    sentence = _ECHO if entry.kind.is_echo else _LATE
    return Attribution(kept, entry=entry, uncounted=sentence)


_ECHO = "The report was taken for the echo of an answer or a cancel; name the task to be sure."
_LATE = "The report was taken for an attempt that has been taken back; name the task to be sure."
_AMBIGUOUS = "The report names no task, and several could be meant; name the task."


def _to_only(facts: AgentFacts, word: StateWord, entries: tuple[OpenEntry, ...]) -> Attribution:
    if facts.only is None:
        sentence = _unless_plain(word, _AMBIGUOUS) if facts.in_flight else None
        return Attribution(entries, uncounted=sentence)
    if facts.only.task.is_probe:
        return Attribution(entries, uncounted=_unless_plain(word, _PROBE))
    effect = effect_without_id(word, facts.only.task)
    return Attribution(entries, facts.only if effect is not Effect.NONE else None, effect)


_PROBE = "The task in flight tests AgentKit's delivery, so only a report that names it counts."


def effect_without_id(word: StateWord, task: Task) -> Effect:
    """Return the effect of a report without an id on the task in flight.

    An idle heartbeat that crosses a delivery must not complete the task.
    """
    if word is StateWord.IDLE and not _was_active(task):
        return Effect.NONE
    return _EFFECTS.get(word, Effect.NONE)


def _was_active(task: Task) -> bool:
    if task.accepted_at is None:
        return task.early is not None and task.early.active_at is not None
    return task.active_at is not None
