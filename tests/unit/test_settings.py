from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from opscore.exceptions import ConfigurationError
from opscore.models import DispatchMode
from opscore.settings import Settings, environment_name, load_settings


@pytest.fixture(autouse=True)
def _nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the variables of this machine nor a `.env` of the working folder count."""
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_name(field), raising=False)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_need_nothing() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.storage_url) == ("127.0.0.1", 8000, "memory:")
    assert (settings.api_key, settings.webhook_secret, settings.dev) == (None, (), False)
    assert settings.policy.mode is DispatchMode.AUTO
    assert not settings.allow_unsigned_webhooks


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("OPSCORE_PORT", "9000", "port", 9000),
        ("opscore_port", "9000", "port", 9000),
        ("OPSCORE_DISPATCH_MODE", "direct", "dispatch_mode", DispatchMode.DIRECT),
        ("OPSCORE_DEV", "1", "dev", True),
        ("OPSCORE_DEV", "false", "dev", False),
        ("OPSCORE_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_LEVEL", "warning", "log_level", "WARNING"),
        ("OPSCORE_WORKFLOWS_DIR", "flows", "workflows_dir", Path("flows")),
        ("OPSCORE_WORKFLOWS_DIR", "", "workflows_dir", None),
        ("OPSCORE_LOG_FILE", "", "log_file", None),
        ("OPSCORE_API_KEY", "", "api_key", None),
        ("OPSCORE_SILENCE_THRESHOLD", "", "silence_threshold", None),
        ("OPSCORE_START_TIMEOUT", "", "start_timeout", None),
        ("OPSCORE_START_TIMEOUT", "0", "start_timeout", 0),
        ("AGENTKIT_API_URL", "http://kit/v1", "agentkit_api_url", "http://kit/v1"),
        ("AGENTKIT_TIMEOUT", "2.5", "agentkit_timeout", 2.5),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: Any
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load_settings(), field) == expected


def test_the_own_name_of_the_log_level_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    monkeypatch.setenv("OPSCORE_LOG_LEVEL", "DEBUG")
    assert load_settings().log_level == "DEBUG"


def test_a_dotenv_counts_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "OPSCORE_API_KEY=from-the-file\nOPSCORE_PORT=1\nAGENTKIT_API_URL=http://kit\nOTHER=5\n"
    )
    monkeypatch.setenv("OPSCORE_PORT", "2")
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "from-the-file"
    assert (settings.port, settings.agentkit_api_url) == (2, "http://kit")


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one , two ,", ["one", "two"]),
        ("", []),
        (" , ", []),
    ],
)
def test_F61_secrets_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, secrets: list[str]
) -> None:
    monkeypatch.setenv("OPSCORE_WEBHOOK_SECRET", value)
    found = [secret.get_secret_value() for secret in load_settings().webhook_secret]
    assert found == secrets


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPSCORE_PORT", "http"),
        ("OPSCORE_PORT", "65536"),
        ("OPSCORE_PORT", "-1"),
        ("OPSCORE_DISPATCH_MODE", "pigeon"),
        ("OPSCORE_DISPATCH_CONCURRENCY", "0"),
        ("OPSCORE_RUN_TIMEOUT", "0"),
        ("OPSCORE_RUN_TIMEOUT", "nan"),
        ("OPSCORE_RUN_TIMEOUT", "inf"),
        ("OPSCORE_START_TIMEOUT", "-1"),
        ("OPSCORE_SILENCE_THRESHOLD", "0"),
        ("OPSCORE_QUEUE_LIMIT", "0"),
        ("OPSCORE_DEV", "perhaps"),
        ("OPSCORE_LOG_LEVEL", "LOUD"),
        ("OPSCORE_LOG_FORMAT", "xml"),
        ("OPSCORE_RETENTION_EVENTS", "10"),
        ("OPSCORE_RETENTION_DAYS", "0"),
        ("OPSCORE_RETENTION_DAYS", "inf"),
        ("OPSCORE_SILENCE_THRESHOLD", "inf"),
        ("OPSCORE_RETENTION_DAYS", "1e300"),
        ("AGENTKIT_TIMEOUT", "301"),
    ],
)
def test_a_bad_value_is_one_sentence_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    [line] = raised.value.detail.splitlines()
    assert line.startswith(f"{variable}: ")
    assert line.endswith(".")


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_PORT", "x")
    monkeypatch.setenv("AGENTKIT_TIMEOUT", "0")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    names = [line.partition(":")[0] for line in raised.value.detail.splitlines()]
    assert names == ["OPSCORE_PORT", "AGENTKIT_TIMEOUT"]


def test_F92_a_bad_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_PORT", "canary-5f1e")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert "canary-5f1e" not in f"{raised.value.detail} {raised.value.__cause__}"


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [
        ("auto", None, timedelta(seconds=10)),
        ("agentkit", None, None),
        ("direct", None, None),
        ("auto", 0, None),
        ("auto", 2.5, timedelta(seconds=2.5)),
        ("agentkit", 3, timedelta(seconds=3)),
    ],
)
def test_the_start_deadline_depends_on_the_mode(
    mode: DispatchMode, given: float | None, expected: timedelta | None
) -> None:
    settings = Settings(_env_file=None, dispatch_mode=mode, start_timeout=given)
    assert settings.policy.start_timeout == expected


def test_policy_and_retention_are_those_of_the_settings() -> None:
    settings = Settings(
        _env_file=None,
        run_timeout=60,
        assume_available=False,
        silence_threshold=90,
        retention_sessions=5,
        retention_days=2,
        retention_events=1000,
        history_limit=7,
    )
    policy, retention = settings.policy, settings.retention
    assert policy.run_timeout == timedelta(seconds=60)
    assert policy.silence_threshold == timedelta(seconds=90)
    assert policy.assume_available is False
    assert (retention.ended_sessions, retention.events, retention.agent_history) == (5, 1000, 7)
    assert retention.ended_session_age == retention.event_age == timedelta(days=2)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings(_env_file=None).port = 1  # type: ignore[misc]  # that is what is tested
