"""How a worker meets its supervisor: it reads `supervisor.json` four times a second, and answers on its own socket.

The socket is served by the same event loop as the books, so a loop that hangs is seen to hang. What the supervisor
wrote opens the gate once; after that only `draining` changes what a worker does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal

import orjson
from aiohttp import web
from loguru import logger

from bookstore import __version__
from bookstore.background import running
from bookstore.database import DATABASE, Database
from bookstore.errors import DatabaseUnavailable
from bookstore.metrics import METRICS, Gauge
from bookstore.runtime_directory import (
    RuntimeDirectory,
    applied_migrations,
    is_live,
    needed_migrations,
    new_boot_id,
)
from bookstore.settings import Settings

READ_SECONDS = 0.25
LAG_SECONDS = 0.1
SCHEMA_SECONDS = 0.5


class Worker:
    """The life of this process, as the supervisor sees it."""

    def __init__(self, settings: Settings) -> None:
        self.boot = new_boot_id()
        self.started = time.monotonic()
        self.directory = RuntimeDirectory(settings.runtime_dir)
        self.needed = needed_migrations(settings.migrations_dir)
        self.gate_open = False
        self.draining = False
        self.state: dict[str, Any] | None = None
        self.loop_lag_ms = 0.0
        self.server: web.Server | None = None
        self.supervised = settings.supervised
        self._seen: tuple[int, int] = (0, 0)

    @property
    def in_flight(self) -> int:
        """Requests being answered, those still being written out included."""
        return sum(getattr(each, "is_busy", False) for each in self.server.connections) if self.server else 0

    @property
    def connections(self) -> int:
        return len(self.server.connections) if self.server else 0

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def gate(self) -> Literal["open", "closed"]:
        return "open" if self.gate_open else "closed"

    def read_supervisor(self) -> None:
        """Take in `supervisor.json` if it changed, and act on it if a live supervisor wrote it."""
        try:
            there = self.directory.supervisor_state.stat()
            if (there.st_mtime_ns, there.st_ino) != self._seen:
                self._seen = (there.st_mtime_ns, there.st_ino)
                self.state = self.directory.read_supervisor() or self.state
        except OSError:
            pass  # no file yet, or no more: age says the rest
        live = is_live(self.state)
        if live and self.state is not None:
            draining = self.state.get("draining") is True
            if draining != self.draining:
                self.draining = draining
                logger.info("The supervisor says: {}.", "draining" if draining else "no longer draining")
        if self.supervised and not self.gate_open and live and self._schema_is_there():
            self._open_gate("the supervisor says the schema is complete")

    async def follow_supervisor(self) -> None:
        """For ever: what does the supervisor say?"""
        while True:
            self.read_supervisor()
            await asyncio.sleep(READ_SECONDS)

    async def wait_for_schema(self, database: Database) -> None:
        """Without a supervisor the worker looks itself, and goes on looking while the database is down.

        So it does when the supervisor it once had is gone: a worker that starts again then must not stay closed.
        """
        said = ""
        while not self.gate_open:
            if self.supervised and (self.state is None or is_live(self.state)):
                await asyncio.sleep(SCHEMA_SECONDS)
                continue
            try:
                async with database.connection() as connection:
                    rows = await connection.fetch_all(
                        "SELECT migration_id FROM _yoyo_migration"
                        if await connection.fetch_value("SELECT to_regclass('_yoyo_migration') IS NOT NULL")
                        else "SELECT NULL WHERE false"
                    )
                missing = sorted(self.needed - {row["migration_id"] for row in rows})
                problem = f"the schema lacks {', '.join(missing)}" if missing else ""
            except DatabaseUnavailable:
                problem = "the database cannot be reached"
            if not problem:
                self._open_gate("the schema is complete")
            elif problem != said:
                said = problem
                logger.warning("Not serving yet: {}.", problem)
            await asyncio.sleep(SCHEMA_SECONDS)
        await asyncio.Event().wait()

    async def measure_lag(self) -> None:
        """For ever: how late does this loop get round to things?"""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(LAG_SECONDS)
            late = max(0.0, time.perf_counter() - before - LAG_SECONDS) * 1000
            self.loop_lag_ms = max(late, self.loop_lag_ms * 0.8)

    def live(self, database: Database) -> dict[str, Any]:
        pool = database.pool
        return {
            "boot": self.boot,
            "pid": os.getpid(),
            "version": __version__,
            "uptime_seconds": round(self.uptime_seconds, 3),
            "loop_lag_ms": round(self.loop_lag_ms, 3),
            "in_flight": self.in_flight,
            "connections": self.connections,
            "gate": self.gate,
            "breaker": database.breaker,
            "pool": {"size": pool.size, "free": pool.free, "max": pool.max},
            "sequence_seen": int((self.state or {}).get("sequence") or 0),
            "draining": self.draining,
        }

    def snapshot(self) -> dict[str, Any]:
        return METRICS.snapshot(self.boot, os.getpid())

    def _schema_is_there(self) -> bool:
        applied = applied_migrations(self.state)
        return bool(applied) and self.needed <= applied

    def _open_gate(self, why: str) -> None:
        self.gate_open = True
        logger.info("Serving: {}.", why)


WORKER: web.AppKey[Worker] = web.AppKey("worker", Worker)


@asynccontextmanager
async def meet_supervisor(app: web.Application) -> AsyncIterator[None]:
    """Everything of this file, for as long as the worker lives."""
    worker, database = app[WORKER], app[DATABASE]
    gauges = [
        Gauge("active_requests", "Requests being answered", lambda: worker.in_flight),
        Gauge("active_connections", "Open client connections", lambda: worker.connections),
        Gauge(
            "event_loop_lag_seconds", "How late the loop gets round to things", lambda: worker.loop_lag_ms / 1000, "max"
        ),
        Gauge("database_pool_size", "Connections to PostgreSQL", lambda: database.pool.size),
        Gauge("database_pool_free", "Of these, free ones", lambda: database.pool.free),
        Gauge("database_pool_max", "The most there may be", lambda: database.pool.max),
        Gauge(
            "database_breaker_open",
            "1 while the database is held to be gone",
            lambda: database.breaker != "closed",
            "max",
        ),
    ]
    METRICS.gauges[:] = gauges
    async with AsyncExitStack() as stack:
        worker.read_supervisor()
        await stack.enter_async_context(running("follow the supervisor", worker.follow_supervisor))
        await stack.enter_async_context(running("wait for the schema", lambda: worker.wait_for_schema(database)))
        await stack.enter_async_context(running("measure loop lag", worker.measure_lag))
        await stack.enter_async_context(_socket(worker, database))
        yield


@asynccontextmanager
async def _socket(worker: Worker, database: Database) -> AsyncIterator[None]:
    """The worker's own socket. A directory that cannot be written costs the supervisor its view, not us our work."""

    async def live(_: web.Request) -> web.Response:
        return _json(worker.live(database))

    async def snapshot(_: web.Request) -> web.Response:
        return _json(worker.snapshot())

    app = web.Application()
    app.router.add_get("/live", live)
    app.router.add_get("/snapshot", snapshot)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    path = worker.directory.worker_socket(worker.boot)
    try:
        worker.directory.prepare()
        await web.UnixSite(runner, path).start()
        path.chmod(0o600)
    except OSError as failed:
        logger.error("{}: {}. The supervisor cannot see this worker.", path, failed.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            worker.directory.write_final(worker.boot, worker.snapshot())
        await runner.cleanup()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _json(content: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")
