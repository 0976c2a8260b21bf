"""A real gunicorn with our configuration, as a context manager."""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "gunicorn", "-c", "python:bookstore.server", "bookstore.server:application"]


class GunicornServer:
    def __init__(self, environment: dict[str, str], log: Path, *, checkout: Path = PROJECT) -> None:
        self.environment = {**environment, "PORT": environment.get("PORT") or str(free_port())}
        self.port = int(self.environment["PORT"])
        self.log = log
        self._file = log.open("wb")
        self.process = subprocess.Popen(
            COMMAND, env=self.environment, cwd=checkout, stdout=self._file, stderr=subprocess.STDOUT
        )

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.answers("/health/ready") or self.process.poll() is not None, seconds=40)
        assert self.process.poll() is None, self.log.read_text(errors="replace")

    def version(self) -> str | None:
        try:
            return str(json.loads(self.get("/")[2])["version"])
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the log: each must be a JSON object."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def worker_pids(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return set(map(int, children.split()))

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._file.close()

    def answers(self, path: str) -> bool:
        try:
            return self.get(path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False


@contextmanager
def gunicorn(
    environment: dict[str, str], log: Path, *, ready: bool = True, checkout: Path = PROJECT
) -> Iterator[GunicornServer]:
    server = GunicornServer(environment, log, checkout=checkout)
    try:
        if ready:
            server.wait_until_ready()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], object], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
