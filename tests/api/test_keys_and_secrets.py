"""Who may pass, and what must never be seen by anybody."""

from pathlib import Path
from typing import Any

import pytest

from opscore.api.application import create_app
from opscore.exceptions import ConfigurationError
from opscore.logging_config import configure_logging
from opscore.models import Failure, FailureCode
from opscore.settings import Settings
from tests.api.conftest import Runner
from tests.api.service import AUTH, KEY, SECRET, Service, check_problem, contract

# Keys and secrets never come near a storage.
pytestmark = pytest.mark.storages("memory")

SECURED = [
    (method, path.replace("{", "").replace("}", ""))
    for method, path, operation in contract().operations()
    if "security" in operation
]
PASSWORD = "canary-agentkit-5f1e"
BOTH: dict[str, Any] = {"_env_file": None, "api_key": KEY, "webhook_secret": SECRET}


@pytest.mark.parametrize(("method", "path"), SECURED)
async def test_F93_every_route_but_health_and_webhook_needs_the_key(
    service: Service, method: str, path: str
) -> None:
    answer = await service.call(method, path, headers={"Authorization": ""})
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_F93_these_are_all_routes(service: Service) -> None:
    public = {path for _, path, operation in contract().operations() if "security" not in operation}
    assert public == {
        "/health",
        "/health/live",
        "/health/ready",
        "/v1/opscore/internal/agent/notify",
    }


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        f"Token {KEY}",
        KEY,
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}{chr(ord(KEY[-1]) ^ 1)}",
        f"Bearer  {KEY}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY},{KEY}",
        "Bearer \xe9",
    ],
)
async def test_F93_any_other_key_gets_the_same_answer(service: Service, value: str) -> None:
    missing = await service.client.get("/v1/opscore/agents", headers={"Authorization": ""})
    answer = await service.client.get(
        "/v1/opscore/agents", headers=[(b"Authorization", value.encode("latin-1"))]
    )
    expected, given = missing.json(), check_problem(answer, 401, "unauthorized")
    assert given.pop("requestId") != expected.pop("requestId")
    assert given == expected
    assert answer.headers["www-authenticate"] == missing.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_word_bearer_may_be_written_in_any_case(service: Service, scheme: str) -> None:
    answer = await service.call("GET", "agents", headers={"Authorization": f"{scheme} {KEY}"})
    assert answer.status_code == 200


async def test_F97_the_key_is_not_taken_from_the_url(service: Service) -> None:
    for query in (f"api_key={KEY}", f"access_token={KEY}", f"key={KEY}"):
        answer = await service.call("GET", f"agents?{query}", headers={"Authorization": ""})
        check_problem(answer, 401, "unauthorized")


async def test_F93_unknown_paths_need_the_key_first(service: Service) -> None:
    for path in ("/nothing", "nothing", "/health/", "/docs/"):
        answer = await service.call("GET", path, headers={"Authorization": ""})
        assert answer.status_code in (401, 404, 422)
        check_problem(answer, answer.status_code)


def test_without_a_key_the_service_is_not_made() -> None:
    with pytest.raises(ConfigurationError, match=r"OPSCORE_API_KEY.*OPSCORE_DEV=1"):
        create_app(Settings(_env_file=None, api_key=None))


def test_in_development_a_random_key_is_made_and_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        create_app(Settings(_env_file=None, api_key=None, dev=True))
    lines = capsys.readouterr().err.splitlines()
    assert len(set(lines)) == 2
    assert all(len(line) > 40 for line in lines)


@pytest.mark.fault("F112")
async def test_short_secrets_are_warned_about_in_development(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async with run(dev=True, api_key="short", webhook_secret="secret"):
        said = [record.getMessage() for record in caplog.records]
    warned = [line for line in said if "is shorter than 16 characters" in line]
    assert [line.partition(" ")[0] for line in warned] == [
        "OPSCORE_API_KEY",
        "OPSCORE_WEBHOOK_SECRET",
    ]


# --- secrets ----------------------------------------------------------------------------------


async def _use(service: Service) -> list[str]:
    """Do what may make the service speak of its secrets; everything it answered."""
    seen = []

    async def note(method: str, path: str, **given: Any) -> None:
        answer = await service.call(method, path, **given)
        seen.append(f"{answer.headers!r} {answer.text}")

    service.courier.through_agentkit = Failure(FailureCode.UNAUTHORIZED, "AgentKit said 401.")
    await service.register()
    await service.webhook()
    await service.webhook(secret="wrong")
    session = await service.trigger()
    for path in ("agents", "tasks", "events", f"session/{session}", "/health/ready", "/docs"):
        await note("GET", path)
    await note("GET", "/openapi.json")
    await note("GET", f"agents?key={KEY}&secret={SECRET}")
    await note("GET", f"{KEY}")
    await note("POST", f"agent/{KEY}/state", json={"agentId": SECRET, "state": "idle"})
    await note("POST", "agents", content=f"{KEY} {SECRET} {PASSWORD}".encode())
    await note("POST", "agents", json={"agentName": "a", "concurrency": KEY})
    await note("GET", "agents", headers={"Authorization": f"Bearer {KEY}x"})
    return seen


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_F92_no_secret_in_answers_or_logs(
    run: Runner, tmp_path: Path, log_format: str
) -> None:
    given: dict[str, Any] = {
        "agentkit_api_key": PASSWORD,
        "log_level": "DEBUG",
        "log_format": log_format,
        "log_file": tmp_path / "log",
    }
    settings = Settings(**{**BOTH, **given})
    with (tmp_path / "stderr").open("wb") as stderr:
        log = configure_logging(settings, descriptor=stderr.fileno())
        try:
            async with run(log=log, **given) as service:
                seen = await _use(service)
        finally:
            log.close()
    written = (tmp_path / "log").read_text() + (tmp_path / "stderr").read_text()
    assert "/v1/opscore/agents" in written
    for secret in (KEY, SECRET, PASSWORD):
        assert secret not in written
        assert not [answer for answer in seen if secret in answer]


async def test_F92_settings_show_no_secret() -> None:
    settings = Settings(**BOTH)
    assert KEY not in repr(settings)
    assert SECRET not in repr(settings)


async def test_F91_one_request_is_one_line_in_the_log(run: Runner, tmp_path: Path) -> None:
    settings = Settings(**{**BOTH, "log_file": tmp_path / "log"})
    with (tmp_path / "stderr").open("wb") as stderr:
        log = configure_logging(settings, descriptor=stderr.fileno())
        try:
            async with run(log=log) as service:
                for path in ("agent/x%0D%0Aforged", "agent/%1B[31mred", "agent/%E2%80%A8x"):
                    await service.call("GET", path, headers=AUTH)
        finally:
            log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    access = [line for line in lines if '"logger":"opscore.access"' in line]
    assert len(access) == 3
    assert all(line.isprintable() and line.isascii() for line in access)
    assert not any("forged" in line and not line.startswith("{") for line in lines)
