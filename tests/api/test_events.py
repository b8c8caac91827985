from typing import Any

import pytest

from tests.api.service import Service, check_problem


async def story(service: Service) -> dict[str, str]:
    await service.register()
    await service.register("a2")
    await service.pass_time(10)
    session = await service.trigger()
    task = await service.task(session)
    await service.report(state="active")
    return {"session": session, "task": task["taskId"]}


async def types(service: Service, **query: Any) -> list[str]:
    return [item["type"] for item in (await service.json("events", **query))["items"]]


async def test_every_transition_is_an_event(service: Service) -> None:
    ids = await story(service)
    page = await service.json("events")
    assert [item["seq"] for item in page["items"]] == list(range(1, len(page["items"]) + 1))
    [running] = [item for item in page["items"] if item["type"] == "task.running"]
    assert (running["agentId"], running["sessionId"], running["taskId"]) == (
        "a1",
        ids["session"],
        ids["task"],
    )
    assert running.keys() == {"seq", "type", "at", "agentId", "sessionId", "taskId", "data"}


async def test_the_filters_hold_together(service: Service) -> None:
    ids = await story(service)
    assert await types(service, type="agent.registered") == ["agent.registered"] * 2
    assert await types(service, type="agent") == ["agent.registered"] * 2 + ["agent.state"]
    assert await types(service, agentId="a2") == ["agent.registered"]
    assert await types(service, taskId=ids["task"], type="task.running") == ["task.running"]
    assert await types(service, sessionId=ids["session"], agentId="a2") == []
    since = await types(service, since="2026-01-01T12:00:05")
    assert "agent.registered" not in since
    assert "session.started" in since
    assert await types(service, since="2026-01-01T14:00:05+02:00") == since


async def test_repeated_type_means_either(service: Service) -> None:
    await story(service)
    found = await types(service, type=["agent.registered", "task.running"])
    assert sorted(set(found)) == ["agent.registered", "task.running"]


@pytest.mark.parametrize(
    ("word", "guess"),
    [("task.complete", "task.completed"), ("tsak", "task"), ("TASK", "task"), ("zzzz", None)],
)
async def test_unknown_event_type_is_refused_with_a_suggestion(
    service: Service, word: str, guess: str | None
) -> None:
    problem = check_problem(await service.get("events", type=["task", word]), 422)
    [fault] = problem["errors"]
    assert (fault["pointer"], fault["message"]) == ("/query/type", problem["detail"])
    if guess is None:
        assert "Did you mean" not in fault["message"]
    else:
        assert fault["message"].endswith(f"Did you mean {guess}?")


async def test_a_reader_can_follow(service: Service) -> None:
    await service.register()
    page = await service.json("events", limit=1)
    assert (len(page["items"]), page["nextCursor"]) == (1, "1")
    end = await service.json("events", cursor=page["nextCursor"])
    assert (end["items"], end["nextCursor"]) == ([], "1")
    await service.register("a2")
    news = await service.json("events", cursor=end["nextCursor"])
    assert [item["agentId"] for item in news["items"]] == ["a2"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("cursor=-1", "/query/cursor"),
        ("cursor=x", "/query/cursor"),
        (f"cursor={2**53 + 1}", "/query/cursor"),
        (f"cursor={'9' * 5000}", "/query/cursor"),
        ("since=yesterday", "/query/since"),
        ("since=9999-12-31T23:59:59-14:00", "/query/since"),
        ("limit=201", "/query/limit"),
    ],
)
async def test_a_bad_query_is_422(service: Service, query: str, pointer: str) -> None:
    problem = check_problem(await service.get(f"events?{query}"), 422, "validation_error")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


async def test_a_cursor_beyond_the_end_finds_nothing(service: Service) -> None:
    await service.register()
    assert (await service.json("events", cursor=2**53))["items"] == []
