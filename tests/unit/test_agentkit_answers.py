"""What each answer means, as one table for AgentKit and one for agents."""

import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.agentkit_client.answers import (
    MAX_KEPT_BODY,
    HttpAnswer,
    agentkit_outcome,
    direct_outcome,
)
from opscore.models import (
    RESULT_LIMIT,
    Accepted,
    Answered,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
)
from opscore.workflow.upstream import blames
from tests.unit.agentkit_values import NOW, make_task

WORKFLOW = make_task()
TOOL = make_task(message_type=MessageType.TOOL_INVOCATION, tool_name="mock_tool")
ENDPOINT = "http://agent.test/task"

ACCEPTED = {
    "status": "success",
    "message": "Task accepted for agent a1. Dispatch scheduled.",
    "data": {"agentId": "a1", "dispatch_status": "scheduled"},
    "error_code": None,
}
TOOL_DONE = {
    "status": "success",
    "message": "External tool 'mock_tool' executed successfully.",
    "data": {"result": 3},
    "error_code": None,
}
TOOL_FAILED = {
    "status": "error",
    "message": "External tool 'mock_tool' execution failed: neg",
    "data": {"status": "error", "error_message": "neg"},
    "error_code": "EXTERNAL_TOOL_EXECUTION_FAILED",
}
UNKNOWN_AGENT = {"detail": "Agent with ID 'a1' not found."}

BROKEN = [
    b"",
    b" ",
    b"{",
    b"<html><body>Welcome</body></html>",
    b'{"status":"success","data":{"result":NaN}}',
    b'{"status":"success","data":{"result":Infinity}}',
    b'{"status":"success","data":{"result":1e999}}',
    b'{"status":"success","data":{"result":"\\ud800"}}',
    b'{"status":"success","data":{"result":"\\u0000"}}',
    b'{"status":"success","data":{"\\u0000":1}}',
    b'{"status":"success","data":{"result":9007199254740993}}',
    b'{"status":"success","data":{"result":' + b"9" * 5000 + b"}}",
    b'{"status":"success","data":' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"status":"success","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"status":"\xff"}',
    b'\xef\xbb\xbf{"status":"success"}',
]


def answer(status: int, body: Any = b"", **headers: str) -> HttpAnswer:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpAnswer(status, {name.replace("_", "-"): text for name, text in headers.items()}, raw)


def failure(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failure)
    assert outcome.message
    return outcome


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("body", [ACCEPTED, {"status": "success"}, {"status": "scheduled"}])
def test_agentkit_took_the_task(status: int, body: Any) -> None:
    assert agentkit_outcome(answer(status, body), WORKFLOW, NOW) == Accepted()


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("data", "result"),
    [
        ({"result": 3}, 3),
        ({"result": None}, None),
        ({"value": 3}, {"value": 3}),
        ({"result": 3, "unit": "m"}, {"result": 3, "unit": "m"}),
        (None, None),
        ("text", "text"),
    ],
)
def test_a_tool_that_worked_answers_its_result(status: int, data: Any, result: Any) -> None:
    body = TOOL_DONE | {"data": data}
    assert agentkit_outcome(answer(status, body), TOOL, NOW) == Answered(result)


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("task", [TOOL, WORKFLOW])
def test_F31_a_success_status_with_an_error_inside_is_a_failure(status: int, task: Any) -> None:
    failed = failure(agentkit_outcome(answer(status, TOOL_FAILED), task, NOW))
    assert failed.code is FailureCode.TOOL_ERROR
    assert failed.message == "AgentKit reported an error: neg"
    assert failed.error == {"message": "neg", "code": "EXTERNAL_TOOL_EXECUTION_FAILED"}
    assert not failed.terminal


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"status": "ERROR"}, "no reason was given"),
        ({"status": "error", "message": "bad day", "data": None}, "bad day"),
        ({"status": "error", "data": {"error_message": {"a": 1}}}, '{"a":1}'),
        ({"status": "error", "data": {"error_message": "x" * 9000}}, "x" * MAX_KEPT_BODY),
    ],
)
def test_F31_the_reason_is_taken_from_where_it_stands(body: Any, message: str) -> None:
    failed = failure(agentkit_outcome(answer(202, body), TOOL, NOW))
    assert failed.error == {"message": message, "code": None}


@pytest.mark.parametrize("body", BROKEN)
@pytest.mark.parametrize("task", [TOOL, WORKFLOW])
def test_F32_a_body_that_says_nothing_leaves_the_outcome_unknown(body: bytes, task: Any) -> None:
    failed = failure(agentkit_outcome(answer(202, body), task, NOW))
    assert failed.code is FailureCode.OUTCOME_UNKNOWN
    assert not failed.terminal
    assert not failed.free


