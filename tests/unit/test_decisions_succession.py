"""An agent that comes back from AgentKit under a new id takes the place of its former self."""

from dataclasses import replace
from typing import Any

import pytest

from opscore.exceptions import ConflictError
from opscore.models import (
    Agent,
    EntryKind,
    OpenEntry,
    Registration,
    RegistrationFacts,
    Standing,
    Task,
    WebhookReceipt,
    slots,
)
from opscore.workflow.decisions import Registered, on_state_report, on_stranded, register_agent
from opscore.workflow.decisions.succession import MAX_PREDECESSORS
from tests.builders import (
    agent,
    agent_facts,
    at,
    became,
    context,
    dispatched,
    report,
    running,
    task,
    task_facts,
    types,
)

pytestmark = pytest.mark.fault("F126")

RECEIPT = WebhookReceipt("signature", at(600))


def announced(agent_id: str, when: float, **changes: Any) -> Agent:
    """An agent that AgentKit announced."""
    return agent(agent_id, agentkit_name="ada", announced_at=at(when), **changes)


def announce(
    agent_id: str,
    *namesakes: Agent,
    known: Agent | None = None,
    when: float | None = -1,
    at_work: tuple[Task, ...] = (),
    **given: Any,
) -> Registered:
    registered_at = None if when is None else at(when)
    registration = Registration(
        agent_id, **{"name": "ada", "registration_time": registered_at, "by_agentkit": True} | given
    )
    facts = RegistrationFacts(known, namesakes=namesakes, at_work=at_work)
    return register_agent(facts, registration, context(), RECEIPT)


def agents(registered: Registered) -> dict[str, Agent]:
    return {one.id: one for one in registered.change.agents}


def test_a_known_name_under_a_new_id_retires_the_old_id() -> None:
    old = announced("old", -100)
    registered = announce("new", old)
    found = agents(registered)
    assert registered.created
    assert (found["new"].standing, found["new"].predecessors) == (Standing.REGISTERED, ("old",))
    assert found["new"].rev == 1
    assert (found["old"].standing, found["old"].replaced_by) == (Standing.DEREGISTERED, "new")
    assert found["old"].rev == old.rev + 1
    assert found["old"].standing_reason == "AgentKit announced it again as new"
    assert types(registered.change.events) == ["agent.registered", "agent.replaced"]
    assert registered.change.events[1].data == {"name": "agent old", "replacedBy": "new"}
    assert registered.change.may_ready
    assert registered.change.receipt == RECEIPT


def test_a_lost_agent_is_retired_as_well() -> None:
    assert agents(announce("new", announced("old", -100, standing=Standing.LOST)))[
        "old"
    ].replaced_by == ("new")


def test_a_second_restart_hands_on_what_the_first_took_over() -> None:
    found = agents(announce("c", announced("b", -50, predecessors=("a",))))
    assert found["c"].predecessors == ("b", "a")
    assert found["b"].predecessors == ()


def test_only_the_newest_predecessors_are_kept() -> None:
    many = tuple(f"id-{n}" for n in range(MAX_PREDECESSORS))
    predecessors = agents(announce("new", announced("old", -50, predecessors=many)))[
        "new"
    ].predecessors
    assert predecessors == ("old", *many[:-1])


def test_settings_of_an_operator_outlive_the_restart() -> None:
    found = agents(announce("new", announced("old", -9, concurrency=4, standing=Standing.DRAINING)))
    assert (found["new"].concurrency, found["new"].standing) == (4, Standing.DRAINING)


@pytest.mark.parametrize("names", [True, False, None])
def test_how_the_agent_reports_is_known_after_the_restart(names: bool | None) -> None:
    assert agents(announce("new", announced("old", -9, names_tasks=names)))["new"].names_tasks is (
        names
    )


@pytest.mark.fault("F100")
@pytest.mark.parametrize(("names", "holds"), [(True, False), (False, True), (None, True)])
def test_successor_is_shielded_by_what_its_former_self_may_still_work_on(
    names: bool | None, holds: bool
) -> None:
    """It may register again without a restart, and end under its new id what it began before."""
    old = announced("old", -9, names_tasks=names)
    new = agents(announce("new", old, at_work=(running(agent_id="old"),)))["new"]
    (entry,) = new.open_entries
    assert (entry.kind, entry.task_id, entry.holds) == ("unsettled", running().id, holds)
    following = dispatched(id="t9", agent_id="new")
    change = on_state_report(
        agent_facts(following, agent=new), report("finished", agent_id="new"), context(1)
    )
    assert not change.tasks


