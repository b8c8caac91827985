"""What is not there, what may not be done, and the pages that explain both."""

import re
from html import unescape
from pathlib import Path

import pytest
from anyio.to_thread import current_default_thread_limiter

from opscore.api.error_page import answered_errors
from tests.api.service import Service, check_problem, contract

DOCS = Path(__file__).parents[2] / "docs"

# Routes and pages are there whatever the storage.
pytestmark = pytest.mark.storages("memory")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "nothing", "/v1", "/v1/opscore", "agents/", "agent//state", "/favicon.ico"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_route_is_404(service: Service, method: str, path: str) -> None:
    check_problem(await service.call(method, path), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
async def test_another_method_is_405_with_all_that_are_allowed(
    service: Service, method: str
) -> None:
    for path, operations in contract().document["paths"].items():
        allowed = sorted(name.upper() for name in operations)
        if method not in allowed:
            answer = await service.call(method, re.sub(r"[{}]", "", path))
            check_problem(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == ", ".join(allowed)


async def test_root_leads_to_the_docs_without_a_key(service: Service) -> None:
    answer = await service.call("GET", "/", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize("path", ["agents", "/health", "/docs"])
async def test_head_is_refused_without_a_body(service: Service, path: str) -> None:
    answer = await service.call("HEAD", path)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


async def test_options_tells_no_other_origin_that_it_may(service: Service) -> None:
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answer = await service.call("OPTIONS", "agents", headers=headers)
    check_problem(answer, 405, "method_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_no_request_is_handed_to_a_thread(service: Service) -> None:
    """A way through a thread costs more than most routes do, and lets others overtake."""
    threads = current_default_thread_limiter()
    threads.total_tokens = 1
    async with threads:
        for method, path, _ in contract().operations():
            answer = await service.call(method, re.sub(r"[{}]", "", path))
            assert answer.status_code != 500


async def test_every_answer_has_its_request_id(service: Service) -> None:
    answer = await service.call("GET", "agents", headers={"X-Request-ID": "my-own.id_1"})
    assert answer.headers["x-request-id"] == "my-own.id_1"
    ids = {(await service.get("agents")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_docs_loads_nothing_from_elsewhere(service: Service) -> None:
    page = await service.call("GET", "/docs", headers={"Authorization": ""})
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert {"/openapi.json"} < set(loaded)
    for address in loaded:
        assert address.startswith("/")
        assert not address.startswith("//")
        answer = await service.call("GET", address, headers={"Authorization": ""})
        assert (answer.status_code, bool(answer.content)) == (200, True)
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert '"validatorUrl": null' in page.text


async def test_page_of_errors_has_a_place_for_every_code_and_the_whole_reference(
    service: Service,
) -> None:
    page = await service.call("GET", "/docs/errors", headers={"Authorization": ""})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    places = re.findall(r'<h3 id="(\w+)"', page.text)
    assert sorted(places) == sorted(kind.code for kind in answered_errors())
    reference = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\w+", unescape(re.sub(r"<[^>]+>", " ", page.text))))
    unlinked = re.sub(r"\]\([^)]*\)", "]", reference)
    assert set(re.findall(r"\w+", unlinked)) <= shown
    assert all(
        address.startswith("https://") for address in re.findall('href="([^"]*)"', page.text)
    )
    assert "src=" not in page.text


async def test_the_type_of_a_problem_leads_to_its_place(service: Service) -> None:
    problem = check_problem(await service.get("agent/nobody"), 404)
    path, _, place = problem["type"].partition("#")
    page = await service.call("GET", path, headers={"Authorization": ""})
    assert f'id="{place}"' in page.text


async def test_a_slash_at_the_end_of_a_page_is_no_way_around_the_key(service: Service) -> None:
    for path in ("/docs/assets", "/docs/assets/", "/docs/assets/nothing", "/openapi.json/"):
        answer = await service.call("GET", path, headers={"Authorization": ""})
        assert answer.status_code in (401, 404)
        check_problem(answer, answer.status_code)
