"""What an HTTP answer means for the task: pure tables from the answer to an Outcome."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from opscore.agentkit_client.bodies import (
    TooManyMembersError,
    UnacceptableBodyError,
    read_json,
    read_text,
)
from opscore.agentkit_client.retry_after import DEFAULT_WAIT, read_retry_after
from opscore.models import (
    RESULT_LIMIT,
    Accepted,
    Answered,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
    StateWord,
    Task,
    normalise_state,
)

MAX_ANSWER = 1024 * 1024
MAX_KEPT_BODY = 4096
MAX_MESSAGE = 500

_AGENT_UNKNOWN = re.compile(r"Agent with ID '.*' not found\.?", re.DOTALL)
_TOOL_DETAILS = ("External tool ", "Tool ")
_TOOL_UNKNOWN = re.compile(r"(External tool|Tool) '[^']*' not found\.?")
_NO_ROUTE = "Not Found"
_ERROR_WORDS = frozenset({"error", "failed", "failure"})


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as read: header names in lower case, the body at most MAX_ANSWER bytes.

    `unread` says why the body was not read to its end, as a clause.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    unread: str | None = None


def agentkit_outcome(answer: HttpAnswer, task: Task, now: datetime) -> Outcome:
    """What AgentKit's answer to `/run` means. `now` is the wall clock's time."""
    if not 200 <= answer.status < 300:
        return _agentkit_refusal(answer, task, now)
    try:
        document = _document(answer)
    except UnacceptableBodyError as error:
        is_tool = task.message_type is MessageType.TOOL_INVOCATION
        if is_tool and isinstance(error, TooManyMembersError):
            return _too_large("The tool")
        return _unclear("AgentKit", answer, str(error))
    status = _status(document)
    if status in _ERROR_WORDS:
        return _reported_error(document, answer)
    if task.message_type is not MessageType.TOOL_INVOCATION:
        return Accepted() if status else _unclear("AgentKit", answer, "it names no status")
    if status != "success":
        return _unclear("AgentKit", answer, "its status is not success")
    return _answered(_tool_result(document.get("data")), "The tool")


def direct_outcome(answer: HttpAnswer, endpoint: str, now: datetime) -> Outcome:
    """What an agent's answer to a direct delivery means. `endpoint` is for messages."""
    if not 200 <= answer.status < 300:
        return _agent_refusal(answer, endpoint, now)
    if not answer.body.strip() and not answer.unread:
        return Accepted()
    try:
        document = _value(answer)
    except TooManyMembersError:
        return _too_large("The agent")
    except UnacceptableBodyError as error:
        return _unclear("The agent", answer, str(error))
    if not isinstance(document, dict):
        return Accepted()
    status = _status(document)
    if _is_completion(answer.status, status, document):
        return _answered(_agent_result(document), "The agent")
    if status in _ERROR_WORDS:
        return _agent_error(document)
    carries_result = document.get("result") is not None
    return Accepted(_unclear_status(document["status"]) if carries_result else None)


def _is_completion(code: int, status: str | None, document: Mapping[str, Any]) -> bool:
    """Return whether the status is one of the words of a state report for finished work.

    With 202 the word `success` alone says only that the agent took the task.
    """
    if status is None:
        return document.get("status") is None and "result" in document
    is_receipt = code == 202 and status == "success" and "result" not in document
    return normalise_state(status) is StateWord.FINISHED and not is_receipt


def _agent_result(document: Mapping[str, Any]) -> Any:
    if "result" in document:
        return document["result"]
    return {key: value for key, value in document.items() if key != "status"} or None


def _unclear_status(status: Any) -> str:
    return (
        f"The agent answered a result with the status {_bounded(status)!r}, which says neither "
        "that the task is completed nor that it failed; the task goes on. Answer with the "
        "status completed or failed."
    )


def _tool_result(data: Any) -> Any:
    """Return the tool's result, or its whole answer where that holds more than a result."""
    return data["result"] if isinstance(data, dict) and data.keys() == {"result"} else data


def _agentkit_refusal(answer: HttpAnswer, task: Task, now: datetime) -> Failure:
    is_tool = task.message_type is MessageType.TOOL_INVOCATION
    detail = _detail(answer)
    if is_tool and detail is not None and detail.startswith(_TOOL_DETAILS):
        return _tool_refusal(answer, detail)
    if answer.status != 404:
        return _refusal("AgentKit", answer, now)
    if detail is None or detail == _NO_ROUTE:
        return _failure(
            FailureCode.UPSTREAM_ERROR,
            "AgentKit does not know the address that was called (404); check AGENTKIT_API_URL.",
            answer,
        )
    if is_tool and not _AGENT_UNKNOWN.fullmatch(detail):
        return _tool_unknown(answer)
    return _failure(FailureCode.AGENT_UNKNOWN, "AgentKit does not know the agent (404).", answer)


def _tool_refusal(answer: HttpAnswer, detail: str) -> Failure:
    """The tool failed: AgentKit hands on whatever status the tool's endpoint answered."""
    if answer.status == 404 and _TOOL_UNKNOWN.fullmatch(detail):
        return _tool_unknown(answer)
    message = f"The tool failed (HTTP {answer.status}): {_one_line(detail)}"
    failure = _failure(FailureCode.TOOL_ERROR, message, answer)
    return replace(failure, error={"message": _bounded(detail), "code": None})


