"""The service's own rules, as plain values that decisions take."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class DispatchMode(StrEnum):
    AUTO = "auto"
    AGENTKIT = "agentkit"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Policy:
    """Defaults and thresholds. `start_timeout` None means that no start deadline is set."""

    mode: DispatchMode = DispatchMode.AUTO
    run_timeout: timedelta = timedelta(seconds=300)
    start_timeout: timedelta | None = timedelta(seconds=10)
    probe_interval: timedelta = timedelta(minutes=10)
    assume_available: bool = True
    silence_threshold: timedelta | None = None
    active_hold: timedelta = timedelta(seconds=60)
    initializing_hold: timedelta = timedelta(seconds=300)
    error_hold: timedelta = timedelta(minutes=10)
    unsettled_grace: timedelta = timedelta(seconds=30)
    echo_window: timedelta = timedelta(seconds=5)
    breaker_hold: timedelta = timedelta(seconds=30)
    host_busy_hold: timedelta = timedelta(seconds=5)
    lost_after_failed_deliveries: int = 8
    lost_after_missed_deadlines: int = 3
    lost_leases_limit: int = 5
    out_of_order_window: timedelta = timedelta(seconds=60)
    clock_ahead_limit: timedelta = timedelta(minutes=5)
    history_details_limit: int = 4096


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what has ended is kept."""

    ended_sessions: int = 10_000
    ended_session_age: timedelta = timedelta(days=7)
    events: int = 100_000
    agent_history: int = 200
    event_age: timedelta = timedelta(days=7)
    gone_agents: int = 10_000
    idempotency_keys: int = 100_000
    batch: int = 1000
