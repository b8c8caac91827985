"""Hostile bodies and targets, on every route that takes them: refused, never echoed, never 5xx."""

import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.api.service import API, AUTH, Service, announcement, check_problem
from tests.timing import taking_less_than
from tests.unit.asgi import call, scope

# What is refused before it comes to any storage is the same on all of them.
pytestmark = pytest.mark.storages("memory")

CANARY = "canary-5f1e"
TASK = "00000000-0000-7000-8000-000000000000"

# The place where `%s` stands takes any JSON value, and the rest is a sound request.
TEMPLATES = {
    "agent/a1/state": '{"agentId":"a1","state":"idle","details":{"x":"canary-5f1e","y":%s}}',
    "agents": '{"agentName":"canary-5f1e","metadata":{"a":%s}}',
    "agent/a1/workflow": '{"workflowDefinitionId":"w","initialPayload":{"x":"canary-5f1e","y":%s}}',
    "workflows": '{"id":"canary-5f1e","tasks":[{"taskId":"t","parameters":{"a":%s}}]}',
    "workflows/validate": '{"id":"canary-5f1e","tasks":[{"taskId":"t","parameters":{"a":%s}}]}',
    f"task/{TASK}/result": '{"status":"completed","result":["canary-5f1e",%s]}',
    f"task/{TASK}/heartbeat": '{"progress":["canary-5f1e",%s]}',
}
VALUES = {
    "F76 NaN": "NaN",
    "F76 Infinity": "[Infinity]",
    "F76 minus Infinity": "-Infinity",
    "F76 1e999": "1e999",
    "F78 lone surrogate": '"\\ud800"',
    "F78 lone surrogate in a key": '{"\\udfff":1}',
    "F79 NUL": '"a\\u0000b"',
    "F79 NUL in a key": '{"\\u0000":1}',
    "F80 nesting over 64": "[" * 70 + "]" * 70,
    "F80 nesting of 100,000": "[" * 100_000 + "]" * 100_000,
    "F82 beyond 2^53": str(2**53 + 1),
    "F82 below -2^53": str(-(2**53) - 1),
    "F82 5,000 digits": "9" * 5000,
    "F83 duplicate keys": '{"x":1,"x":2}',
    "broken": '{"x":',
    "two values": "1} {",
}
ROUTES = pytest.mark.parametrize("path", TEMPLATES)


@pytest.fixture(autouse=True)
async def _an_agent(service: Service) -> None:
    await service.register()
    await service.post("workflows", {"id": "w", "tasks": [{"taskId": "t"}]})


async def still_as_before(service: Service) -> None:
    """One agent without a state, one workflow, no session."""
    assert [agent["state"] for agent in (await service.json("agents"))["items"]] == [None]
    assert len((await service.json("workflows"))["items"]) == 1
    assert (await service.json("sessions"))["items"] == []


@ROUTES
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_F76_to_F83_json_that_not_every_side_could_keep_is_422(
    service: Service, path: str, value: str
) -> None:
    answer = await service.raw(path, (TEMPLATES[path] % value).encode())
    check_problem(answer, 422)
    assert CANARY not in answer.text
    assert len(answer.content) < 20_000
    await still_as_before(service)


@pytest.mark.parametrize(
    "value",
    ['"NaN"', '"\\\\ud800"', '"\\\\u0000"', str(2**53), str(-(2**53)), "[" * 55 + "]" * 55],
    ids=["NaN as text", "escaped escape", "escaped NUL", "2^53", "-2^53", "nesting of 60"],
)
async def test_F76_to_F83_what_only_looks_like_it_is_taken(service: Service, value: str) -> None:
    body = TEMPLATES["agent/a1/state"] % value
    assert (await service.raw("agent/a1/state", body.encode())).status_code == 202
    details = (await service.json("agent/a1/state"))["details"]
    assert details == json.loads(body)["details"]


