"""What the documents say is so."""

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from opscore.agentkit_client.messages import task_message
from opscore.api.application import create_app
from opscore.api.error_page import answered_errors
from opscore.api.schemas import AgentIn, AgentPatch, HeartbeatIn, ResultIn, StateIn, TriggerIn
from opscore.exceptions import InvalidWorkflowError
from opscore.middleware.problem import document
from opscore.models import Agent, Claim, EventType, FailureCode, Task, WorkflowSession
from opscore.settings import Settings, accepted_values, environment_name
from opscore.settings.names import OTHER_VARIABLES
from opscore.workflow.queue import Reason
from opscore.workflow.templates import load_workflow_template, parse_definition

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=NAMES)

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
ROUTE = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s?]*)`")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def openapi() -> dict[str, Any]:
    return create_app(Settings(_env_file=None, api_key=SecretStr("x" * 20))).openapi()


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text("utf-8")) if found == language]


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links ------------------------------------------------------------------------------------


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.is_relative_to(ROOT), target
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@EACH_PAGE
def test_every_page_is_reached_from_the_index(page: Path) -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        current = waiting.pop()
        if current in reached or current.suffix != ".md":
            continue
        reached.add(current)
        links = (target.partition("#")[0] for target in LINK.findall(current.read_text("utf-8")))
        waiting += [(current.parent / link).resolve() for link in links if link and ":" not in link]
    assert page in reached


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/index.md" in LINK.findall(read("README.md"))


# --- references -------------------------------------------------------------------------------


def test_every_route_is_in_the_reference_and_the_other_way_round() -> None:
    documented = set(ROUTE.findall(read("docs/reference/http-api.md")))
    served = {
        (method.upper(), path)
        for path, operations in openapi()["paths"].items()
        for method in operations
    }
    pages = {("GET", path) for path in ("/", "/docs", "/docs/errors", "/openapi.json")}
    assert documented == served | pages


def test_every_query_parameter_is_in_the_reference() -> None:
    text = read("docs/reference/http-api.md")
    sections = dict(
        zip(
            [f"{method} {path}" for method, path in ROUTE.findall(text)],
            ROUTE.split(text)[3::3],
            strict=True,
        )
    )
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    key = f"{method.upper()} {path}"
                    assert f"`{parameter['name']}`" in sections[key], f"{key} {parameter['name']}"


def test_every_error_has_its_place() -> None:
    rows = re.findall(r"^### (\w+)\n\nStatus (\d+)\.", read("docs/reference/errors.md"), re.M)
    assert rows == [(kind.code, str(kind.status)) for kind in answered_errors()]


def test_every_setting_is_described_with_its_default_and_its_values() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (?:`([^`]*)`|none) \| ([^|]+) \| .+ \|$",
        read("docs/reference/settings.md"),
        re.M,
    )
    assert {name: (default, values) for name, default, values in rows} == {
        environment_name(name): (shown(field.get_default()), accepted_values(field))
        for name, field in Settings.model_fields.items()
    }
    assert len(rows) == len(Settings.model_fields)


def test_every_other_variable_is_described() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|$", read("docs/reference/settings.md"), re.M)
    texts = {name: re.sub(r"\[(.+)\]\(.+\)", r"\1", text) for name, text in rows}
    assert texts == dict(OTHER_VARIABLES)


def shown(default: Any) -> str:
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (Reason, "docs/reference/http-api.md"),
        (Reason, "docs/how-to/why-does-it-wait.md"),
        (EventType, "docs/reference/http-api.md"),
        (FailureCode, "docs/explain/delivery.md"),
    ],
)
def test_every_stable_word_is_listed(words: Any, name: str) -> None:
    text = read(name)
    assert [word.value for word in words if f"`{word.value}`" not in text] == []


# --- examples ---------------------------------------------------------------------------------


@EACH_PAGE
def test_every_json_example_is_json(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)