@pytest.mark.parametrize("body", [[], "ok", 1, None, {}, {"status": None}, {"status": 1}])
@pytest.mark.parametrize("task", [TOOL, WORKFLOW])
def test_F32_json_without_a_status_leaves_the_outcome_unknown(body: Any, task: Any) -> None:
    outcome = agentkit_outcome(answer(202, body), task, NOW)
    assert failure(outcome).code is FailureCode.OUTCOME_UNKNOWN


def test_F32_a_tool_that_is_only_scheduled_has_no_result() -> None:
    outcome = agentkit_outcome(answer(202, {"status": "scheduled"}), TOOL, NOW)
    assert failure(outcome).code is FailureCode.OUTCOME_UNKNOWN


def test_F32_a_body_that_was_not_read_to_its_end_is_not_trusted() -> None:
    unread = HttpAnswer(202, {}, orjson.dumps(ACCEPTED), "it is larger than 1024 KiB")
    for outcome in (
        agentkit_outcome(unread, WORKFLOW, NOW),
        direct_outcome(unread, ENDPOINT, NOW),
        direct_outcome(HttpAnswer(202, {}, b"", "it is compressed"), ENDPOINT, NOW),
    ):
        assert failure(outcome).code is FailureCode.OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    ("task", "body", "code", "terminal"),
    [
        (WORKFLOW, UNKNOWN_AGENT, FailureCode.AGENT_UNKNOWN, False),
        (WORKFLOW, {"detail": "no such agent"}, FailureCode.AGENT_UNKNOWN, False),
        (WORKFLOW, {"detail": "Not Found"}, FailureCode.UPSTREAM_ERROR, False),
        (WORKFLOW, b"<html>nothing here</html>", FailureCode.UPSTREAM_ERROR, False),
        (WORKFLOW, b"", FailureCode.UPSTREAM_ERROR, False),
        (TOOL, UNKNOWN_AGENT, FailureCode.AGENT_UNKNOWN, False),
        (TOOL, {"detail": "Tool 'mock_tool' not found."}, FailureCode.REJECTED, True),
        (TOOL, {"detail": "Not Found"}, FailureCode.UPSTREAM_ERROR, False),
    ],
)
def test_F30_404_from_agentkit(task: Any, body: Any, code: FailureCode, terminal: bool) -> None:
    failed = failure(agentkit_outcome(answer(404, body), task, NOW))
    assert (failed.code, failed.terminal, failed.status) == (code, terminal, 404)


