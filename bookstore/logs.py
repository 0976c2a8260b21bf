"""One JSON object a line (R11), whoever speaks: loguru, the standard library's loggers, and the access line.

An access line is written straight from a dict by orjson: loguru's way to a sink costs ten times what the line does.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from loguru import logger

from bookstore.log_files import LogFiles, StandardOutput
from bookstore.redaction import redact, redact_text
from bookstore.settings import Settings

if TYPE_CHECKING:
    from loguru import Message, Record

LONGEST_TEXT = 16_384  # of a message or a traceback: a line must fit a pipe's buffer to stay in one piece
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
FIELDS_OF_A_REQUEST = ("request_id", "user_id", "endpoint", "method", "status_code", "response_time_ms")


class RequestFields:
    """What every line of one request says about it. Set by the front door, read by every log call below it."""

    __slots__ = ("cache", "endpoint", "method", "queries", "query_seconds", "request_id", "traceparent", "user_id")

    def __init__(self, request_id: str, method: str, traceparent: str | None = None) -> None:
        self.request_id = request_id
        self.method = method
        self.traceparent = traceparent if traceparent is not None and TRACEPARENT(traceparent) else None
        self.endpoint: str | None = None
        self.user_id: str | None = None
        self.cache: str | None = None
        self.queries = 0
        self.query_seconds = 0.0


current_request: ContextVar[RequestFields | None] = ContextVar("current_request", default=None)


def configure_logging(settings: Settings, *, service: str = "bookstore") -> None:
    """Send everything to standard output, and to files too when `LOG_DIR` is set. Call again after a fork."""
    _sinks.open(settings, service)
    logger.remove()
    logger.add(_sinks.take, level=settings.log_level, format="", catch=True)
    logging.root.handlers = [_StandardLibrary()]
    logging.root.setLevel(_LEVELS_OF_LOGGING.get(settings.log_level, logging.INFO))
    for name, existing in logging.root.manager.loggerDict.items():
        if isinstance(existing, logging.Logger) and not name.startswith(("bookstore", "gunicorn")):
            existing.handlers, existing.propagate = [], True
    for noisy in ("asyncio", "aiopg", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def write_access_line(fields: dict[str, Any]) -> None:
    """The one line of a finished request. `fields` are R11's and whatever else the front door knows."""
    _sinks.access(fields)


def flush_logs() -> None:
    """Write what is still held back: access lines wait for the end of the event loop's turn."""
    _sinks.flush()


def line_of(record: Record, service: str) -> dict[str, Any]:
    """A loguru record in R11's fields."""
    request = current_request.get()
    extra = record["extra"]
    line: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(
            record["time"].timestamp(), UTC
        ),  # loguru's own is a subclass orjson refuses
        "level": record["level"].name,
        "service": service,
        "request_id": request.request_id if request else None,
        "user_id": request.user_id if request else None,
        "endpoint": request.endpoint if request else None,
        "method": request.method if request else None,
        "status_code": None,
        "response_time_ms": None,
        "message": redact_text(record["message"][:LONGEST_TEXT]),
        "logger": extra.get("logger") or record["name"],
        "module": record["module"],
        "function": record["function"],
        "line": record["line"],
    }
    if request and request.traceparent:
        line["traceparent"] = request.traceparent
    if (raised := record["exception"]) is not None and raised.value is not None:
        text = "".join(traceback.format_exception(raised.type, raised.value, raised.traceback))
        line["exception"] = redact_text(text[-LONGEST_TEXT:])
    given = {name: value for name, value in extra.items() if name != "logger"}
    for name in FIELDS_OF_A_REQUEST:
        if name in given:
            line[name] = redact(given.pop(name))
    if given:
        line["extra"] = redact(given)
    return line


