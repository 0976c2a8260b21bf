"""A pool of aiopg connections that one slow handshake cannot hold up.

aiopg's own pool connects while it holds its condition: one stalled handshake, and a free healthy connection beside it
waited 5.7 s. Here a connection is made by a task of its own, and whoever waits takes the first that is free or new.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import aiopg
import psycopg2
import psycopg2.extensions

RECYCLE_SECONDS = 600.0
CONNECT_SECONDS = 0.8
IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE


class PoolState(NamedTuple):
    size: int
    free: int
    max: int


class PoolExhausted(Exception):
    """Every connection stayed in use for as long as a caller may wait."""


class ConnectFailed(Exception):
    """No connection was made. `full`: a server answered, and has no room. `silent`: nothing answered in time."""

    def __init__(self, reason: str, *, full: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.full = full
        self.silent = silent


class ConnectionPool:
    def __init__(
        self,
        url: str,
        *,
        limit: int,
        defaults: Mapping[str, Any],
        options: str,
        query_seconds: float,
        on_failure: Callable[[], None],
    ) -> None:
        self._dsn: dict[str, Any] = {**defaults, **psycopg2.extensions.parse_dsn(url)}
        self._dsn["options"] = f"{options} {self._dsn.get('options', '')}".strip()
        self._limit = limit
        self._query_seconds = query_seconds
        self._on_failure = on_failure
        self._free: list[aiopg.Connection] = []
        self._used: dict[aiopg.Connection, None] = {}
        self._waiting: deque[asyncio.Future[aiopg.Connection]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._born: dict[aiopg.Connection, float] = {}
        self._closing = False

    @property
    def state(self) -> PoolState:
        return PoolState(len(self._free) + len(self._used) + len(self._connecting), len(self._free), self._limit)

    async def acquire(self, seconds: float) -> aiopg.Connection:
        """A connection in autocommit, idle. Give it back with `release`, whatever happened."""
        while self._free:
            connection = self._free.pop()
            if self._is_fit(connection):
                self._used[connection] = None
                return connection
            self.discard(connection)
        waiter: asyncio.Future[aiopg.Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._connect_for_the_waiting()
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                return waiter.result()
            raise PoolExhausted from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise
        finally:
            if not waiter.done():
                waiter.cancel()

    def release(self, connection: aiopg.Connection) -> None:
        """Back for the next; one that is closed or in the middle of something is discarded."""
        self._used.pop(connection, None)
        if self._closing or connection.closed or connection.raw.get_transaction_status() != IDLE:
            self.discard(connection)
            self._connect_for_the_waiting()
        else:
            self._hand_over(connection)

    def discard(self, connection: aiopg.Connection) -> None:
        self._used.pop(connection, None)
        self._born.pop(connection, None)
        if not connection.closed:
            connection.close()

    def discard_free(self) -> None:
        """One connection turned out dead: those that slept beside it are suspect."""
        while self._free:
            self.discard(self._free.pop())

    def lost(self) -> bool:
        """Did one of those that sleep turn out closed? The event loop sees them close."""
        closed = [connection for connection in self._free if connection.closed]
        for connection in closed:
            self._free.remove(connection)
            self.discard(connection)
        return bool(closed)

    async def connect(self, seconds: float = CONNECT_SECONDS) -> aiopg.Connection:
        """A new connection outside the pool: `adopt` or close it."""
        try:
            async with asyncio.timeout(seconds):
                dsn = {**self._dsn, **await _resolved(self._dsn)}
                connection = await aiopg.connect(
                    timeout=self._query_seconds, enable_json=False, enable_hstore=False, enable_uuid=False, **dsn
                )
        except TimeoutError:
            raise ConnectFailed(f"no answer within {seconds:g} s", silent=True) from None
        except (psycopg2.Error, OSError) as failed:
            reason = " ".join(str(failed).split()) or type(failed).__name__
            full = "too many clients" in reason or "connection slots" in reason or "too many connections" in reason
            raise ConnectFailed(reason, full=full) from None
        self._born[connection] = asyncio.get_running_loop().time()
        return connection

    def adopt(self, connection: aiopg.Connection) -> None:
        is_wanted = self._waiting or not self._free
        if self._closing or not is_wanted or len(self._free) + len(self._used) >= self._limit:
            self.discard(connection)
        else:
            self._hand_over(connection)
        self._connect_for_the_waiting()

    def fail_waiting(self, reason: ConnectFailed) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(reason)

    async def close(self) -> None:
        self._closing = True
        for task in tuple(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.fail_waiting(ConnectFailed("the pool is closing"))
        self.discard_free()
        for connection in tuple(self._used):
            self.discard(connection)

    def _hand_over(self, connection: aiopg.Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._used[connection] = None
                waiter.set_result(connection)
                return
        self._free.append(connection)

    def _is_fit(self, connection: aiopg.Connection) -> bool:
        age = asyncio.get_running_loop().time() - self._born.get(connection, 0.0)
        return not connection.closed and age < RECYCLE_SECONDS

    def _connect_for_the_waiting(self) -> None:
        wanted = sum(not waiter.done() for waiter in self._waiting) - len(self._connecting)
        room = self._limit - self.state.size
        for _ in range(min(wanted, room)):
            task = asyncio.create_task(self._connect_one(), name="database: connect")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect_one(self) -> None:
        try:
            connection = await self.connect()
        except ConnectFailed as failed:
            if not failed.full:  # those who wait go on waiting: whoever is told now finds out, and fails or serves all
                self._on_failure()
        else:
            self.adopt(connection)


async def _resolved(dsn: Mapping[str, Any]) -> dict[str, str]:
    """`hostaddr` for the host's name: libpq would look it up itself, and hold the event loop while it does."""
    host = dsn.get("host", "")
    if not host or host.startswith(("/", "@")) or "," in host or "hostaddr" in dsn:
        return {}
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}
    return {}
