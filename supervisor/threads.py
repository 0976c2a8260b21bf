"""Calls that may block for ever: asked in a thread that neither the event loop nor the end of the program waits for.

`asyncio.to_thread` is not enough: its threads are joined when the loop closes, so one stuck call (a dead NFS mount, a
name server that does not answer) would hold up the exit of a program that promises to stop in time.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # with no error there is a result
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop ended first: nobody is left to tell
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name=f"ask {getattr(function, '__name__', 'something')}").start()
    return future


class OneAtATime(Generic[T]):
    """A blocking question of which at most one is under way: who asks while it hangs waits for the same answer."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._under_way: asyncio.Future[T] | None = None

    async def ask(self) -> T:
        if self._under_way is None or self._under_way.done():
            self._under_way = in_thread(self._function)
            self._under_way.add_done_callback(_look_at)
        return await asyncio.shield(self._under_way)


def _look_at(future: "asyncio.Future[T]") -> None:
    """An error nobody waited for any more is not worth a complaint at the end of the program."""
    if not future.cancelled():
        future.exception()