@ROUTES
@pytest.mark.parametrize(
    ("encode", "status"),
    [
        (lambda text: text.encode("utf-16"), 400),
        (lambda text: text.encode("utf-16-le"), 400),
        (lambda text: text.encode("utf-32"), 400),
        (lambda text: b"\xef\xbb\xbf" + text.encode(), 400),
        (lambda text: text.encode()[:-2] + b"\xff\xfe}}", 400),
    ],
    ids=["UTF-16", "UTF-16 without BOM", "UTF-32", "BOM", "no UTF-8"],
)
async def test_F84_other_encodings_are_400(
    service: Service, path: str, encode: Callable[[str], bytes], status: int
) -> None:
    answer = await service.raw(path, encode(TEMPLATES[path] % "1"))
    check_problem(answer, status)
    assert CANARY not in answer.text


@ROUTES
@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "x-unknown", '"cp1252"'])
async def test_F84_other_charsets_are_415(service: Service, path: str, charset: str) -> None:
    body = (TEMPLATES[path] % "1").encode()
    answer = await service.raw(path, body, f"application/json; charset={charset}")
    check_problem(answer, 415, "unsupported_media_type")
    assert CANARY not in answer.text


@ROUTES
async def test_F85_over_1_MiB_is_413_declared_or_counted(service: Service, path: str) -> None:
    body = (TEMPLATES[path] % f'"{"x" * 2**20}"').encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    for content in (body, pieces()):
        headers = {"Content-Type": "application/json"}
        answer = await service.client.post(f"{API}/{path}", content=content, headers=headers)
        check_problem(answer, 413, "payload_too_large")
        assert len(answer.content) < 1000


@ROUTES
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
async def test_F57_an_encoded_body_is_415(service: Service, path: str, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = await service.call("POST", path, content=b"x", headers=headers)
    check_problem(answer, 415, "unsupported_media_type")


@ROUTES
@pytest.mark.parametrize("body", [b"[]", b'"canary-5f1e"', b"5", b"true"])
async def test_a_body_of_another_kind_is_422(service: Service, path: str, body: bytes) -> None:
    answer = await service.raw(path, body)
    check_problem(answer, 422)
    assert CANARY not in answer.text


@ROUTES
async def test_null_counts_as_no_body_where_one_is_optional_and_is_422_elsewhere(
    service: Service, path: str
) -> None:
    answer = await service.raw(path, b"null")
    if path.endswith("heartbeat"):
        check_problem(answer, 404, "task_not_found")
    else:
        check_problem(answer, 422)


# --- YAML -------------------------------------------------------------------------------------

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)
YAMLS = {
    "F87 an anchor": "id: &canary-5f1e w\ntasks: []",
    "F87 an alias": "id: w\ntasks: *canary-5f1e",
    "F87 a bomb": BOMB,
    "F87 a merge key": "<<: {id: w}\ntasks: []",
    "F88 depth": "id: w\ntasks: " + "[" * 1000 + "]" * 1000,
    "F88 depth in blocks": "\n".join(f"{'  ' * n}a:" for n in range(500)),
    "F88 50,000 keys": "\n".join(f"k{n}: 1" for n in range(50_000)),
    "F88 a python tag": "!!python/object/apply:os.system ['canary-5f1e']",
    "F88 a tag": "id: !!binary aGVsbG8=\ntasks: []",
    "F83 a name twice": "id: w\nid: w\ntasks: [{taskId: t}]",
    "two documents": "id: w\n---\nid: v",
    "NUL": "id: w\x00",
    "a quoted NUL": 'id: w\ntasks: [{taskId: t, parameters: {a: "\\0"}}]',
    "a quoted surrogate": 'id: w\ntasks: [{taskId: t, parameters: {a: "\\uD800"}}]',
    "broken": "id: [canary-5f1e",
    "a list": "- canary-5f1e",
    "a text": "canary-5f1e",
    "a tab": "id:\n\t- canary-5f1e",
}


