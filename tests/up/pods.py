"""`bookstore up` as a stranger starts it: a real process on a data directory and ports of its own."""

import contextlib
import fcntl
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from bookstore.embedded.processes import wait_until
from tests.conftest import PROJECT

READY = "BookStore is ready after"
PATIENCE = 90
LEADER = """
import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *heard: None)
sys.exit(subprocess.call(sys.argv[1:]))
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Up:
    """One `bookstore up`; what it writes is collected, in a terminal of its own when `terminal` says so.

    `led`: started by a process that hears SIGHUP and waits for its child, as make does, and that leads the session.
    `made`: by a real `make up`, which finds everything installed.
    """

    def __init__(
        self,
        data: Path,
        *arguments: str,
        terminal: bool = False,
        led: bool = False,
        made: bool = False,
        project: Path = PROJECT,
        **environ: str,
    ) -> None:
        self.data = data
        self.port, self.supervisor_port = free_ports(2)
        ports = {"PORT": str(self.port), "SUPERVISOR_PORT": str(self.supervisor_port)}
        self.environ = {**environment(data), **measured(project), **ports, **environ}
        self.output = ""
        self._closing = False
        self.master: int | None = None
        command = [sys.executable, "-m", "bookstore", "up", *arguments]
        if made:
            command = ["make", "up", f"RUN={shlex.quote(sys.executable)}", "install=@:"]
        if led:
            command = [sys.executable, "-c", LEADER, *command]
        if terminal:
            self.master, slave = os.openpty()
            self.process = subprocess.Popen(
                command,
                cwd=project,
                env=self.environ,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
            os.close(slave)
            self._source = os.dup(self.master)
        else:
            self._source, sink = os.pipe()
            self.process = subprocess.Popen(
                command, cwd=project, env=self.environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
            os.close(sink)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self) -> "Up":
        """Once the banner is out, all of it."""
        wait_until(lambda: self.banner is not None or self.process.poll() is not None, PATIENCE, every=0.05)
        assert self.banner is not None, self.output
        return self

    @property
    def banner(self) -> str | None:
        found = re.search(rf"─+\r?\n{READY}.*?\n(.*?)─+\r?\n", self.output, re.DOTALL)
        return found[0].replace("\r\n", "\n") if found else None

    def said(self, text: str, *, seconds: float = 30) -> bool:
        return wait_until(lambda: text in self.output, seconds)

    def wait(self, seconds: float = PATIENCE) -> int:
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal's line discipline sends it."""
        assert self.master is not None
        os.write(self.master, b"\x03")

    def close_terminal(self) -> None:
        """As a window that is closed: the reader too must let go, since a read under way keeps the terminal open."""
        assert self.master is not None
        self._closing = True
        self._reader.join(5)
        os.close(self._source)
        os.close(self.master)
        self.master = None

    def processes(self) -> list[psutil.Process]:
        return alive(self.data)

    def end(self) -> None:
        """However the test ended, nothing of it goes on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        for process in [*alive(self.data), self.process]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        self.process.wait(10)
        if self.master is not None:
            os.close(self.master)

    def _read(self) -> None:
        while not self._closing:
            if not select.select([self._source], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(self._source, 65536)
            except OSError:  # a terminal whose other side has gone
                return
            if not chunk:
                return
            self.output += chunk.decode(errors="replace")


def environment(data: Path, **overrides: str) -> dict[str, str]:
    """A stranger's environment: nothing of ours but where the data is."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "USER") if name in os.environ}
    return {**kept, **measured(PROJECT), "BOOKSTORE_DATA": str(data), "LOG_LEVEL": "INFO", **overrides}


def measured(project: Path) -> dict[str, str]:
    """What makes coverage measure a process, and the sources in `project`, which may be a copy (see coverage:paths)."""
    given = {name: value for name, value in os.environ.items() if name.startswith(("COV_", "COVERAGE_"))}
    if "COVERAGE_PROCESS_CONFIG" in given and project != PROJECT:
        from coverage.config import CoverageConfig

        config = CoverageConfig.deserialize(given["COVERAGE_PROCESS_CONFIG"])
        config.source = [str(project / "bookstore"), str(project / "supervisor")]
        given["COVERAGE_PROCESS_CONFIG"] = config.serialize()
    return given


@contextlib.contextmanager
def once_for_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A directory that all of pytest's processes share; inside, one at a time. Empty for the first that comes."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    (base / name).mkdir(exist_ok=True)
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield base / name


def run(
    data: Path, *arguments: str, environ: Mapping[str, str] = {}, **more: object
) -> subprocess.CompletedProcess[str]:
    """Another `bookstore` command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bookstore", *arguments],
        cwd=PROJECT,
        env=environment(data, **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **more,  # type: ignore[call-overload]
    )


def alive(data: Path) -> list[psutil.Process]:
    """Every process that was started for this data directory, whoever its parent is now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            marked = process.environ().get("BOOKSTORE_DATA") == str(data)
            if process.pid != os.getpid() and (marked or f"{data}/" in " ".join(process.cmdline())):
                found.append(process)
    return found


def nothing_left(data: Path, *, seconds: float = 30) -> bool:
    return wait_until(lambda: not alive(data), seconds, every=0.1)


def wait_for_port(port: int, seconds: float = 30) -> bool:
    def answers() -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    return wait_until(answers, seconds, every=0.05)


def free_again(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
