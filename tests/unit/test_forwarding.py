"""Which way a message goes, and what is known of AgentKit's forwards."""

import pytest

from opscore.models import (
    Agent,
    AgentKitKnowledge,
    Delivery,
    DispatchMode,
    ForwardObservation,
    Forwards,
    MessageType,
    Task,
)
from opscore.workflow.forwarding import (
    PROBE_EVERY,
    after_probe,
    choose,
    describe,
    is_probe_due,
    observe,
)
from tests.builders import NOW, agent, at, dispatched, seconds

UNKNOWN = AgentKitKnowledge()
PROVED = AgentKitKnowledge("", Forwards.PROVED, at(-60))
MISSED_A1 = AgentKitKnowledge("", Forwards.PROVED, at(-60), unreached=("a1",))
DISPROVED = AgentKitKnowledge("", Forwards.DISPROVED, at(-60), at(60))
PROBE_DUE = AgentKitKnowledge("", Forwards.DISPROVED, at(-600), NOW)
JUST_DISPROVED = AgentKitKnowledge("", Forwards.DISPROVED, NOW, NOW + PROBE_EVERY)
JUST_PROVED = AgentKitKnowledge("", Forwards.PROVED, NOW)

AUTO, KIT, DIRECT = DispatchMode.AUTO, DispatchMode.AGENTKIT, DispatchMode.DIRECT
WORK = dispatched()
SECOND_TRY = dispatched(prefer_direct=True)
TOOL = dispatched(message_type=MessageType.TOOL_INVOCATION, prefer_direct=True)
REACHABLE = agent()
HIDDEN = agent(contact_endpoint=None, prefer_direct_until=at(60))
MISSED = agent(prefer_direct_until=at(60))
TRY_AGAIN = agent(prefer_direct_until=NOW)
NAMELESS = agent(names_tasks=False)
NAMELESS_TRY_AGAIN = agent(names_tasks=False, prefer_direct_until=NOW)


@pytest.mark.parametrize(
    ("mode", "known", "task", "who", "way"),
    [
        (AUTO, UNKNOWN, WORK, REACHABLE, Delivery.AGENTKIT),
        (AUTO, PROVED, WORK, REACHABLE, Delivery.AGENTKIT),
        (AUTO, DISPROVED, WORK, REACHABLE, Delivery.DIRECT),
        (AUTO, PROBE_DUE, WORK, REACHABLE, Delivery.AGENTKIT),
        (AUTO, UNKNOWN, SECOND_TRY, REACHABLE, Delivery.DIRECT),
        (AUTO, PROVED, SECOND_TRY, REACHABLE, Delivery.DIRECT),
        (AUTO, PROBE_DUE, SECOND_TRY, REACHABLE, Delivery.DIRECT),
        (AUTO, PROVED, WORK, MISSED, Delivery.DIRECT),
        (AUTO, PROVED, WORK, TRY_AGAIN, Delivery.AGENTKIT),
        (AUTO, DISPROVED, WORK, TRY_AGAIN, Delivery.DIRECT),
        (AUTO, PROVED, WORK, NAMELESS, Delivery.AGENTKIT),
        (AUTO, PROBE_DUE, WORK, NAMELESS, Delivery.DIRECT),
        (AUTO, PROVED, WORK, NAMELESS_TRY_AGAIN, Delivery.DIRECT),
        (AUTO, DISPROVED, WORK, HIDDEN, Delivery.AGENTKIT),
        (AUTO, DISPROVED, SECOND_TRY, HIDDEN, Delivery.AGENTKIT),
        (AUTO, DISPROVED, TOOL, MISSED, Delivery.AGENTKIT),
        (KIT, DISPROVED, SECOND_TRY, MISSED, Delivery.AGENTKIT),
        (DIRECT, PROVED, WORK, REACHABLE, Delivery.DIRECT),
        (DIRECT, PROVED, WORK, HIDDEN, Delivery.DIRECT),
        (DIRECT, PROVED, TOOL, REACHABLE, Delivery.AGENTKIT),
    ],
)
def test_the_way_a_message_takes(
    mode: DispatchMode, known: AgentKitKnowledge, task: Task, who: Agent, way: Delivery
) -> None:
    assert choose(mode, known, task, who, NOW) is way


