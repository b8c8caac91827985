"""Crash points: each stands in the code exactly once, and only the chosen one is deadly."""

import ast
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from opscore import crash_points
from opscore.crash_points import CRASH_POINTS, arm, crash_point
from opscore.exceptions import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


def called() -> Counter[str]:
    """What the code passes to `crash_point`, with how often it is written."""
    names: Counter[str] = Counter()
    for file in sorted((ROOT / "opscore").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("crash_point"):
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}"
                names[str(node.args[0].value)] += 1
    return names


def test_every_crash_point_is_passed_at_exactly_one_place() -> None:
    assert called() == Counter(CRASH_POINTS.keys())


def test_each_durable_storage_has_at_least_40() -> None:
    for other in ("sqlite.", "postgres."):
        assert sum(not name.startswith(other) for name in CRASH_POINTS) >= 40


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_chosen_is_no_crash_point(text: str | None) -> None:
    arm(text)
    for name in CRASH_POINTS:
        crash_point(name)


def test_the_others_are_harmless() -> None:
    arm("claim.taken")
    for name in CRASH_POINTS:
        if name != "claim.taken":
            crash_point(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("claim.nothing", "names no crash point"),
        (":1", "names no crash point"),
        ("claim.taken:0", "nth from 1"),
        ("claim.taken:-1", "nth from 1"),
        ("claim.taken:x", "nth from 1"),
        ("claim.taken:١", "nth from 1"),
        ("claim.taken:1000000", "nth from 1"),
        ("claim.taken:1:2", "nth from 1"),
    ],
)
def test_a_wrong_choice_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        arm(text)
    assert raised.value.detail.startswith("OPSCORE_CRASH_POINT")


@pytest.mark.parametrize(("text", "survived"), [("claim.taken", 0), ("claim.taken:3", 2)])
def test_the_process_dies_at_the_nth_passage(text: str, survived: int) -> None:
    program = (
        f"from opscore.crash_points import arm, crash_point; arm({text!r})\n"
        "for _ in range(5): crash_point('claim.taken'); print('alive', flush=True)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.count("alive") == survived


def test_the_service_refuses_an_unknown_crash_point() -> None:
    env = os.environ | {crash_points.VARIABLE: "no.such-point", "OPSCORE_API_KEY": "x" * 20}
    command = [sys.executable, "-m", "opscore", "serve"]
    ended = subprocess.run(command, capture_output=True, text=True, env=env)
    assert ended.returncode == 2
    assert "OPSCORE_CRASH_POINT names no crash point" in ended.stderr


def test_the_documents_list_every_crash_point() -> None:
    text = (ROOT / "docs/reference/reliability.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z]+\.[a-z-]+)` \| (.+) \|$", text, re.M)
    assert dict(rows) == dict(CRASH_POINTS)
    assert len(rows) == len(CRASH_POINTS)