REFUSALS: list[tuple[int, dict[str, str], FailureCode, bool, bool, float | None]] = [
    (301, {}, FailureCode.REDIRECTED, True, False, None),
    (302, {"location": "http://169.254.169.254/"}, FailureCode.REDIRECTED, True, False, None),
    (307, {}, FailureCode.REDIRECTED, True, False, None),
    (308, {}, FailureCode.REDIRECTED, True, False, None),
    (400, {}, FailureCode.REJECTED, True, False, None),
    (401, {}, FailureCode.UNAUTHORIZED, False, False, None),
    (402, {}, FailureCode.REJECTED, True, False, None),
    (403, {}, FailureCode.UNAUTHORIZED, False, False, None),
    (408, {}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (409, {}, FailureCode.REJECTED, True, False, None),
    (413, {}, FailureCode.REJECTED, True, False, None),
    (422, {}, FailureCode.REJECTED, True, False, None),
    (429, {}, FailureCode.THROTTLED, False, True, 5),
    (429, {"retry_after": "9"}, FailureCode.THROTTLED, False, True, 9),
    (429, {"retry_after": "-9"}, FailureCode.THROTTLED, False, True, 5),
    (429, {"retry_after": "0"}, FailureCode.THROTTLED, False, True, 1),
    (429, {"retry_after": "86400"}, FailureCode.THROTTLED, False, True, 600),
    (502, {}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (502, {"retry_after": "4"}, FailureCode.UPSTREAM_ERROR, False, False, 4),
    (503, {}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (503, {"retry_after": "3"}, FailureCode.THROTTLED, False, True, 3),
    (503, {"retry_after": "soon"}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (504, {}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (599, {}, FailureCode.UPSTREAM_ERROR, False, False, None),
    (666, {}, FailureCode.OUTCOME_UNKNOWN, False, False, None),
]


@pytest.mark.parametrize(("status", "headers", "code", "terminal", "free", "wait"), REFUSALS)
def test_F26_to_F29_and_F33_refusals(
    status: int,
    headers: dict[str, str],
    code: FailureCode,
    terminal: bool,
    free: bool,
    wait: float | None,
) -> None:
    given_answer = answer(status, {"detail": "why"}, **headers)
    retry_after = None if wait is None else timedelta(seconds=wait)
    for outcome in (
        agentkit_outcome(given_answer, WORKFLOW, NOW),
        agentkit_outcome(given_answer, TOOL, NOW),
        direct_outcome(given_answer, ENDPOINT, NOW),
    ):
        failed = failure(outcome)
        assert (failed.code, failed.terminal, failed.free) == (code, terminal, free)
        assert (failed.status, failed.retry_after) == (status, retry_after)
        assert failed.body == '{"detail":"why"}'


@pytest.mark.fault("F125")
@pytest.mark.parametrize(
    "status", [302, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504, 666]
)
@pytest.mark.parametrize("who", ["External tool 'mock_tool'", "Tool 'mock_tool'"])
def test_status_of_a_tools_endpoint_is_the_tools_failure(status: int, who: str) -> None:
    detail = f"{who} returned error: Status {status} - Response: {{}}"
    given_answer = answer(status, {"detail": detail}, retry_after="9")
    failed = failure(agentkit_outcome(given_answer, TOOL, NOW))
    assert (failed.code, failed.status) == (FailureCode.TOOL_ERROR, status)
    assert not failed.terminal
    assert not failed.free
    assert failed.retry_after is None
    assert failed.message == f"The tool failed (HTTP {status}): {detail}"
    assert failed.error == {"message": detail, "code": None}
    assert not blames(TOOL, failed)


@pytest.mark.fault("F125")
@pytest.mark.parametrize("who", ["External tool", "Tool"])
def test_unknown_tool_is_not_tried_again(who: str) -> None:
    body = {"detail": f"{who} 'mock_tool' not found."}
    failed = failure(agentkit_outcome(answer(404, body), TOOL, NOW))
    assert (failed.code, failed.terminal) == (FailureCode.REJECTED, True)


@pytest.mark.fault("F125")
def test_tool_detail_on_a_workflow_task_is_agentkits_own_failure() -> None:
    body = {"detail": "Tool 'mock_tool' returned error: Status 401"}
    failed = failure(agentkit_outcome(answer(401, body), WORKFLOW, NOW))
    assert failed.code is FailureCode.UNAUTHORIZED


@pytest.mark.parametrize("body", [b"x" * 100_000, b"\xff" * 100_000, "\u20ac".encode() * 40_000])
def test_F28_the_body_is_kept_up_to_4_kib(body: bytes) -> None:
    kept = failure(agentkit_outcome(answer(422, body), WORKFLOW, NOW)).body
    assert kept is not None
    assert MAX_KEPT_BODY - 4 < len(kept.encode()) <= MAX_KEPT_BODY


def test_F91_a_kept_body_holds_no_control_characters() -> None:
    failed = failure(agentkit_outcome(answer(400, b"a\0b\x1b[31mc\r\n"), WORKFLOW, NOW))
    assert failed.body == "a\ufffdb\ufffd[31mc\r\n"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"", Accepted()),
        (b"\r\n", Accepted()),
        ({}, Accepted()),
        ({"status": "accepted"}, Accepted()),
        ({"ok": True}, Accepted()),
        ({"status": "accepted", "result": None}, Accepted()),
        ("ok", Accepted()),
        ([1], Accepted()),
        ({"status": "completed", "result": {"urls": ["a"]}}, Answered({"urls": ["a"]})),
        ({"status": "Completed", "result": "text"}, Answered("text")),
        ({"status": "success", "result": 1}, Answered(1)),
        ({"status": " DONE ", "result": 0}, Answered(0)),
        ({"status": "finished", "result": None}, Answered(None)),
        ({"status": "finished", "urls": ["a"], "count": 1}, Answered({"urls": ["a"], "count": 1})),
        ({"status": "completed"}, Answered(None)),
        ({"result": {"urls": ["a"]}}, Answered({"urls": ["a"]})),
        ({"result": None}, Answered(None)),
        ({"status": None, "result": 1}, Answered(1)),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_an_agent_took_or_finished_the_task(body: Any, outcome: Outcome, status: int) -> None:
    assert direct_outcome(answer(status, body), ENDPOINT, NOW) == outcome


def test_success_with_202_and_no_result_is_an_acceptance() -> None:
    body = {"status": "success", "message": "Task accepted."}
    assert direct_outcome(answer(202, body), ENDPOINT, NOW) == Accepted()
    assert direct_outcome(answer(200, body), ENDPOINT, NOW) == Answered(
        {"message": "Task accepted."}
    )


@pytest.mark.parametrize("status", ["ok", "accepted", "running", "idle", "", 1, {"a": 1}])
def test_result_with_an_unknown_status_is_named_in_the_acceptance(status: Any) -> None:
    outcome = direct_outcome(answer(200, {"status": status, "result": 1}), ENDPOINT, NOW)
    assert isinstance(outcome, Accepted)
    assert outcome.unclear is not None
    assert str(status) in outcome.unclear.replace('"', "'").replace(":", ": ")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ({"status": "failed", "error": "no disk"}, "no disk", "no disk"),
        (
            {"status": "failure", "error": {"code": "bad_topic", "message": "No topic"}},
            {"code": "bad_topic", "message": "No topic"},
            "No topic",
        ),
        ({"status": "error", "message": "no\nnet"}, "no\nnet", "no net"),
        ({"status": "error", "detail": {"code": 7}}, {"code": 7}, "its answer says why"),
        ({"status": "FAILED"}, None, "its answer says why"),
        ({"status": "failed", "error": "x" * 9000}, "x" * MAX_KEPT_BODY, "x" * 500),
    ],
)
def test_an_agent_that_answers_an_error_failed(body: Any, error: Any, message: str) -> None:
    failed = failure(direct_outcome(answer(200, body), ENDPOINT, NOW))
    assert failed.code is FailureCode.AGENT_ERROR
    assert failed.error == error
    assert failed.message == f"The agent answered that the task failed: {message}"


@pytest.mark.parametrize("body", BROKEN[2:])
def test_F32_an_agent_that_answers_no_json_leaves_the_outcome_unknown(body: bytes) -> None:
    failed = failure(direct_outcome(answer(200, body), ENDPOINT, NOW))
    assert failed.code is FailureCode.OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The agent failed and gave no reason."),
        (b"Traceback\n  line 1", "The agent failed: Traceback line 1"),
        ({"detail": "out of memory"}, "The agent failed: out of memory"),
    ],
)
def test_500_from_an_agent_is_its_own_error(body: Any, message: str) -> None:
    failed = failure(direct_outcome(answer(500, body), ENDPOINT, NOW))
    assert (failed.code, failed.message) == (FailureCode.AGENT_ERROR, message)