@pytest.mark.parametrize(
    ("mode", "task", "who", "way"),
    [
        (AUTO, WORK, REACHABLE, Delivery.DIRECT),
        (AUTO, WORK, HIDDEN, Delivery.AGENTKIT),
        (AUTO, TOOL, REACHABLE, Delivery.AGENTKIT),
        (KIT, WORK, REACHABLE, Delivery.AGENTKIT),
    ],
)
def test_without_room_at_agentkit_a_task_goes_direct_where_it_can(
    mode: DispatchMode, task: Task, who: Agent, way: Delivery
) -> None:
    assert choose(mode, PROVED, task, who, NOW, agentkit_has_room=False) is way


@pytest.mark.parametrize(
    ("known", "agent_id", "arrived", "learned"),
    [
        (UNKNOWN, "a1", True, JUST_PROVED),
        (UNKNOWN, "a1", False, JUST_DISPROVED),
        (PROVED, "a1", True, PROVED),
        (PROVED, "a1", False, MISSED_A1),
        (MISSED_A1, "a1", False, MISSED_A1),
        (MISSED_A1, "a2", True, PROVED),
        (MISSED_A1, "a2", False, JUST_DISPROVED),
        (DISPROVED, "a1", False, DISPROVED),
        (DISPROVED, "a2", False, DISPROVED),
        (DISPROVED, "a1", True, JUST_PROVED),
        (PROBE_DUE, "a1", False, PROBE_DUE),
    ],
)
def test_sign_of_life_gives_an_observation(
    known: AgentKitKnowledge, agent_id: str, arrived: bool, learned: AgentKitKnowledge
) -> None:
    assert observe(known, ForwardObservation(agent_id, arrived), NOW) == learned


def test_a_probe_is_due_every_ten_minutes_while_disproved() -> None:
    known = JUST_DISPROVED
    assert [is_probe_due(known, at(s)) for s in (0, 599, 600, 601)] == [False, False, True, True]
    assert not is_probe_due(UNKNOWN, at(10_000))
    assert not is_probe_due(PROVED, at(10_000))


def test_only_one_task_is_the_probe() -> None:
    after = after_probe(PROBE_DUE, NOW)
    assert not is_probe_due(after, at(599))
    assert is_probe_due(after, at(600))
    assert (after.forwards, after.since) == (PROBE_DUE.forwards, PROBE_DUE.since)


def test_how_often_probes_go_can_be_set() -> None:
    seen = ForwardObservation("a1", arrived=False)
    assert observe(UNKNOWN, seen, NOW, seconds(5)).next_probe == at(5)
    assert after_probe(PROBE_DUE, NOW, seconds(7)).next_probe == at(7)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (UNKNOWN, "not known yet"),
        (PROVED, "AgentKit's forwards reach agents; tasks go through AgentKit."),
        (MISSED_A1, "have missed one"),
        (DISPROVED, "do not reach agents; tasks go straight to agents"),
    ],
)
def test_knowledge_is_described_in_one_sentence(known: AgentKitKnowledge, words: str) -> None:
    sentence = describe(known, DispatchMode.AUTO)
    assert words in sentence
    assert sentence.count(".") == 1


@pytest.mark.parametrize("mode", [DispatchMode.AGENTKIT, DispatchMode.DIRECT])
def test_knowledge_promises_no_direct_delivery_where_the_mode_has_one_channel(
    mode: DispatchMode,
) -> None:
    sentence = describe(UNKNOWN, mode)
    assert sentence == "It is not known yet whether AgentKit's forwards reach agents."
