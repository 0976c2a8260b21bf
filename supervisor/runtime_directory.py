"""The names under RUNTIME_DIR: the whole contract between this program and the one it looks after.

docs/runtime-directory.md describes it for people. The service spells the same names in a file of its own.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LONGEST_SOCKET_PATH = 107  # sockaddr_un.sun_path on Linux, without its closing zero
LONGEST_BOOT_ID = 16
STALE_AFTER = 5.0
"""A state older than this was written by a supervisor that lives no more."""


class DirectoryHeldError(Exception):
    """Another supervisor holds this runtime directory."""


class RuntimeDirectory:
    """One pod's meeting place. Nothing is made before `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "supervisor.json"
        self.socket = path / "supervisor.sock"
        self.lock = path / "supervisor.lock"
        self.workers = path / "workers"
        self.pidfile = path / "gunicorn.pid"
        self.child = path / "child.json"
        self.totals = path / "totals.json"
        self.history = path / "history.jsonl"

    def prepare(self) -> None:
        """Also puts back what somebody deleted under a running pod."""
        for folder in (self.path, self.workers):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def held(self, *, patience: float = 2.0) -> Iterator[None]:
        """Keeps a second supervisor out. The kernel frees the lock of a killed one at once."""
        self.prepare()
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                        raise DirectoryHeldError(
                            f"{self.path} is held by another supervisor (pid {holder}): stop it, or set RUNTIME_DIR"
                        ) from None
                    time.sleep(0.05)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def write_state(self, state: Mapping[str, Any]) -> None:
        write_whole(self.state, json.dumps(state, indent=1).encode())

    def read_state(self) -> dict[str, Any] | None:
        """The last state written, by whatever supervisor and however long ago; None when there is none to read."""
        return read_json(self.state)


def write_whole(path: Path, content: bytes) -> None:
    """A reader sees the old content or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def boottime() -> float:
    """Seconds since the machine started: the one clock two processes share that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age(state: Mapping[str, Any]) -> float:
    """How old a state is. Infinite when it is from another life of the machine, or does not say."""
    written = state.get("boottime")
    now = boottime()
    if not isinstance(written, int | float) or written > now:
        return float("inf")
    return now - written
