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
# One list, for the names of a mapping and for `name=value` in a text. The short words count as whole ones only.
_PARTS = (
    r"pass[_-]?(?:word|wd|phrase|code)|secret|token|credential|authori[sz]ation"
    r"|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key|cookie|credit[_-]?card|card[_-]?(?:number|no)"
    r"|cvv|cvc|iban|e[_-]?mail|phone|signature"
)
_WORDS = r"pwd|jwt|auth|session|otp|pin|pan|ssn|dsn"
_TELLING = rf"{_PARTS}|(?<![A-Za-z])(?:{_WORDS})(?!(?-i:[a-z]))"
_VALUE = (
    r"b?\"(?:[^\"\\]|\\.)*\"?|b?'(?:[^'\\]|\\.)*'?"  # quoted, with escaped quotes in it; perhaps cut off
    r"|\\+\".*?(?:\\+\"|$)|\\+'.*?(?:\\+'|$)"  # within a text that was quoted as a whole
    r"|\[[^\]]*\]?|\([^)]*\)?|\{[^}]*\}?"
    r"|(?:(?:bearer|basic|digest|negotiate)\s+)?[^\s&]+"
)
NEVER_SHOWN = re.compile(_TELLING, re.I)
SHAPES = (
    (re.compile(r"(?<=://)([^\s:/@?#]*):[^\s\"'<>]{1,512}@"), rf"\1:{REDACTED}@"),
    (re.compile(r"(?<!\d)(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?!\d)"), REDACTED),
    (re.compile(r"(?i)((?:authorization|cookie)\s{0,8}[=:]\s{0,8})(?![\"'\\\s])[^\r\n]+"), rf"\1{REDACTED}"),
    (
        re.compile(
            rf"((?:{_TELLING})[\w.-]{{0,40}}\\{{0,3}}[\"'\])]{{0,3}}\s{{0,8}}[=:]{{1,2}}>?\s{{0,8}})(?:{_VALUE})",
            re.I | re.S,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), REDACTED),
    (re.compile(r"bks_[A-Za-z0-9]+_[A-Za-z0-9_-]+"), f"bks_{REDACTED}"),
    (re.compile(r"(?<![\w.%+-])[\w.%+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+"), REDACTED),
)
# Controls, what ends a line, and what turns the direction of writing round.
CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
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
    """Without what stands between `://user:` and `@`, after a telling name, or tells itself by its form."""
    for shape, instead in SHAPES:
        text = shape.sub(instead, text)
    return text


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
    said = record["message"].replace("_", " ")
    extra = {
        name: value
        for name, value in record["extra"].items()
        if name != "logger"
        and value is not None
        and str(value).replace("_", " ") not in said  # no need to say it twice
    }
    facts = "".join(f" {name}={value}" for name, value in redact(extra).items())
    text = f"{redact_text(record['message'])}{facts}".translate(CONTROLS)
    for line in (_exception(record) or "").splitlines():  # indented, so that none passes for a line of ours
        text += f"\n  {line.translate(CONTROLS)}"
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