def _tool_unknown(answer: HttpAnswer) -> Failure:
    message = "AgentKit does not know the tool (404); check toolName in the workflow."
    return _failure(FailureCode.REJECTED, message, answer, terminal=True)


def _agent_refusal(answer: HttpAnswer, endpoint: str, now: datetime) -> Failure:
    if answer.status in (404, 405):
        message = (
            f"Nothing takes tasks at the agent's contact endpoint {endpoint} "
            f"(HTTP {answer.status}); register the agent with its right endpoint."
        )
        return _failure(FailureCode.UPSTREAM_ERROR, message, answer)
    if answer.status == 500:
        said = _one_line(_detail(answer) or read_text(answer.body, MAX_KEPT_BODY))
        message = f"The agent failed: {said}" if said else "The agent failed and gave no reason."
        return _failure(FailureCode.AGENT_ERROR, message, answer)
    return _refusal("The agent", answer, now)


def _refusal(who: str, answer: HttpAnswer, now: datetime) -> Failure:
    """What every status outside 2xx means that has no meaning special to who sent it."""
    status = answer.status
    wait = read_retry_after(answer.headers.get("retry-after"), now)
    if status == 429 or (status == 503 and wait is not None):
        message = f"{who} asked to wait (HTTP {status}); the task is sent again after that."
        failure = _failure(FailureCode.THROTTLED, message, answer, free=True)
        return replace(failure, retry_after=DEFAULT_WAIT if wait is None else wait)
    if 300 <= status < 400:
        message = (
            f"{who} answered with a redirect (HTTP {status}), and none is followed; "
            "configure the address that it leads to."
        )
        return _failure(FailureCode.REDIRECTED, message, answer, terminal=True)
    if status in (401, 403):
        message = f"{who} refused the credentials (HTTP {status}); check the keys on both sides."
        return _failure(FailureCode.UNAUTHORIZED, message, answer)
    if status == 408 or 500 <= status < 600:
        failure = _failure(
            FailureCode.UPSTREAM_ERROR, f"{who} could not take the task (HTTP {status}).", answer
        )
        return replace(failure, retry_after=wait)
    if 400 <= status < 500:
        message = f"{who} refused the task (HTTP {status}); its answer says what to correct."
        return _failure(FailureCode.REJECTED, message, answer, terminal=True)
    return _unclear(who, answer, f"{status} is no status of HTTP")


def _reported_error(document: Mapping[str, Any], answer: HttpAnswer) -> Failure:
    data = document.get("data")
    said = data.get("error_message") if isinstance(data, dict) else None
    message = _bounded(said or document.get("message")) or "no reason was given"
    error = {"message": message, "code": _bounded(document.get("error_code"))}
    return Failure(
        FailureCode.TOOL_ERROR,
        f"AgentKit reported an error: {_one_line(message)}",
        status=answer.status,
        error=error,
    )


def _agent_error(document: Mapping[str, Any]) -> Failure:
    named = (document.get(key) for key in ("error", "message", "detail"))
    said = next((value for value in named if value), None)
    text = said.get("message") if isinstance(said, dict) else said
    reason = _one_line(text) if isinstance(text, str) else "its answer says why"
    message = f"The agent answered that the task failed: {reason}"
    large = len(orjson.dumps(said)) > MAX_KEPT_BODY
    return Failure(FailureCode.AGENT_ERROR, message, error=_bounded(said) if large else said)


def _answered(result: Any, who: str) -> Outcome:
    return _too_large(who) if len(orjson.dumps(result)) > RESULT_LIMIT else Answered(result)


def _too_large(who: str) -> Failure:
    return Failure(
        FailureCode.REJECTED,
        f"{who}'s result is too large: it is over {RESULT_LIMIT // 1024} KiB; "
        "store it elsewhere and return where it is.",
        terminal=True,
    )


def _unclear(who: str, answer: HttpAnswer, reason: str) -> Failure:
    message = f"{who}'s answer (HTTP {answer.status}) cannot be understood: {reason}."
    return _failure(FailureCode.OUTCOME_UNKNOWN, message, answer)


def _failure(
    code: FailureCode,
    message: str,
    answer: HttpAnswer,
    *,
    terminal: bool = False,
    free: bool = False,
) -> Failure:
    body = read_text(answer.body, MAX_KEPT_BODY) or None
    return Failure(code, message, terminal, free, status=answer.status, body=body)


def _document(answer: HttpAnswer) -> dict[str, Any]:
    document = _value(answer)
    if not isinstance(document, dict):
        raise UnacceptableBodyError("it is not a JSON object")
    return document


def _value(answer: HttpAnswer) -> Any:
    if answer.unread is not None:
        raise UnacceptableBodyError(answer.unread)
    if not answer.body:
        raise UnacceptableBodyError("it is empty")
    return read_json(answer.body)


def _status(document: Any) -> str | None:
    word = document.get("status") if isinstance(document, dict) else None
    return word.strip().lower() if isinstance(word, str) else None


def _detail(answer: HttpAnswer) -> str | None:
    try:
        detail = _document(answer).get("detail")
    except UnacceptableBodyError:
        return None
    return None if detail is None else str(detail)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE]


def _bounded(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return read_text(text.encode(), MAX_KEPT_BODY)