@pytest.mark.fault("F100")
def test_successor_inherits_the_open_entries_of_its_former_self() -> None:
    entry = OpenEntry(EntryKind.UNSETTLED, "t0", "s0", "one", 1, at(-1), at(29), holds=True)
    ended = replace(entry, until=at(0))
    old = announced("old", -9, names_tasks=False, open_entries=(ended, entry))
    new = agents(announce("new", old))["new"]
    assert (new.open_entries, slots(new), new.due_at) == ((entry,), 0, at(29))


def test_an_announcement_that_was_overtaken_retires_itself() -> None:
    """The webhook of the first start arrives after that of the second one."""
    newer = announced("newer", -5, concurrency=3)
    found = agents(announce("older", newer, when=-60))
    assert (found["older"].standing, found["older"].replaced_by) == (
        Standing.DEREGISTERED,
        "newer",
    )
    assert (found["newer"].standing, found["newer"].predecessors) == (
        Standing.REGISTERED,
        ("older",),
    )
    assert found["newer"].concurrency == 3


def test_without_a_time_the_later_webhook_is_the_later_registration() -> None:
    found = agents(announce("new", announced("old", -1), when=None))
    assert found["old"].replaced_by == "new"


@pytest.mark.parametrize("when", [-60, None])
def test_a_replayed_announcement_of_the_old_id_brings_nothing_back(when: float | None) -> None:
    gone = announced(
        "old", -60, standing=Standing.DEREGISTERED, deregistered_at=at(-5), replaced_by="new"
    )
    registered = announce("old", announced("new", -5), known=gone, when=when)
    assert registered.ignored
    assert (registered.change.agents, registered.change.receipt) == ((), RECEIPT)


def test_an_id_that_is_announced_anew_comes_back() -> None:
    gone = announced(
        "old", -60, standing=Standing.DEREGISTERED, deregistered_at=at(-5), replaced_by="new"
    )
    found = agents(announce("old", announced("new", -5), known=gone, when=-1))
    assert (found["old"].standing, found["old"].replaced_by) == (Standing.REGISTERED, None)
    assert found["old"].predecessors == ("new",)
    assert found["new"].replaced_by == "old"


def test_an_operator_cannot_register_a_replaced_id() -> None:
    gone = announced("old", -60, standing=Standing.DEREGISTERED, replaced_by="new")
    with pytest.raises(ConflictError, match="goes on as new"):
        announce("old", known=gone, by_agentkit=False)


def test_an_operators_registration_leaves_the_name_alone() -> None:
    one = agents(announce("mine", by_agentkit=False))["mine"]
    assert (one.name, one.agentkit_name, one.announced_at) == ("ada", None, None)


# --- its work ----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["idle", "finished"])
def test_the_successors_report_on_a_task_of_its_predecessor_counts(word: str) -> None:
    in_flight = running(agent_id="old")
    facts = agent_facts(named=in_flight, agent=agent("new", predecessors=("old",)))
    said = report(word, agent_id="new", taskId=in_flight.id, result=42)
    change = on_state_report(facts, said, context())
    assert became(change) == "completed"
    assert change.tasks[0].result == 42


def test_a_strangers_report_on_that_task_does_not() -> None:
    in_flight = running(agent_id="old")
    facts = agent_facts(named=in_flight, agent=agent("other", predecessors=("another",)))
    change = on_state_report(facts, report("finished", taskId=in_flight.id), context())
    assert change.tasks == ()


def test_a_task_whose_agents_successor_is_gone_too_fails() -> None:
    gone = agent("new", standing=Standing.DEREGISTERED)
    assert became(on_stranded(task_facts(task(wanted_agent="old")), gone, context())) == "failed"


def test_a_task_whose_agent_has_a_successor_waits_for_it() -> None:
    waiting = task_facts(task(wanted_agent="old"))
    assert on_stranded(waiting, agent("new", predecessors=("old",)), context()).tasks == ()


def test_task_of_an_id_that_its_agent_answers_for_no_more_goes_to_its_present_id() -> None:
    """After many restarts the oldest ids are dropped; their tasks must not wait for ever."""
    change = on_stranded(task_facts(task(wanted_agent="old")), agent("new"), context())
    assert [(one.status, one.wanted_agent) for one in change.tasks] == [("queued", "new")]
    assert change.may_ready


def test_a_task_under_way_is_left_to_its_deadline() -> None:
    gone = agent("old", standing=Standing.DEREGISTERED)
    assert on_stranded(task_facts(dispatched()), gone, context()).tasks == ()
