"""One JSON object a line on stdout, or coloured text for people. Nothing here ever stops the program that logs."""

import contextlib
import inspect
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

    from supervisor.settings import Settings

SERVICE = "supervisor"
REDACTED = "[redacted]"
NEVER_SHOWN = re.compile(
    r"passw|passphrase|secret|token|api[_-]?key|authorization|cookie|credit[_-]?card|card[_-]?number|cvv|private[_-]?key|credential",
    re.I,
)
URL_PASSWORD = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.I)
DSN_PASSWORD = re.compile(r"\bpassword\s*=\s*('[^']*'|\S+)", re.I)
OF_A_REQUEST = ("request_id", "user_id", "endpoint", "method", "status_code", "response_time_ms")
DEEPEST = 12


def configure_logging(settings: "Settings") -> None:
    """From here on loguru, and what libraries say to the standard library's logging, go to stdout in one form."""
    as_json = settings.log_format == "json"
    logger.remove()
    logger.configure(extra={})
    logger.add(
        _write_json if as_json else _write_text,
        level=settings.log_level,
        format="{message}",
        backtrace=False,
        diagnose=False,  # local variables hold passwords
        catch=True,
    )
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    logging.getLogger("yoyo").setLevel(logging.INFO)
    logging.captureWarnings(True)


def redact(value: Any, depth: int = 0) -> Any:
    """The same value with secrets replaced, at any depth: by the name they are under, and by the form of a URL."""
    if isinstance(value, str):
        return redact_text(value)
    if depth > DEEPEST:
        return REDACTED
    if isinstance(value, Mapping):
        return {
            redact_text(str(key)): REDACTED if NEVER_SHOWN.search(str(key)) else redact(inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(inner, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """Without what stands between `://user:` and `@`, or after `password=`."""
    return DSN_PASSWORD.sub(f"password={REDACTED}", URL_PASSWORD.sub(rf"\g<before>:{REDACTED}@", text))


def render_json(record: "Record") -> str:
    """One record as one line, with every field of the contract whether it has a value or not."""
    extra = dict(record["extra"])
    line: dict[str, Any] = {
        "timestamp": record["time"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record["level"].name,
        "service": SERVICE,
        **{name: redact(extra.pop(name, None)) for name in OF_A_REQUEST},
        "message": redact_text(record["message"]),
        "logger": extra.pop("logger", None) or record["name"] or "",
        "module": record["module"],
        "function": record["function"],
        "line": record["line"],
    }
    if exception := _exception(record):
        line["exception"] = exception
    for name, value in redact(extra).items():
        line.setdefault(name, value)
    return json.dumps(line)  # escapes all but ASCII: a lone surrogate or a line separator stays one valid line


class _ToLoguru(logging.Handler):
    """Hands a record of the standard library on, keeping where it was said."""

    def emit(self, record: logging.LogRecord) -> None:
        level: str | int
        try:
            level = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        depth, frame = 0, inspect.currentframe()
        while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            depth, frame = depth + 1, frame.f_back
        with contextlib.suppress(Exception):  # a wrong format string in a library is not ours to die of
            logger.bind(logger=record.name).opt(depth=depth, exception=record.exc_info).log(
                level, "{}", record.getMessage()
            )


def _write_json(message: "Message") -> None:
    _write(render_json(message.record) + "\n")


COLOURS = {"DEBUG": 36, "INFO": 32, "SUCCESS": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}


def _write_text(message: "Message") -> None:
    record = message.record
    level = f"{record['level'].name:<8}"
    if sys.stdout.isatty():
        level = f"\x1b[{COLOURS.get(record['level'].name, 37)}m{level}\x1b[0m"
    extra = {name: value for name, value in record["extra"].items() if name != "logger"}
    facts = "".join(f" {name}={value}" for name, value in redact(extra).items())
    exception = _exception(record)
    text = redact_text(record["message"]) + facts + (f"\n{exception}" if exception else "")
    _write(f"{record['time']:HH:mm:ss.SSS} {level} supervisor  {text}\n")


def _write(line: str) -> None:
    """A terminal that was closed, or a pipe nobody reads any more, is no reason to stop looking after the service."""
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except BlockingIOError:
        pass  # a full terminal loses a line, not the supervisor
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # what is buffered would fail again at exit


def _exception(record: "Record") -> str | None:
    exception = record["exception"]
    if exception is None or exception.type is None:
        return None
    return redact_text(
        "".join(traceback.format_exception(exception.type, exception.value, exception.traceback)).rstrip()
    )
