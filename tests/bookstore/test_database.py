"""Connections, transactions, and a database that goes, hangs and comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from bookstore import connection_pool
from bookstore.background import running
from bookstore.database import Database, connect_blocking
from bookstore.errors import DatabaseUnavailable, Invalid, QueryTooSlow
from bookstore.logs import RequestFields, current_request
from bookstore.settings import load_settings
from tests.bookstore.conftest import wait_until
from tests.bookstore.wire import Wire, wire_to
from tests.conftest import Environ

PROMISED = 1.0  # seconds to a 503
PATIENCE = 10 * PROMISED  # what a loaded machine may make of it


@asynccontextmanager
async def opened(environment: dict[str, str]) -> AsyncIterator[Database]:
    database = Database(load_settings(environment, Path("/nonexistent")))
    async with running("watch the database", database.watch):
        yield database
    await database.close()


@pytest.fixture
async def database(empty_database_url: str, environ: Environ) -> AsyncIterator[Database]:
    async with opened(environ(empty_database_url, max_connections=4, statement_timeout=2)) as database:
        async with database.connection() as connection:
            await connection.execute("CREATE TABLE things (id int PRIMARY KEY, name text, tags jsonb)")
        yield database


@pytest.fixture
async def wire(empty_database_url: str) -> AsyncIterator[Wire]:
    async with wire_to(empty_database_url) as wire:
        yield wire


async def test_rows_come_as_dicts_and_json_as_objects(database: Database) -> None:
    async with database.connection() as connection:
        touched = await connection.execute(
            "INSERT INTO things VALUES (%(id)s, %(name)s, '{\"a\": [1]}'), (2, NULL, NULL)", {"id": 1, "name": "Łódź"}
        )
        assert touched == 2
        rows = await connection.fetch_all("SELECT * FROM things ORDER BY id")
        assert rows == [{"id": 1, "name": "Łódź", "tags": {"a": [1]}}, {"id": 2, "name": None, "tags": None}]
        assert await connection.fetch_one("SELECT name FROM things WHERE id = 1") == {"name": "Łódź"}
        assert await connection.fetch_one("SELECT name FROM things WHERE id = 9") is None
        assert await connection.fetch_value("SELECT count(*) FROM things") == 2
        assert await connection.fetch_value("SHOW TimeZone") == "UTC"


async def test_a_transaction_commits_at_the_end_of_its_block(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("INSERT INTO things VALUES (1)")
    async with database.connection() as connection:
        assert await connection.fetch_value("SELECT count(*) FROM things") == 1


async def test_a_transaction_whose_block_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO things VALUES (1)")
            raise LookupError
    async with database.connection() as connection:
        assert await connection.fetch_value("SELECT count(*) FROM things") == 0
    await wait_until(lambda: database.pool.free == database.pool.size)  # the connection went back, idle


async def test_a_cancelled_transaction_leaves_nothing_and_its_connection_is_discarded(database: Database) -> None:
    async def insert_and_wait() -> None:
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO things VALUES (1)")
            await tx.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(insert_and_wait())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.connection() as connection:
        assert await connection.fetch_value("SELECT count(*) FROM things") == 0
    assert database.breaker == "closed"


async def test_a_statement_that_takes_too_long_is_given_up_by_the_server(database: Database) -> None:
    with pytest.raises(QueryTooSlow) as raised:
        async with database.connection() as connection:
            await connection.fetch_value("SELECT pg_sleep(30)")
    assert raised.value.status == 503
    assert database.breaker == "closed"
    async with database.connection() as connection:
        assert await connection.fetch_value("SELECT 1") == 1


async def test_a_slow_statement_is_not_taken_for_a_dead_server(database: Database) -> None:
    async with database.connection() as connection:
        assert await connection.fetch_value("SELECT 7 FROM pg_sleep(1.2)") == 7
    assert database.breaker == "closed"


async def test_a_lock_held_by_another_is_not_waited_for_for_long(database: Database) -> None:
    async with database.transaction() as holder:
        await holder.execute("INSERT INTO things VALUES (1)")
        with pytest.raises(QueryTooSlow):
            async with database.connection() as connection:
                await connection.execute("INSERT INTO things VALUES (1)")


async def test_mistakes_in_sql_are_not_disguised(database: Database) -> None:
    with pytest.raises(psycopg2.errors.UndefinedTable):
        async with database.connection() as connection:
            await connection.execute("SELECT * FROM nothing")
    async with database.connection() as connection:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            await connection.execute("SELECT 1/0")
        assert await connection.fetch_value("SELECT 1") == 1  # autocommit: nothing to roll back


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_text_that_postgresql_cannot_hold_is_invalid_not_a_fault_of_ours(database: Database, text: str) -> None:
    with pytest.raises(Invalid):
        async with database.connection() as connection:
            await connection.fetch_value("SELECT %(text)s", {"text": text})


async def test_queries_are_counted_on_their_request(database: Database) -> None:
    fields = RequestFields("1", "GET")
    token = current_request.set(fields)
    async with database.transaction() as tx:
        await tx.fetch_value("SELECT 1")
    current_request.reset(token)
    assert fields.queries == 3  # with BEGIN and COMMIT
    assert fields.query_seconds > 0


async def test_when_all_connections_are_in_use_a_caller_waits_a_moment_and_is_told(database: Database) -> None:
    enough, holding = asyncio.Event(), []

    async def hold() -> None:
        async with database.connection() as connection:
            holding.append(connection)
            await enough.wait()

    holders = [asyncio.create_task(hold()) for _ in range(4)]
    await wait_until(lambda: len(holding) == 4)
    with pytest.raises(DatabaseUnavailable, match="in use"):
        await database.ask()
    assert database.breaker == "closed"
    enough.set()
    await asyncio.gather(*holders)
    await database.ask()
    await wait_until(lambda: database.pool == (4, 4, 4))


async def test_those_who_wait_get_the_first_connection_that_is_free(database: Database) -> None:
    async def use(number: int) -> int:
        async with database.connection() as connection:
            return int(await connection.fetch_value("SELECT %(n)s + 0 * length(pg_sleep(0.01)::text)", {"n": number}))

    assert await asyncio.gather(*(use(number) for number in range(60))) == list(range(60))
    assert database.pool.size <= 4


async def test_who_gives_up_waiting_takes_no_connection_with_him(database: Database) -> None:
    async def use() -> None:
        async with database.connection() as connection:
            await connection.fetch_value("SELECT pg_sleep(0.02)")

    for _ in range(10):
        callers = [asyncio.create_task(use()) for _ in range(12)]
        await asyncio.sleep(0.015)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    await wait_until(lambda: database.pool.free == database.pool.size <= 4)
    await asyncio.gather(*(use() for _ in range(4)))


async def test_a_connection_that_served_long_is_replaced(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def backend() -> int:
        async with database.connection() as connection:
            return int(await connection.fetch_value("SELECT pg_backend_pid()"))

    first = await backend()
    assert await backend() == first
    monkeypatch.setattr(connection_pool, "RECYCLE_SECONDS", 0.0)
    assert await backend() != first


async def test_a_host_name_is_looked_up_beside_the_event_loop() -> None:
    found = await connection_pool._resolved({"host": "localhost"})
    assert set(found["hostaddr"].split(",")) <= {"127.0.0.1", "::1"}
    assert found["host"].split(",") == ["localhost"] * len(found["hostaddr"].split(","))
    for needs_none in ({"host": "127.0.0.1"}, {"host": "/tmp"}, {}, {"host": "a,b"}):
        assert await connection_pool._resolved(needs_none) == {}


async def test_nobody_listens_503_at_once_and_recovery_by_itself(wire: Wire, environ: Environ) -> None:
    async with opened(environ(wire.url)) as database:
        await database.ask()
        await wire.unplug()
        for _ in range(5):
            assert await seconds_to_refusal(database.ask) < PATIENCE
        assert database.breaker != "closed"
        with pytest.raises(DatabaseUnavailable) as raised:
            database.ask().send(None)  # refused by the breaker without waiting once: nobody was asked
        assert raised.value.headers == {"Retry-After": "1"}
        await wire.plug_in()
        await wait_until(lambda: database.breaker == "closed")
        await database.ask()


async def test_a_server_that_hangs_is_noticed_while_a_statement_waits_for_it(wire: Wire, environ: Environ) -> None:
    async with opened(environ(wire.url, statement_timeout=60)) as database:
        await database.ask()
        wire.stall()
        took = await asyncio.gather(*(seconds_to_refusal(database.ask) for _ in range(8)))
        assert max(took) < PATIENCE
        assert database.breaker != "closed"
        wire.flow()
        await wait_until(lambda: database.breaker == "closed")
        await database.ask()


async def test_a_stalled_handshake_does_not_hold_up_a_free_connection(wire: Wire, environ: Environ) -> None:
    async with opened(environ(wire.url, max_connections=4)) as database:
        await database.ask()
        async with database.connection() as held:
            wire.stall()
            stalled = asyncio.create_task(seconds_to_refusal(database.ask))
            await asyncio.sleep(0.05)
            wire.flow()
            assert await held.fetch_value("SELECT 1") == 1
        assert (await asyncio.gather(stalled, return_exceptions=True))[0] is not None
        await wait_until(lambda: database.breaker == "closed")
        await database.ask()


async def test_connections_that_were_cut_while_they_slept_cost_no_request(wire: Wire, environ: Environ) -> None:
    async with opened(environ(wire.url)) as database:
        await asyncio.gather(*(database.ask() for _ in range(4)))
        asleep = list(database._pool._free)
        wire.cut()
        await wait_until(lambda: all(each.closed for each in asleep))
        await asyncio.gather(*(database.ask() for _ in range(4)))


async def test_a_full_server_is_not_a_dead_one(empty_database_url: str, environ: Environ) -> None:
    """Refused for want of room: the breaker stays closed, for the connections there are still work."""
    at = urlsplit(empty_database_url)
    role = f"narrow_{at.path[1:]}"
    admin = connect_blocking(empty_database_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE ROLE \"{role}\" LOGIN CONNECTION LIMIT 1 PASSWORD 'narrow'")
    try:
        url = urlunsplit(at._replace(netloc=f"{role}:narrow@{at.netloc.rpartition('@')[2]}"))
        async with opened(environ(url)) as database:
            async with database.connection() as connection:
                with pytest.raises(DatabaseUnavailable):
                    await database.ask()
                assert await connection.fetch_value("SELECT 1") == 1
            assert database.breaker == "closed"
            await database.ask()
    finally:
        with admin.cursor() as cursor:
            cursor.execute(f'DROP ROLE "{role}"')
        admin.close()


async def test_a_database_that_was_never_there_opens_the_breaker(environ: Environ) -> None:
    async with opened(environ("postgresql://nobody@127.0.0.1:1/nothing")) as database:
        await wait_until(lambda: database.breaker != "closed")
        assert await seconds_to_refusal(database.ask) < PATIENCE


async def seconds_to_refusal(ask: Callable[[], Awaitable[None]]) -> float:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await ask()
    return time.monotonic() - began
