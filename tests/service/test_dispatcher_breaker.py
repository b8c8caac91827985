"""AgentKit away and back: the breaker, its probe, its ramp, and nobody lost meanwhile."""

from collections import Counter
from datetime import timedelta

import pytest

from opscore.agentkit_client import SendControl
from opscore.models import (
    Answered,
    Claim,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
    Policy,
    SessionStatus,
    TaskStatus,
)
from opscore.workflow.dispatcher import Dispatcher
from opscore.workflow.queue import Reason
from tests.builders import at, definition, step
from tests.contract.shelf import session_id
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import Call, House, Switchboard

THROUGH_AGENTKIT = Policy(mode=DispatchMode.AGENTKIT, start_timeout=None)
AWAY = Failure(FailureCode.UNREACHABLE, "The connection was refused.")


def broken(dispatcher: Dispatcher) -> bool:
    gate = dispatcher.gate()
    return gate is not None and gate.reason is Reason.BREAKER_OPEN


async def test_F23_after_five_failures_in_a_row_everybody_waits_and_knows_why(
    build: Builder,
) -> None:
    courier = Switchboard(always=AWAY)
    house = await build(courier, THROUGH_AGENTKIT, concurrency=1)
    await house.register(concurrency=99)
    sessions = [await house.trigger() for _ in range(10)]
    assert len(courier.calls) == 5
    gate = house.dispatcher.gate()
    assert gate is not None
    assert (gate.reason, gate.since, gate.until) == (Reason.BREAKER_OPEN, at(0), at(2))
    waiting = tuple(await house.tasks())
    reasons = await house.lifecycle.pending_reasons(waiting, gate)
    assert Counter(reason.code for reason in reasons.values()) == {
        Reason.RETRY_DELAYED: 5,
        Reason.BREAKER_OPEN: 5,
    }
    statuses = {(await house.session(session.id)).status for session in sessions}
    assert statuses <= {SessionStatus.PENDING, SessionStatus.WAITING}
    assert {task.retries for task in waiting} == {0}


async def test_F38_after_the_rest_one_probe_and_then_a_ramp(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT, concurrency=8)
    await house.register(concurrency=99)
    for _ in range(40):
        await house.trigger()
    await courier.answer(AWAY)
    assert broken(house.dispatcher)
    sent = len(courier.calls)
    assert sent == 8
    await house.pass_time(1.9, step=0.1)
    assert len(courier.calls) == sent
    await house.pass_time(0.1)
    under_way = []
    trial = house.dispatcher.gate()
    assert trial is not None
    assert (trial.reason, trial.since, trial.until) == (Reason.BREAKER_OPEN, at(0), None)
    assert "tried out" in trial.message
    for _ in range(5):
        under_way.append(len(courier.open))
        await courier.answer(Answered(1))
    assert under_way[:2] == [1, 2]
    assert under_way == sorted(under_way)
    assert under_way[-1] == 8
    assert not broken(house.dispatcher)
    assert (
        sum(line.startswith("Circuit breaker for AgentKit closed: ") for line in caplog.messages)
        == 1
    )


async def test_F38_each_failed_probe_doubles_the_rest_up_to_half_a_minute(
    build: Builder,
) -> None:
    courier = Switchboard(always=AWAY)
    house = await build(courier, THROUGH_AGENTKIT, concurrency=5)
    await house.register(concurrency=99)
    for _ in range(9):
        await house.trigger()
    moments: list[float] = []
    seen = len(courier.calls)
    for moment in range(1, 200):
        await house.pass_time(1)
        if len(courier.calls) > seen:
            assert len(courier.calls) == seen + 1
            seen += 1
            moments.append(moment)
    gaps = [later - earlier for earlier, later in zip([0, *moments], moments, strict=False)]
    assert gaps == [2, 4, 8, 16, 30, 30, 30, 30, 30]


async def test_F29_a_wrong_key_opens_the_breaker_at_once(build: Builder) -> None:
    refused = Failure(FailureCode.UNAUTHORIZED, "AgentKit refused the key.", status=401)
    courier = Switchboard(always=refused)
    house = await build(courier, THROUGH_AGENTKIT, concurrency=1)
    await house.register(concurrency=99)
    for _ in range(9):
        await house.trigger()
    assert len(courier.calls) == 1
    assert broken(house.dispatcher)
    await house.pass_time(120)
    assert len(courier.calls) <= 8
    assert {task.retries for task in await house.tasks()} == {0}


async def test_F38_a_failed_probe_costs_no_retry(build: Builder) -> None:
    lost = Failure(FailureCode.OUTCOME_UNKNOWN, "The connection was reset.")
    courier = Switchboard(always=lost)
    house = await build(courier, THROUGH_AGENTKIT, concurrency=1)
    await house.register(concurrency=99)
    for _ in range(6):
        await house.trigger()
    assert broken(house.dispatcher)
    await house.pass_time(2)
    probe = courier.calls[5]
    before, after = probe.claim.task, await house.lifecycle.get_task(probe.task_id)
    assert len(courier.calls) == 6
    assert (after.attempt, after.retries) == (before.attempt, before.retries)
    assert sorted(task.retries for task in await house.tasks()) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("outcomes", "is_broken"),
    [
        ([AWAY] * 4, False),
        ([AWAY] * 5, True),
        ([*[AWAY] * 4, Answered(1), *[AWAY] * 4], False),
        ([*[AWAY] * 4, Failure(FailureCode.REJECTED, "422", terminal=True), *[AWAY] * 4], False),
        ([Failure(FailureCode.THROTTLED, "429", free=True)] * 9, False),
        ([Failure(FailureCode.UPSTREAM_ERROR, "503")] * 5, True),
        ([Failure(FailureCode.OUTCOME_UNKNOWN, "reset")] * 5, True),
        ([Failure(FailureCode.TLS, "expired")] * 5, True),
        ([Failure(FailureCode.AGENT_UNKNOWN, "404")] * 9, False),
    ],
)
async def test_only_failures_of_agentkit_in_a_row_open_the_breaker(
    build: Builder, outcomes: list[Outcome], is_broken: bool
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT, concurrency=1)
    await house.register(concurrency=99)
    for _ in outcomes:
        await house.trigger()
    for outcome in outcomes:
        await courier.answer(outcome)
    assert broken(house.dispatcher) is is_broken