@pytest.mark.parametrize("status", [404, 405])
def test_a_wrong_contact_endpoint_is_named(status: int) -> None:
    failed = failure(direct_outcome(answer(status, b""), ENDPOINT, NOW))
    assert (failed.code, failed.terminal) == (FailureCode.UPSTREAM_ERROR, False)
    assert ENDPOINT in failed.message


@pytest.mark.parametrize(("surplus", "fits"), [(0, True), (1, False)])
def test_F15_a_result_over_256_kib_is_refused(surplus: int, fits: bool) -> None:
    result = "x" * (RESULT_LIMIT - 2 + surplus)
    direct = answer(200, {"status": "completed", "result": result})
    outcomes = (
        agentkit_outcome(answer(202, TOOL_DONE | {"data": {"result": result}}), TOOL, NOW),
        direct_outcome(direct, ENDPOINT, NOW),
    )
    for outcome in outcomes:
        if fits:
            assert outcome == Answered(result)
        else:
            failed = failure(outcome)
            assert (failed.code, failed.terminal) == (FailureCode.REJECTED, True)
            assert "too large" in failed.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from(["success", "error", "failed", "completed", "", None, 1])
bodies = st.binary(max_size=64) | st.builds(
    lambda value: repr(value).encode("utf-8", "replace"), json_values
)
documents = st.builds(
    lambda status, data: orjson.dumps({"status": status, "data": data, "detail": data}),
    words,
    st.none() | st.text(alphabet=st.characters(codec="utf-8")) | st.integers(-5, 5),
)


@given(st.integers(200, 999), bodies | documents, st.text(max_size=12))
def test_F32_every_answer_has_a_meaning(status: int, body: bytes, wait: str) -> None:
    seen = HttpAnswer(status, {"retry-after": wait}, body)
    outcomes = [agentkit_outcome(seen, task, NOW) for task in (WORKFLOW, TOOL)]
    for outcome in (*outcomes, direct_outcome(seen, ENDPOINT, NOW)):
        if isinstance(outcome, Failure):
            assert outcome.message
            assert len((outcome.body or "").encode()) <= MAX_KEPT_BODY
        else:
            assert 200 <= status < 300


@pytest.mark.fault("F108")
@pytest.mark.parametrize("result", [[[]] * 340_000, [1] * 500_000, {"x": [[1]] * 200_000}])
def test_answer_of_very_many_values_is_refused_before_it_is_read(result: Any) -> None:
    direct = answer(200, {"status": "completed", "result": result})
    tool = answer(202, TOOL_DONE | {"data": {"result": result}})
    began = time.thread_time()
    outcomes = [direct_outcome(direct, ENDPOINT, NOW), agentkit_outcome(tool, TOOL, NOW)]
    # Two answers, each of which may hold the loop for 250 ms on an idle core.
    assert time.thread_time() - began < 1
    for outcome in outcomes:
        assert (failure(outcome).code, failure(outcome).terminal) == (FailureCode.REJECTED, True)
        assert "too large" in failure(outcome).message
