import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from opscore.exceptions import ConfigurationError
from opscore.tracing import OpenTelemetryExporter, Span, Tracer, open_exporter

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TASK = "0b6f3a52-6d0f-5c36-9a53-3f5f2c7f9d11"


class ManualClock:
    def __init__(self) -> None:
        self.time = BEGIN

    def now(self) -> datetime:
        return self.time

    def wall(self) -> datetime:
        return self.time

    def agree(self, ahead: timedelta, *, at_once: bool = False) -> None:
        self.time += ahead

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        await event.wait()


class Exported:
    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.closed = False

    def export(self, task_id: str, span: Span) -> None:
        self.spans.append((task_id, span))

    def close(self) -> None:
        self.closed = True


def test_a_span_has_a_begin_an_end_and_what_is_known_of_it() -> None:
    clock = ManualClock()
    tracer = Tracer(clock)
    tracer.start_trace(TASK, "dispatch", agent="a")
    clock.time += timedelta(seconds=2)
    ended = tracer.end_trace(TASK, "failed", reason="timeout")
    assert tracer.get_trace(TASK) == (ended,)
    assert ended == Span(
        "dispatch", BEGIN, clock.time, "failed", {"agent": "a", "reason": "timeout"}
    )


def test_the_newest_open_span_ends_first() -> None:
    tracer = Tracer(ManualClock())
    for name in ("task", "attempt"):
        tracer.start_trace(TASK, name)
    names = [span.name for _ in range(2) if (span := tracer.end_trace(TASK))]
    assert names == ["attempt", "task"]
    assert tracer.end_trace(TASK) is None


def test_unknown_tasks_have_no_trace() -> None:
    tracer = Tracer(ManualClock())
    assert tracer.get_trace("x") == ()
    assert tracer.end_trace("x") is None


def test_F17_only_the_newest_tasks_and_spans_are_kept() -> None:
    tracer = Tracer(ManualClock(), max_traces=2, max_spans=3)
    for number in range(4):
        tracer.start_trace("a", str(number))
    for task_id in ("b", "c"):
        tracer.start_trace(task_id)
    assert tracer.get_trace("a") == ()
    assert tracer.get_trace("b")
    for number in range(4):
        tracer.start_trace("c", str(number))
    assert [span.name for span in tracer.get_trace("c")] == ["1", "2", "3"]


def test_ended_spans_are_exported() -> None:
    exported = Exported()
    tracer = Tracer(ManualClock(), exported)
    tracer.start_trace(TASK)
    assert not exported.spans
    span = tracer.end_trace(TASK)
    tracer.close()
    assert exported.spans == [(TASK, span)]
    assert exported.closed


@pytest.mark.parametrize(
    ("status", "code"), [("ok", StatusCode.OK), ("timed_out", StatusCode.ERROR)]
)
def test_open_telemetry_gets_times_status_and_the_tasks_id(status: str, code: StatusCode) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    clock = ManualClock()
    tracer = Tracer(clock, OpenTelemetryExporter(provider))
    tracer.start_trace(TASK, "dispatch", attempt=2, target=["x"])
    clock.time += timedelta(milliseconds=1500)
    tracer.end_trace(TASK, status)
    [span] = memory.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TASK.replace("-", "")
    assert (span.end_time or 0) - (span.start_time or 0) == 1_500_000_000
    assert span.status.status_code is code
    assert span.attributes == {"opscore.task_id": TASK, "attempt": 2, "target": "['x']"}
    tracer.close()


def test_a_task_id_that_is_no_uuid_has_a_trace_id_too() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    exporter = OpenTelemetryExporter(provider)
    for _ in range(2):
        exporter.export("task one", Span("x", BEGIN, BEGIN, "ok"))
    ids = {span.context.trace_id for span in memory.get_finished_spans() if span.context}
    assert len(ids) == 1
    exporter.close()


def test_without_an_endpoint_nothing_is_exported() -> None:
    assert open_exporter({}) is None


def test_an_endpoint_opens_the_exporter() -> None:
    exporter = open_exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert isinstance(exporter, OpenTelemetryExporter)
    exporter.close()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"opscore\[otel\]"):
        open_exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
