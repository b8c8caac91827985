"""The command line: what it offers, what it loads, and what it says when something is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import opscore
from opscore.cli.demo_client import SeenEvent, read_event
from opscore.cli.demo_story import WORKFLOW, sentence
from opscore.cli.parser import app
from opscore.models import EventType
from opscore.workflow.templates import load_workflow_template

HEAVY = {"fastapi", "httpx", "rich", "starlette", "uvicorn"}


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert re.findall(r"^  ([a-z]+) ", shown.output, re.MULTILINE) == [
        "serve",
        "demo",
        "version",
        "simulate",
        "storage",
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"], ["serve", "--help"]])
def test_help_is_quick_because_it_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from opscore.cli.parser import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "print('LOADED', *sys.modules)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    loaded = set(output.rpartition("LOADED")[2].split())
    assert "opscore.cli.simulate" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_is_printed(word: str) -> None:
    ended = CliRunner().invoke(app, [word])
    assert (ended.exit_code, ended.output) == (0, f"opscore {opscore.__version__}\n")


def test_a_bad_setting_is_a_sentence_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPSCORE_RUN_TIMEOUT", "soon")
    monkeypatch.setenv("OPSCORE_QUEUE_LIMIT", "0")
    ended = CliRunner().invoke(app, ["serve"])
    assert ended.exit_code == 2
    lines = ended.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "OPSCORE_RUN_TIMEOUT",
        "OPSCORE_QUEUE_LIMIT",
    ]


def test_a_variable_of_the_env_file_counts_for_simulators(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Set and removed, so that what the command reads is taken out of the environment again.
    monkeypatch.setenv("OPSCORE_API_KEY", "x")
    monkeypatch.delenv("OPSCORE_API_KEY")
    monkeypatch.chdir(tmp_path)
    arguments = ["simulate", "agent", "--capability", "x"]
    assert "--name" in CliRunner().invoke(app, arguments).stderr
    with_name = [*arguments, "--name", "a1"]
    assert "--api-key" in CliRunner().invoke(app, with_name).stderr
    (tmp_path / ".env").write_text("OPSCORE_API_KEY=k1\n")
    # The key is found, so that the wrong switch after it is what is left to complain about.
    assert "--style" in CliRunner().invoke(app, [*with_name, "--style", "loud"]).stderr


@pytest.mark.fault("F112")
@pytest.mark.parametrize(
    "arguments", [["simulate", "agentkit"], ["storage", "status"], ["serve"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("OPSCORE_STORAGE=x\n", "OPSCORE_STORAGE: no setting has this name."),
        ("OPSCORE_PORT\n", ".env, line 1: write NAME=value"),
    ],
)
def test_wrong_env_file_stops_every_command_with_exit_2(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    content: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(content)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert ended.stderr.startswith(sentence)
    assert len(ended.stderr.splitlines()) == 1


# --- the demo's parts -----------------------------------------------------------------------


def test_the_demos_workflow_is_valid() -> None:
    definition = load_workflow_template(WORKFLOW)
    assert [task.task_id for task in definition.main_line] == ["gather", "analyse", "write"]


@pytest.mark.parametrize("type_", list(EventType))
def test_every_event_has_a_line(type_: EventType) -> None:
    item = {"seq": 1, "type": type_.value, "at": "2026-01-01T00:00:00+00:00"}
    event = read_event(item)
    assert event.data == {}
    assert sentence(event)


def test_a_line_says_what_the_event_holds() -> None:
    event = SeenEvent(
        seq=1,
        type="task.attempt_failed",
        at=read_event({"seq": 1, "type": "x", "at": "2026-01-01T00:00:00Z"}).at,
        data={"stepId": "analyse", "message": "no luck"},
    )
    assert sentence(event) == "analyse failed: no luck"
