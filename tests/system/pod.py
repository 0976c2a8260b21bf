"""One pod of real processes, its ports, its runtime directory and its output; and a client that retries nothing."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import PROJECT, build_environ

SUPERVISOR = [sys.executable, "-m", "supervisor", "run"]
BOOKSTORE = [sys.executable, "-m", "gunicorn", "-c", "python:bookstore.server", "bookstore.server:application"]
SMALL = [sys.executable, str(Path(__file__).with_name("small_service.py"))]
PATIENCE = 60.0
BOOK = "/api/v1/books?limit=1"


class Pod:
    """`start` gives the pod in parent mode; `start_supervisor` and `start_service` the two halves of a sidecar's."""

    def __init__(self, database_url: str, *, service: Sequence[str] = BOOKSTORE, **overrides: Any) -> None:
        self.service = list(service)
        self.directory = Path(tempfile.mkdtemp(prefix="pod-"))
        self.port, self.supervisor_port = free_ports(2)
        told = {
            "runtime_dir": self.directory,
            "port": self.port,
            "supervisor_port": self.supervisor_port,
            "host": "127.0.0.1",
            "workers": 1,
            "supervised": True,
            "probe_interval": 1,
            "log_format": "json",
        }
        self.environment = build_environ(database_url, **(told | overrides))
        self._output = self.directory.with_name(self.directory.name + ".log")
        self._started: list[subprocess.Popen[bytes]] = []

    # --- acts ---------------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen[bytes]:
        return self.run([*SUPERVISOR, "--", *self.service])

    def start_supervisor(self) -> subprocess.Popen[bytes]:
        return self.run(SUPERVISOR)

    def start_service(self) -> subprocess.Popen[bytes]:
        return self.run(self.service)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **options}
            process = subprocess.Popen(command, env=self.environment, cwd=PROJECT, start_new_session=True, **given)
        self._started.append(process)
        return process

    def remove(self) -> None:
        """Ends whatever is left of it, and shows what it said: pytest prints that when the test failed."""
        for process in self._started:
            process.kill()
            process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        print(f"--- {self.directory.name} ---", *self._telling_lines(), sep="\n")
        shutil.rmtree(self.directory, ignore_errors=True)
        self._output.unlink(missing_ok=True)

    def _telling_lines(self, most: int = 150) -> list[str]:
        """All but what a load leaves behind."""
        lines = [line for line in self.output.splitlines() if "bookstore.access" not in line]
        return lines if len(lines) <= most else [*lines[: most // 3], "…", *lines[-most * 2 // 3 :]]

    # --- looks --------------------------------------------------------------------------------------------------

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def log(self) -> list[dict[str, Any]]:
        lines = []
        for line in self.output.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def api(self, path: str = BOOK) -> "Answer":
        return get(self.port, path)

    def supervisor(self, path: str = "/health/ready") -> "Answer":
        return get(self.supervisor_port, path)

    def phase(self) -> str | None:
        phase = self.supervisor().json.get("phase")
        return str(phase) if phase else None

    def processes(self) -> set[int]:
        """Every living process of this pod, whoever is its parent by now."""
        mine = f"RUNTIME_DIR={self.directory}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mine in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
        return found

    # --- waits --------------------------------------------------------------------------------------------------

    def wait_until(self, true: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
        wait_until(true, lambda: f"{what}; the supervisor says {self.supervisor('/status').text[:2000]}", seconds)

    def wait_for_phase(self, phase: str) -> None:
        self.wait_until(lambda: self.phase() == phase, f"the phase is {phase}")

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.supervisor().status == 200, "the pod is ready")


@dataclass(frozen=True)
class Answer:
    status: int | None
    """None: the connection was refused or cut."""
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            value = json.loads(self.text)
            return value if isinstance(value, dict) else {}
        return {}


def get(port: int, path: str, headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(errors="replace"), dict(response.getheaders()))
    except (OSError, http.client.HTTPException):
        return Answer(None)
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Held together until all are known, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def wait_until(true: Callable[[], object], what: Callable[[], str], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what()}"
        time.sleep(0.05)


class Load:
    """Keep-alive clients behind a balancer: they choose the pod as long as its readiness is 200. Nothing is retried."""

    def __init__(self, pod: Pod, connections: int, *, path: str = BOOK, asks: str = "supervisor") -> None:
        self._pod = pod
        self._ready = pod.supervisor if asks == "supervisor" else lambda: pod.api("/health/ready")
        self._path = path
        self._connections = connections
        self._chosen = True
        self.answered = 0
        self.failures: list[str] = []

    async def run(self, *, by_readiness: bool = True) -> None:
        """Until the pod is no longer chosen, or `give_up`."""
        watching = asyncio.create_task(self._watch_readiness() if by_readiness else asyncio.sleep(0), name="balancer")
        try:
            await asyncio.gather(*(self._client() for _ in range(self._connections)))
        finally:
            watching.cancel()

    def give_up(self) -> None:
        self._chosen = False

    async def _watch_readiness(self) -> None:
        while self._chosen:
            answer = await asyncio.to_thread(self._ready)
            self._chosen = self._chosen and answer.status == 200
            await asyncio.sleep(0.1)

    async def _client(self) -> None:
        while self._chosen:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._pod.port)
            except OSError as error:
                self.failures.append(f"connecting: {error}")
                await asyncio.sleep(0.05)
                continue
            try:
                await self._requests(reader, writer)
            finally:
                writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """On one connection, until one side announces its end."""
        while self._chosen:
            try:
                writer.write(f"GET {self._path} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode()
                status, *lines = head.split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                return
            if status.split()[1] == "200" and body:
                self.answered += 1
            else:
                self.failures.append(f"{status}: {body[:200]!r}")
            if headers.get("connection", "").lower() == "close":
                return
