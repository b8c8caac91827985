"""The parts of the simulators that need no network."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from opscore.simulators.behaviour import AgentBehaviour, AgentKitBehaviour
from opscore.simulators.dialect import DIALECTS, dialect_of
from opscore.simulators.received import ReceivedLog
from opscore.simulators.tools import invoke
from opscore.simulators.words import Style
from opscore.simulators.work import perform

# --- behaviours -----------------------------------------------------------------------------


def test_a_change_takes_both_spellings_of_json_and_keeps_the_rest() -> None:
    behaviour = AgentKitBehaviour(slow=1)
    behaviour.change({"forwarding": "loses", "failRate": 0.5})
    assert (behaviour.forwarding, behaviour.fail_rate, behaviour.slow) == ("loses", 0.5, 1)


@pytest.mark.parametrize(
    "patch",
    [{"failRate": 2}, {"forwarding": "perhaps"}, {"unknown": 1}, {"slow": 3, "failStatus": 99}],
)
def test_a_wrong_change_changes_nothing(patch: dict[str, Any]) -> None:
    behaviour = AgentKitBehaviour()
    with pytest.raises(ValidationError):
        behaviour.change(patch)
    assert behaviour == AgentKitBehaviour()


def test_every_style_has_a_dialect() -> None:
    assert set(DIALECTS) == set(get_args(Style))


@pytest.mark.parametrize(
    ("behaviour", "names_task", "works_first"),
    [
        (AgentBehaviour(), True, False),
        (AgentBehaviour(style="example"), False, True),
        (AgentBehaviour(style="capitals"), False, False),
        (AgentBehaviour(style="capitals", task_ids=True), True, False),
        (AgentBehaviour(style="reports", task_ids=False, works_first=True), False, True),
        (AgentBehaviour(style="example", works_first=False), False, False),
    ],
)
def test_a_switch_wins_over_the_style(
    behaviour: AgentBehaviour, names_task: bool, works_first: bool
) -> None:
    dialect = dialect_of(behaviour)
    assert (dialect.names_task, dialect.works_first) == (names_task, works_first)


# --- tools ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        ({"tool_name": "mock_tool", "arguments": {"a": 1, "b": 2}}, 3),
        ({"tool_name": "mock_tool", "arguments": {"word": "x"}}, {"word": "x"}),
        ({"tool_name": "mock_tool"}, {}),
    ],
)
def test_a_tool_that_works(payload: dict[str, Any], result: Any) -> None:
    assert invoke(payload) == {
        "status": "success",
        "message": "External tool 'mock_tool' executed successfully.",
        "data": {"result": result},
        "error_code": None,
    }


def test_a_tool_that_reports_an_error() -> None:
    assert invoke({"tool_name": "mock_tool", "arguments": {"a": -1, "b": 2}}) == {
        "status": "error",
        "message": "External tool 'mock_tool' execution failed: neg",
        "data": {"status": "error", "error_message": "neg"},
        "error_code": "EXTERNAL_TOOL_EXECUTION_FAILED",
    }
    assert invoke({"tool_name": "failing_tool"})["status"] == "error"


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({}, 400),
        ({"tool_name": 7}, 400),
        ({"tool_name": "no_such_tool"}, 404),
        ({"tool_name": "broken_tool"}, 500),
        ({"tool_name": "unreachable_tool"}, 503),
        ({"tool_name": "slow_tool"}, 504),
    ],
)
def test_a_tool_that_cannot_be_called(payload: dict[str, Any], status: int) -> None:
    with pytest.raises(HTTPException) as caught:
        invoke(payload)
    assert caught.value.status_code == status


# --- work -----------------------------------------------------------------------------------


def test_the_three_works_build_on_one_another() -> None:
    gathered = perform(["research"], {"topic": "tidal power"})
    analysed = perform(["analysis"], gathered)
    written = perform(["writing"], analysed)
    assert len(analysed["findings"]) == len(gathered["notes"]) > 0
    assert analysed["sources"] == len(gathered["urls"])
    assert written["title"] == "A brief on tidal power"
    assert all(finding in written["text"] for finding in analysed["findings"])


def test_work_without_a_known_capability_is_an_echo() -> None:
    assert perform(["unheard-of"], {"a": 1}) == {"echo": {"a": 1}}


def test_work_is_the_first_known_capability() -> None:
    assert "urls" in perform(["unheard-of", "research", "writing"], {"topic": "x"})


# --- what was received ----------------------------------------------------------------------


def test_F17_the_log_of_requests_is_bounded_and_its_numbers_go_on() -> None:
    log = ReceivedLog(limit=3)
    for n in range(5):
        log.add("/task", "a1", {"n": n})
    assert [entry.n for entry in log.after()] == [3, 4, 5]
    assert [entry.body["n"] for entry in log.after(4)] == [4]
    assert [entry.n for entry in log.after(0, limit=1)] == [3]
    assert log.total == 5
