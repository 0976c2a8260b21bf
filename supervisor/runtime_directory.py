"""The names under RUNTIME_DIR: the whole contract between this program and the one it looks after.

docs/runtime-directory.md describes it for people. The service spells the same names in a file of its own.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

LONGEST_SOCKET_PATH = 107  # sockaddr_un.sun_path on Linux, without its closing zero
LONGEST_BOOT_ID = 16
LONGEST_FILE = 64 << 20
"""What is longer was written by nobody who keeps the contract, and is not read into memory."""
SPARE = 8192
"""Bytes of supervisor.json that are kept, so that it can still be written over when the disk is full."""
STALE_AFTER = 5.0
"""A state older than this was written by a supervisor that lives no more."""


class DirectoryHeldError(Exception):
    """Another supervisor holds this runtime directory."""


class DirectoryNotOursError(PermissionError):
    """It cannot be made private: another user owns it."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class PastState:
    """What a supervisor.json said that is worth knowing later; each value of its type, whatever was in the file."""

    sequence: int = 0
    boottime: float | None = None
    phase: str = ""
    applied: tuple[str, ...] = ()
    checks: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    """name → (status, error)"""


@dataclass(frozen=True, slots=True)
class Session:
    """What child.json says of the service's session."""

    pid: int
    start: int
    mark: str
    machine_boot: str


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
        """Also puts back what somebody deleted under a running pod, and closes what was left open to others."""
        for folder in (self.path, self.workers):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat() if folder == self.path else folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
            if found.st_uid != os.geteuid():
                raise DirectoryNotOursError(
                    f"{folder} belongs to user {found.st_uid}, and this process is user {os.geteuid()}: give it to "
                    f"that user (chown {os.geteuid()}), or name a directory in it that does not exist yet"
                )
            if stat.S_IMODE(found.st_mode) != 0o700:
                folder.chmod(0o700)

    @contextlib.contextmanager
    def held(self, *, patience: float = 2.0) -> Iterator[None]:
        """Keeps a second supervisor out. The kernel frees the lock of a killed one at once."""
        self.prepare()
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
            for path in (self.state, self.socket, self.pidfile, self.child, self.totals, self.history):
                if path.is_dir():
                    clear(path)
            yield
        finally:
            os.close(descriptor)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Whole, or on a full disk over what is there: a drain must be announced then too.

        Padded, so that the blocks for a longer one are ours already.
        """
        content = json.dumps(state, indent=1, ensure_ascii=False).encode(errors="replace") + b"\n"
        content = content.ljust(math.ceil(2 * len(content) / SPARE) * SPARE)
        try:
            write_whole(self.state, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _write_over(self.state, content):
                raise

    def read_state(self) -> PastState | None:
        """The last state written, by whatever supervisor and however long ago; None when there is none to read."""
        told = read_json(self.state)
        if told is None:
            return None
        schema, checks = told.get("schema"), told.get("checks")
        applied = schema.get("applied") if isinstance(schema, dict) else None
        return PastState(
            sequence=_whole(told.get("sequence")),
            boottime=seconds(told.get("boottime")),
            phase=_text(told.get("phase")),
            applied=tuple(id_ for id_ in applied if isinstance(id_, str)) if isinstance(applied, list) else (),
            checks={
                name: (_text(check.get("status")), _text(check.get("error")) or None)
                for name, check in (checks.items() if isinstance(checks, dict) else ())
                if isinstance(check, dict)
            },
        )

    def read_child(self) -> Session | None:
        told = read_json(self.child)
        if told is None:
            return None
        pid, start, mark = _whole(told.get("pid")), _whole(told.get("start")), _text(told.get("mark"))
        return Session(pid, start, mark, _text(told.get("machine_boot"))) if pid and mark else None

    def read_pidfile(self) -> int | None:
        content = (read_plain(self.pidfile) or b"").strip()
        return int(content) if content.isdigit() and len(content) < 10 else None


def write_whole(path: Path, content: bytes) -> None:
    """A reader sees the old content or the new one, never half of it. Nothing that lies there is followed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of one that was killed: pid 1 is often the same
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # half of it would take what room is left
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """None for whatever is no object: no file, half of one, one nested without end."""
    try:
        value = orjson.loads(read_plain(path) or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def clear(path: Path) -> None:
    """Removes what lies under a name of ours, whatever it is; what cannot be removed is met by who needs the name."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_plain(path: Path) -> bytes | None:
    """A plain file of a sane length. Not a link, nor a pipe that would keep us waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            return file.read() if stat.S_ISREG(found.st_mode) and found.st_size <= LONGEST_FILE else None
    except OSError:
        return None


def _write_over(path: Path, content: bytes) -> bool:
    """In place, within the room the file has. A reader may see a mixture for a moment, and keeps what it knew."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        content = content.rstrip().ljust(size)
        if len(content) > size:
            return False
        return os.pwrite(descriptor, content, 0) == len(content)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


def seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def boottime() -> float:
    """Seconds since the machine started: the one clock two processes share that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age(written: float | None) -> float:
    """How old what was written then is. Infinite when it is from another life of the machine, or does not say."""
    now = boottime()
    if written is None or not math.isfinite(written) or written > now:
        return float("inf")
    return now - written
