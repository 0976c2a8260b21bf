"""What must not be read in a log: found by the name it stands under, at any depth, and by its own shape in any text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
DEEPEST = 24

_TELLING_NAME = re.compile(
    r"pass[_-]?(?:word|wd|phrase)|passwd|pwd|secret|token|(?:api|access|private)[_-]?key|authorization|credential"
    r"|cookie|credit[_-]?card|card[_-]?(?:number|no)|cvv|cvc|\bpan\b|iban|e[_-]?mail|phone|\bssn\b|\bdsn\b|signature",
    re.IGNORECASE,
)
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\bbks_[A-Za-z0-9]+_[A-Za-z0-9_-]+"), f"bks_{HIDDEN}"),
    (re.compile(r"(?<=://)([^\s:/@?#]*):[^\s/?#]*@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?i)\b((?:\w*(?:password|passwd|secret|token|api[_-]?key|authorization|credit[_-]?card)\w*)[\"']?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s,;&\"'{}()\[\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}\b"), HIDDEN),
)
_HINTS = re.compile(
    r"(?i)bearer|basic|eyJ|bks_|://|pass|secret|token|api[_-]?key|authoriz|card|\d{4}[ -]?\d{4}[ -]?\d{4}"
)


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
    if not _HINTS.search(text):
        return text
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def _shown(value: object) -> str:
    try:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    except Exception:
        return f"<{type(value).__name__}>"
