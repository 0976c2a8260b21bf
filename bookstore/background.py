"""Tasks that live as long as the worker. Each has a name; when one dies it is said, counted, and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from loguru import logger

from bookstore.metrics import METRICS

RESTART_SECONDS = 1.0


@asynccontextmanager
async def running(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """`work` goes on, for ever, until the block ends."""
    task = asyncio.create_task(_keep_going(name, work), name=name)
    try:
        yield
    finally:
        # More than once: a library's timeout may swallow a cancellation that comes in the same turn (redis-py does
        # below Python 3.11.3), and the worker would wait for its task for ever.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.5)


async def _keep_going(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
            problem = "ended, which it never should"
        except Exception as died:
            problem = f"died of {type(died).__name__}"
            logger.opt(exception=died).error("The background task '{}' {}; starting it again.", name, problem)
        else:
            logger.error("The background task '{}' {}; starting it again.", name, problem)
        METRICS.task_deaths.add((name,))
        await asyncio.sleep(RESTART_SECONDS)
