"""Every setting of the service, with its default and its range."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from opscore.models import DispatchMode, EndpointPolicy, Policy, Retention
from opscore.settings.secret_rules import is_weak
from opscore.settings.values import Allowlist, ApiKey, OptionalSeconds, Seconds, WebhookSecrets


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

    # Before the secrets, whose checks look at it.
    dev: bool = Field(False, description="Make a random API key at start and print it.")
    api_key: ApiKey = Field(None, description="The key that every request must carry.")
    webhook_secret: WebhookSecrets = Field(
        (), description="The secret shared with AgentKit; several, comma-separated, while rotating."
    )
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    storage_url: str = Field(
        "memory:",
        min_length=1,
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
    awaited_answers: int = Field(
        5000,
        ge=1,
        le=100_000,
        description="How many answers of agents may be awaited at once, beside what is being sent.",
    )
    connect_timeout: Seconds = Field(
        5, gt=0, le=60, description="Seconds in which a connection for a message must be made."
    )
    start_timeout: OptionalSeconds = Field(
        None,
        ge=0,
        le=86_400,
        description="Seconds for an accepted task to show a sign of life; 0 sets no such deadline. "
        "Without it: 10 in mode auto, none in the others.",
    )
    run_timeout: Seconds = Field(
        300, gt=0, le=30 * 86_400, description="Seconds a task may run unless it says otherwise."
    )
    probe_interval: Seconds = Field(
        600,
        ge=1,
        le=86_400,
        description="Seconds between tries whether AgentKit delivers again, once it does not.",
    )
    assume_available: bool = Field(
        True, description="Whether an agent that never reported may be given tasks."
    )
    silence_threshold: OptionalSeconds = Field(
        None,
        gt=0,
        le=30 * 86_400,
        description="Seconds of silence after which an agent counts as lost.",
    )
    unsettled_grace: Seconds = Field(
        30,
        ge=0,
        le=3600,
        description="Seconds that an agent gets no task after an attempt was taken from it, unless "
        "it names its tasks; 0 gives it the next one at once.",
    )
    queue_limit: int = Field(
        1_000_000, ge=1, description="How many tasks may wait before triggers are refused."
    )
    queue_bytes: int = Field(
        1024**3,
        ge=1,
        description="How many bytes the parameters and inputs of waiting tasks may have together "
        "before triggers are refused.",
    )
    allow_private_endpoints: bool = Field(
        True, description="Whether agents may live on private and loopback addresses."
    )
    endpoint_allowlist: Allowlist = Field(
        (), description="The networks and host names that agents may live at; empty: all."
    )
    allow_unsigned_webhooks: bool = Field(
        False, description="Accept webhooks without a signature. For experiments only."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO",
        validation_alias=AliasChoices("OPSCORE_LOG_LEVEL", "LOG_LEVEL"),
        description="The least level that is logged.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="How a log line looks; auto: console on a terminal, else json."
    )
    log_file: Path | None = Field(None, description="A file that gets the log too; it rotates.")
    access_log: bool = Field(True, description="Whether each request is logged.")
    drain_timeout: Seconds = Field(
        20, gt=0, le=300, description="Seconds that running deliveries get after SIGTERM."
    )
    retention_sessions: int = Field(10_000, ge=0, description="How many ended sessions are kept.")
    retention_days: float = Field(
        7, gt=0, le=36_500, description="How long what has ended is kept."
    )
    retention_events: int = Field(100_000, ge=1000, description="How many events are kept.")
    idempotency_keys: int = Field(
        100_000, ge=1, description="How many idempotency keys are kept, for 24 hours at most."
    )
    history_limit: int = Field(200, ge=1, le=10_000, description="State reports kept an agent.")

    agentkit_api_url: str = Field(
        "http://127.0.0.1:8080",
        min_length=1,
        validation_alias="AGENTKIT_API_URL",
        description="Where AgentKit is; a trailing /v1 is accepted.",
    )
    agentkit_api_key: SecretStr | None = Field(
        None, validation_alias="AGENTKIT_API_KEY", description="Sent to AgentKit as bearer token."
    )
    agentkit_timeout: Seconds = Field(
        30,
        gt=0,
        le=300,
        validation_alias="AGENTKIT_TIMEOUT",
        description="Seconds AgentKit has to take a task.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("agentkit_api_key", "workflows_dir", "log_file", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def weak_secrets(self) -> tuple[str, ...]:
        """The variables that hold a secret which only development accepts."""
        secrets = {
            "OPSCORE_API_KEY": (self.api_key,),
            "OPSCORE_WEBHOOK_SECRET": self.webhook_secret,
        }
        return tuple(
            variable
            for variable, values in secrets.items()
            if any(value is not None and is_weak(value.get_secret_value()) for value in values)
        )

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
            unsettled_grace=timedelta(seconds=self.unsettled_grace),
        )

    @property
    def endpoint_policy(self) -> EndpointPolicy:
        return EndpointPolicy.of(self.allow_private_endpoints, self.endpoint_allowlist)

    @property
    def retention(self) -> Retention:
        return Retention(
            ended_sessions=self.retention_sessions,
            ended_session_age=timedelta(days=self.retention_days),
            events=self.retention_events,
            event_age=timedelta(days=self.retention_days),
            agent_history=self.history_limit,
            idempotency_keys=self.idempotency_keys,
        )

    def _start_timeout(self) -> timedelta | None:
        if self.start_timeout is None:
            return timedelta(seconds=10) if self.dispatch_mode is DispatchMode.AUTO else None
        return _seconds(self.start_timeout) if self.start_timeout else None


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