@pytest.mark.parametrize("path", ["workflows", "workflows/validate"])
@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
async def test_F87_F88_yaml_that_is_more_than_json_is_422(
    service: Service, path: str, text: str
) -> None:
    answer = await service.raw(path, text.encode(), "application/yaml")
    check_problem(answer, 422, "invalid_workflow")
    assert CANARY not in answer.text
    await still_as_before(service)


async def test_F87_a_bomb_is_refused_at_its_first_anchor(service: Service) -> None:
    await service.raw("workflows/validate", BOMB.encode(), "application/yaml")
    with taking_less_than(20 * 0.05):
        for _ in range(20):
            await service.raw("workflows/validate", BOMB.encode(), "application/yaml")


async def test_F88_scalars_are_what_the_schema_wants(service: Service) -> None:
    text = b"id: no\nversion: 1.10\nname: 12:30:45\ntasks: [{taskId: on, agentCapability: 010}]"
    definition = (await service.raw("workflows", text, "text/yaml")).json()["definition"]
    assert (definition["id"], definition["version"], definition["name"]) == (
        "no",
        "1.10",
        "12:30:45",
    )
    assert definition["tasks"][0]["taskId"] == "on"
    assert definition["tasks"][0]["agentCapability"] == "010"


# --- targets ----------------------------------------------------------------------------------

TARGETS = {
    "parent": "agent/x/../a1",
    "hidden parent": "agent/%2e%2e/a1",
    "hidden slash": "agent/x%2Fy",
    "hidden backslash": "agent/x%5Cy",
    "CR LF": "agent/x%0D%0AX-Injected:%201",
    "NUL": "agent/x%00",
    "escape": "agent/%1B[31mcanary-5f1e",
    "right to left": "agent/%E2%80%AEcanary-5f1e",
    "line separator": "agent/x%E2%80%A8y",
    "10 kB": f"agent/{'x' * 10_000}",
    "256 characters": f"agent/{'x' * 256}",
}


@pytest.mark.parametrize("suffix", ["", "/state", "/history"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
async def test_F91_hostile_ids_in_the_path_are_422(
    service: Service, target: str, suffix: str
) -> None:
    # By hand, because a client would tidy the path up.
    headers = [(name.lower().encode(), value.encode()) for name, value in AUTH.items()]
    answer = await call(service.app, scope("GET", f"{API}/{target}{suffix}", headers))
    assert (answer.status, answer.code) == (422, "validation_error")
    assert CANARY.encode() not in answer.body
    assert answer.header("x-injected") is None


@pytest.mark.parametrize(
    "agent_id", ["a/../b", "%2e%2e", "a\r\nb", "x" * 10_000, "\u202eabc", "\x1b[31m", "", " a", "é"]
)
async def test_F91_hostile_ids_in_a_body_are_422(service: Service, agent_id: str) -> None:
    body = {"agentId": agent_id, "agentName": "one"}
    problem = check_problem(await service.post("agents", body), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == ["/agentId"]
    announced = announcement(agentId=agent_id)
    answer = await service.notify(announced, **service.signed(announced))
    check_problem(answer, 422 if agent_id else 400)
    document = {"id": agent_id, "tasks": [{"taskId": "t"}]}
    check_problem(await service.post("workflows", document), 422)
    await still_as_before(service)


@pytest.mark.parametrize("query", ["search=%00", "search=a%0Ab", "search=%1B", "search=%7F"])
async def test_F91_control_characters_in_a_query_are_422(service: Service, query: str) -> None:
    check_problem(await service.get(f"agents?{query}"), 422)


@pytest.mark.parametrize(
    "query",
    [
        "limit=canary-5f1e",
        "availability=canary-5f1e",
        "cursor=canary-5f1e",
        "limit=1&limit=canary-5f1e",
        f"search={'canary-5f1e' * 1000}",
        "limit=%FF",
        "limit=%ED%A0%80",
        "limit=\u0665",
    ],
)
async def test_a_bad_query_is_never_echoed(service: Service, query: str) -> None:
    answer = await service.get(f"agents?{query}")
    assert answer.status_code in (200, 400, 422)
    assert CANARY not in answer.text
