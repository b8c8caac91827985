"""Settings, read once from the environment and `.env`, and checked as a whole."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from opscore.exceptions import ConfigurationError
from opscore.models import DispatchMode, Policy, Retention

SecretList = Annotated[tuple[SecretStr, ...], NoDecode]


class Settings(BaseSettings):
    """Every setting of the service. The field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix="OPSCORE_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr | None = Field(None, description="The key that every request must carry.")
    webhook_secret: SecretList = Field(
        (), description="The secret shared with AgentKit; several, comma-separated, while rotating."
    )
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    storage_url: str = Field(
        "memory:",
        description="Where everything is kept: memory:, sqlite:///path or "
        "postgresql://user:password@host/database.",
    )
    storage_connections: int = Field(
        10, ge=1, le=1000, description="How many connections to PostgreSQL are open at most."
    )
    workflows_dir: Path | None = Field(None, description="Templates loaded at start.")
    dispatch_mode: DispatchMode = Field(
        DispatchMode.AUTO, description="How tasks reach agents: auto, agentkit or direct."
    )
    dispatch_concurrency: int = Field(
        200, ge=1, le=10_000, description="How many messages may be on their way at once."
    )
    start_timeout: float | None = Field(
        None,
        ge=0,
        le=86_400,
        description="Seconds for an accepted task to show a sign of life; 0 sets no such deadline. "
        "Without it: 10 in mode auto, none in the others.",
    )
    run_timeout: float = Field(
        300, gt=0, le=30 * 86_400, description="Seconds a task may run unless it says otherwise."
    )
    probe_interval: float = Field(
        600,
        ge=1,
        le=86_400,
        description="Seconds between tries whether AgentKit delivers again, once it does not.",
    )
    assume_available: bool = Field(
        True, description="Whether an agent that never reported may be given tasks."
    )
    silence_threshold: float | None = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Seconds of silence after which an agent counts as lost.",
    )
    queue_limit: int = Field(
        1_000_000, ge=1, description="How many tasks may wait before triggers are refused."
    )
    allow_private_endpoints: bool = Field(
        True, description="Whether agents may live on private and loopback addresses."
    )
    allow_unsigned_webhooks: bool = Field(
        False, description="Accept webhooks without a signature. For experiments only."
    )
    dev: bool = Field(False, description="Make a random API key at start and print it.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO",
        validation_alias=AliasChoices("OPSCORE_LOG_LEVEL", "LOG_LEVEL"),
        description="The least level that is logged.",
    )
    log_format: Literal["json", "console"] = Field("json", description="How a log line looks.")
    log_file: Path | None = Field(None, description="A file that gets the log too; it rotates.")
    access_log: bool = Field(True, description="Whether each request is logged.")
    drain_timeout: float = Field(
        20, gt=0, le=300, description="Seconds that running deliveries get after SIGTERM."
    )
    retention_sessions: int = Field(10_000, ge=0, description="How many ended sessions are kept.")
    retention_days: float = Field(
        7, gt=0, le=36_500, description="How long what has ended is kept."
    )
    retention_events: int = Field(100_000, ge=1000, description="How many events are kept.")
    history_limit: int = Field(200, ge=1, le=10_000, description="State reports kept an agent.")

    agentkit_api_url: str = Field(
        "http://127.0.0.1:8080",
        validation_alias="AGENTKIT_API_URL",
        description="Where AgentKit is; a trailing /v1 is accepted.",
    )
    agentkit_api_key: SecretStr | None = Field(
        None, validation_alias="AGENTKIT_API_KEY", description="Sent to AgentKit as bearer token."
    )
    agentkit_timeout: float = Field(
        30,
        gt=0,
        le=300,
        validation_alias="AGENTKIT_TIMEOUT",
        description="Seconds AgentKit has to take a task.",
    )

    @field_validator("webhook_secret", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "api_key",
        "agentkit_api_key",
        "workflows_dir",
        "log_file",
        "start_timeout",
        "silence_threshold",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def storage_kind(self) -> str:
        return self.storage_url.partition(":")[0]

    @property
    def policy(self) -> Policy:
        return Policy(
            mode=self.dispatch_mode,
            run_timeout=timedelta(seconds=self.run_timeout),
            start_timeout=self._start_timeout(),
            probe_interval=timedelta(seconds=self.probe_interval),
            assume_available=self.assume_available,
            silence_threshold=_seconds(self.silence_threshold),
        )

    @property
    def retention(self) -> Retention:
        return Retention(
            ended_sessions=self.retention_sessions,
            ended_session_age=timedelta(days=self.retention_days),
            events=self.retention_events,
            event_age=timedelta(days=self.retention_days),
            agent_history=self.history_limit,
        )

    def _start_timeout(self) -> timedelta | None:
        if self.start_timeout is None:
            return timedelta(seconds=10) if self.dispatch_mode is DispatchMode.AUTO else None
        return _seconds(self.start_timeout) if self.start_timeout else None


def load_settings() -> Settings:
    """Read the environment; a wrong value is one clear sentence for each setting."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(item) for item in error.errors())) from error


def environment_name(field: str) -> str:
    """The variable that sets a field, as the documents write it."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"OPSCORE_{field.upper()}"


def _sentence(item: ErrorDetails) -> str:
    name = str(item["loc"][0]) if item["loc"] else "settings"
    variable = environment_name(name) if name in Settings.model_fields else name
    return f"{variable}: {item['msg']}."


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
