"""Does PostgreSQL answer, who is it (primary or standby), and how full is it?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_WRITE, connection, make_dsn, parse_dsn

from supervisor.policy import Finding
from supervisor.probes import Ask
from supervisor.threads import OneAtATime

STATE = """
    SELECT pg_is_in_recovery(), current_setting('max_connections')::int,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), version()
"""


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    url: str
    connect_timeout: float = 1.0


def address(url: str) -> str:
    """Where it is, for people: a host and port, or the socket's directory."""
    try:
        told = parse_dsn(url)
    except psycopg2.Error:
        return "an address that cannot be read"
    host, port = told.get("hostaddr") or told.get("host") or "localhost", told.get("port") or "5432"
    return host if host.startswith("/") else f"{host}:{port}"


@asynccontextmanager
async def open(target: PostgresTarget) -> AsyncIterator[Ask]:
    """One connection of its own, so that a full pool is not taken for a dead server; a new one after any trouble."""
    resolve = OneAtATime(lambda: _with_addresses(target.url))
    held: connection | None = None

    async def ask() -> Finding:
        nonlocal held
        mine, held = held, None
        try:
            if mine is None:
                mine = await _connect(await resolve.ask(), target.connect_timeout)
            in_recovery, limit, used, version = await _fetch_row(mine, STATE)
        except BaseException:  # a cancelled question too: its answer may still be on the way
            if mine is not None:
                mine.close()
            raise
        held = mine
        facts = {
            "role": "standby" if in_recovery else "primary",
            "connections": used,
            "max_connections": limit,
            "version": version.split(" on ")[0],
        }
        if in_recovery:
            return Finding("degraded", "the server is a standby in recovery: it can be read, not written", facts)
        return Finding("healthy", None, facts)

    try:
        yield ask
    finally:
        if held is not None:
            held.close()


async def answers(target: PostgresTarget) -> None:
    """Connects, asks once, leaves. Raises what was wrong."""
    resolved = await OneAtATime(lambda: _with_addresses(target.url)).ask()
    asking = await _connect(resolved, target.connect_timeout)
    try:
        async with asyncio.timeout(target.connect_timeout):
            await _fetch_row(asking, "SELECT 1")
    finally:
        asking.close()


async def _connect(parameters: dict[str, str], timeout: float) -> connection:
    connecting: connection | None = None
    try:
        async with asyncio.timeout(timeout):
            connecting = psycopg2.connect(make_dsn(**parameters), async_=True)
            await _wait_until_done(connecting)
    except BaseException as error:
        if connecting is not None:
            connecting.close()
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"no connection within {timeout:g} s") from None
        raise
    return connecting


async def _fetch_row(on: connection, sql: str) -> tuple[Any, ...]:
    with on.cursor() as cursor:
        cursor.execute(sql)
        await _wait_until_done(on)
        row = cursor.fetchone()
    assert row is not None, "these queries answer with one row"
    return row


async def _wait_until_done(on: connection) -> None:
    """psycopg2's own asynchronous mode. Not aiopg's, which turns a statement_timeout into a CancelledError."""
    loop = asyncio.get_running_loop()
    while (state := on.poll()) != POLL_OK:
        descriptor = on.fileno()  # asked each time: libpq changes it while it tries one address after another
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (
            (loop.add_writer, loop.remove_writer) if state == POLL_WRITE else (loop.add_reader, loop.remove_reader)
        )
        add(descriptor, _settle, ready)
        try:
            await ready
        finally:
            remove(descriptor)


def _settle(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _with_addresses(url: str) -> dict[str, str]:
    """libpq looks names up while the whole event loop waits: hand it addresses, and the names for TLS."""
    parameters: dict[str, str] = parse_dsn(url)
    hosts = parameters.get("host", "")
    if not hosts or "hostaddr" in parameters or any(host.startswith(("/", "@")) for host in hosts.split(",")):
        return parameters
    ports = parameters.get("port", "").split(",")
    found: list[tuple[str, str, str]] = []
    for position, host in enumerate(hosts.split(",")):
        port = ports[position] if len(ports) > 1 else ports[0]
        addresses = dict.fromkeys(entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        found += [(host, str(address), port) for address in addresses]
    names, addresses_, ports_ = zip(*found, strict=True)
    return parameters | {"host": ",".join(names), "hostaddr": ",".join(addresses_), "port": ",".join(ports_)}
