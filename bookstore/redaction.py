"""What must not be read in a log: found by the name it stands under, at any depth, and by its own shape in any text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
DEEPEST = 24

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
_TELLING_NAME = re.compile(_TELLING, re.IGNORECASE)
_CARD = re.compile(r"(?<!\d)(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?!\d)")
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=://)([^\s:/@?#]*):[^\s\"'<>]{1,512}@"), rf"\1:{HIDDEN}@"),
    (_CARD, HIDDEN),
    # A header's value goes on to the end of its line: parameters, more cookies.
    (re.compile(r"(?i)((?:authorization|cookie)\s{0,8}[=:]\s{0,8})(?![\"'\\\s])[^\r\n]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"((?:{_TELLING})[\w.-]{{0,40}}\\{{0,3}}[\"'\])]{{0,3}}\s{{0,8}}[=:]{{1,2}}>?\s{{0,8}})(?:{_VALUE})",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"bks_[A-Za-z0-9]+_[A-Za-z0-9_-]+"), f"bks_{HIDDEN}"),
    (re.compile(r"(?<![\w.%+-])[\w.%+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+"), HIDDEN),
)
# Most texts have nothing to hide, and this says so in 1 µs: in lower case, and every branch begins with a literal.
_HINT = re.compile(rf"{_PARTS}|{_WORDS}|bearer|basic|eyj|bks_|://|@|%40").search


def redact(value: Any, depth: int = 0) -> Any:
    """`value` with secrets hidden in every mapping, list and text within it."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "replace"))
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {
            redact_text(str(name)): HIDDEN if _TELLING_NAME.search(str(name)) else redact(below, depth + 1)
            for name, below in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(below, depth + 1) for below in value]
    return redact_text(_shown(value))


def redact_text(text: str) -> str:
    if not (_HINT(text.lower()) or _CARD.search(text)):
        return text
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def _shown(value: object) -> str:
    try:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    except Exception:
        return f"<{type(value).__name__}>"
