"""What happened, the last thousand times: a ring in memory and history.jsonl, which outlives the supervisor."""

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from supervisor.runtime_directory import read_plain, write_whole

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Transition:
    """`check` is empty for a phase."""

    time: str
    check: str
    before: str
    after: str
    reason: str

    def as_json(self) -> dict[str, str]:
        told = asdict(self)
        return {"time": told.pop("time"), "from": told.pop("before"), "to": told.pop("after"), **told}


class History:
    """A directory that cannot be written costs what is kept of the past, never the supervisor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ring: deque[Transition] = deque(_read(path), maxlen=KEPT)
        self._lines = len(self._ring)

    def keep(self, transition: Transition) -> None:
        self._ring.append(transition)
        with contextlib.suppress(OSError):
            if self._lines >= 2 * KEPT:
                write_whole(self._path, "".join(_line(kept) for kept in self._ring).encode())
                self._lines = len(self._ring)
            else:
                _append(self._path, _line(transition))
                self._lines += 1

    def latest(self, limit: int = KEPT) -> list[Transition]:
        """Newest last."""
        return list(self._ring)[-limit:]


def _line(transition: Transition) -> str:
    return json.dumps(transition.as_json(), ensure_ascii=False).encode(errors="replace").decode() + "\n"


def _append(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> Iterable[Transition]:
    """Skips what is not a transition: a supervisor killed while writing leaves half a line."""
    lines = (read_plain(path) or b"").decode(errors="replace").splitlines()
    for line in lines[-KEPT:]:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told: dict[str, Any] = orjson.loads(line)
            yield Transition(
                str(told["time"]), str(told["check"]), str(told["from"]), str(told["to"]), str(told["reason"])
            )
