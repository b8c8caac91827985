"""What happened to each task and how long it took: kept here, and exported where that is set up."""

import os
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from opscore.clock import Clock
from opscore.exceptions import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

MAX_TRACES = 10_000
MAX_SPANS = 50
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(slots=True)
class Span:
    """One stretch of work on a task. It has ended when `ended` is set."""

    name: str
    started: datetime
    ended: datetime | None = None
    status: str = "running"
    attributes: dict[str, Any] = field(default_factory=dict)


class SpanExporter(Protocol):
    def export(self, task_id: str, span: Span) -> None:
        """Take an ended span, without waiting."""

    def close(self) -> None:
        """Send what is left."""


class Tracer:
    """Keeps the spans of the newest tasks, the newest spans of each. The oldest tasks go first."""

    def __init__(
        self,
        clock: Clock,
        exporter: SpanExporter | None = None,
        *,
        max_traces: int = MAX_TRACES,
        max_spans: int = MAX_SPANS,
    ) -> None:
        self._clock = clock
        self._exporter = exporter
        self._max_traces = max_traces
        self._max_spans = max_spans
        self._traces: OrderedDict[str, deque[Span]] = OrderedDict()

    def start_trace(self, task_id: str, name: str = "task", **attributes: Any) -> Span:
        """Begin a span of the task."""
        spans = self._traces.get(task_id)
        if spans is None:
            spans = self._traces[task_id] = deque(maxlen=self._max_spans)
            if len(self._traces) > self._max_traces:
                self._traces.popitem(last=False)
        span = Span(name, self._clock.now(), attributes=attributes)
        spans.append(span)
        return span

    def end_trace(self, task_id: str, status: str = "ok", **attributes: Any) -> Span | None:
        """End the newest span of the task that is still open; None when there is none."""
        for span in reversed(self._traces.get(task_id, ())):
            if span.ended is None:
                span.ended = self._clock.now()
                span.status = status
                span.attributes.update(attributes)
                if self._exporter is not None:
                    self._exporter.export(task_id, span)
                return span
        return None

    def get_trace(self, task_id: str) -> tuple[Span, ...]:
        """The spans of the task, oldest first; empty for an unknown or forgotten task."""
        return tuple(self._traces.get(task_id, ()))

    def close(self) -> None:
        if self._exporter is not None:
            self._exporter.close()


class OpenTelemetryExporter:
    """Gives spans to OpenTelemetry. The trace id is the task's id: either finds the other."""

    def __init__(self, provider: "TracerProvider") -> None:
        # Loaded here: OpenTelemetry is an extra, and the service starts without it.
        from opentelemetry import trace  # noqa: PLC0415 - an optional package

        self._trace = trace
        self._provider = provider
        self._tracer = provider.get_tracer("opscore")

    def export(self, task_id: str, span: Span) -> None:
        exported = self._tracer.start_span(
            span.name,
            context=self._context(task_id),
            start_time=_nanoseconds(span.started),
            attributes={"opscore.task_id": task_id, **_plain(span.attributes)},
        )
        ok = span.status == "ok"
        code = self._trace.StatusCode.OK if ok else self._trace.StatusCode.ERROR
        exported.set_status(code, None if ok else span.status)
        exported.end(_nanoseconds(span.ended or span.started))

    def close(self) -> None:
        self._provider.shutdown()

    def _context(self, task_id: str) -> Any:
        number = _trace_number(task_id)
        root = self._trace.SpanContext(
            number, number >> 64 or 1, is_remote=False, trace_flags=self._trace.TraceFlags(1)
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(root))


def open_exporter(environment: Mapping[str, str] = os.environ) -> SpanExporter | None:
    """The exporter, where OpenTelemetry's own variables name an endpoint; otherwise None.

    Raises ConfigurationError when an endpoint is named but the extra is not installed.
    """
    if not any(environment.get(name) for name in ENDPOINT_VARIABLES):
        return None
    try:
        # Loaded here: OpenTelemetry is an extra, and the service starts without it.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "An OpenTelemetry endpoint is set but its packages are missing: "
            "install 'opscore[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "opscore"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryExporter(provider)


def _trace_number(task_id: str) -> int:
    try:
        return UUID(task_id).int or 1
    except ValueError:
        return int.from_bytes(sha256(task_id.encode()).digest()[:16], "big")


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000_000)


def _plain(attributes: Mapping[str, Any]) -> dict[str, str | bool | int | float]:
    return {
        key: value if isinstance(value, str | bool | int | float) else repr(value)
        for key, value in attributes.items()
    }
