"""The supervisor as our child, in parent mode: it migrates, then starts gunicorn, and takes it down again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bookstore.embedded import EmbeddedError
from bookstore.embedded.processes import end, launch, wait_until
from bookstore.up.plan import PROJECT, Plan
from bookstore.up.stopping import Stopping, say

COMMAND = ("-m", "supervisor", "run", "--", sys.executable, "-m", "gunicorn", "-c", "python:bookstore.server")
SERVED = "bookstore.server:application"
PATIENCE = 180
"""Seconds until ready; a first start on a slow disk takes 15."""


class Pod:
    def __init__(self, plan: Plan, stopping: Stopping) -> None:
        self.plan = plan
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = stopping
        stopping.hurry = self.hurry

    def start(self) -> None:
        self.process = launch(
            [sys.executable, *COMMAND, SERVED],
            cwd=PROJECT,
            death_signal=signal.SIGTERM,
            environ=self.plan.environ,
        )
        self.plan.home.remember("supervisor", self.process.pid)

    def wait_until_ready(self, *, look: Callable[[str], None] = lambda reason: None) -> None:
        """Raises EmbeddedError when it will not come: the supervisor ended, or the migrations fail.

        `look` is called again and again with the supervisor's reason for not being ready, and may raise too.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            if (status := self.ended()) is not None:
                raise SupervisorEnded(status)
            state = self._state()
            if state.get("ready"):
                wait_until(partial(self._is_known_to_workers, int(state["sequence"])), 3, every=0.02)
                return
            look(str(state.get("reason", "")))
            phase = str(state.get("phase", ""))
            if phase == "migration_failed":
                raise EmbeddedError(f"The migrations fail: {state['reason']}. Mend them, or start anew: `make reset`.")
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Not ready after {PATIENCE} s ({phase or 'the supervisor is silent'}): the log above says why."
                )
            time.sleep(0.05)

    def wait(self) -> int:
        """Until the supervisor ends by itself, which is the end of everything."""
        while (status := self.ended()) is None:
            time.sleep(0.1)
        say(f"The supervisor ended by itself with status {status}: stopping the servers too.")
        return status

    def ended(self) -> int | None:
        """Its exit status, once there is one. Raises Stop when the terminal is gone; looks after the servers."""
        assert self.process is not None
        self.stopping.check()
        for server in self.plan.servers:
            if not server.is_running():
                say(f"{type(server).__name__} ended by itself: starting it again.")
                server.start()
        status = self.process.poll()
        return None if status is None else _shell_status(status)

    def hurry(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """One SIGTERM, the time it was promised, then no more patience; nothing of it is left when this returns."""
        process = self.process
        if process is None:
            return
        budget = float(self.plan.environ.get("STOP_GRACE_PERIOD") or 30)
        end(
            process.pid,
            ((signal.SIGTERM, budget), (signal.SIGKILL, 5)),
            gone=lambda: process.poll() is not None,
        )
        _end_orphans({server.process.pid for server in self.plan.servers if server.process is not None})
        self.process = None

    def _is_known_to_workers(self, sequence: int) -> bool:
        """Each reads what the supervisor says some moments later, and until then answers that it is not ready."""
        workers = (Path(self.plan.environ["RUNTIME_DIR"]) / "workers").glob("*.sock")  # relative: a socket's is short
        return all(_sequence_seen(worker) >= sequence for worker in workers)

    def _state(self) -> dict[str, Any]:
        """What this supervisor, and not one before it, writes of itself."""
        assert self.process is not None
        try:
            state = json.loads((PROJECT / self.plan.environ["RUNTIME_DIR"] / "supervisor.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return state if state.get("pid") == self.process.pid else {}


class SupervisorEnded(EmbeddedError):
    """The supervisor gave up before it was ready; its status becomes ours."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The supervisor ended with status {status} before the pod was ready: its log above says why.")
        self.exit_status = status or 1


def _sequence_seen(worker: Path) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(str(worker))
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            return int(json.loads(answer.read().partition(b"\r\n\r\n")[2])["sequence_seen"])
    return -1


def _end_orphans(spared: set[int]) -> None:
    """What a killed supervisor left became our child (see stopping.py), beside the servers, which stay."""
    import psutil

    for child in psutil.Process().children():
        if child.pid in spared:
            continue
        with contextlib.suppress(psutil.Error):
            for process in [*child.children(recursive=True), child]:
                process.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)


def _shell_status(status: int) -> int:
    return status if status >= 0 else 128 - status
