"""PostgreSQL, as features use it: a connection for a block, a transaction that commits where its block ends.

    async with transaction(request) as tx:
        row = await tx.fetch_one("SELECT … WHERE id = %(id)s", {"id": book_id})

aiopg is always in autocommit, so a transaction is an explicit BEGIN. When PostgreSQL is gone every call raises
`DatabaseUnavailable` within a second; the breaker then refuses at once, and asks again each second by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Literal

import aiopg
import orjson
import psycopg2
import psycopg2.extensions
import psycopg2.extras
from aiohttp import web
from loguru import logger

from bookstore.connection_pool import ConnectFailed, ConnectionPool, PoolExhausted, PoolState
from bookstore.errors import DatabaseUnavailable, Invalid, QueryTooSlow
from bookstore.logs import current_request
from bookstore.metrics import METRICS
from bookstore.settings import Settings

Row = dict[str, Any]
Params = Mapping[str, Any] | None

ACQUIRE_SECONDS = 0.9
DOUBT_AFTER_SECONDS = 0.4  # a statement unanswered for so long: is anybody there?
PROBE_SECONDS = 0.5  # … and so long for the answer to that; together less than the second a caller is promised
RETRY_SECONDS = 1.0
LOST = ("08", "57P0")  # SQLSTATE: connection exceptions, the server shuts down or starts

psycopg2.extras.register_default_json(globally=True, loads=orjson.loads)
psycopg2.extras.register_default_jsonb(globally=True, loads=orjson.loads)
psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]


def connection(request: web.Request) -> AbstractAsyncContextManager[Connection]:
    """A connection in autocommit, for reading."""
    return request.app[DATABASE].connection()


def transaction(request: web.Request) -> AbstractAsyncContextManager[Connection]:
    """A transaction: committed at the end of the block, rolled back when the block raises."""
    return request.app[DATABASE].transaction()


def connect_blocking(url: str, *, application_name: str = "bookstore") -> psycopg2.extensions.connection:
    """A plain psycopg2 connection, for `COPY` in a thread or a command. Not in autocommit; close it yourself."""
    dsn = psycopg2.extensions.parse_dsn(url)
    given = {**_DSN_DEFAULTS, "connect_timeout": 5, "application_name": application_name, **dsn}
    made: psycopg2.extensions.connection = psycopg2.connect(**given)
    return made


class Connection:
    """One session with PostgreSQL. One statement at a time; parameters as `%(name)s`."""

    __slots__ = ("_raw", "busy_since")

    def __init__(self, raw: aiopg.Connection) -> None:
        self._raw = raw
        self.busy_since: float | None = None

    async def fetch_all(self, sql: str, params: Params = None) -> list[Row]:
        rows, columns, _ = await self._run(sql, params)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def fetch_one(self, sql: str, params: Params = None) -> Row | None:
        rows, columns, _ = await self._run(sql, params)
        return dict(zip(columns, rows[0], strict=True)) if rows else None

    async def fetch_value(self, sql: str, params: Params = None) -> Any:
        """The first column of the first row, or None."""
        rows, _, _ = await self._run(sql, params)
        return rows[0][0] if rows else None

    async def execute(self, sql: str, params: Params = None) -> int:
        """How many rows the statement touched."""
        _, _, count = await self._run(sql, params)
        return count

    def abandon(self) -> None:
        """Whoever waits for an answer on this connection gets an error now."""
        self._raw.close()

    async def _run(self, sql: str, params: Params) -> tuple[list[tuple[Any, ...]], list[str], int]:
        began = self.busy_since = time.perf_counter()
        try:
            cursor = await self._raw.cursor()
            try:
                await cursor.execute(sql, params)
                described = cursor.description
                rows = await cursor.fetchall() if described else []
                return rows, [column[0] for column in described or ()], cursor.raw.rowcount
            finally:
                cursor.close()
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            # aiopg says so when PostgreSQL cancelled the statement, as statement_timeout does
            raise QueryTooSlow from None
        except (TimeoutError, psycopg2.OperationalError, psycopg2.InterfaceError) as failed:
            raise _as_ours(failed, self._raw) from failed
        except ValueError as unspeakable:
            if isinstance(unspeakable, UnicodeEncodeError) or "NUL" in str(unspeakable):
                raise Invalid("A text holds U+0000 or half of a surrogate pair. Remove it.") from None
            raise
        finally:
            self.busy_since = None
            taken = time.perf_counter() - began
            METRICS.query_seconds.observe((), taken)
            if (request := current_request.get()) is not None:
                request.queries += 1
                request.query_seconds += taken


class Database:
    """The pool, the breaker in front of it, and the task that opens and closes the breaker."""

    def __init__(self, settings: Settings) -> None:
        milliseconds = round(settings.statement_timeout * 1000)
        self._pool = ConnectionPool(
            settings.database_url.get_secret_value(),
            limit=max(1, settings.max_connections // settings.workers),
            defaults={**_DSN_DEFAULTS, "tcp_user_timeout": _UNACKNOWLEDGED_MS},
            options=f"-c statement_timeout={milliseconds} -c lock_timeout={min(2000, milliseconds)}"
            " -c idle_in_transaction_session_timeout=10000 -c TimeZone=UTC -c jit=off",
            query_seconds=settings.statement_timeout + 2,
            on_failure=self._suspect,
        )
        self._in_use: set[Connection] = set()
        self._breaker: Literal["closed", "open", "half_open"] = "closed"
        self._ask_at = 0.0
        self._suspected = True  # at first nothing is known, and a first connection is made before it is wanted

    @property
    def breaker(self) -> Literal["closed", "open", "half_open"]:
        return self._breaker

    @property
    def pool(self) -> PoolState:
        return self._pool.state

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        if self._breaker != "closed":
            raise DatabaseUnavailable
        try:
            raw = await self._pool.acquire(ACQUIRE_SECONDS)
        except PoolExhausted:
            METRICS.pool_timeouts.add(())
            raise DatabaseUnavailable("Every database connection is in use. Try again in a moment.") from None
        except ConnectFailed:
            raise DatabaseUnavailable from None
        session = Connection(raw)
        self._in_use.add(session)
        try:
            yield session
        except DatabaseUnavailable:
            self._pool.discard_free()
            self._suspect()
            raise
        finally:
            self._in_use.discard(session)
            self._pool.release(raw)

    @asynccontextmanager
    async def transaction(self, isolation: str = "READ COMMITTED") -> AsyncIterator[Connection]:
        async with self.connection() as session:
            await session.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            try:
                yield session
            except Exception:
                with suppress(Exception):  # what was raised matters more; `release` discards what is not idle
                    await session.execute("ROLLBACK")
                raise
            await session.execute("COMMIT")

    async def ask(self) -> None:
        """Is PostgreSQL there? Raises `DatabaseUnavailable` within a second when it is not."""
        async with self.connection() as session:
            await session.fetch_value("SELECT 1")

    async def watch(self) -> None:
        """For ever: tell a slow statement from a server that is gone, and find out when it is back."""
        last = time.perf_counter()
        while True:
            if self._pool.lost():
                self._suspect()
            now = time.perf_counter()
            lagging, last = now - last > DOUBT_AFTER_SECONDS, now  # then it is us who are slow
            doubted = [] if lagging else [each for each in self._in_use if _is_overdue(each, now)]
            if self._suspected or ((doubted or self._breaker != "closed") and now >= self._ask_at):
                self._suspected = False
                self._ask_at = now + RETRY_SECONDS
                await self._find_out(doubted)
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._pool.close()

    async def _find_out(self, doubted: list[Connection]) -> None:
        if self._breaker == "open":
            self._breaker = "half_open"
        since = [connection.busy_since for connection in doubted]
        try:
            fresh = await self._connect()
        except ConnectFailed as failed:
            if failed.full:
                self._close_breaker()
                return
            self._open_breaker(str(failed))
            for connection, began in zip(doubted, since, strict=True):
                if connection.busy_since == began is not None:
                    connection.abandon()
        else:
            self._close_breaker()
            self._pool.adopt(fresh)

    async def _connect(self) -> aiopg.Connection:
        """Twice, unless it is silence that was the answer: one handshake may break off for reasons of its own."""
        try:
            return await self._pool.connect(PROBE_SECONDS)
        except ConnectFailed as failed:
            if failed.silent or failed.full:
                raise
        return await self._pool.connect(PROBE_SECONDS)

    def _suspect(self) -> None:
        """Something failed that a living server would have done."""
        self._suspected = self._breaker == "closed"

    def _open_breaker(self, reason: str) -> None:
        if self._breaker == "closed":
            logger.error("The database cannot be reached: {}. Requests that need it get 503 until it is back.", reason)
            METRICS.breaker_openings.add(())
        self._breaker = "open"
        self._pool.discard_free()
        self._pool.fail_waiting(ConnectFailed(reason))

    def _close_breaker(self) -> None:
        if self._breaker != "closed":
            logger.info("The database is back.")
        self._breaker = "closed"


DATABASE: web.AppKey[Database] = web.AppKey("database", Database)

_DSN_DEFAULTS: dict[str, Any] = {
    "application_name": "bookstore",
    "client_encoding": "UTF8",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}
# A half-open connection is not seen on acquire: what it is sent must be acknowledged in time. The kernel does that, so
# a slow server is not meant; but a `COPY` whose reader is busy would be, so only the pool's connections have it.
_UNACKNOWLEDGED_MS = 800


def _is_overdue(connection: Connection, now: float) -> bool:
    return connection.busy_since is not None and now - connection.busy_since > DOUBT_AFTER_SECONDS


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _as_ours(failed: Exception, raw: aiopg.Connection) -> Exception:
    code = getattr(failed, "pgcode", None) or ""
    if raw.closed or isinstance(failed, TimeoutError | psycopg2.InterfaceError) or code.startswith(LOST):
        return DatabaseUnavailable()
    if code == "55P03":  # lock_timeout
        return QueryTooSlow("Another change holds what this one needs. Try again in a moment.")
    return failed