@pytest.mark.parametrize(
    ("code", "is_broken"),
    [
        (FailureCode.TOOL_ERROR, False),
        (FailureCode.OUTCOME_UNKNOWN, False),
        (FailureCode.UPSTREAM_ERROR, True),
        (FailureCode.UNREACHABLE, True),
    ],
)
async def test_a_tool_that_fails_is_not_agentkits_fault(
    build: Builder, code: FailureCode, is_broken: bool
) -> None:
    courier = Switchboard(always=Failure(code, "503"))
    house = await build(courier, THROUGH_AGENTKIT, concurrency=1)
    await house.register(concurrency=99)
    for _ in range(6):
        tool = step("one", message_type=MessageType.TOOL_INVOCATION, tool_name="calc")
        await house.trigger(tool)
    assert broken(house.dispatcher) is is_broken


async def test_direct_deliveries_go_on_while_agentkit_rests(build: Builder) -> None:
    courier = Switchboard()
    policy = Policy(mode=DispatchMode.AUTO, start_timeout=timedelta(seconds=10))
    house = await build(courier, policy, concurrency=5)
    await house.register("a1", concurrency=99)
    first = await house.trigger()
    await courier.answer()
    for _ in range(5):
        await house.trigger()
    courier.always = lambda call: AWAY if call.via is Delivery.AGENTKIT else Answered("direct")
    await courier.answer(AWAY)
    assert broken(house.dispatcher)
    done = (await house.storage.counts()).by_status["completed"]
    assert done == 5
    await house.pass_time(10)
    assert (await house.session(first.id)).output == "direct"


async def test_a_slow_direct_delivery_does_not_keep_agentkit_from_its_probe(
    build: Builder,
) -> None:
    def answer(call: Call) -> Outcome:
        assert call.via is Delivery.AGENTKIT
        return AWAY

    slow, courier = Switchboard(), Switchboard(always=answer)

    class Both(Switchboard):
        run = courier.run
        deliver = slow.deliver

    house = await build(Both(), Policy(), concurrency=5)
    await house.register("a1", concurrency=99)
    await house.register("only-agentkit", contact_endpoint=None)
    session = await house.trigger()
    await settle(50)
    assert broken(house.dispatcher) is False
    courier.always = None
    assert len(slow.open) == 1
    for _ in range(5):
        await house.trigger(agent_id="only-agentkit")
    await courier.answer(Failure(FailureCode.UNAUTHORIZED, "401"))
    assert broken(house.dispatcher)
    sent = len(courier.calls)
    await house.pass_time(2)
    assert len(courier.calls) > sent
    assert len(slow.open) == 1
    assert not (await house.session(session.id)).status.ended


# --- ten minutes away, ten thousand waiting ---------------------------------------------------


class Returning(Switchboard):
    """Away for ten minutes. Counts how many messages each agent has when one goes out."""

    house: House

    def __init__(self) -> None:
        super().__init__(always=self._outcome)
        self.busy: Counter[str] = Counter()
        self.most = 0
        self.together: list[int] = []

    def _outcome(self, call: Call) -> Outcome:
        if self.house.clock.now() < at(600):
            return AWAY
        self.together.append(self.busy.total())
        return Answered(call.claim.task.priority)

    async def _take(
        self, via: Delivery, claim: Claim, seconds: float, control: SendControl
    ) -> Outcome:
        self.busy[claim.agent.id] += 1
        self.most = max(self.most, self.busy[claim.agent.id])
        try:
            return await super()._take(via, claim, seconds, control)
        finally:
            self.busy[claim.agent.id] -= 1


@pytest.mark.timeout(300)
async def test_F38_ten_thousand_tasks_outlast_ten_minutes_without_agentkit(
    build: Builder, storage_kind: str
) -> None:
    # A database takes its time for each; how many there are makes no difference to it.
    many = 10_000 if storage_kind == "memory" else 500
    courier = Returning()
    house = await build(courier, THROUGH_AGENTKIT, concurrency=40, running=False)
    courier.house = house
    for number in range(10):
        await house.register(f"a{number}", concurrency=3)
    for number in range(many):
        wanted = definition(step("one", agent_capability="research", priority=(number * 7) % 10))
        await house.engine.start_session(session_id(number), wanted, 1, None, {})
    await house.start()
    await house.pass_time(599, step=1)
    assert len(courier.calls) < 100
    counts = await house.storage.counts()
    assert (counts.waiting, counts.tasks) == (many, many)
    for _ in range(2000):
        house.clock.advance(0.5)
        await settle(50)
        if (await house.storage.counts()).by_status == {"completed": many}:
            break
    counts = await house.storage.counts()
    assert counts.by_status == {"completed": many}
    assert courier.most == 3
    done = [call for call in courier.calls if isinstance(call.answer.result(), Answered)]
    assert len({call.task_id for call in done}) == len(done) == many
    first_tries = [call.claim.task.priority for call in done if call.claim.task.attempt == 1]
    assert len(first_tries) > many - 100
    assert first_tries == sorted(first_tries, reverse=True)
    assert max(courier.together) <= 30
    assert courier.together[0] == 1
    tasks = await house.tasks()
    assert {task.retries for task in tasks} == {0}
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}
