"""AgentKit's webhook at the door: what is not genuine is refused before anything is read."""

import asyncio
from collections.abc import Callable

import orjson
import pytest

from opscore.signature import sign
from tests.api.conftest import Runner
from tests.api.service import KEY, SECRET, Service, announcement, check_problem

BODY = announcement()
OTHER = "whsec_another_0123456789abcdef"
T = "X_AgentKit_Timestamp"
S = "X_AgentKit_Signature"
AGENT = "5f9f43c5-2d88-4173-ba89-9a85aa1ff15f"


async def agents(service: Service) -> list[str]:
    return [item["agentId"] for item in (await service.json("agents"))["items"]]


async def refused(service: Service, body: bytes, headers: dict[str, str]) -> None:
    check_problem(await service.notify(body, **headers), 401, "unauthorized")
    assert await agents(service) == []


async def test_the_known_webhook_registers_the_agent(service: Service) -> None:
    assert (await service.notify(BODY, **service.signed(BODY))).json() == {
        "status": "success",
        "message": f"Agent {AGENT} registered.",
    }
    agent = await service.json(f"agent/{AGENT}")
    assert (agent["agentName"], agent["capabilities"], agent["metadata"]) == ("a1", ["x"], None)
    assert agent["contactEndpoint"] == "http://127.0.0.1:9102/task"


async def test_an_iso_timestamp_and_camel_case_time_and_unknown_fields_are_taken(
    service: Service,
) -> None:
    body = announcement(registrationTime="2026-01-01T12:00:00Z", colour="red")
    stamp = service.clock.wall().isoformat()
    headers = {T: stamp, S: sign(SECRET, stamp, body)}
    assert (await service.notify(body, **headers)).status_code == 200


@pytest.mark.parametrize("name", [T, S])
@pytest.mark.parametrize("value", [None, ""])
async def test_F52_a_header_missing_or_empty(
    service: Service, name: str, value: str | None
) -> None:
    headers = service.signed(BODY)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    await refused(service, BODY, headers)


@pytest.mark.parametrize("name", [T, S])
async def test_F52_a_header_doubled(service: Service, name: str) -> None:
    pairs = [(key.replace("_", "-"), value) for key, value in service.signed(BODY).items()]
    doubled = [*pairs, *(pair for pair in pairs if pair[0] == name.replace("_", "-"))]
    answer = await service.call(
        "POST",
        "internal/agent/notify",
        content=BODY,
        headers=[*doubled, ("Content-Type", "application/json")],
    )
    check_problem(answer, 401, "unauthorized")


async def test_F52_the_signature_is_checked_before_the_body_is_parsed(service: Service) -> None:
    await refused(service, b"{not json", {})
    await refused(service, b'{"a":1,"a":2}', {T: "1", S: "0" * 64})


@pytest.mark.parametrize(
    "forge",
    [
        lambda right: right[:-1] + ("0" if right[-1] != "0" else "1"),
        lambda right: right[:-1],
        lambda right: right + "0",
        lambda right: right.upper(),
        lambda right: f" {right}"[:64],
        lambda right: "g" * 64,
        lambda right: f"sha256={right}",
    ],
    ids=["flipped", "63", "65", "upper", "space", "not hex", "prefix"],
)
async def test_F53_a_signature_that_is_not_the_right_one(
    service: Service, forge: Callable[[str], str]
) -> None:
    headers = service.signed(BODY)
    await refused(service, BODY, {**headers, S: forge(headers[S])})


async def test_F53_a_wrong_secret_or_letters_beyond_ascii(service: Service) -> None:
    await refused(service, BODY, service.signed(BODY, secret=OTHER))
    pairs = {"X-AgentKit-Timestamp": b"1767268800", "X-AgentKit-Signature": b"\xe9" * 64}
    answer = await service.call(
        "POST",
        "internal/agent/notify",
        content=BODY,
        headers=[(key.encode(), value) for key, value in pairs.items()],
    )
    check_problem(answer, 401, "unauthorized")


