"""Carries log lines to their sinks on a thread of its own, so that no request waits for a disk."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from opscore.logging_config.formats import LineFormat
from opscore.logging_config.redaction import Redactor
from opscore.logging_config.sinks import Sink

QUEUE_LIMIT = 10_000
BATCH = 512
# Lines gather this long before they are written: waking a thread costs more than writing a line.
GATHER = 0.02
REPORT_INTERVAL = 10.0


class LogPipeline:
    """A bounded queue with one writer.

    When the sinks are slower than the lines, new lines are dropped and counted in `dropped`; so are
    lines that a sink could not take. A line in the log reports the count once it can be written.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        line_format: LineFormat,
        redactor: Redactor | None = None,
        *,
        limit: int = QUEUE_LIMIT,
        report_interval: float = REPORT_INTERVAL,
    ) -> None:
        self._sinks = tuple(sinks)
        self._format = line_format
        self._redactor = redactor or Redactor()
        self._limit = limit
        self._report_interval = report_interval
        self._waiting: deque[bytes | threading.Event] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._dropped = 0
        self._reported = 0
        self._reported_at = float("-inf")
        self._count_lock = threading.Lock()
        self._writer = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        return self._dropped

    def hide(self, *secrets: str) -> None:
        """Keep further secrets out of every line from now on."""
        self._redactor.add(*secrets)

    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> None:
        self.put(self._format.access(method, path, status, milliseconds, request_id))

    def record(self, record: logging.LogRecord) -> None:
        self.put(self._format.record(record))

    def put(self, line: bytes) -> None:
        """Queue a line with its end. Never waits."""
        if len(self._waiting) >= self._limit or self._closing:
            self._drop(1)
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until everything queued so far is written; False when that took too long."""
        if not self._writer.is_alive():
            return False
        written = threading.Event()
        self._waiting.append(written)
        self._hurry.set()
        self._wake.set()
        return written.wait(seconds)

    def close(self, seconds: float = 2.0) -> bool:
        """Write what is queued and end the writer; False when the sinks did not take it in time."""
        if self._closing:
            return not self._writer.is_alive()
        self._closing = True
        self._hurry.set()
        self._wake.set()
        self._writer.join(seconds)
        if self._writer.is_alive():
            return False
        for sink in self._sinks:
            sink.close()
        return True

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._hurry.wait(GATHER)
            # Cleared before the queue is read: a line that comes later sets it again.
            self._hurry.clear()
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._waiting:
            count = min(BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._write([item for item in batch if isinstance(item, bytes)])
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _write(self, lines: list[bytes]) -> None:
        data = self._redactor.clean(b"".join(lines))
        if data and not self._write_everywhere(data):
            self._drop(len(lines))
        elif self._report_due():
            self._report()

    def _write_everywhere(self, data: bytes) -> bool:
        taken = True
        for sink in self._sinks:
            try:
                sink.write(data)
            except (OSError, ValueError):
                taken = False
        return taken

    def _report_due(self) -> bool:
        since = time.monotonic() - self._reported_at
        return self._dropped > self._reported and (since >= self._report_interval or self._closing)

    def _report(self) -> None:
        total = self._dropped
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "%d log lines were dropped because the log could not be written",
                "args": (total - self._reported,),
                "dropped_total": total,
            }
        )
        if self._write_everywhere(self._format.record(record)):
            self._reported = total
            self._reported_at = time.monotonic()

    def _drop(self, count: int) -> None:
        with self._count_lock:
            self._dropped += count


class PipelineHandler(logging.Handler):
    """Hands the records of the standard library's loggers to the pipeline."""

    def __init__(self, pipeline: LogPipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pipeline.record(record)
        except Exception:  # noqa: BLE001 - whatever a record holds, logging it must not fail
            self._pipeline.record(_unwritable(record))


def _unwritable(record: logging.LogRecord) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": record.name,
            "levelno": record.levelno,
            "levelname": record.levelname,
            "msg": f"a record of line {record.lineno} could not be formatted",
        }
    )
