"""Refused webhooks and reports of unknown agents are shown to operators."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import orjson
import pytest

from opscore.api.refused_agents import KEPT, RefusedAgents, RefusedKind
from tests.api.service import NOTIFY, SECRET, Service, announcement, check_problem
from tests.fakes import ManualClock

OTHER = "whsec_another_0123456789abcdef"
AGENT = "5f9f43c5-2d88-4173-ba89-9a85aa1ff15f"
LOGGER = "opscore.api.refused_agents"

pytestmark = pytest.mark.storages("memory")  # nothing of it is stored


async def refused(service: Service) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await service.json("agents/refused"))["items"]
    return items


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


@pytest.mark.fault("F128")
async def test_webhook_with_a_wrong_secret_is_seen_as_a_claim(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    check_problem(await service.webhook(secret=OTHER), 401)
    (one,) = await refused(service)
    assert one["kind"] == "webhook"
    assert one["verified"] is False
    assert (one["agentId"], one["agentName"]) == (AGENT, "a1")
    assert (one["remoteAddress"], one["code"]) == ("127.0.0.1", "unauthorized")
    assert "share the secret" in one["reason"]
    (line,) = warnings(caplog)
    assert f"agent {AGENT}, name a1 (unverified), from 127.0.0.1" in line
    assert "share the secret" in line
    shown = orjson.dumps(one).decode() + line
    assert SECRET not in shown
    assert OTHER not in shown
    metrics = (await service.get("/metrics")).text
    assert 'opscore_refused_webhooks_total{code="unauthorized"} 1.0' in metrics


@pytest.mark.fault("F128")
@pytest.mark.parametrize(
    ("details", "code", "reason"),
    [
        ({"contactEndpoint": "http://169.254.169.254/"}, "forbidden_endpoint", "link-local"),
        ({"contactEndpoint": 5}, "validation_error", "/contactEndpoint: "),
        ({"agentId": "a b"}, "validation_error", "/agentId: "),
    ],
)
async def test_genuine_webhook_that_is_refused_is_seen_with_the_reason(
    service: Service, details: dict[str, Any], code: str, reason: str
) -> None:
    assert (await service.webhook(**details)).status_code == 422
    (one,) = await refused(service)
    assert (one["verified"], one["code"], one["agentName"]) == (True, code, "a1")
    assert reason in one["reason"]


async def test_webhook_that_another_layer_refuses_is_seen(service: Service) -> None:
    too_large = b"x" * (256 * 1024 + 1)
    check_problem(await service.notify(too_large, **service.signed(too_large)), 413)
    check_problem(await service.notify(b"", Content_Type="text/html"), 401)
    codes = [(one["code"], one["agentId"]) for one in await refused(service)]
    assert sorted(codes) == [("payload_too_large", None), ("unauthorized", None)]


async def test_webhook_that_the_storage_could_not_take_is_seen(service: Service) -> None:
    service.storage.away = True
    body = announcement()
    call = service.notify(body, **service.signed(body))
    answer = await until_answered(service, call)
    check_problem(answer, 503)
    service.storage.away = False
    (one,) = await refused(service)
    assert (one["code"], one["agentId"], one["verified"]) == ("storage_unavailable", AGENT, True)


async def until_answered(service: Service, call: Any) -> Any:
    task = asyncio.create_task(call)
    while not task.done():
        await service.pass_time(1)
    return task.result()


async def test_taken_webhooks_are_not_listed(service: Service) -> None:
    for _ in range(2):
        assert (await service.webhook()).status_code == 200
    answer = await service.call("GET", NOTIFY)
    assert answer.status_code in (401, 405)
    assert await refused(service) == []


@pytest.mark.fault("F128")
async def test_report_of_an_unknown_agent_is_seen_until_it_registers(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        report = {"agentId": AGENT, "state": "idle"}
        check_problem(await service.post(f"agent/{AGENT}/state", report), 404)
    (one,) = await refused(service)
    assert (one["kind"], one["verified"], one["agentId"]) == ("report", True, AGENT)
    assert (one["count"], one["code"]) == (3, "agent_not_found")
    (line,) = warnings(caplog)
    assert line.startswith(f"State report of an unknown agent refused: agent {AGENT}")
    assert "opscore_unknown_agent_reports_total 3.0" in (await service.get("/metrics")).text
    assert (await service.webhook()).status_code == 200
    assert await refused(service) == []


async def test_claims_are_shown_as_one_short_printable_line(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    name = "a\r\nb\x1b[31m\u202e" + "n" * 1000
    check_problem(await service.webhook(secret=OTHER, agentName=name, agentId=["x"]), 401)
    (one,) = await refused(service)
    assert one["agentId"] is None
    assert one["agentName"].startswith("a\ufffd\ufffdb\ufffd[31m\ufffdnnn")
    assert len(one["agentName"]) == 200
    assert warnings(caplog)[0].isprintable()


async def test_list_of_refused_agents_needs_a_key(service: Service) -> None:
    answer = await service.call("GET", "agents/refused", headers={"Authorization": ""})
    check_problem(answer, 401, "unauthorized")


# --- bounds -----------------------------------------------------------------------------------


def note(agents: RefusedAgents, kind: RefusedKind, agent_id: str) -> None:
    agents.note(kind, {"agentId": agent_id}, "10.0.0.1", "unauthorized", "No.")


def test_flood_of_unsigned_webhooks_displaces_nothing_that_was_signed() -> None:
    agents = RefusedAgents(ManualClock())
    note(agents, RefusedKind.WEBHOOK, "genuine")
    note(agents, RefusedKind.REPORT, "reporting")
    for number in range(10 * KEPT):
        note(agents, RefusedKind.UNSIGNED_WEBHOOK, f"x{number}")
    shown = [one.agent_id for one in agents.newest()]
    assert len(shown) == KEPT + 2
    assert {"genuine", "reporting", f"x{10 * KEPT - 1}"} <= set(shown)
    assert agents.counts[RefusedKind.UNSIGNED_WEBHOOK].total() == 10 * KEPT


def test_refusals_are_listed_for_an_hour_newest_first() -> None:
    clock = ManualClock()
    agents = RefusedAgents(clock)
    note(agents, RefusedKind.WEBHOOK, "first")
    clock.advance(1800)
    note(agents, RefusedKind.REPORT, "second")
    assert [one.agent_id for one in agents.newest()] == ["second", "first"]
    note(agents, RefusedKind.WEBHOOK, "first")
    clock.advance(1801)
    (one, other) = agents.newest()
    assert {one.agent_id, other.agent_id} == {"first", "second"}
    clock.advance(timedelta(hours=1).total_seconds())
    assert agents.newest() == []


def test_warnings_are_bounded_and_say_what_was_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    clock = ManualClock()
    agents = RefusedAgents(clock)
    for number in range(1000):
        note(agents, RefusedKind.UNSIGNED_WEBHOOK, f"x{number}")
    assert len(warnings(caplog)) == 20
    clock.advance(60)
    note(agents, RefusedKind.UNSIGNED_WEBHOOK, "later")
    assert warnings(caplog)[-1].endswith("980 more refusals were not logged.")


def test_same_refusal_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    agents = RefusedAgents(clock)
    for _ in range(13):
        note(agents, RefusedKind.REPORT, "a1")
        clock.advance(5)
    assert len(warnings(caplog)) == 2
