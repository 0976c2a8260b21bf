"""What /proc and prctl know of processes. A pid alone proves nothing: its start time or its mark do."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MARK = "SUPERVISOR_SESSION"
"""An environment variable that a child and all it starts inherit: who carries ours is ours."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    state: str
    parent: int
    session: int
    start: int
    """Clock ticks since the machine started."""


def look_at(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        state, parent, _, session, *rest = stat.rpartition(")")[2].split()
        return Process(pid, state, int(parent), int(session), int(rest[15]))
    except (OSError, ValueError, IndexError):
        return None


def everybody() -> Iterator[Process]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal() and (process := look_at(int(name))):
            yield process


def carries(pid: int, mark: str) -> bool:
    """Whether the process was started by whoever set this mark. Unreadable is no."""
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def is_gunicorn(pid: int) -> bool:
    """Whether a pid from a pidfile still is what it was: a gunicorn of our own user."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return False
    return b"gunicorn" in words and owner == os.geteuid()


def machine_boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def become_reaper() -> None:
    """Orphans of our children become our children, as they do for PID 1, and are reaped."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def ends_with_parent(parent: int) -> Callable[[], None]:
    """For a new child, between fork and exec: SIGTERM when its parent dies, however it dies."""

    def arrange() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return arrange


def zombies() -> set[int]:
    """Our children that ended and were not waited for."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                children = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii").split()
                found.update(pid for pid in map(int, children) if (seen := look_at(pid)) and seen.state == "Z")
    return found


def reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