@pytest.mark.parametrize(
    "stamp",
    [
        "+1767268800",
        "1_767_268_800",
        "\u0661\u0667\u0666\u0667\u0662\u0666\u0668\u0668\u0660\u0660",
        "1e9",
        "nan",
        "inf",
        "1767268800.0",
        "9" * 400,
        "-1767268800",
        "yesterday",
    ],
)
async def test_F54_a_timestamp_that_is_no_plain_number(service: Service, stamp: str) -> None:
    signature = service.signed(BODY)[S]
    answer = await service.call(
        "POST",
        "internal/agent/notify",
        content=BODY,
        headers=[
            (b"X-AgentKit-Timestamp", stamp.encode()),
            (b"X-AgentKit-Signature", signature.encode()),
        ],
    )
    check_problem(answer, 401, "unauthorized")


@pytest.mark.parametrize(("skew", "status"), [(-301, 401), (301, 401), (-299, 200), (299, 200)])
async def test_F55_the_clocks_may_differ_by_five_minutes(
    service: Service, skew: int, status: int
) -> None:
    assert (await service.webhook(skew=skew)).status_code == status


async def test_F56_a_dot_cannot_be_moved_from_the_body_into_the_timestamp(
    service: Service,
) -> None:
    body = b"1." + BODY
    headers = service.signed(body)
    await refused(service, BODY, {**headers, T: f"{headers[T]}.1"})


async def test_F57_the_body_written_anew_is_401_and_an_encoding_415(service: Service) -> None:
    headers = service.signed(BODY)
    anew = orjson.dumps(orjson.loads(BODY), option=orjson.OPT_INDENT_2)
    await refused(service, anew, headers)
    answer = await service.notify(BODY, **headers, Content_Encoding="gzip")
    check_problem(answer, 415, "unsupported_media_type")


async def test_F58_an_exact_replay_is_a_duplicate_and_changes_nothing(service: Service) -> None:
    headers = service.signed(BODY)
    assert (await service.notify(BODY, **headers)).json()["status"] == "success"
    before = (await service.json("events"))["nextCursor"]
    await service.pass_time(10)
    answer = await service.notify(BODY, **headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "duplicate")
    assert (await service.json("events"))["nextCursor"] == before


async def test_F64_an_agent_is_announced_though_the_storage_is_away_for_a_moment(
    service: Service,
) -> None:
    service.storage.away = True
    announced = asyncio.create_task(service.webhook())
    await service.pass_time(3)
    assert not announced.done()
    service.storage.away = False
    await service.pass_time(1)
    assert (await announced).status_code == 200
    assert await agents(service) == [AGENT]


async def test_F64_an_announcement_is_refused_before_agentkit_gives_up(service: Service) -> None:
    service.storage.away = True
    announced = asyncio.create_task(service.webhook())
    for _ in range(7):
        await service.pass_time(1)
    check_problem(await announced, 503, "storage_unavailable")


async def test_F59_an_old_registration_replayed_does_not_bring_the_agent_back(
    service: Service,
) -> None:
    headers = service.signed(BODY)
    await service.notify(BODY, **headers)
    await service.pass_time(5)
    assert (await service.webhook("DEREGISTER")).status_code == 200
    replayed = await service.notify(BODY, **headers)
    assert (replayed.status_code, replayed.json()["status"]) == (200, "duplicate")
    await service.pass_time(5)
    signed_anew = await service.notify(BODY, **service.signed(BODY))
    assert signed_anew.status_code == 200
    assert await agents(service) == []


async def test_F60_without_a_secret_every_webhook_is_refused(run: Runner) -> None:
    async with run(webhook_secret="") as service:
        problem = check_problem(await service.webhook(secret="x"), 401)
        assert "OPSCORE_WEBHOOK_SECRET" in problem["detail"]
        check_problem(await service.webhook(secret=""), 401)


async def test_F60_unsigned_webhooks_only_when_they_are_allowed(run: Runner) -> None:
    async with run(webhook_secret="", allow_unsigned_webhooks=True) as service:
        assert (await service.notify(BODY)).status_code == 200
    async with run(allow_unsigned_webhooks=True) as service:
        check_problem(await service.notify(BODY), 401)


