"""Trials: a lost agent is tried with one task after a while, and what ends a trial."""

import pytest

from opscore.models import Change, Standing, slots
from opscore.workflow.decisions import lose_silent_agent, on_agent_due, on_state_report
from tests.builders import agent, agent_facts, at, context, report, seconds, types

LOST = agent(standing=Standing.LOST, standing_reason="why", trial_at=at(60), times_lost=1)
ON_TRIAL = agent(concurrency=3, on_trial=True, delivery_failures=6, times_lost=2)


def test_lost_agent_is_tried_with_one_task_after_a_while() -> None:
    assert LOST.due_at == at(60)
    assert on_agent_due(LOST, context(59)) == Change()
    change = on_agent_due(LOST, context(60))
    who = change.agents[0]
    assert (who.standing, who.standing_reason, who.on_trial) == (Standing.REGISTERED, None, True)
    assert (slots(who), who.due_at, who.times_lost) == (1, None, 1)
    assert types(change.events) == ["agent.returned"]
    assert change.may_ready


@pytest.mark.parametrize(("before", "rest"), [(0, 600), (1, 1200), (3, 4800), (30, 86400)])
def test_each_loss_in_a_row_doubles_the_rest_up_to_a_day(before: int, rest: float) -> None:
    change = lose_silent_agent(agent(times_lost=before), context())
    who = change.agents[0]
    assert (who.standing, who.trial_at, who.times_lost) == (Standing.LOST, at(rest), before + 1)


def test_rest_of_a_lost_agent_follows_the_probe_interval() -> None:
    change = lose_silent_agent(agent(), context(probe_interval=seconds(5)))
    assert change.agents[0].trial_at == at(5)


def test_agent_on_trial_is_not_lost_for_the_silence_that_lost_it_before() -> None:
    assert lose_silent_agent(ON_TRIAL, context()) == Change()


@pytest.mark.parametrize(("word", "ends"), [("idle", True), ("finished", True), ("active", False)])
def test_idle_ends_a_trial(word: str, ends: bool) -> None:
    who = on_state_report(agent_facts(agent=ON_TRIAL), report(word), context()).agents[0]
    assert who.on_trial is not ends
    assert who.times_lost == (0 if ends else 2)


def test_report_of_a_lost_agent_brings_it_back_without_a_trial() -> None:
    who = on_state_report(agent_facts(agent=LOST), report("active"), context()).agents[0]
    assert (who.standing, who.on_trial, who.trial_at) == (Standing.REGISTERED, False, None)
