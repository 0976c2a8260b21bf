"""Is there room left to write logs and imports?"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisor.policy import Finding
from supervisor.probes import Ask
from supervisor.threads import OneAtATime


@dataclass(frozen=True, slots=True)
class DiskTarget:
    path: Path
    warn_bytes: int
    fail_bytes: int


@asynccontextmanager
async def open(target: DiskTarget) -> AsyncIterator[Ask]:
    usage = OneAtATime(lambda: shutil.disk_usage(target.path))  # a network file system may never answer

    async def ask() -> Finding:
        room = await usage.ask()
        facts = {"path": str(target.path), "total": room.total, "used": room.used}
        return Finding.from_thresholds(room.free, warn=target.warn_bytes, fail=target.fail_bytes, facts=facts)

    yield ask
