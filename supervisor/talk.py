"""Talking to a running supervisor over its socket, and drawing what it says."""

import http.client
import json
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red", "unknown": "magenta", "disabled": "dim"}


class NobodyAnswersError(Exception):
    """No supervisor lives there."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("supervisor", timeout=timeout)
        self._path = path
        self._patience = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._patience)
        self.sock.connect(str(self._path))


def ask(path: Path, question: str, *, method: str = "GET", timeout: float = 10) -> dict[str, Any]:
    """The answer, whatever its status: every one is an object."""
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, question)
        told: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NobodyAnswersError(f"no supervisor answers on {path}: {reason}") from None
    finally:
        connection.close()
    return told


def picture(told: dict[str, Any]) -> RenderableType:
    ready = Text("ready", "bold green") if told["ready"] else Text("not ready", "bold red")
    head = Text.assemble((told["phase"].replace("_", " "), "bold"), ", ", ready, f": {told['reason']}")
    parts: list[RenderableType] = [head, _checks(told["checks"])]
    if told["workers"]:
        parts.append(_workers(told["workers"]))
    if told["history"]:
        parts.append(_history(told["history"][-8:]))
    return Group(*parts)


def _checks(checks: dict[str, Any]) -> Table:
    table = Table("check", "status", "weight", "ms", "since", "error", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name, check in checks.items():
        latency = "" if check["latency_ms"] is None else f"{check['latency_ms']:.1f}"
        status = Text(check["status"], COLOURS.get(check["status"], ""))
        table.add_row(name, status, check["criticality"], latency, _clock(check["since"]), Text(check["error"] or ""))
    return table


def _workers(workers: dict[str, Any]) -> Table:
    table = Table("worker", "pid", "in flight", "lag ms", "gate", "breaker", "error", box=None, pad_edge=False)
    for boot, worker in workers.items():
        told = [str(worker.get(name, "")) for name in ("pid", "in_flight", "loop_lag_ms", "gate", "breaker", "error")]
        table.add_row(boot, *(Text(cell) for cell in told))
    return table


def _history(history: list[dict[str, str]]) -> Table:
    table = Table("time", "what", "from", "to", "why", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for kept in history:
        cells = (_clock(kept["time"]), kept["check"] or "phase", kept["from"], kept["to"], kept["reason"])
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _clock(moment: str) -> str:
    """HH:MM:SS of this machine's day, with the date when it is another one: a terminal has 80 columns."""
    at = datetime.fromisoformat(moment).astimezone()
    return at.strftime("%H:%M:%S" if at.date() == datetime.now().astimezone().date() else "%m-%d %H:%M:%S")
