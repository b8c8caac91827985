import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from opscore.exceptions import ConfigurationError
from opscore.logging_config import LogPipeline, configure_logging, log_context, log_operation
from opscore.logging_config.redaction import Redactor
from opscore.settings import Settings

logger = logging.getLogger("opscore.test")

OTHERS = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    found = [logging.getLogger(name) for name in OTHERS]
    before = [(item.handlers[:], item.level, item.propagate) for item in found]
    yield
    for item, (handlers, level, propagate) in zip(found, before, strict=True):
        item.handlers[:] = handlers
        item.setLevel(level)
        item.propagate = propagate


class Log:
    """The configured log of a process, written to a pipe and read back."""

    def __init__(self, **settings: Any) -> None:
        reader, self._writer = os.pipe()
        self._data = b""
        self._thread = threading.Thread(target=self._read, args=[reader])
        self._thread.start()
        self.pipeline: LogPipeline = configure_logging(
            Settings(_env_file=None, **settings), descriptor=self._writer
        )

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as stream:
            self._data = stream.read()

    def text(self) -> str:
        self.pipeline.close()
        if self._thread.is_alive():
            os.close(self._writer)
            self._thread.join(5)
        return self._data.decode()

    def objects(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text().split("\n") if line]


@pytest.fixture
def open_log() -> Iterator[Callable[..., Log]]:
    made: list[Log] = []

    def opened(**settings: Any) -> Log:
        made.append(Log(**settings))
        return made[-1]

    yield opened
    for log in made:
        log.text()


OpenLog = Callable[..., Log]


def test_a_json_line_has_time_level_logger_and_message(open_log: OpenLog) -> None:
    log = open_log()
    logger.info("hello %s", "you", extra={"number": 5})
    [line] = log.objects()
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "opscore.test",
        "message": "hello you",
        "number": 5,
    }


def test_the_level_is_the_settings(open_log: OpenLog) -> None:
    log = open_log(log_level="WARNING")
    logger.info("not this")
    logger.warning("this")
    assert [line["message"] for line in log.objects()] == ["this"]


def test_context_is_on_every_line_within_and_on_none_after(open_log: OpenLog) -> None:
    log = open_log()
    with log_context(agent_id="a"):
        with log_context(task_id="t", agent_id="b"):
            logger.info("inner")
        logger.info("outer")
    logger.info("after")
    ids = [{key: line.get(key) for key in ("agent_id", "task_id")} for line in log.objects()]
    assert ids == [
        {"agent_id": "b", "task_id": "t"},
        {"agent_id": "a", "task_id": None},
        {"agent_id": None, "task_id": None},
    ]


async def test_context_does_not_leak_between_tasks(open_log: OpenLog) -> None:
    log = open_log()
    barrier = asyncio.Barrier(2)

    async def work(name: str) -> None:
        with log_context(task_id=name):
            await barrier.wait()
            logger.info(name)

    await asyncio.gather(work("a"), work("b"))
    assert all(line["message"] == line["task_id"] for line in log.objects())


def test_context_cannot_replace_what_a_line_says(open_log: OpenLog) -> None:
    log = open_log()
    with log_context(level="DEBUG", message="forged"):
        logger.error("true")
    [line] = log.objects()
    assert (line["level"], line["message"]) == ("ERROR", "true")


HOSTILE = [
    "a\nb", "a\r\nb", "a\x1b[31mred", "a\u2028b", "a\u2029b", "a\x85b", "a\u202eb", "a\x00b",
    "a\x9bb", "a\u200bb", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE)
def test_F91_one_line_stays_one_line(open_log: OpenLog, style: str, text: str) -> None:
    log = open_log(log_format=style)
    with log_context(agent_id=text):
        logger.info("message %s", text, extra={"extra": text})
    written = log.text()
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()


def test_F91_json_keeps_the_text_it_escapes(open_log: OpenLog) -> None:
    log = open_log()
    logger.info("a\u2028\x1b\u202eb")
    assert log.objects()[0]["message"] == "a\u2028\x1b\u202eb"


@pytest.mark.parametrize("style", ["json", "console"])
def test_F91_an_exception_cannot_forge_a_line(open_log: OpenLog, style: str) -> None:
    log = open_log(log_format=style)
    try:
        raise ValueError("x\n2026-01-01T00:00:00 INFO forged: line")
    except ValueError:
        logger.exception("failed")
    first, *rest = log.text().splitlines()
    assert "failed" in first
    assert all(line.startswith("    | ") for line in rest)