def as_json_line(line: Mapping[str, Any]) -> bytes:
    try:
        written = orjson.dumps(line, default=repr, option=_ORJSON)
    except (TypeError, ValueError, RecursionError):  # lone surrogates, integers past 64 bits, keys that are no text
        written = orjson.dumps(_writable(line), default=repr, option=_ORJSON)
    if not written.isascii():
        for separator, escaped in _LINE_SEPARATORS:
            written = written.replace(separator, escaped)
    return written


# One line to whoever reads it: JSON leaves these as they are, and Python's `splitlines` (and editors) end a line there.
_LINE_SEPARATORS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def as_text_line(line: Mapping[str, Any], *, colour: bool) -> bytes:
    """For people: time, level, what, and which request."""
    when = line["timestamp"].astimezone().strftime("%H:%M:%S.%f")[:-3]
    level = f"{line['level']:<8}"
    extra = _in_one_line(" ".join(f"{name}={value}" for name, value in (line.get("extra") or {}).items()))
    about = f" [{line['request_id']}]" if line.get("request_id") else ""
    head, tail = (f"\x1b[2m{when}\x1b[0m {_COLOURS.get(line['level'], '')}{level}\x1b[0m", f"\x1b[2m{about}\x1b[0m")
    if not colour:
        head, tail = f"{when} {level}", about
    text = f"{head} {_in_one_line(str(line['message']))}{' ' if extra else ''}{extra}{tail}\n"
    if line.get("exception"):  # indented, so that none of its lines passes for one of ours
        text += "".join(f"  {_in_one_line(part)}\n" for part in str(line["exception"]).splitlines())
    return text.encode("utf-8", "replace")


def _in_one_line(text: str) -> str:
    """What a caller sent must neither begin a line of its own nor speak to the terminal."""
    return text if text.isprintable() else text.translate(_CONTROLS)


class _Sinks:
    """Where lines go in this process."""

    def __init__(self) -> None:
        self._service = "bookstore"
        self._output = StandardOutput()
        self._files: LogFiles | None = None
        self._write: Callable[[Mapping[str, Any]], bytes] = as_json_line
        self._access_wanted = True

    def open(self, settings: Settings, service: str) -> None:
        self.flush()
        self._service = service
        self._output = StandardOutput()
        if self._files is not None:
            self._files.close()
        self._files = LogFiles(settings.log_dir) if settings.log_dir else None
        self._access_wanted = settings.log_level in ("TRACE", "DEBUG", "INFO")
        if settings.log_format == "text":
            colour = self._output.is_terminal
            self._write = lambda line: as_text_line(line, colour=colour)
        else:
            self._write = as_json_line

    def take(self, message: Message) -> None:
        line = line_of(message.record, self._service)
        self._output.write(self._write(line))
        if self._files is not None:
            self._files.write(as_json_line(line), is_error=message.record["level"].no >= logging.ERROR)

    def access(self, fields: dict[str, Any]) -> None:
        if not self._access_wanted and fields["level"] != "ERROR":
            return
        fields["service"] = self._service
        self._output.hold(self._write(fields))
        if self._files is not None:
            self._files.hold_access(as_json_line(fields))

    def flush(self) -> None:
        self._output.flush()
        if self._files is not None:
            self._files.flush()


class _StandardLibrary(logging.Handler):
    """gunicorn, aiohttp, yoyo, asyncio: their records become loguru's, with the names of where they were made."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            text = record.getMessage()
        except Exception:
            text = f"{record.msg} {record.args}"

        def as_made(made: Record) -> None:
            made["name"], made["function"] = record.name, record.funcName
            made["module"], made["line"] = record.module, record.lineno

        exception = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
        logger.patch(as_made).opt(exception=exception).log(level, "{}", text)


def _writable(value: object) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, Mapping):
        return {_writable(str(name)): _writable(below) for name, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_writable(below) for below in value]
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    return _writable(repr(value))


_ORJSON = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
# Controls, what ends a line, and what turns the direction of writing round.
_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_LEVELS_OF_LOGGING = {"TRACE": 5} | {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR")}
_COLOURS = {"DEBUG": "\x1b[36m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[41m"}
_sinks = _Sinks()
