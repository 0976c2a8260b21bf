"""Does every worker's event loop turn? Each is asked on its own socket: a shared port hides the one that hangs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.policy import Finding
from supervisor.probes import Ask
from supervisor.worker_sockets import ask_live


@dataclass(frozen=True, slots=True)
class WorkersTarget:
    directory: Path
    expected: int
    timeout: float = 0.8
    """For one answer. Below the runner's own timeout, so that one hung worker is told from all of them."""


@asynccontextmanager
async def open(target: WorkersTarget) -> AsyncIterator[Ask]:
    """Facts: `workers`, boot id → its /live answer or why there is none; `orphaned`, sockets nobody listens on."""
    suspects: set[tuple[Path, int]] = set()

    async def ask() -> Finding:
        nonlocal suspects
        workers: dict[str, Any] = {}
        silent: set[tuple[Path, int]] = set()
        for heard in await ask_live(target.directory, timeout=target.timeout):
            if not heard.gone:
                workers[heard.boot] = heard.answer or {"error": heard.error}
                continue
            path = target.directory / f"{heard.boot}.sock"
            if inode := _inode(path):
                silent.add((path, inode))
        # twice in a row: between bind and listen a newborn worker's socket refuses too, and must not be removed
        orphaned = sorted(str(path) for path, _ in silent & suspects)
        suspects = silent
        answering = sum("error" not in answer for answer in workers.values())
        return Finding.from_quorum(answering, target.expected, facts={"workers": workers, "orphaned": orphaned})

    yield ask


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