CANARY = 'canary-"é\\n/+key'
SECRETS = {
    "api_key": CANARY,
    "webhook_secret": f"{CANARY}-hook,other-{CANARY}",
    "agentkit_api_key": f"kit-{CANARY}",
}


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("secret", [CANARY, f"{CANARY}-hook", f"other-{CANARY}", f"kit-{CANARY}"])
def test_F92_secrets_never_show(open_log: OpenLog, style: str, secret: str) -> None:
    log = open_log(log_format=style, **SECRETS)
    logger.info("the key is %s", secret)
    logger.info("headers: %r", {"Authorization": f"Bearer {secret}"}, extra={"key": secret})
    log.pipeline.access("GET", f"/{secret}", 404, 1, "r")
    with log_context(agent_id=secret):
        try:
            raise ValueError(secret)
        except ValueError:
            logger.exception("failed")
    written = log.text()
    assert "canary" not in written
    assert written.count("[redacted]") >= 6


def test_F92_a_secret_made_later_is_hidden_too(open_log: OpenLog) -> None:
    log = open_log()
    log.pipeline.hide("made-at-start-1234")
    logger.info("key made-at-start-1234")
    assert log.objects()[0]["message"] == "key [redacted]"


def test_words_too_short_for_a_secret_are_left_alone() -> None:
    assert Redactor(["a", "", "12345"]).clean(b"a 12345") == b"a 12345"


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_record_that_cannot_be_formatted_is_still_a_line(open_log: OpenLog, style: str) -> None:
    log = open_log(log_format=style)
    logger.info("%d", "no number")
    assert "could not be formatted" in log.text()


def test_odd_values_are_written_somehow(open_log: OpenLog) -> None:
    log = open_log()
    logger.info("odd", extra={"huge": 2**80, "surrogate": "\ud800", "thing": object()})
    assert log.objects()[0]["huge"] == pytest.approx(2**80)


@pytest.mark.parametrize("style", ["json", "console"])
def test_long_texts_are_cut(open_log: OpenLog, style: str) -> None:
    log = open_log(log_format=style)
    logger.info("x" * 1_000_000)
    written = log.text()
    assert "[cut]" in written
    assert len(written) < 20_000


def test_the_file_gets_the_same_lines(open_log: OpenLog, tmp_path: Path) -> None:
    path = tmp_path / "opscore.log"
    log = open_log(log_file=path)
    logger.info("both")
    written = log.text()
    assert "both" in written
    assert path.read_text() == written


def test_a_file_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="OPSCORE_LOG_FILE"):
        configure_logging(Settings(_env_file=None, log_file=tmp_path / "none" / "x.log"))


def test_uvicorn_speaks_through_our_log_and_its_access_log_is_silent(open_log: OpenLog) -> None:
    log = open_log()
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[31m"})
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("httpx").info("HTTP Request")
    assert [line["message"] for line in log.objects()] == ["started"]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_the_console_shows_fields_and_requests(open_log: OpenLog) -> None:
    log = open_log(log_format="console")
    with log_context(agent_id="a1"):
        logger.warning("hello", extra={"n": 1})
    log.pipeline.access("GET", "/x", 200, 1.25, "r1")
    first, second = log.text().splitlines()
    assert first.endswith(" WARNING  opscore.test: hello agent_id=a1 n=1")
    assert second.endswith(" INFO     opscore.access: GET /x 200 1.2 ms request_id=r1")


# --- operations -------------------------------------------------------------------------------


def test_an_operation_logs_start_and_end(open_log: OpenLog) -> None:
    log = open_log(log_level="DEBUG")
    with log_operation("prune", session_id="s"):
        logger.info("within")
    start, within, end = log.objects()
    assert (start["level"], start["message"]) == ("DEBUG", "prune started")
    assert (within["operation"], within["session_id"]) == ("prune", "s")
    assert (end["level"], end["outcome"], end["session_id"]) == ("INFO", "done", "s")
    assert end["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("error", "level", "outcome"),
    [(ValueError("x"), "ERROR", "failed"), (asyncio.CancelledError(), "INFO", "cancelled")],
)
def test_an_operation_that_fails_says_so_and_raises(
    open_log: OpenLog, error: BaseException, level: str, outcome: str
) -> None:
    log = open_log()
    with pytest.raises(type(error)), log_operation("prune"):
        raise error
    [line] = log.objects()
    assert (line["level"], line["outcome"]) == (level, outcome)


def test_log_operation_decorates_a_function(open_log: OpenLog) -> None:
    @log_operation("double", kind="test")
    def double(number: int) -> int:
        return 2 * number

    log = open_log()
    assert [double(2), double(3)] == [4, 6]
    assert [line["outcome"] for line in log.objects()] == ["done", "done"]


@pytest.mark.parametrize(("pair", "first"), [(os.openpty, b"2"), (os.pipe, b"{")])
def test_format_is_console_on_a_terminal_and_json_elsewhere(
    pair: Callable[[], tuple[int, int]], first: bytes
) -> None:
    source, sink = pair()
    log = configure_logging(Settings(_env_file=None), descriptor=sink)
    logger.info("A line.")
    log.close()
    assert os.read(source, 1) == first
    os.close(source)
    os.close(sink)
