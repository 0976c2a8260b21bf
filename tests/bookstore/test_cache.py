"""Ready-made answers: fresh for a second, kept for need, and never in a request's way."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from redis import asyncio as aioredis

from bookstore import cache as cache_module
from bookstore.background import running
from bookstore.cache import CACHE, MOST_PAGES, MOST_SEARCHES, STALE_SECONDS, Cache, ReadyAnswer
from bookstore.database import DATABASE, connection
from bookstore.metrics import METRICS
from bookstore.openapi import Routes
from bookstore.payloads import respond
from bookstore.settings import load_settings
from tests.bookstore.conftest import Client, serving, wait_until
from tests.bookstore.wire import Wire, wire_to
from tests.conftest import Environ


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(clock: Clock, body: bytes = b"{}") -> ReadyAnswer:
    return ReadyAnswer(body, {"Content-Type": "application/json"}, "/things", clock.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def cache_of(environ: Environ, clock: Clock, redis_url: str | None = None) -> AsyncIterator[Cache]:
    settings = load_settings(environ("postgresql:///nowhere", redis_url=redis_url), Path("/nonexistent"))
    cache = Cache(settings, clock)
    async with running("write to Redis", cache.write_behind):
        yield cache
    await cache.close()


async def test_an_answer_is_fresh_for_a_second_and_stale_for_ten_minutes(environ: Environ, clock: Clock) -> None:
    async with cache_of(environ, clock) as cache:
        kept = answer(clock)
        cache.keep("/a", kept)
        clock.now += 0.99
        assert cache.fresh("/a") is kept
        clock.now += 0.02
        assert cache.fresh("/a") is None
        clock.now += 100
        assert await cache.stale("/a") is kept
        assert cache.age(kept) == 101
        clock.now += STALE_SECONDS
        assert await cache.stale("/a") is None
        assert await cache.stale("/never-asked") is None


async def test_it_is_bounded_by_count_and_by_bytes(environ: Environ, clock: Clock) -> None:
    async with cache_of(environ, clock) as cache:
        for number in range(MOST_PAGES + 10):
            cache.keep(f"/{number}", answer(clock))
        assert await cache.stale("/9") is None and await cache.stale("/10") is not None
        for number in range(200):
            cache.keep(f"/large/{number}", answer(clock, b"x" * 250_000))
        left = [number for number in range(200) if await cache.stale(f"/large/{number}")]
        assert left == list(range(100, 200))  # 100 of 251 KB are just under 24 MiB
        cache.keep("/too-large", answer(clock, b"x" * 300_000))
        assert cache.fresh("/too-large") is None
        for number in range(200):
            cache.keep("/large/same", answer(clock, b"x" * number))
        assert cache.fresh("/large/same") is not None


async def test_no_flood_of_searches_pushes_out_the_books(environ: Environ, clock: Clock) -> None:
    async with cache_of(environ, clock) as cache:
        cache.keep("/api/v1/books/1", answer(clock))
        for number in range(MOST_PAGES + MOST_SEARCHES):
            cache.keep(f"/api/v1/books?q={number}", answer(clock, b"x" * 10_000))
            cache.keep(f"/api/v1/%62ooks/{number}", answer(clock))
            cache.keep(f"http://host-{number}/api/v1/books/1", answer(clock))
        assert await cache.stale("/api/v1/books/1") is not None
        assert await cache.stale("/api/v1/books?q=1") is None
        assert await cache.stale(f"/api/v1/books?q={MOST_PAGES + MOST_SEARCHES - 1}") is not None


async def test_redis_keeps_a_second_copy_for_who_has_none(environ: Environ, clock: Clock, redis_url: str) -> None:
    async with cache_of(environ, clock, redis_url) as one, cache_of(environ, clock, redis_url) as two:
        one.keep("/a?q=1", answer(clock, b'{"a": 1}'))
        await wait_for_keys(redis_url, 1)
        clock.now += 30
        found = await two.stale("/a?q=1")
        assert found is not None
        assert (found.body, found.headers, found.endpoint) == (
            b'{"a": 1}',
            {"Content-Type": "application/json"},
            "/things",
        )
        assert two.fresh("/a?q=1") is None  # it is there for need only
        assert await two.stale("/b") is None


async def test_redis_forgets_by_itself(environ: Environ, clock: Clock, redis_url: str) -> None:
    async with cache_of(environ, clock, redis_url) as cache, aioredis.Redis.from_url(redis_url) as redis:
        cache.keep("/a", answer(clock))
        await wait_for_keys(redis_url, 1)
        (key,) = await redis.keys("*")
        assert 0 < await redis.ttl(key) <= STALE_SECONDS


async def test_what_somebody_else_wrote_into_redis_is_no_answer(environ: Environ, clock: Clock, redis_url: str) -> None:
    async with cache_of(environ, clock, redis_url) as cache, aioredis.Redis.from_url(redis_url) as redis:
        for nonsense in (b"", b"nonsense", b"{}\n{}", b'{"headers": 1, "at": "x", "endpoint": 1}\n'):
            await redis.set(cache_module._key("/a"), nonsense)
            assert await cache.stale("/a") is None


async def test_a_redis_that_is_gone_or_hangs_costs_no_request_anything(
    environ: Environ, clock: Clock, redis_url: str
) -> None:
    if not redis_url.startswith("unix:"):
        pytest.skip("needs the embedded Redis, to put a wire in between")
    path, _, _ = redis_url.removeprefix("unix://").partition("?")
    async with socket_wire(path) as wire, cache_of(environ, clock, f"redis://127.0.0.1:{wire.port}/0") as cache:
        wire.stall()
        for number in range(3_000):
            cache.keep(f"/{number}", answer(clock))
        assert cache.fresh("/2999") is not None
        began = time.monotonic()
        assert await cache.stale("/not-here") is None
        assert time.monotonic() - began < 5
        wire.flow()
        await wait_for_keys(redis_url, 1)  # it goes on by itself


@asynccontextmanager
async def socket_wire(path: str) -> AsyncIterator[Wire]:
    """`Wire` speaks of PostgreSQL's socket names; give it one."""
    with tempfile.TemporaryDirectory(prefix="bks-") as folder:
        Path(folder, ".s.PGSQL.5432").symlink_to(path)
        async with wire_to(f"postgresql://x@/x?host={folder}") as wire:
            yield wire