async def test_F61_two_secrets_live_while_one_replaces_the_other(run: Runner) -> None:
    async with run(webhook_secret=f"{SECRET}, {OTHER}") as service:
        for secret in (SECRET, OTHER):
            assert (await service.webhook(secret=secret)).status_code == 200
            await service.pass_time(1)
        check_problem(await service.webhook(secret=f"{SECRET}, {OTHER}"), 401)


async def test_F62_after_a_deregistration_nothing_new_is_dispatched_and_nothing_hangs(
    service: Service,
) -> None:
    await service.webhook()
    session = await service.trigger({"taskId": "one"}, {"taskId": "two"}, agent_id=AGENT)
    await service.pass_time(1)
    await service.webhook("DEREGISTER")
    first = await service.task(session)
    assert first["status"] == "dispatched"
    done = await service.post(f"task/{first['taskId']}/result", {"status": "completed"})
    assert done.json()["counted"] is True
    await service.pass_time(5)
    ended = await service.json(f"session/{session}")
    assert (ended["status"], ended["error"]["code"]) == ("failed", "agent_gone")
    assert len(service.courier.sent) == 1


async def test_deregistering_an_unknown_agent_is_no_error(service: Service) -> None:
    answer = await service.webhook("DEREGISTER")
    assert answer.json() == {"status": "success", "message": f"Agent {AGENT} was not registered."}


@pytest.mark.fault("F106")
async def test_deregistration_of_an_unknown_agent_replayed_after_its_registration_is_a_duplicate(
    service: Service,
) -> None:
    body = announcement("DEREGISTER")
    headers = service.signed(body)
    assert (await service.notify(body, **headers)).json()["status"] == "success"
    await service.pass_time(1)
    await service.webhook()
    replayed = await service.notify(body, **headers)
    assert (replayed.status_code, replayed.json()["status"]) == (200, "duplicate")
    assert await agents(service) == [AGENT]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (announcement("PAUSE"), 400),
        (announcement("register"), 400),
        (announcement(agentId=""), 400),
        (announcement(agentId=None), 400),
        (b'{"event_type":"REGISTER"}', 400),
        (b'{"agent_details":{"agentId":"a"}}', 400),
        (b'{"event_type":["REGISTER"],"agent_details":{"agentId":"a"}}', 400),
        (b"[]", 400),
        (b"null", 400),
        (announcement(agentId="a b"), 422),
        (announcement(agentId=5), 422),
        (b"{", 422),
        (b"", 422),
        (b'{"a":1,"a":2}', 422),
        (b"x" * (256 * 1024 + 1), 413),
    ],
)
async def test_F63_what_a_genuine_webhook_must_not_say(
    service: Service, body: bytes, status: int
) -> None:
    check_problem(await service.notify(body, **service.signed(body)), status)
    assert await agents(service) == []


async def test_announcement_that_breaks_rules_is_taken_and_says_what_was_changed(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await service.webhook(
        agentName="n" * 300, capabilities=["x", "", "y" * 200], metadata={"a": "m" * 100_000}
    )
    assert answer.status_code == 200
    message = answer.json()["message"]
    assert message.startswith(
        f"Agent {AGENT} registered. Not all of it could be taken: agentName: "
    )
    assert "metadata: left out (more than 64 KiB)" in message
    agent = await service.json(f"agent/{AGENT}")
    assert len(agent["agentName"]) == 200
    assert agent["capabilities"] == ["x", "y" * 128]
    assert agent["metadata"] is None
    (event,) = (await service.json("events", type="agent.registered"))["items"]
    assert len(event["data"]["notes"]) == 3
    assert any("metadata: left out" in record.getMessage() for record in caplog.records)


async def test_the_key_is_neither_needed_nor_enough(service: Service) -> None:
    answer = await service.notify(BODY, Authorization=f"Bearer {KEY}")
    check_problem(answer, 401, "unauthorized")
