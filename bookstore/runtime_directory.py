"""The names under RUNTIME_DIR, where the API meets its supervisor. `docs/runtime-directory.md` has the whole contract.

The supervisor spells the same names in a file of its own: neither program imports the other.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

STALE_AFTER = 5.0
"""A state older than this was written by a supervisor that lives no more."""


class RuntimeDirectory:
    """One pod's meeting place. `boot` is a random id per worker life: pids come back, boot ids do not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.supervisor_state = path / "supervisor.json"
        self.workers = path / "workers"
        self.pidfile = path / "gunicorn.pid"

    def prepare(self) -> None:
        """For the pod's own user alone, also when it was there before us."""
        for folder in (self.path, self.workers):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat() if folder == self.path else folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            if found.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"it belongs to user {found.st_uid}, not to {os.geteuid()}")
            if stat.S_IMODE(found.st_mode) != 0o700:
                folder.chmod(0o700)

    def worker_socket(self, boot: str) -> Path:
        return self.workers / f"{boot}.sock"

    def write_final(self, boot: str, snapshot: Mapping[str, Any]) -> None:
        """A worker's last words, whole or not at all."""
        path = self.workers / f"{boot}.final.json"
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(snapshot))
        temporary.replace(path)

    def read_supervisor(self) -> dict[str, Any] | None:
        """What the supervisor wrote last, however long ago; None when there is nothing to read."""
        try:
            state = orjson.loads(self.supervisor_state.read_bytes())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None


def new_boot_id() -> str:
    return secrets.token_hex(8)


def age(state: Mapping[str, Any]) -> float:
    """Seconds since `state` was written, by the one clock that two processes share and nobody can set."""
    written, now = state.get("boottime"), time.clock_gettime(time.CLOCK_BOOTTIME)
    if not isinstance(written, int | float) or written > now:
        return float("inf")
    return now - written


def is_live(state: Mapping[str, Any] | None) -> bool:
    return state is not None and age(state) <= STALE_AFTER


def applied_migrations(state: Mapping[str, Any] | None) -> frozenset[str]:
    schema = (state or {}).get("schema")
    applied = schema.get("applied") if isinstance(schema, dict) else None
    return frozenset(map(str, applied)) if isinstance(applied, list) else frozenset()


def needed_migrations(directory: Path) -> frozenset[str]:
    """The ids this code must find applied: all but those headed `-- phase: after`, which contract what is left."""
    needed = set()
    for file in directory.glob("*.sql"):
        if file.name.endswith(".rollback.sql") or file.name.startswith("post-apply"):  # yoyo marks neither
            continue
        if not _is_for_later(file.read_text(encoding="utf-8")):
            needed.add(file.name.removesuffix(".sql"))
    return frozenset(needed)


def _is_for_later(text: str) -> bool:
    """`-- phase: after` in the comments at the file's head; what stands further down decides nothing."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("--", "#")):
            return False
        if said := _PHASE.match(line):
            return said[1].lower() == "after"
    return False


_PHASE = re.compile(r"^\s*(?:--|#)\s*phase\s*:\s*(\S+)\s*$", re.IGNORECASE)
