"""Answers kept as ready-made bytes: for a second because they are wanted, for ten minutes in case PostgreSQL goes.

A fresh one (at most a second old) is served as it is. An older one is served only when the database cannot be reached,
and says so. The process keeps both, bounded by count and bytes; what is asked with a query, of which there is no end,
has a share of its own, so that no flood of searches pushes out the books themselves. Redis, when there is one, keeps a
second copy for pods that have none; it is written behind the answers and asked only in need, so losing it changes no
request.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import orjson
from aiohttp import web
from loguru import logger
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bookstore import __version__
from bookstore.errors import DatabaseUnavailable
from bookstore.metrics import METRICS
from bookstore.openapi import Handler
from bookstore.settings import Settings

STALE_SECONDS = 600.0
MOST_PAGES, MOST_PAGE_BYTES = 3_000, 24 * 1024 * 1024
MOST_SEARCHES, MOST_SEARCH_BYTES = 1_000, 8 * 1024 * 1024
LARGEST_ANSWER = 256 * 1024
REDIS_SECONDS = 0.5  # a request in need waits no longer for Redis; nothing else waits at all
REDIS_AGAIN_SECONDS = 30.0  # an answer goes to Redis at most so often
WAITING_FOR_REDIS = 1_000
REDIS_BATCH = 100


class ReadyAnswer:
    """A 200, as bytes. `head`, and what the log says, are composed when the answer is first served from here."""

    __slots__ = ("body", "endpoint", "fresh_until", "head", "headers", "made_at", "said")

    def __init__(self, body: bytes, headers: dict[str, str], endpoint: str, made_at: float) -> None:
        self.body = body
        self.headers = headers
        self.endpoint = endpoint
        self.made_at = made_at
        self.fresh_until = 0.0
        self.head: bytes | None = None
        self.said: str | None = None

    @property
    def size(self) -> int:
        return len(self.body) + 1_000


class Shelf:
    """Answers by URL, bounded by count and bytes; the one not made anew for longest goes first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.answers: dict[str, ReadyAnswer] = {}
        self._bytes = 0
        self._most, self._most_bytes = most, most_bytes

    def put(self, url: str, answer: ReadyAnswer) -> list[str]:
        """The URLs of those that had to go."""
        before = self.answers.pop(url, None)
        if before is not None:
            self._bytes -= before.size
        self.answers[url] = answer
        self._bytes += answer.size
        gone = []
        while len(self.answers) > self._most or self._bytes > self._most_bytes:
            oldest = next(iter(self.answers))
            self._bytes -= self.answers.pop(oldest).size
            gone.append(oldest)
        return gone


