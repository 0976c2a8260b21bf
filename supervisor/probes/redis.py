"""Does Redis answer, and has it room left?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from supervisor.policy import Finding
from supervisor.probes import Ask


@dataclass(frozen=True, slots=True)
class RedisTarget:
    url: str
    timeout: float = 1.0


@asynccontextmanager
async def open(target: RedisTarget) -> AsyncIterator[Ask]:
    # here: 50 ms and some megabytes of every start, which a pod without Redis need not spend
    from redis import asyncio as aioredis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoPermissionError, ResponseError

    client = aioredis.Redis.from_url(
        target.url,
        max_connections=1,
        socket_timeout=target.timeout,
        socket_connect_timeout=target.timeout,
        retry=Retry(NoBackoff(), 0),  # by default a PING to a black hole takes 59 s
        client_name="supervisor",
    )

    async def ask() -> Finding:
        await client.ping()
        try:
            info = await client.info()
        except (NoPermissionError, ResponseError):  # managed servers may forbid it; the answer to PING is enough
            return Finding("healthy")
        return _judge(info)

    try:
        yield ask
    finally:
        await client.aclose()


def _judge(info: dict[str, Any]) -> Finding:
    used, limit = info.get("used_memory", 0), info.get("maxmemory", 0)
    facts = {
        "version": info.get("redis_version"),
        "role": info.get("role"),
        "used_memory": used,
        "maxmemory": limit,
        "evicted_keys": info.get("evicted_keys"),
    }
    if limit and used >= limit and info.get("maxmemory_policy") == "noeviction":
        return Finding("degraded", f"memory is full ({used:,} of {limit:,} bytes) and nothing is evicted", facts)
    return Finding("healthy", None, facts)
