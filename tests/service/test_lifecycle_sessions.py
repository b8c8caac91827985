"""The use cases about sessions and tasks: starting once, following, ending early."""

import asyncio
from typing import Any

import pytest

from opscore.exceptions import (
    AgentNotFoundError,
    ConflictError,
    DrainingError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    OpsCoreError,
    QueueFullError,
    SessionNotFoundError,
    StorageError,
    TaskNotFoundError,
    VersionConflictError,
    WorkflowNotFoundError,
)
from opscore.lifecycle import Limits
from opscore.models import (
    Answered,
    Counts,
    EventType,
    SessionStatus,
    StateReport,
    TaskResult,
    TaskStatus,
)
from opscore.session_starter import IDEMPOTENCY_AGE, Trigger
from opscore.workflow.queue import Reason
from tests.builders import at, definition, step
from tests.contract.shelf import session_id
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

FLOW = definition()


def trigger(topic: str = "x", agent_id: str = "a1") -> Trigger:
    return Trigger(agent_id, {"topic": topic}, definition=FLOW)


async def counts(house: House) -> Counts:
    return await house.storage.counts()


# --- starting ---------------------------------------------------------------------------------


async def test_a_session_begins_with_its_input_and_its_first_task(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    first = step("one", parameters={"topic": "none", "depth": 2})
    wanted = Trigger("a1", {"topic": "x"}, definition=definition(first, step("two")))
    started = await house.lifecycle.start_session(wanted)
    assert started.workflow_id == "flow"
    session = await house.session(started.id)
    assert (session.status, session.created_at) == (SessionStatus.PENDING, at(0))
    assert (session.input, session.workflow_revision) == ({"topic": "x"}, 1)
    task = await house.task(session.id)
    assert (task.status, task.parameters) == (TaskStatus.QUEUED, {"topic": "x", "depth": 2})
    types = [event.type for event in await house.events() if event.session_id]
    assert types == [EventType.SESSION_STARTED, EventType.TASK_QUEUED]


async def test_inline_definition_with_new_id_is_saved_with_its_session(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    first = await house.lifecycle.start_session(trigger())
    assert (await house.session(first.id)).workflow_revision == 1
    later = await house.lifecycle.start_session(Trigger("a1", {}, "flow"))
    assert (await house.session(later.id)).definition == FLOW
    same = await house.lifecycle.start_session(trigger())
    assert (await house.session(same.id)).workflow_revision == 1
    [saved] = await house.events(EventType.WORKFLOW_SAVED)
    assert saved.data == {"workflowId": "flow", "revision": 1}


async def test_inline_definition_with_known_id_runs_and_the_saved_one_stays(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    await house.catalog.create_workflow(FLOW)
    other = definition(step("other"))
    started = await house.lifecycle.start_session(Trigger("a1", {}, definition=other))
    session = await house.session(started.id)
    assert (session.definition, session.workflow_revision) == (other, 0)
    assert (await house.catalog.get_workflow_definition("flow")).definition == FLOW


async def test_inline_definitions_with_one_new_id_at_once_all_run(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    flows = [definition(step(f"s{number}")) for number in range(5)]
    started = await asyncio.gather(
        *(house.lifecycle.start_session(Trigger("a1", {}, definition=flow)) for flow in flows)
    )
    sessions = [await house.session(one.id) for one in started]
    assert [session.definition for session in sessions] == flows
    assert sorted(session.workflow_revision for session in sessions) == [0, 0, 0, 0, 1]
    page = await house.catalog.revisions("flow", None, 10)
    assert [one.revision for one in page.items] == [1]
    assert (await house.catalog.get_workflow_definition("flow")).definition in flows


async def test_a_saved_workflow_runs_in_the_revision_it_began_with(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    await house.catalog.create_workflow(FLOW)
    first = await house.lifecycle.start_session(Trigger("a1", {}, "flow"))
    changed = definition(step("other"))
    await house.catalog.create_workflow(changed)
    second = await house.lifecycle.start_session(Trigger("a1", {}, "flow"))
    old, new = await house.session(first.id), await house.session(second.id)
    assert (old.definition, old.workflow_revision) == (FLOW, 1)
    assert (new.definition, new.workflow_revision) == (changed, 2)


async def test_what_cannot_start_leaves_nothing(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    with pytest.raises(AgentNotFoundError):
        await house.lifecycle.start_session(trigger(agent_id="nobody"))
    for workflow_id in ("unknown", None):
        with pytest.raises(WorkflowNotFoundError):
            await house.lifecycle.start_session(Trigger("a1", {}, workflow_id))
    await house.lifecycle.deregister_agent("a1")
    with pytest.raises(ConflictError, match="choose another one"):
        await house.lifecycle.start_session(trigger())
    assert (await counts(house)).sessions == 0


async def test_F9_a_service_that_drains_starts_nothing(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    house.lifecycle.drain()
    with pytest.raises(DrainingError) as refused:
        await house.lifecycle.start_session(trigger())
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert (await counts(house)).sessions == 0
    await house.lifecycle.set_state(StateReport("a1", "idle"))


async def test_F18_a_full_queue_refuses_triggers_and_leaves_nothing_half_made(
    build: Builder,
) -> None:
    house = await build(running=False, limits=Limits(queue=2))
    await house.register()
    await house.trigger()
    await house.trigger()
    before = await counts(house)
    with pytest.raises(QueueFullError) as refused:
        await house.lifecycle.start_session(trigger(), "key")
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert await counts(house) == before
    assert await house.storage.idempotency("key", at(0)) is None
    await house.lifecycle.set_state(StateReport("a1", "idle"))
    await house.register("a2")
    assert (await counts(house)).agents == 2
    await house.dispatcher.process_next_task()
    session = await house.lifecycle.start_session(trigger(), "key")
    assert (await house.session(session.id)).status is SessionStatus.PENDING


async def test_F51_a_start_that_cannot_be_written_did_not_happen(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    await house.register()
    storage.away = True
    with pytest.raises(StorageError):
        await house.lifecycle.start_session(trigger(), "key")
    storage.away = False
    assert (await counts(house)).sessions == 0
    session = await house.lifecycle.start_session(trigger(), "key")
    assert (await house.lifecycle.start_session(trigger(), "key")).id == session.id


# --- once for each key ------------------------------------------------------------------------


async def test_F99_the_same_request_again_gives_the_same_session(build: Builder) -> None:
    house = await build(Switchboard(always=Answered("done")))
    await house.register()
    first = await house.lifecycle.start_session(trigger(), "key")
    await settle(50)
    again = await house.lifecycle.start_session(trigger(), "key")
    assert again == first
    assert again.workflow_id == "flow"
    assert (await house.session(again.id)).status is SessionStatus.COMPLETED
    other = await house.lifecycle.start_session(trigger(), "another key")
    assert other.id != first.id
    assert (await counts(house)).sessions == 2


@pytest.mark.parametrize(
    "other",
    [
        trigger(topic="y"),
        trigger(agent_id="a2"),
        Trigger("a1", {"topic": "x"}, workflow_id="flow"),
        Trigger("a1", {"topic": "x"}, definition=definition(step("two"))),
    ],
    ids=["payload", "agent", "workflow", "definition"],
)
async def test_F99_a_key_with_another_request_is_refused(build: Builder, other: Trigger) -> None:
    house = await build(running=False)
    await house.register()
    await house.lifecycle.start_session(trigger(), "key")
    with pytest.raises(IdempotencyMismatchError) as refused:
        await house.lifecycle.start_session(other, "key")
    assert refused.value.status == 422
    assert (await counts(house)).sessions == 1


async def test_F99_the_order_of_a_payloads_keys_makes_no_other_request(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    first = await house.lifecycle.start_session(
        Trigger("a1", {"a": 1, "b": {"c": 2, "d": 3}}, definition=FLOW), "key"
    )
    again = await house.lifecycle.start_session(
        Trigger("a1", {"b": {"d": 3, "c": 2}, "a": 1}, definition=FLOW), "key"
    )
    assert again.id == first.id


@pytest.mark.parametrize("inline", [True, False])
async def test_waiting_bytes_over_the_budget_refuse_triggers_until_dispatched(
    build: Builder, inline: bool
) -> None:
    house = await build(running=False, limits=Limits(queue_bytes=3000))
    await house.register()
    await house.catalog.create_workflow(FLOW)
    large = definition(step("one"), step("two", parameters={"text": "x" * 2000}))
    wanted = (
        Trigger("a1", {}, definition=large) if inline else Trigger("a1", {"t": "x" * 1000}, "flow")
    )
    await house.lifecycle.start_session(wanted)
    await house.lifecycle.start_session(wanted)
    before = await counts(house)
    assert before.waiting_bytes >= 4000
    with pytest.raises(QueueFullError, match="OPSCORE_QUEUE_BYTES") as refused:
        await house.lifecycle.start_session(wanted, "key")
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert await counts(house) == before
    await house.dispatcher.process_next_task()
    await house.lifecycle.start_session(wanted, "key")
    assert (await counts(house)).sessions == 3


async def test_F99_a_second_request_while_the_first_is_at_work_is_told_to_wait(
    build: Builder,
) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    await house.register()
    storage.slow = {"apply"}
    first = asyncio.create_task(house.lifecycle.start_session(trigger(), "key"))
    await settle(50)
    with pytest.raises(IdempotencyInProgressError) as refused:
        await house.lifecycle.start_session(trigger(), "key")
    assert (refused.value.status, refused.value.retry_after) == (409, 1)
    assert not first.done()
    storage.gate.set()
    session = await first
    assert (await house.lifecycle.start_session(trigger(), "key")).id == session.id
    assert (await counts(house)).sessions == 1


async def test_F99_a_key_is_free_again_after_a_request_that_failed(build: Builder) -> None:
    house = await build(running=False)
    with pytest.raises(AgentNotFoundError):
        await house.lifecycle.start_session(trigger(), "key")
    await house.register()
    started = await house.lifecycle.start_session(trigger(topic="other"), "key")
    assert (await house.session(started.id)).input == {"topic": "other"}


@pytest.mark.parametrize("same", [True, False])
async def test_F99_another_replica_that_was_quicker_is_noticed(build: Builder, same: bool) -> None:
    class Raced(Moody):
        """Shows a key only once it has been refused for being in use."""

        hidden = True

        async def ask(self, method: str, *args: Any, **named: Any) -> Any:
            if method == "idempotency" and self.hidden:
                self.hidden = False
                return None
            return await super().ask(method, *args, **named)

    storage = await build.storage(Raced)
    house = await build(storage=storage, running=False)
    await house.register()
    storage.hidden = False
    first = await house.lifecycle.start_session(trigger(), "key")
    storage.hidden = True
    if same:
        again = await house.lifecycle.start_session(trigger(), "key")
        assert again.id == first.id
    else:
        with pytest.raises(IdempotencyMismatchError):
            await house.lifecycle.start_session(trigger("y"), "key")
    assert (await counts(house)).sessions == 1


async def test_F99_a_key_is_remembered_for_a_day(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    first = await house.lifecycle.start_session(trigger(), "key")
    house.clock.advance(IDEMPOTENCY_AGE.total_seconds() - 1)
    assert (await house.lifecycle.start_session(trigger(), "key")).id == first.id
    house.clock.advance(1)
    assert (await house.lifecycle.start_session(trigger("y"), "key")).id != first.id


# --- following and changing -------------------------------------------------------------------


async def test_metadata_is_merged_and_null_takes_a_key_away(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    session = await house.trigger()
    await house.lifecycle.update_session(session.id, {"a": 1, "b": {"c": 2}})
    updated = await house.lifecycle.update_session(session.id, {"a": None, "d": [3]})
    assert updated.metadata == {"b": {"c": 2}, "d": [3]}
    assert updated == await house.session(session.id)
    assert len(await house.events(EventType.SESSION_UPDATED)) == 2


async def test_what_nobody_knows_is_not_found(build: Builder) -> None:
    lifecycle = (await build(running=False)).lifecycle
    unknown = session_id(1)
    cases: list[tuple[Any, type[OpsCoreError]]] = [
        (lifecycle.get_session(unknown), SessionNotFoundError),
        (lifecycle.update_session(unknown, {}), SessionNotFoundError),
        (lifecycle.cancel_session(unknown, "x"), SessionNotFoundError),
        (lifecycle.get_task(unknown), TaskNotFoundError),
        (lifecycle.report_result(unknown, TaskResult(True)), TaskNotFoundError),
        (lifecycle.heartbeat(unknown, None, None), TaskNotFoundError),
    ]
    for call, error in cases:
        with pytest.raises(error):
            await call


async def test_a_session_is_cancelled_once(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    session = await house.trigger()
    cancelled = await house.lifecycle.cancel_session(session.id, "not needed")
    assert cancelled.status is SessionStatus.CANCELLED
    assert cancelled.error == {"code": "cancelled", "message": "not needed"}
    assert (await house.task(session.id)).status is TaskStatus.CANCELLED
    assert await house.lifecycle.cancel_session(session.id, "again") == cancelled
    assert len(await house.events(EventType.SESSION_CANCELLED)) == 1


async def test_a_session_that_ended_otherwise_is_not_cancelled(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)))
    await house.register()
    session = await house.trigger()
    with pytest.raises(ConflictError, match="it is completed"):
        await house.lifecycle.cancel_session(session.id, "too late")
    assert (await house.session(session.id)).output == 1


async def test_a_precise_result_counts_once(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await courier.answer()
    task = await house.task()
    result = TaskResult(True, result={"n": 1}, attempt=1)
    assert not await house.lifecycle.report_result(task.id, TaskResult(True, attempt=2))
    assert await house.lifecycle.report_result(task.id, result)
    assert not await house.lifecycle.report_result(task.id, result)
    assert (await house.session(session.id)).output == {"n": 1}
    assert len(await house.events(EventType.TASK_COMPLETED)) == 1


async def test_a_heartbeat_shows_progress(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.trigger()
    await courier.answer()
    task = await house.task()
    beaten = await house.lifecycle.heartbeat(task.id, {"percent": 10}, 1)
    assert (beaten.status, beaten.progress) == (TaskStatus.RUNNING, {"percent": 10})
    assert await house.lifecycle.get_task(task.id) == beaten


async def test_every_waiting_task_says_why(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.register("a2", capabilities=())
    await house.trigger()
    busy = await house.trigger()
    nobody = await house.trigger(step("one", agent_capability="painting"))
    unknown = await house.trigger(step("one", agent_id="stranger"))
    tasks = tuple(await house.tasks())
    reasons = await house.lifecycle.pending_reasons(tasks, house.dispatcher.gate())
    by_session = {task.session_id: reasons[task.id].code for task in tasks if task.id in reasons}
    assert by_session == {
        busy.id: Reason.AGENT_BUSY,
        nobody.id: Reason.NO_CAPABLE_AGENT,
        unknown.id: Reason.AGENT_NOT_REGISTERED,
    }
    explanation = await house.lifecycle.explain(await house.task(busy.id), None)
    (obstacle,) = explanation.obstacles
    assert (obstacle.agent_id, obstacle.unblocked_by) == ("a1", "one of its tasks ends")


# --- races ------------------------------------------------------------------------------------


async def test_every_use_case_outlasts_a_race(build: Builder) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    session = await house.trigger()
    await courier.answer()
    task = await house.task()
    storage.conflicts = 2
    assert (await house.lifecycle.heartbeat(task.id, 1, None)).progress == 1
    storage.conflicts = 2
    assert (await house.lifecycle.update_session(session.id, {"a": 1})).metadata == {"a": 1}
    storage.conflicts = 2
    assert await house.lifecycle.report_result(task.id, TaskResult(True))
    assert len(await house.events(EventType.TASK_COMPLETED)) == 1


async def test_a_race_that_is_lost_again_and_again_is_given_up(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    await house.register()
    session = await house.trigger()
    storage.conflicts = 1_000
    with pytest.raises(VersionConflictError) as refused:
        await house.lifecycle.cancel_session(session.id, "x")
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    with pytest.raises(VersionConflictError):
        await house.register()
    storage.conflicts = 0
    assert (await house.session(session.id)).status is SessionStatus.PENDING