class Cache:
    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fresh_seconds = settings.cache_seconds
        self._pages = Shelf(MOST_PAGES, MOST_PAGE_BYTES)
        self._searches = Shelf(MOST_SEARCHES, MOST_SEARCH_BYTES)
        self._sent: dict[str, float] = {}
        self._waiting: asyncio.Queue[tuple[str, ReadyAnswer]] = asyncio.Queue(WAITING_FOR_REDIS)
        self._redis = _connect(settings.redis_url.get_secret_value()) if settings.redis_url else None

    def fresh(self, url: str) -> ReadyAnswer | None:
        """The answer to `url` if it is young enough (CACHE_SECONDS, at most one)."""
        answer = self._shelf(url).answers.get(url)
        return answer if answer is not None and answer.fresh_until > self._clock() else None

    def keep(self, url: str, answer: ReadyAnswer) -> None:
        if len(answer.body) > LARGEST_ANSWER:
            return
        answer.fresh_until = answer.made_at + self._fresh_seconds
        self._put(url, answer)
        if (
            self._redis is not None
            and answer.made_at - self._sent.get(url, -REDIS_AGAIN_SECONDS) >= REDIS_AGAIN_SECONDS
        ):
            try:
                self._waiting.put_nowait((url, answer))
            except asyncio.QueueFull:
                METRICS.cache.add(("redis", "dropped"))
            else:
                self._sent[url] = answer.made_at

    async def stale(self, url: str) -> ReadyAnswer | None:
        """For when there is nothing better: an answer at most ten minutes old, from here or from Redis."""
        answer = self._shelf(url).answers.get(url)
        if answer is None and (answer := await self._from_redis(url)) is not None:
            self._put(url, answer)
        if answer is None or self._clock() - answer.made_at > STALE_SECONDS:
            METRICS.cache.add(("stale", "miss"))
            return None
        METRICS.cache.add(("stale", "hit"))
        return answer

    def age(self, answer: ReadyAnswer) -> int:
        return max(0, int(self._clock() - answer.made_at))

    async def write_behind(self) -> None:
        """For ever: carry what is waiting to Redis in batches, and stay away for a while when it is gone."""
        if self._redis is None:
            await asyncio.Event().wait()
            return
        pause, gone = 1.0, False
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty() and len(batch) < REDIS_BATCH:
                batch.append(self._waiting.get_nowait())
            try:
                await self._send(batch)
            except (RedisError, OSError, TimeoutError) as failed:
                if not gone:
                    logger.warning("Redis cannot be reached ({}); the API goes on without it.", type(failed).__name__)
                gone = True
                METRICS.cache.add(("redis", "failed"), len(batch))
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - jitter
                pause = min(30.0, pause * 2)
            else:
                if gone:
                    logger.info("Redis is back.")
                pause, gone = 1.0, False

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    def _shelf(self, url: str) -> Shelf:
        """One book has one plain URL; with a query, an escape or a host in it there is no end of spellings."""
        return self._searches if "?" in url or "%" in url or url[:1] != "/" else self._pages

    def _put(self, url: str, answer: ReadyAnswer) -> None:
        for gone in self._shelf(url).put(url, answer):
            self._sent.pop(gone, None)

    async def _send(self, batch: list[tuple[str, ReadyAnswer]]) -> None:
        assert self._redis is not None
        now = self._clock()
        async with self._redis.pipeline(transaction=False) as pipe:
            for url, answer in batch:
                left = int(STALE_SECONDS - (now - answer.made_at))
                if left > 0:
                    head = {
                        "headers": {str(name): value for name, value in answer.headers.items()},  # orjson: no istr
                        "endpoint": answer.endpoint,
                        "at": time.time() - (now - answer.made_at),
                    }
                    pipe.set(_key(url), orjson.dumps(head) + b"\n" + answer.body, ex=left)
            await pipe.execute()
        METRICS.cache.add(("redis", "written"), len(batch))

    async def _from_redis(self, url: str) -> ReadyAnswer | None:
        if self._redis is None:
            return None
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                found = await self._redis.get(_key(url))
        except (RedisError, OSError, TimeoutError):
            return None
        if not isinstance(found, bytes):
            return None
        head, _, body = found.partition(b"\n")
        try:
            said: dict[str, Any] = orjson.loads(head)
            made_at = self._clock() - max(0.0, time.time() - float(said["at"]))
            answer = ReadyAnswer(body, dict(said["headers"]), str(said["endpoint"]), made_at)
        except (ValueError, KeyError, TypeError):
            return None
        return answer


CACHE: web.AppKey[Cache] = web.AppKey("cache", Cache)


def ready_made(handler: Handler, endpoint: str) -> Handler:
    """Keep what `handler` answers, and answer with what was kept when the database is gone.

    What has no version of its own (a list has none) gets its content's: who has it already is then answered 304.
    """

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if not depends_on_url_alone(request):
            return _with_version(await handler(request))
        cache, url = request.app[CACHE], request.raw_path
        try:
            response = _with_version(await handler(request))
        except DatabaseUnavailable:
            kept = await cache.stale(url)
            if kept is None:
                raise
            return as_stale(kept, cache.age(kept))
        if response.status == 200 and isinstance(response, web.Response) and isinstance(response.body, bytes):
            cache.keep(url, ReadyAnswer(response.body, dict(response.headers), endpoint, time.monotonic()))
            METRICS.cache.add(("process", "miss"))
        return response

    return answer


def _with_version(response: web.StreamResponse) -> web.StreamResponse:
    if response.status == 200 and isinstance(response, web.Response) and isinstance(response.body, bytes):
        response.headers.setdefault("ETag", f'"{hashlib.blake2b(response.body, digest_size=12).hexdigest()}"')
    return response


def depends_on_url_alone(request: web.Request) -> bool:
    """Not when the caller prefers another form, or says who they are."""
    return "Prefer" not in request.headers and "Authorization" not in request.headers


def as_stale(answer: ReadyAnswer, age: int) -> web.Response:
    return web.Response(
        body=answer.body,
        headers={
            **answer.headers,
            "Cache-Control": "public, max-age=0, must-revalidate",
            "Age": str(age),
            "Warning": '110 - "Response is Stale"',
            "Cache-Status": f"bookstore; hit; ttl=-{age}; detail=database-unavailable",
        },
    )


def _connect(url: str) -> aioredis.Redis:
    return aioredis.Redis.from_url(
        url,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=8,
    )


def _key(url: str) -> str:
    return (
        f"bookstore:{__version__}:answer:{hashlib.blake2b(url.encode('utf-8', 'replace'), digest_size=20).hexdigest()}"
    )
