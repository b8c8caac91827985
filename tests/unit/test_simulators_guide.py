"""The guide to the simulators agrees with what they do."""

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from opscore.cli.parser import app
from opscore.simulators.agent import SimulatedAgent
from opscore.simulators.agentkit import SimulatedAgentKit
from opscore.simulators.faults import ALL_FAULTS
from opscore.simulators.words import Style

GUIDE = (Path(__file__).parents[2] / "docs/how-to/simulate.md").read_text(encoding="utf-8")
SWITCH = re.compile(r"--[a-z][a-z-]*[a-z]")
# Switches that need no more words than their help gives.
PLAIN = {"--help", "--host", "--seed", "--agentkit-url", "--opscore-url", "--announce", "--api-key"}


def section(title: str) -> str:
    return GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def switches(command: str) -> set[str]:
    return set(SWITCH.findall(CliRunner().invoke(app, ["simulate", command, "--help"]).output))


@pytest.mark.parametrize("command", ["agentkit", "agent"])
def test_every_switch_is_in_the_guide(command: str) -> None:
    assert switches(command) - set(SWITCH.findall(GUIDE)) - PLAIN == set()


def test_the_guide_names_no_other_switch() -> None:
    assert set(SWITCH.findall(GUIDE)) <= switches("agentkit") | switches("agent")


def test_every_style_is_in_the_guide() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", section("Agents"), re.MULTILINE)
    assert tuple(rows) == get_args(Style)


def test_every_fault_is_in_the_guide() -> None:
    table = section("AgentKit").partition("| fault |")[2].partition("\n\n")[0]
    named = re.findall(r"`([a-z_]+)`", re.sub(r"\| [^`].*", "", table))
    assert tuple(named) == ALL_FAULTS


def test_every_route_of_the_simulators_is_in_the_guide() -> None:
    routes = {
        route.path
        for simulated in (SimulatedAgentKit(), agent())
        for route in simulated.app.routes
        if hasattr(route, "path") and not route.path.startswith(("/v1/", "/task"))
    }
    named = re.findall(r"`[A-Z]+ (/[a-z/]+)", section("Read and change a running simulator"))
    assert routes == set(named)


def test_the_example_can_be_imported() -> None:
    [code] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(compile(code, "simulate.md", "exec"), namespace)
    assert callable(namespace["test_a_failing_agent"])


def agent() -> SimulatedAgent:
    return SimulatedAgent(name="a1", capabilities=["x"], opscore_url="http://x", api_key="k")
