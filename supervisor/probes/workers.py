"""Does every worker's event loop turn? Each is asked on its own socket: a shared port hides the one that hangs."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from supervisor.policy import Finding
from supervisor.probes import Ask


@dataclass(frozen=True, slots=True)
class WorkersTarget:
    directory: Path
    expected: int
    timeout: float = 0.8
    """For one answer. Below the runner's own timeout, so that one hung worker is told from all of them."""


@asynccontextmanager
async def open(target: WorkersTarget) -> AsyncIterator[Ask]:
    """Facts: `workers`, boot id → its /live answer or why there is none; `orphaned`, sockets nobody listens on."""
    sessions: dict[Path, aiohttp.ClientSession] = {}
    suspects: set[tuple[Path, int]] = set()

    async def ask() -> Finding:
        nonlocal suspects
        found = sorted(target.directory.glob("*.sock"))
        for gone in sessions.keys() - set(found):
            await sessions.pop(gone).close()
        answers = await asyncio.gather(*(_ask_one(sessions, path, target.timeout) for path in found))
        workers: dict[str, Any] = {}
        silent: set[tuple[Path, int]] = set()
        for path, answer in zip(found, answers, strict=True):
            if answer is not None:
                workers[path.stem] = answer
            elif inode := _inode(path):
                silent.add((path, inode))
        # twice in a row: between bind and listen a newborn worker's socket refuses too, and must not be removed
        orphaned = sorted(str(path) for path, inode in silent & suspects)
        suspects = silent
        answering = sum("error" not in answer for answer in workers.values())
        return Finding.from_quorum(answering, target.expected, facts={"workers": workers, "orphaned": orphaned})

    try:
        yield ask
    finally:
        for session in sessions.values():
            await session.close()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


async def _ask_one(sessions: dict[Path, aiohttp.ClientSession], path: Path, timeout: float) -> dict[str, Any] | None:
    """None when nobody listens: its worker died without removing it."""
    if path not in sessions:
        sessions[path] = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(path), limit=1), timeout=aiohttp.ClientTimeout(total=timeout)
        )
    try:
        async with sessions[path].get("http://worker/live") as response:
            if response.status != 200:
                return {"error": f"answered {response.status}"}
            answer = await response.json()
            return answer if isinstance(answer, dict) else {"error": "answered something else than an object"}
    except TimeoutError:
        return {"error": f"no answer within {timeout:g} s: it hangs"}
    except aiohttp.ClientConnectorError as error:
        if error.os_error.errno in (errno.ECONNREFUSED, errno.ENOENT):
            return None
        return {"error": str(error.os_error.strerror or error)}
    except (aiohttp.ClientError, ValueError) as error:
        return {"error": str(error) or type(error).__name__}
