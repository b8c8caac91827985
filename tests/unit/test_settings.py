import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from opscore.exceptions import ConfigurationError
from opscore.models import DispatchMode
from opscore.settings import Settings, accepted_values, environment_name, load_settings
from opscore.settings.names import OTHER_VARIABLES, PREFIXES

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\b((?:OPSCORE|AGENTKIT)_[A-Z0-9_]*[A-Z0-9])\b")
LONG = "long-enough-to-be-a-secret"


def problems() -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    return raised.value.detail.splitlines()


@pytest.fixture(autouse=True)
def _nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the variables of this machine nor a `.env` of the working folder count."""
    for name in os.environ:
        if name.upper().startswith((*PREFIXES, "LOG_LEVEL")):
            monkeypatch.delenv(name)
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
        (
            "OPSCORE_ENDPOINT_ALLOWLIST",
            "10.0.0.0/8, A.test ,",
            "endpoint_allowlist",
            ("10.0.0.0/8", "a.test"),
        ),
        ("OPSCORE_API_KEY", "", "api_key", None),
        ("OPSCORE_SILENCE_THRESHOLD", "", "silence_threshold", None),
        ("OPSCORE_START_TIMEOUT", "", "start_timeout", None),
        ("OPSCORE_START_TIMEOUT", "0", "start_timeout", 0),
        ("AGENTKIT_API_URL", "http://kit/v1", "agentkit_api_url", "http://kit/v1"),
        ("AGENTKIT_TIMEOUT", "2.5", "agentkit_timeout", 2.5),
        ("OPSCORE_RUN_TIMEOUT", "5m", "run_timeout", 300),
        ("OPSCORE_RUN_TIMEOUT", "1h30m", "run_timeout", 5400),
        ("OPSCORE_DRAIN_TIMEOUT", "500ms", "drain_timeout", 0.5),
        ("OPSCORE_START_TIMEOUT", "10s", "start_timeout", 10),
        ("OPSCORE_START_TIMEOUT", "0s", "start_timeout", 0),
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
        "OPSCORE_API_KEY=the-key-of-the-file\nOPSCORE_PORT=1\nAGENTKIT_API_URL=http://kit\nOTHER=5\n"
    )
    monkeypatch.setenv("OPSCORE_PORT", "2")
    settings = load_settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "the-key-of-the-file"
    assert (settings.port, settings.agentkit_api_url) == (2, "http://kit")


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        (f"{LONG}-1", [f"{LONG}-1"]),
        (f"{LONG}-1,{LONG}-2", [f"{LONG}-1", f"{LONG}-2"]),
        (f" {LONG}-1 , {LONG}-2 ,", [f"{LONG}-1", f"{LONG}-2"]),
        ("", []),
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
        ("OPSCORE_ENDPOINT_ALLOWLIST", "10.0.0.1/8"),
        ("AGENTKIT_TIMEOUT", "301"),
    ],
)
def test_a_bad_value_is_one_sentence_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    [line] = problems()
    assert line.startswith(f"{variable}: write ")
    assert line.endswith(".")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OPSCORE_PORT", "http", "write a whole number from 0 to 65,535."),
        ("OPSCORE_QUEUE_LIMIT", "0", "write a whole number of 1 or more."),
        ("OPSCORE_RETENTION_DAYS", "0", "write a number above 0, at most 36,500."),
        ("OPSCORE_RUN_TIMEOUT", "soon", "write a duration above 0, at most 30d."),
        ("OPSCORE_PROBE_INTERVAL", "2d", "write a duration from 1s to 1d."),
        ("OPSCORE_DISPATCH_MODE", "pigeon", "write auto, agentkit or direct."),
        ("OPSCORE_LOG_FORMAT", "xml", "write auto, json or console."),
        ("OPSCORE_DEV", "perhaps", "write true or false."),
        ("OPSCORE_STORAGE_URL", "", "write a text that is not empty."),
        ("LOG_LEVEL", "loud", "write DEBUG, INFO, WARNING, ERROR or CRITICAL."),
    ],
)
def test_error_for_a_bad_value_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert problems() == [f"{variable}: {sentence}"]


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_PORT", "x")
    monkeypatch.setenv("AGENTKIT_TIMEOUT", "0")
    monkeypatch.setenv("OPSCORE_PROT", "1")
    names = {line.partition(":")[0] for line in problems()}
    assert names == {"OPSCORE_PORT", "OPSCORE_PROT", "AGENTKIT_TIMEOUT"}


def test_F92_a_bad_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_PORT", "canary-5f1e")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    error = raised.value
    assert "canary-5f1e" not in f"{error.detail} {error.__cause__} {error.__context__}"


def test_every_setting_in_seconds_accepts_units() -> None:
    fields = Settings.model_fields.items()
    numbers = {name: accepted_values(field) for name, field in fields if _is_number(field)}
    others = [name for name, text in numbers.items() if not text.startswith("a duration")]
    assert others == ["retention_days"]


def _is_number(field: FieldInfo) -> bool:
    return field.annotation in (float, float | None)


# --- unknown names --------------------------------------------------------------------------


@pytest.mark.fault("F112")
@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("OPSCORE_STORAGE", "OPSCORE_STORAGE_URL"),
        ("OPSCORE_STORAGE_PATH", "OPSCORE_STORAGE_URL"),
        ("OPSCORE_APIKEY", "OPSCORE_API_KEY"),
        ("OPSCORE_KEY", "OPSCORE_API_KEY"),
        ("opscore_prot", "OPSCORE_PORT"),
        ("OPSCORE_WEBHOOK_SECRETS", "OPSCORE_WEBHOOK_SECRET"),
        ("OPSCORE_LOGLEVEL", "OPSCORE_LOG_LEVEL"),
        ("AGENTKIT_URL", "AGENTKIT_API_URL"),
        ("AGENTKIT_KEY", "AGENTKIT_API_KEY"),
        ("OPSCORE_AGENTKIT_API_URL", "AGENTKIT_API_URL"),
    ],
)
def test_misspelt_variable_refuses_the_start_and_names_the_meant_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "sqlite:///opscore.db")
    assert problems() == [f"{variable}: no setting has this name. Did you mean {meant}?"]


@pytest.mark.fault("F112")
def test_unknown_variable_that_is_like_no_other_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPSCORE_ZZZ", "1")
    [line] = problems()
    assert line.startswith("OPSCORE_ZZZ: no setting has this name. ")
    assert "docs/reference/settings.md" in line


@pytest.mark.fault("F112")
def test_misspelt_variable_of_the_env_file_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("OPSCORE_PROT=1\n")
    monkeypatch.setenv("OPSCORE_PROT", "2")
    assert problems() == ["OPSCORE_PROT: no setting has this name. Did you mean OPSCORE_PORT?"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *((name, "x") for name in OTHER_VARIABLES),
        ("OPSCORE_TEST_ANYTHING", "x"),
        ("OPSCORE_SERVICE_HOST", "10.0.0.1"),
        ("OPSCORE_SERVICE_PORT", "8000"),
        ("OPSCORE_SERVICE_PORT_HTTP", "8000"),
        ("OPSCORE_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("OPSCORE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("AGENTKIT_PORT", "tcp://10.0.0.1:8080"),
        ("AGENTKIT_PORT_8080_TCP_PROTO", "tcp"),
        ("MY_OPSCORE_THING", "x"),
    ],
)
def test_variable_that_others_set_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    load_settings()


def test_port_of_a_kubernetes_service_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_PORT", "tcp://10.0.0.1:8000")
    [line] = problems()
    assert "Kubernetes set it" in line
    assert "enableServiceLinks: false" in line


def test_every_variable_that_the_project_reads_is_known() -> None:
    files = [
        *(ROOT / "opscore").rglob("*.py"),
        *ROOT.glob("docker-compose*.yml"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("Dockerfile", "Makefile", ".env.example", "README.md")),
    ]
    named = {name for file in files for name in VARIABLE.findall(file.read_text("utf-8"))}
    known = {environment_name(field) for field in Settings.model_fields} | OTHER_VARIABLES.keys()
    assert {name for name in named if not name.startswith("OPSCORE_TEST_")} - known == set()


# --- keys and secrets -----------------------------------------------------------------------


@pytest.mark.fault("F112")
@pytest.mark.parametrize("variable", ["OPSCORE_API_KEY", "OPSCORE_WEBHOOK_SECRET"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("short", "it is too short"),
        ("x" * 15, "it is too short"),
        ("  ", "it is blank"),
        ("a key with blanks in it", "write it without blanks"),
        ("a-long-enough-key-with\na-line-end", "write it without blanks and line ends"),
    ],
)
def test_weak_secret_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    [line] = problems()
    assert line.startswith(f"{variable}: {reason}")
    assert "openssl rand -hex 32" in line


@pytest.mark.fault("F112")
@pytest.mark.parametrize("value", [" , ", f"{LONG},short"])
def test_one_weak_secret_of_several_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OPSCORE_WEBHOOK_SECRET", value)
    assert len(problems()) == 1


def test_secret_of_16_characters_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_API_KEY", "x" * 16)
    assert load_settings().weak_secrets == ()


def test_weak_secrets_are_accepted_and_named_in_development(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPSCORE_DEV", "1")
    monkeypatch.setenv("OPSCORE_API_KEY", "short")
    monkeypatch.setenv("OPSCORE_WEBHOOK_SECRET", f"{LONG},short")
    assert load_settings().weak_secrets == ("OPSCORE_API_KEY", "OPSCORE_WEBHOOK_SECRET")
    monkeypatch.setenv("OPSCORE_API_KEY", " ")
    assert load_settings().api_key is None


# --- the file .env --------------------------------------------------------------------------


@pytest.mark.fault("F112")
@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"OPSCORE_PORT=1\n\nOPSCORE_DEV\n", 3, "the = is missing"),
        (b"OPSCORE_API_KEY 1\n", 1, "write NAME=value"),
        (b"# a comment\nOPSCORE_API_KEY='open\n", 2, "write NAME=value"),
        (b'OPSCORE_API_KEY="closed" rest\n', 1, "write NAME=value"),
        (b"=value\n", 1, "write NAME=value"),
        (b'OTHER="open\nOPSCORE_PORT=1\nLAST="\n', 1, "close the quoted value"),
        (b"OPSCORE_PORT=1\nOTHER=caf\xe9\n", 2, "save the file as UTF-8"),
        (b"\xef\xbb\xbfOPSCORE_PORT=1\n", 1, "without byte order mark"),
        ("OPSCORE_PORT=1\n".encode("utf-16"), 1, "without byte order mark"),
    ],
)
def test_broken_line_of_the_env_file_refuses_the_start(
    tmp_path: Path, content: bytes, line: int, reason: str
) -> None:
    (tmp_path / ".env").write_bytes(content)
    first, *_ = problems()
    assert first.startswith(f".env, line {line}: ")
    assert reason in first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# only a comment\n",
        "export OPSCORE_PORT=1\n",
        "OPSCORE_PORT = 1 # a comment\r\n",
        "OPSCORE_PORT='1'\n",
        'OTHER="-----BEGIN KEY-----\nabc\n-----END KEY-----"\nOPSCORE_PORT=1\n',
        "OPSCORE_PORT=2\nOPSCORE_PORT=1",
    ],
)
def test_sound_env_file_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / ".env").write_text(content, newline="")
    assert load_settings().port == (1 if "PORT" in content else 8000)


def test_env_file_that_is_a_folder_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    [line] = problems()
    assert line.startswith(".env: the file cannot be read")


# --- what comes of them ---------------------------------------------------------------------


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
