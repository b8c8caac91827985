import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from opscore.logging_config.formats import JsonFormat
from opscore.logging_config.pipeline import LogPipeline
from opscore.logging_config.sinks import DescriptorSink, RotatingFileSink


class MemorySink:
    """Keeps what is written. It can be held up, and it can fail."""

    def __init__(self) -> None:
        self.data = b""
        self.error: Exception | None = None
        self.closed = False
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def write(self, data: bytes) -> None:
        self.reached.set()
        assert self.open.wait(10)
        if self.error is not None:
            raise self.error
        self.data += data

    def close(self) -> None:
        self.closed = True

    @property
    def lines(self) -> list[bytes]:
        return self.data.splitlines()


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    sink = MemorySink()
    yield sink
    sink.open.set()


def make(*sinks: MemorySink, limit: int = 10_000) -> LogPipeline:
    return LogPipeline(sinks, JsonFormat(), limit=limit, report_interval=0)


def test_lines_come_out_whole_and_in_order(sink: MemorySink) -> None:
    pipeline = make(sink)
    for number in range(2000):
        pipeline.put(b"line %d\n" % number)
    assert pipeline.close()
    assert sink.lines == [b"line %d" % number for number in range(2000)]
    assert sink.closed
    assert pipeline.dropped == 0


def test_flush_waits_for_what_is_queued(sink: MemorySink) -> None:
    pipeline = make(sink)
    pipeline.put(b"one\n")
    assert pipeline.flush()
    assert sink.lines == [b"one"]
    pipeline.close()


def test_F21_a_blocked_sink_drops_and_counts_and_never_waits(sink: MemorySink) -> None:
    pipeline = make(sink, limit=10)
    sink.open.clear()
    pipeline.put(b"held up\n")
    assert sink.reached.wait(5)
    began = time.monotonic()
    for number in range(1000):
        pipeline.put(b"line %d\n" % number)
    assert time.monotonic() - began < 5
    assert pipeline.dropped == 990
    assert not pipeline.flush(0.01)
    sink.open.set()
    assert pipeline.close()
    assert [line for line in sink.lines if line.startswith(b"line")] == [
        b"line %d" % number for number in range(10)
    ]
    [report] = [orjson.loads(line) for line in sink.lines if line.startswith(b"{")]
    assert report["level"] == "WARNING"
    assert report["dropped_total"] == 990


def test_F21_a_full_disk_loses_lines_and_counts_them(sink: MemorySink) -> None:
    healthy = MemorySink()
    pipeline = make(sink, healthy)
    sink.error = OSError(errno.ENOSPC, "No space left on device")
    pipeline.put(b"lost\n")
    assert pipeline.flush()
    assert pipeline.dropped == 1
    sink.error = None
    pipeline.put(b"kept\n")
    assert pipeline.close()
    assert b"kept" in sink.data
    assert b"lost" not in sink.data
    assert b"lost" in healthy.data
    assert b'"dropped_total":1' in sink.data


def test_F21_close_gives_up_at_its_deadline(sink: MemorySink) -> None:
    pipeline = make(sink)
    sink.open.clear()
    pipeline.put(b"held up\n")
    assert sink.reached.wait(5)
    assert not pipeline.close(0.01)
    sink.open.set()


def test_after_the_close_lines_are_counted_not_kept(sink: MemorySink) -> None:
    pipeline = make(sink)
    assert pipeline.close()
    pipeline.put(b"late\n")
    assert pipeline.dropped == 1
    assert not pipeline.flush()
    assert pipeline.close()


def test_access_lines_look_like_the_others(sink: MemorySink) -> None:
    pipeline = make(sink)
    pipeline.access("GET", "/v1/x", 200, 1.23456, "r-1")
    pipeline.close()
    [line] = sink.lines
    fields = orjson.loads(line)
    assert fields.pop("timestamp").endswith("+00:00")
    assert fields == {
        "level": "INFO",
        "logger": "opscore.access",
        "message": "GET /v1/x 200",
        "method": "GET",
        "path": "/v1/x",
        "status": 200,
        "duration_ms": 1.235,
        "request_id": "r-1",
    }


# --- sinks ------------------------------------------------------------------------------------


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    thread = threading.Thread(target=DescriptorSink(writer).write, args=[data])
    thread.start()
    received = b""
    while len(received) < len(data):
        assert select.select([reader], [], [], 5)[0], "the writer stopped"
        received += os.read(reader, 65536)
    thread.join(5)
    os.close(reader)
    os.close(writer)
    assert received == data


def test_F21_a_closed_pipe_is_an_error_not_an_end() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OSError, match="Broken pipe"):
        DescriptorSink(writer).write(b"x\n")
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_F21_the_real_error_of_a_full_disk() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    pipeline = LogPipeline([DescriptorSink(descriptor)], JsonFormat())
    pipeline.put(b"x\n")
    assert pipeline.close()
    os.close(descriptor)
    assert pipeline.dropped == 1


def test_a_file_rotates_and_keeps_some(tmp_path: Path) -> None:
    path = tmp_path / "opscore.log"
    sink = RotatingFileSink(path, max_bytes=100, kept=2)
    for number in range(9):
        sink.write(b"%d" % number * 49 + b"\n")
    sink.close()
    found = {file.name: file.read_bytes()[:1] for file in tmp_path.iterdir()}
    assert found == {"opscore.log": b"8", "opscore.log.1": b"6", "opscore.log.2": b"4"}


def test_log_file_that_exists_keeps_its_mode_through_rotation(tmp_path: Path) -> None:
    path = tmp_path / "opscore.log"
    path.touch()
    path.chmod(0o644)
    sink = RotatingFileSink(path, max_bytes=100, kept=2)
    for number in range(3):
        sink.write(b"%d" % number * 99 + b"\n")
    sink.close()
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}


def test_new_log_files_are_private(tmp_path: Path) -> None:
    sink = RotatingFileSink(tmp_path / "opscore.log", max_bytes=100, kept=2)
    for number in range(3):
        sink.write(b"%d" % number * 99 + b"\n")
    sink.close()
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "opscore.log"
    for line in (b"one\n", b"two\n"):
        sink = RotatingFileSink(path)
        sink.write(line)
        sink.close()
    assert path.read_bytes() == b"one\ntwo\n"
