"""One open connection of a client: aiohttp's protocol, except that refusals leave in our form and nobody may dawdle."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, ContentEncodingError, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from bookstore.errors import (
    BadRequest,
    BookStoreError,
    HeadersTooLarge,
    NotImplementedHere,
    RequestTimeout,
    UnsupportedMediaType,
    UriTooLong,
)

if TYPE_CHECKING:
    from bookstore.front_door import FrontDoor

HEAD_SECONDS = 20.0  # from the first byte of a request to the end of its head

_REQUEST_LINE = re.compile(r"b['\"][!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]")


class Server(web.Server):
    """Makes connections that know the door."""

    def __init__(self, door: FrontDoor, plain: web.Server) -> None:
        super().__init__(
            door,  # type: ignore[arg-type]
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )
        self.door = door
        door.worker.server = self

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    __slots__ = ("_begun", "_refuse")

    def __init__(self, manager: Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._refuse: Callable[[web.BaseRequest, BookStoreError], web.Response] = manager.door.refuse
        self._begun: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        return self._request_in_progress or bool(self._messages)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        if waiter.done() if waiter is not None else self._request_count:
            if self._begun is not None:
                self._begun.cancel()
                self._begun = None
        elif self._begun is None and not data.isspace():  # some send a line end too many after a body
            self._begun = self._loop.call_later(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._begun is not None:
            self._begun.cancel()
            self._begun = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0 or self.transport is None:
            raise ConnectionError("an answer was already begun, or nobody is there to have it")
        response = self._refuse(request, _problem(status, exc))
        response.force_close()
        return response

    def _head_is_late(self) -> None:
        """Answered the way aiohttp answers what it cannot parse: as a message that says so."""
        self._begun = None
        waiter = self._waiter
        if waiter is None or waiter.done() or self._force_close:
            return
        late = HttpProcessingError(code=RequestTimeout.status, message="late")
        self._messages.append((_ErrInfo(RequestTimeout.status, late, "late"), EMPTY_PAYLOAD))
        waiter.set_result(None)


def _problem(status: int, raised: BaseException | None) -> BookStoreError:
    if status == RequestTimeout.status:
        return RequestTimeout()
    if status != BadRequest.status:
        return BookStoreError()
    if isinstance(raised, BadHttpMethod) and _REQUEST_LINE.search(str(raised)):
        return NotImplementedHere()
    if isinstance(raised, ContentEncodingError):  # one aiohttp knows but has no library for
        return UnsupportedMediaType.packed()
    if isinstance(raised, LineTooLong):
        beginning = bytes(raised.args[0])  # of the target, or of a header's name or value
        return UriTooLong() if beginning.startswith((b"/", b"http://", b"https://")) else HeadersTooLarge()
    if "Too many headers" in str(raised):
        return HeadersTooLarge()
    return BadRequest("This is not a well-formed HTTP request. Use an HTTP/1.1 client and encode what is sent.")
