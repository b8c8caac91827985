"""What there is and what this process has done, as Prometheus reads it."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import (
    CONTENT_TYPE_PLAIN_0_0_4,
    choose_encoder,
    generate_latest,
)
from prometheus_client.registry import Collector

from opscore import __version__
from opscore.api.core import Core
from opscore.api.observation import Observation
from opscore.api.refused_agents import RefusedKind
from opscore.models import Counts, TaskStatus

_PREFIX = "opscore_"
# It reads /proc when it is asked and keeps nothing.
_PROCESS = ProcessCollector(registry=CollectorRegistry())

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(core: Core, seen: Observation, accept: str) -> tuple[bytes, str]:
    """The text and its media type, in the best form that is accepted."""
    encode, media_type = _encoder(accept)
    return encode(_Given([*_families(core, seen), *_PROCESS.collect()])), media_type


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # The library trips over versions that are no numbers.
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


def _families(core: Core, seen: Observation) -> Iterator[Metric]:
    yield _info(core)
    yield _one("ready", "Whether the service should be sent requests.", not seen.reasons)
    if seen.counts is not None:
        yield from _stored(seen.counts)
        yield _one("replicas", "Processes that are listed on the storage.", len(seen.replicas))
    yield from _dispatching(core)
    yield from _refusals(core)
    yield from _upkeep(core)
    yield from _process(core)


def _info(core: Core) -> Metric:
    info = GaugeMetricFamily(
        f"{_PREFIX}info", "The version and the kind of storage.", labels=("version", "storage")
    )
    info.add_metric((__version__, core.settings.storage_kind), 1)
    return info


def _stored(counts: Counts) -> Iterator[Metric]:
    by_status = {status.value: counts.by_status.get(status.value, 0) for status in TaskStatus}
    yield _one("agents", "Agents that are registered, or were until lately.", counts.agents)
    yield _one("sessions", "Sessions that are stored.", counts.sessions)
    yield _each("tasks", "Tasks that are stored.", "status", by_status)
    meaning = "Bytes of JSON that wait; OPSCORE_QUEUE_BYTES bounds them."
    yield _one("waiting_bytes", meaning, counts.waiting_bytes)
    yield _one("events", "Events that are stored.", counts.events)


def _dispatching(core: Core) -> Iterator[Metric]:
    dispatcher = core.dispatcher
    under_way = "Messages to AgentKit and agents that are not answered yet."
    yield _one("messages_under_way", under_way, dispatcher.under_way)
    is_open = dispatcher.upstream.open_until is not None
    yield _one("agentkit_breaker_open", "Whether nothing is sent to AgentKit for now.", is_open)


def _refusals(core: Core) -> Iterator[Metric]:
    counts = core.refused_agents.counts
    refused = counts[RefusedKind.WEBHOOK] + counts[RefusedKind.UNSIGNED_WEBHOOK]
    meaning = "Webhooks that were refused."
    yield _each("refused_webhooks", meaning, "code", refused, CounterMetricFamily)
    unknown = counts[RefusedKind.REPORT].total()
    meaning = "State reports of agents that are not registered."
    yield _one("unknown_agent_reports", meaning, unknown, CounterMetricFamily)


def _upkeep(core: Core) -> Iterator[Metric]:
    forgotten = "Records that retention has forgotten."
    yield _each("forgotten", forgotten, "kind", core.retention.forgotten, CounterMetricFamily)
    repaired = "What the invariant checker has repaired; in a healthy system nothing."
    yield _each("repaired", repaired, "found", core.checker.repaired, CounterMetricFamily)


def _process(core: Core) -> Iterator[Metric]:
    late, worst = core.housekeeper.lag, core.housekeeper.worst_lag
    yield _one("event_loop_lag_seconds", "How late the event loop was at the last look.", late)
    yield _one("event_loop_worst_lag_seconds", "How late it was at the worst.", worst)
    dropped = "Log lines that nobody took in time."
    yield _one("dropped_log_lines", dropped, core.dropped_log_lines(), CounterMetricFamily)


def _one(name: str, meaning: str, value: float, family: Family = GaugeMetricFamily) -> Metric:
    return family(_PREFIX + name, meaning, value=value)


def _each(
    name: str,
    meaning: str,
    label: str,
    values: Mapping[str, float],
    family: Family = GaugeMetricFamily,
) -> Metric:
    metric = family(_PREFIX + name, meaning, labels=(label,))
    for key, value in values.items():
        metric.add_metric((key,), value)
    return metric
