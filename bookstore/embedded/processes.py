"""Starting programs that end with us, knowing them again after a crash, and ending them for good."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO

LAUNCH = str(Path(__file__).with_name("launch.py"))

Steps = Sequence[tuple[signal.Signals, float]]


def launch(
    argv: Sequence[str],
    *,
    cwd: Path,
    output: IO[bytes] | int | None = None,
    death_signal: signal.Signals,
    identity: str = "same",
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session that gets `death_signal` when this process ends, however it ends."""
    head = [sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(int(death_signal)), identity]
    return subprocess.Popen(
        [*head, *argv],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=None if environ is None else dict(environ),
        start_new_session=True,
    )


def open_log(path: Path) -> BinaryIO:
    """Appended to, for its owner's eyes only; started anew when it has grown past 5 MB."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > 5_000_000:
            path.rename(path.with_suffix(".old.log"))
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path.open("ab")


def mark(pid: int) -> str | None:
    """What tells this process from a later one with the same number: when it started, and since which boot."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else f"{boot}:{fields[18]}"


def end(pid: int, steps: Steps, *, gone: Callable[[], bool] | None = None) -> bool:
    """Signal after signal until the process is gone; false when it outlived them all."""
    identity = mark(pid)
    gone = gone or (lambda: mark(pid) is None or mark(pid) != identity)
    for number, seconds in steps:
        if gone():
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        if wait_until(gone, seconds):
            return True
    return gone()


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.01) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def running_in(directory: Path, program: str) -> list[int]:
    """This program's processes that work in the directory: how the backends of a lost PostgreSQL master are known."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() == directory and (entry / "exe").readlink().name.startswith(program):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