@EACH_PAGE
def test_every_yaml_example_is_yaml_and_every_template_sound(page: Path) -> None:
    for text in blocks(page, "yaml"):
        document = yaml.safe_load(text)
        if isinstance(document, dict) and "tasks" in document:
            parse_definition(document)


MODELS: list[tuple[str, str, type[BaseModel]]] = [
    (r"/agents$", "POST", AgentIn),
    (r"/agent/[^/]+$", "PATCH", AgentPatch),
    (r"/agent/[^/]+/state$", "POST", StateIn),
    (r"/agent/[^/]+/workflow$", "POST", TriggerIn),
    (r"/task/[^/]+/result$", "POST", ResultIn),
    (r"/task/[^/]+/heartbeat$", "POST", HeartbeatIn),
]


def curls(page: Path) -> list[tuple[str, str, str]]:
    """Method, path under the API and body of every curl command of the page."""
    found = []
    for text in blocks(page, "sh"):
        lines = re.sub(r"<<'YAML'\n.*?^YAML$", "", text, flags=re.DOTALL | re.MULTILINE)
        for command in re.findall(r"^curl (?:\\\n|'[^']*'|[^\n'])*", lines, re.MULTILINE):
            found.append(_parsed(shlex.split(command.replace("\\\n", " "), comments=True)))
    return found


def _parsed(words: list[str]) -> tuple[str, str, str]:
    options = dict(pairwise(words))
    body = options.get("-d", options.get("--data-binary", ""))
    method = options.get("-X", "POST" if body else "GET")
    address = next(word for word in words if word.startswith(("$api", "http://")))
    path = address.replace("$api", "/v1/opscore").replace("http://127.0.0.1:8000", "")
    return method, path.partition("?")[0], body


@EACH_PAGE
def test_every_curl_names_a_route_that_is_served(page: Path) -> None:
    served = [
        (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)))
        for path, operations in openapi()["paths"].items()
        for method in operations
    ]
    for method, path, _ in curls(page):
        matching = [pattern for name, pattern in served if name == method]
        assert any(pattern.fullmatch(path) for pattern in matching), f"{method} {path}"


@EACH_PAGE
def test_every_body_that_curl_sends_is_sound(page: Path) -> None:
    for method, path, body in curls(page):
        for pattern, known, model in MODELS:
            if known == method and re.search(pattern, path):
                model.model_validate_json(body)
        if method == "POST" and path.endswith(("/workflows", "/validate")) and body != "@-":
            parse_definition(json.loads(body))


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_workflow_that_curl_sends_is_sound(name: str) -> None:
    [text] = re.findall(r"<<'YAML'\n(.*?)^YAML$", read(name), re.DOTALL | re.MULTILINE)
    assert len(load_workflow_template(text).main_line) == 2


def test_the_error_that_is_shown_is_the_real_one() -> None:
    [example] = blocks(DOCS / "reference" / "errors.md", "json")
    shown = json.loads(example)
    with pytest.raises(InvalidWorkflowError) as raised:
        parse_definition({"id": "w", "tasks": [{"taskId": "t", "delay": "soon"}]})
    assert document(raised.value, shown["requestId"]) == shown


def test_the_message_that_is_shown_is_the_real_one() -> None:
    [example] = blocks(DOCS / "explain" / "delivery.md", "json")
    shown = json.loads(example)
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    definition = parse_definition({"id": "brief", "tasks": [{"taskId": "gather"}]})
    session = WorkflowSession(shown["opscore_session_id"], definition, 1, now)
    task = Task(
        id=shown["opscore_task_id"],
        session_id=session.id,
        workflow_id="brief",
        step_id="gather",
        name="Gather sources",
        created_at=now,
        waiting_since=now,
        parameters={"topic": "tides"},
        attempt=1,
        run_deadline=now + timedelta(minutes=5),
    )
    assert task_message(Claim(task, session, Agent("a", "a", now))) == shown


def test_the_examples_with_curl_are_found() -> None:
    assert len(curls(ROOT / "README.md")) >= 5
    assert len(curls(DOCS / "quickstart.md")) >= 5
