"""Tasks that live as long as the worker."""

import asyncio

from bookstore.background import running


async def test_a_cancellation_that_the_work_loses_does_not_keep_the_worker_from_ending() -> None:
    """A library's timeout that fires in the same turn of the loop as the cancellation reports only the timeout
    (async-timeout 4 does, which redis-py uses below Python 3.11.3)."""
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    async with asyncio.timeout(10):
        async with running("lose the first two", work):
            await asyncio.sleep(0)
    assert lost == 3
