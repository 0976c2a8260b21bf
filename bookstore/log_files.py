"""Where log lines end up: standard output, and files that many processes write and rotate without losing a line."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

FILE_BYTES = 10 * 1024 * 1024
FILES_KEPT = 5
ROOM_WANTED = 64 * 1024 * 1024  # files are not written when the disk has less than this left
PIPE_WRITE = 4096  # PIPE_BUF: what a pipe takes in one piece from each of several writers
STALLED_SECONDS = 1.0


class StandardOutput:
    """Lines on descriptor 1. A reader that went away is no reason to stop serving books: its lines are dropped."""

    def __init__(self) -> None:
        try:
            self._fd = sys.stdout.fileno()
            self._is_pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
            self.is_terminal = os.isatty(self._fd)
        except (AttributeError, OSError, ValueError):
            self._fd, self._is_pipe, self.is_terminal = -1, False, False
        self._held: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.flush()
        self._send(line)

    def hold(self, line: bytes) -> None:
        """Written at the end of the event loop's turn: under load several lines share one system call."""
        self._held.append(line)
        if len(self._held) == 1:
            _at_end_of_turn(self.flush)

    def flush(self) -> None:
        held, self._held = self._held, []
        if not held:
            return
        if not self._is_pipe:
            self._send(b"".join(held))
            return
        batch: list[bytes] = []
        size = 0
        for line in held:
            if size + len(line) > PIPE_WRITE and batch:
                self._send(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        self._send(b"".join(batch))

    def _send(self, data: bytes) -> None:
        while data and self._fd >= 0:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                if not select.select([], [self._fd], [], STALLED_SECONDS)[1]:
                    return
            except OSError:
                return


class LogFiles:
    """app.log has every line, error.log those of level ERROR and above, access.log one per request."""

    def __init__(self, directory: Path) -> None:
        self._app = RotatingFile(directory / "app.log")
        self._errors = RotatingFile(directory / "error.log")
        self._access = RotatingFile(directory / "access.log")
        self._held: list[bytes] = []

    def write(self, line: bytes, *, is_error: bool) -> None:
        self.flush()
        self._app.write(line)
        if is_error:
            self._errors.write(line)

    def hold_access(self, line: bytes) -> None:
        self._held.append(line)
        if len(self._held) == 1:
            _at_end_of_turn(self.flush)

    def flush(self) -> None:
        held, self._held = b"".join(self._held), []
        if held:
            self._access.write(held)
            self._app.write(held)

    def close(self) -> None:
        self.flush()
        for file in (self._app, self._errors, self._access):
            file.close()


class RotatingFile:
    """One O_APPEND write a line, so lines of many processes never mix; renamed aside under a lock when it is full.

    A process that looked before another one renamed writes its line into the renamed file: it is not lost.
    """

    def __init__(self, path: Path, *, limit: int = FILE_BYTES, kept: int = FILES_KEPT) -> None:
        self._path, self._limit, self._kept = path, limit, kept
        self._fd = -1
        self._inode = 0
        self._room_checked = 0.0
        self._silent = False

    def write(self, data: bytes) -> None:
        try:
            if not self._has_room():
                return
            try:
                there = os.stat(self._path)  # noqa: PTH116 - a plain call: this runs for every line
            except FileNotFoundError:
                self._open()
                there = os.fstat(self._fd)
            if self._fd < 0 or there.st_ino != self._inode:
                self._open()
                there = os.fstat(self._fd)
            if there.st_size and there.st_size + len(data) > self._limit:
                self._rotate()
            os.write(self._fd, data)
        except OSError as failed:
            self._complain(f"{self._path} cannot be written: {failed.strerror}")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._inode = os.fstat(self._fd).st_ino

    def _rotate(self) -> None:
        lock = os.open(self._path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with_inode = os.stat(self._path).st_ino if self._path.exists() else 0  # noqa: PTH116
            if with_inode == self._inode:  # nobody was faster
                for number in range(self._kept - 1, 0, -1):
                    older = self._numbered(number)
                    if older.exists():
                        older.replace(self._numbered(number + 1))
                self._path.replace(self._numbered(1))
            self._open()
        finally:
            os.close(lock)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now - self._room_checked > 5:
            self._room_checked = now
            self._path.parent.mkdir(parents=True, exist_ok=True)
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < ROOM_WANTED:
                self._complain(f"{self._path} is not written: the disk has less than {ROOM_WANTED >> 20} MB left")
            else:
                self._silent = False
        return not self._silent

    def _complain(self, problem: str) -> None:
        """Once, on standard error: a log that cannot be written must not stop the reads."""
        if not self._silent:
            self._silent = True
            line = f'{{"level":"ERROR","logger":"bookstore.log_files","message":"{problem}"}}\n'
            try:
                os.write(2, line.encode("utf-8", "replace"))
            except OSError as failed:
                if failed.errno not in (errno.EPIPE, errno.EBADF, errno.EIO, errno.EAGAIN, errno.ENOSPC):
                    raise


def _at_end_of_turn(flush: Callable[[], None]) -> None:
    try:
        asyncio.get_running_loop().call_soon(flush)
    except RuntimeError:
        flush()
