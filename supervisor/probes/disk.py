"""Is there room left to write logs and imports?"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.policy import LEVELS, Finding
from supervisor.probes import Ask
from supervisor.threads import OneAtATime


@dataclass(frozen=True, slots=True)
class DiskTarget:
    path: Path
    warn_bytes: int
    fail_bytes: int
    runtime_dir: Path | None = None
    """Where the pod meets. Often a small file system in memory, so that it is held to bounds of its own."""


RUNTIME_WARN, RUNTIME_FAIL = 8 << 20, 1 << 20


@asynccontextmanager
async def open(target: DiskTarget) -> AsyncIterator[Ask]:
    """The worse of the two counts."""
    looking = OneAtATime(lambda: _look(target))  # a network file system may never answer

    async def ask() -> Finding:
        return min(await looking.ask(), key=lambda finding: LEVELS[finding.status])

    yield ask


def _look(target: DiskTarget) -> list[Finding]:
    room = shutil.disk_usage(target.path)
    facts = {"path": str(target.path), "total": room.total, "used": room.used}
    found = [Finding.from_thresholds(room.free, warn=target.warn_bytes, fail=target.fail_bytes, facts=facts)]
    there = target.runtime_dir
    if there is not None and there.exists() and there.stat().st_dev != target.path.stat().st_dev:
        room = shutil.disk_usage(there)
        warn, fail = min(RUNTIME_WARN, room.total // 4), min(RUNTIME_FAIL, room.total // 16)
        facts = {"path": str(there), "total": room.total, "used": room.used}
        finding = Finding.from_thresholds(room.free, warn=warn, fail=fail, facts=facts)
        found.append(replace(finding, error=finding.error and f"RUNTIME_DIR: {finding.error}"))
    return found
