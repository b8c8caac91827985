"""Which way a message goes, and what is known of AgentKit's forwards."""

import pytest

from opscore.models import Agent, Delivery, DispatchMode, MessageType, Task
from opscore.workflow.forwarding import (
    PROBE_EVERY,
    Forwarding,
    Forwards,
    after_probe,
    is_probe_due,
    learn,
    route,
)
from tests.builders import NOW, agent, at, dispatched, seconds

UNKNOWN = Forwarding()
PROVED = Forwarding(Forwards.PROVED, at(-60))
DISPROVED = Forwarding(Forwards.DISPROVED, at(-60), at(60))
PROBE_DUE = Forwarding(Forwards.DISPROVED, at(-600), NOW)

AUTO, KIT, DIRECT = DispatchMode.AUTO, DispatchMode.AGENTKIT, DispatchMode.DIRECT
WORK = dispatched()
SECOND_TRY = dispatched(direct_next=True)
TOOL = dispatched(message_type=MessageType.TOOL_INVOCATION, direct_next=True)
REACHABLE = agent()
HIDDEN = agent(contact_endpoint=None)


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
        (AUTO, DISPROVED, WORK, HIDDEN, Delivery.AGENTKIT),
        (AUTO, DISPROVED, SECOND_TRY, HIDDEN, Delivery.AGENTKIT),
        (AUTO, DISPROVED, TOOL, REACHABLE, Delivery.AGENTKIT),
        (KIT, DISPROVED, SECOND_TRY, REACHABLE, Delivery.AGENTKIT),
        (DIRECT, PROVED, WORK, REACHABLE, Delivery.DIRECT),
        (DIRECT, PROVED, WORK, HIDDEN, Delivery.DIRECT),
        (DIRECT, PROVED, TOOL, REACHABLE, Delivery.AGENTKIT),
    ],
)
def test_the_way_a_message_takes(
    mode: DispatchMode, known: Forwarding, task: Task, who: Agent, way: Delivery
) -> None:
    assert route(mode, known, task, who, NOW) is way


@pytest.mark.parametrize("known", [UNKNOWN, PROVED, DISPROVED])
def test_a_sign_of_life_proves_forwards(known: Forwarding) -> None:
    learned = learn(known, True, NOW)
    assert learned.state is Forwards.PROVED
    assert learned.next_probe is None
    assert learned.since == (at(-60) if known is PROVED else NOW)


@pytest.mark.parametrize("known", [UNKNOWN, PROVED, DISPROVED])
def test_a_direct_delivery_that_works_disproves_forwards(known: Forwarding) -> None:
    learned = learn(known, False, NOW)
    assert learned.state is Forwards.DISPROVED
    assert learned.next_probe == NOW + PROBE_EVERY
    assert learned.since == (at(-60) if known is DISPROVED else NOW)


def test_a_probe_is_due_every_ten_minutes_while_disproved() -> None:
    known = learn(UNKNOWN, False, NOW)
    assert [is_probe_due(known, at(s)) for s in (0, 599, 600, 601)] == [False, False, True, True]
    assert not is_probe_due(UNKNOWN, at(10_000))
    assert not is_probe_due(PROVED, at(10_000))


def test_only_one_task_is_the_probe() -> None:
    after = after_probe(PROBE_DUE, NOW)
    assert not is_probe_due(after, at(599))
    assert is_probe_due(after, at(600))
    assert (after.state, after.since) == (PROBE_DUE.state, PROBE_DUE.since)


def test_how_often_probes_go_can_be_set() -> None:
    assert learn(UNKNOWN, False, NOW, seconds(5)).next_probe == at(5)
    assert after_probe(PROBE_DUE, NOW, seconds(7)).next_probe == at(7)
