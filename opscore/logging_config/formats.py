"""How a log line looks: JSON for machines or text for people, and always one line."""

import json
import logging
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from pythonjsonlogger.core import LogData
from pythonjsonlogger.orjson import OrjsonFormatter

from opscore.logging_config.context import LOG_CONTEXT

ACCESS_LOGGER = "opscore.access"
MAX_TEXT = 16 * 1024

_CUT = " [cut]"
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Characters that a terminal obeys, that end a line for some reader, or that turn text around.
_UNSEEN = "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_UNSEEN_IN_JSON = re.compile(f"[{_UNSEEN}]")
_UNSEEN_IN_TEXT = re.compile(f"[\x00-\x1f{_UNSEEN}]")


class LineFormat(Protocol):
    def record(self, record: logging.LogRecord) -> bytes:
        """One log record as a line, with its end."""

    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> bytes:
        """One request as a line, with its end. The path must hold nothing but printable ASCII."""


class JsonFormat(OrjsonFormatter):
    """One JSON object a line: timestamp, level, logger, message, context and extra fields."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            reserved_attrs=sorted(_PLAIN),
        )
        self._stamp = Stamp()

    def record(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "replace") + b"\n"

    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> bytes:
        line = {
            "timestamp": self._stamp.at(time.time()),
            "level": "INFO",
            "logger": ACCESS_LOGGER,
            "message": f"{method} {path} {status}",
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": round(milliseconds, 3),
            "request_id": request_id,
        }
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def add_fields(
        self, log_data: LogData, record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["timestamp"] = self._stamp.at(record.created)
        super().add_fields(log_data, record, message_dict)
        for key, value in LOG_CONTEXT.get().items():
            log_data.setdefault(key, value)

    def process_log_record(self, log_data: LogData) -> LogData:
        return {key: _cut(value) for key, value in log_data.items()}

    def jsonify_log_record(self, log_data: LogData) -> str:
        try:
            text = super().jsonify_log_record(log_data)
        except TypeError:
            # Orjson refuses lone surrogates and integers beyond 64 bits.
            text = json.dumps(log_data, default=repr, ensure_ascii=False)
        return _UNSEEN_IN_JSON.sub(_json_escape, text)


class ConsoleFormat(logging.Formatter):
    """Time, level, logger, message, then fields; a traceback follows on lines marked with a bar."""

    def __init__(self) -> None:
        super().__init__()
        self._stamp = Stamp()

    def record(self, record: logging.LogRecord) -> bytes:
        line = self._line(
            record.created,
            record.levelname,
            record.name,
            record.getMessage(),
            _fields(record).items(),
        )
        if record.exc_info:
            line += "".join(
                f"    | {_text(part)}\n"
                for part in str(_cut(self.formatException(record.exc_info))).splitlines()
            )
        return line.encode("utf-8", "backslashreplace")

    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> bytes:
        stamp = self._stamp.at(time.time())
        return (
            f"{stamp} INFO     {ACCESS_LOGGER}: {method} {path} {status} {milliseconds:.1f} ms"
            f" request_id={request_id}\n"
        ).encode("ascii", "backslashreplace")

    def _line(
        self,
        created: float,
        level: str,
        logger: str,
        message: str,
        fields: Iterable[tuple[str, object]],
    ) -> str:
        tail = "".join(f" {key}={_text(str(value))}" for key, value in fields)
        return f"{self._stamp.at(created)} {level:8} {logger}: {_text(message)}{tail}\n"


class Stamp:
    """Writes times in ISO 8601, remembering the second they begin with."""

    def __init__(self) -> None:
        self._known = (0, "1970-01-01T00:00:00")

    def at(self, seconds: float) -> str:
        whole = int(seconds)
        known, text = self._known
        if known != whole:
            text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._known = (whole, text)
        return f"{text}.{int((seconds - whole) * 1_000_000):06d}+00:00"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    extra = {key: value for key, value in vars(record).items() if key not in _PLAIN}
    return {**LOG_CONTEXT.get(), **extra}


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return value[: MAX_TEXT - len(_CUT)] + _CUT
    return value


def _text(value: str) -> str:
    return _UNSEEN_IN_TEXT.sub(_text_escape, str(_cut(value)))


def _text_escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
