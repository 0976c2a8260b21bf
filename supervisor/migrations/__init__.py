"""Bringing the database to this code's schema, before anything is served.

This side waits, starts a subprocess and reads what it says; yoyo blocks, so what it does lives in there (apply.py).
docs/decisions/0006-one-migrator.md has the locks and why.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from supervisor.migrations.outcome import MigrationFailed, MigrationOutcome
from supervisor.probes import postgres
from supervisor.settings import Settings

__all__ = ["MigrationFailed", "MigrationOutcome", "migrate", "migrate_blocking", "run_reporting", "wait_for_database"]

Say = Callable[[str], None]

LONGEST_PAUSE = 1.0
SAY_AGAIN_AFTER = 10.0
LONGEST_REASON = 4000
TIME_TO_END = 0.5
"""Seconds a migration gets after SIGTERM. It is of one transaction, so that SIGKILL costs nothing but the work done."""


async def wait_for_database(url: str, *, say: Say) -> None:
    """Returns once PostgreSQL answers; asks for ever, with jittered pauses."""
    target = postgres.PostgresTarget(url)
    where = postgres.address(url)
    pause, said, said_at = 0.05, "", 0.0
    while True:
        try:
            return await postgres.answers(target)
        except Exception as error:
            reason = _one_line(error)
        if reason != said or time.monotonic() - said_at > SAY_AGAIN_AFTER:
            say(f"waiting for PostgreSQL at {where}: {_without_preamble(reason)}")
            said, said_at = reason, time.monotonic()
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # pods that started together spread out
        pause = min(pause * 2, LONGEST_PAUSE)


async def migrate(settings: Settings, *, say: Say, after: bool = False) -> MigrationOutcome:
    """Runs `supervisor migrate --json`; cancelled, it ends that process, and PostgreSQL undoes what was under way."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisor", "migrate", "--json", *(["--after"] if after else [])),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(settings),
        start_new_session=True,  # a terminal's Ctrl-C is for the supervisor, which then ends this one
        limit=1 << 20,
    )
    assert process.stdout is not None and process.stderr is not None
    complaints = asyncio.create_task(_last_lines(process.stderr), name="migrate stderr")
    try:
        try:
            outcome = await _listen(process.stdout, say)
        except MigrationFailed:
            raise
        except Exception as error:  # a line too long, or no report at all
            raise MigrationFailed(
                f"the migration process makes no sense: {_one_line(error)[:LONGEST_REASON]}"
            ) from error
        await process.wait()
        if outcome is not None:
            return outcome
        raise MigrationFailed(_how_it_ended(process.returncode, await complaints))
    finally:
        await asyncio.shield(_end(process))
        complaints.cancel()


def migrate_blocking(settings: Settings, *, after: bool = False, say: Say = lambda said: None) -> MigrationOutcome:
    """What the subprocess does. Raises MigrationFailed."""
    from supervisor.migrations.apply import bring_up_to_date  # here: the serving process needs no yoyo in its memory

    return bring_up_to_date(settings, after=after, say=say)


def run_reporting(settings: Settings, *, after: bool = False) -> int:
    """`supervisor migrate --json`: one JSON object a line on stdout, the last one says how it ended."""
    _end_with_parent()
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # a migration that prints, or a log line, must not be taken for a report

    def tell(**line: Any) -> None:
        report.write(json.dumps(line) + "\n")

    try:
        outcome = migrate_blocking(settings, after=after, say=lambda said: tell(say=_cut(said)))
    except MigrationFailed as failure:
        tell(failed={"reason": _cut(failure.reason), "migration": failure.migration})
        return 1
    tell(outcome=asdict(outcome))
    return 0


async def _listen(stdout: asyncio.StreamReader, say: Say) -> MigrationOutcome | None:
    outcome = None
    async for line in stdout:
        told = json.loads(line)
        if "say" in told:
            say(told["say"])
        elif "failed" in told:
            raise MigrationFailed(**told["failed"])
        else:
            outcome = MigrationOutcome.from_json(told["outcome"])
    return outcome


async def _last_lines(stderr: asyncio.StreamReader, most: int = 4096) -> str:
    kept = b""
    while chunk := await stderr.read(4096):
        kept = (kept + chunk)[-most:]
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), TIME_TO_END if number == signal.SIGTERM else None)


def _how_it_ended(status: int | None, complaints: str) -> str:
    if status is not None and status < 0:
        return f"the migration process was ended by {signal.Signals(-status).name}"
    last = next((line.strip() for line in reversed(complaints.splitlines()) if line.strip()), "it said nothing")
    return f"the migration process ended with status {status}: {last}"


def _environment(settings: Settings) -> dict[str, str]:
    """The subprocess reads its own settings: it must come to the same ones."""
    migration_url = settings.migration_database_url
    told = {
        "ENVIRONMENT": settings.environment,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "MIGRATION_DATABASE_URL": migration_url.get_secret_value() if migration_url else "",
        "MIGRATIONS_DIR": str(settings.migrations_dir),
        "MIGRATION_LOCK_TIMEOUT": str(settings.migration_lock_timeout),
        "MIGRATION_STATEMENT_TIMEOUT": str(settings.migration_statement_timeout),
        "RUNTIME_DIR": str(settings.runtime_dir),
    }
    return {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in told} | told


def _end_with_parent() -> None:
    """PDEATHSIG: a migrator whose supervisor was killed must not go on beside the next one."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _without_preamble(reason: str) -> str:
    """libpq says where, once for each address, and asks whether a server runs there; where was said already."""
    return re.sub(r"connection to server .*? failed: | Is the server running .*?\?", "", reason)


def _cut(text: str) -> str:
    """PostgreSQL quotes the statement or the row it stumbled over, however long that is."""
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 2]} …"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