@pytest.fixture
def routes() -> Routes:
    routes = Routes()
    counted = iter(range(10_000))

    @routes.get("/counted", cached=True)
    async def count(request: web.Request) -> web.Response:
        async with connection(request) as db:
            await db.fetch_value("SELECT 1")
        return respond({"count": next(counted)}, etag="1")

    @routes.get("/uncached")
    async def uncached(request: web.Request) -> web.Response:
        async with connection(request) as db:
            return respond({"one": await db.fetch_value("SELECT 1")})

    return routes


async def test_a_pod_that_never_had_an_answer_gives_the_one_another_left_in_redis_when_the_database_is_gone(
    database_url: str, environ: Environ, runtime_dir: Path, redis_url: str
) -> None:
    deaths = dict(METRICS.task_deaths.values)
    async with wire_to(database_url) as wire:
        environment = environ(wire.url, runtime_dir=runtime_dir, redis_url=redis_url)
        async with serving(environment) as one, serving(environment) as two:
            async with one.get("/api/v1/books") as response:
                assert response.status == 200
                tag, books = response.headers["ETag"], await response.json()
            await wait_for_keys(redis_url, 1)
            await wire.unplug()
            await wait_until(lambda: two.app[DATABASE].breaker != "closed")
            async with two.get("/api/v1/books") as response:
                assert (response.status, response.headers["ETag"], await response.json()) == (200, tag, books)
                assert response.headers["Warning"].startswith("110")
                assert "database-unavailable" in response.headers["Cache-Status"]
                assert response.headers["Content-Type"] == "application/json; charset=utf-8"
            async with two.get("/api/v1/authors") as response:
                assert response.status == 503
    assert METRICS.task_deaths.values == deaths  # nobody in the background died of it


async def test_a_list_has_a_version_that_is_its_contents(
    database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    async with serving(environ(database_url, runtime_dir=runtime_dir)) as client:
        for path in ("/api/v1/books", "/api/v1/authors", "/api/v1/subjects", "/api/v1/suggest?q=a"):
            for prefer in ({}, {}, {"Prefer": "return=total-count"}):
                async with client.get(path, headers=prefer) as response:
                    tag = response.headers["ETag"]
                    assert response.status == 200 and tag.startswith('"')
                async with client.get(path, headers={**prefer, "If-None-Match": tag}) as response:
                    assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", tag)


async def counted(client: Client, **headers: str) -> int:
    async with client.get("/counted", headers=headers) as response:
        assert response.status == 200
        return int(json.loads(await response.read())["count"])


async def test_within_a_second_the_same_answer_is_given_without_a_query(
    database_url: str, environ: Environ, runtime_dir: Path, routes: Routes
) -> None:
    async with serving(environ(database_url, runtime_dir=runtime_dir), more=routes) as client:
        first = await counted(client)
        kept = client.app[CACHE].fresh("/counted")
        assert kept is not None
        kept.fresh_until += 60  # however slow this machine is
        assert {await counted(client) for _ in range(10)} == {first}
        assert await counted(client, Prefer="return=total-count") == first + 1
        assert await counted(client, Authorization="Bearer x") == first + 2
        kept.fresh_until = 0
        assert await counted(client) == first + 3


async def test_when_the_database_goes_what_was_kept_is_served_marked_stale_and_the_rest_is_503(
    database_url: str, environ: Environ, runtime_dir: Path, routes: Routes
) -> None:
    async with (
        wire_to(database_url) as wire,
        serving(environ(wire.url, runtime_dir=runtime_dir), more=routes) as client,
    ):
        first = await counted(client)
        await wire.unplug()
        await wait_until(lambda: client.app[DATABASE].breaker != "closed")
        client.app[CACHE].fresh("/counted").fresh_until = 0  # type: ignore[union-attr]
        async with client.get("/counted") as response:
            assert (response.status, await response.json()) == (200, {"count": first})
            assert response.headers["Warning"].startswith("110")
            assert "ttl=-" in response.headers["Cache-Status"] and int(response.headers["Age"]) >= 0
            assert response.headers["Cache-Control"] == "public, max-age=0, must-revalidate"
        async with client.get("/uncached") as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["error"]) == (503, "database_unavailable")
            assert response.headers["Retry-After"] == "1"
        async with client.get("/api/v1/books/1") as response:
            assert response.status == 503  # never asked before
        await wire.plug_in()
        await wait_until(lambda: client.app[DATABASE].breaker == "closed")
        assert await counted(client) == first + 1


async def wait_for_keys(redis_url: str, number: int) -> None:
    async with aioredis.Redis.from_url(redis_url) as redis, asyncio.timeout(40):
        while await redis.dbsize() < number:
            await asyncio.sleep(0.02)
