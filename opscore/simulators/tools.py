"""Built-in tools of the simulated AgentKit, one for each way in which a tool can answer."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException


class ToolError(Exception):
    """The tool worked and reported an error."""


def invoke(payload: Mapping[str, Any]) -> dict[str, Any]:
    """AgentKit's answer to a tool invocation; it is sent with 202 whether the tool erred or not."""
    name = payload.get("tool_name")
    if not isinstance(name, str) or not name:
        raise HTTPException(400, "The payload of a tool invocation needs a 'tool_name'.")
    arguments = payload.get("arguments")
    try:
        result = _call(name, arguments if isinstance(arguments, Mapping) else {})
    except ToolError as error:
        return _erred(name, str(error))
    return {
        "status": "success",
        "message": f"External tool '{name}' executed successfully.",
        "data": {"result": result},
        "error_code": None,
    }


def _call(name: str, arguments: Mapping[str, Any]) -> Any:
    match name:
        case "mock_tool":
            return _add_or_echo(arguments)
        case "failing_tool":
            raise ToolError("The tool was told to fail.")
        case "broken_tool":
            raise _status_error(name, 500, {"detail": "Internal Server Error"})
        case "status_tool":
            response = arguments.get("response", {"detail": "The tool was told to refuse."})
            raise _status_error(name, _status(arguments.get("status", 401)), response)
        case "prose_tool":
            raise HTTPException(500, f"External tool '{name}' answered with no JSON.")
        case "unreachable_tool":
            raise HTTPException(503, f"External tool '{name}' cannot be reached.")
        case "slow_tool":
            raise HTTPException(504, f"External tool '{name}' did not answer in time.")
        case _:
            raise HTTPException(404, f"External tool '{name}' not found.")


def _status_error(name: str, status: int, response: Any) -> HTTPException:
    text = f"External tool '{name}' returned error: Status {status} - Response: {response}"
    return HTTPException(status, text)


def _status(value: Any) -> int:
    return value if isinstance(value, int) and 300 <= value < 600 else 500


def _add_or_echo(arguments: Mapping[str, Any]) -> Any:
    a = arguments.get("x", arguments.get("a"))
    b = arguments.get("y", arguments.get("b"))
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return dict(arguments)
    if a < 0 or b < 0:
        raise ToolError("neg")
    return a + b


def _erred(name: str, message: str) -> dict[str, Any]:
    return {
        "status": "error",
        "message": f"External tool '{name}' execution failed: {message}",
        "data": {"status": "error", "error_message": message},
        "error_code": "EXTERNAL_TOOL_EXECUTION_FAILED",
    }
