"""The one place where every request comes in and every answer is finished.

Request id, gate, errors, conditional answers, CORS, security headers, access line and metrics are here and nowhere
else, because each layer of a tower of middlewares costs more than all of this does. What the router refuses and what is
no HTTP at all comes out through here too.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import HttpVersion11
from loguru import logger

from bookstore.cache import CACHE, ReadyAnswer, depends_on_url_alone
from bookstore.conditional import conditional
from bookstore.connections import Server
from bookstore.errors import (
    PROBLEM_JSON,
    BodyTooLarge,
    BookStoreError,
    NotImplementedHere,
    NotReady,
    RequestTimeout,
    problem_body,
    translate,
)
from bookstore.logs import TRACEPARENT, RequestFields, current_request, write_access_line
from bookstore.metrics import METRICS, UNMATCHED
from bookstore.payloads import refuse_unreadable_url
from bookstore.redaction import redact_text
from bookstore.settings import SETTINGS
from bookstore.worker_socket import WORKER

SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "BookStore",
}
READABLE_ACROSS_ORIGINS = "ETag, Link, Location, Content-Location, Retry-After, X-Request-ID, Cache-Status"
ACCEPTED_ACROSS_ORIGINS = (
    "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Prefer, X-Request-ID, traceparent"
)
PREFLIGHT_SECONDS = 600
CLIENT_CLOSED_REQUEST = 499  # nginx's word for a caller who did not wait

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,128}").fullmatch
_HIT = ("process", "hit")
_SPECIAL = ("If-None-Match", "If-Modified-Since", "Prefer", "Origin", "Authorization", "Range", "Expect")


class Runner(web.AppRunner):
    """Runs an application behind the front door; gunicorn and the tests both start it so."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **{"access_log": None, **options})

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return Server(FrontDoor(self.app, plain.request_handler), plain)


class FrontDoor:
    def __init__(self, app: web.Application, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        settings = app[SETTINGS]
        self.worker = app[WORKER]
        self._app = app
        self._handle = handle
        self._cache = app[CACHE]
        self._prefix = f"{settings.api_prefix}/"
        self._shows_causes = settings.debug and settings.environment == "development"
        self._origins = frozenset(settings.cors_origins)
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(10)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        headers = request.headers
        request_id = headers.get("X-Request-ID")
        if request_id is None or not _SANE_REQUEST_ID(request_id):
            request_id = f"{self._id_prefix}{next(self._ids):012x}"

        kept = self._cache.fresh(request.raw_path)
        if kept is not None and self._is_plain(request):
            METRICS.cache.add(_HIT)
            traceparent = headers.get("traceparent")
            head = self._head_of(kept, request)
            self._account(
                request, request_id, kept.endpoint, 200, len(kept.body), began, kept.said, traceparent=traceparent
            )
            return ReadyResponse(head, request_id, kept.body)

        fields = RequestFields(request_id, request.method, headers.get("traceparent"))
        current_request.set(fields)
        error: BookStoreError | None = None
        try:
            if kept is not None and request.method in ("GET", "HEAD") and depends_on_url_alone(request):
                fields.endpoint, fields.cache = kept.endpoint, "hit"
                response: web.StreamResponse = web.Response(body=kept.body, headers=kept.headers)
            else:
                response = await self._answer(request)
                fields.endpoint = _endpoint(request)
        except asyncio.CancelledError:
            self._account(request, request_id, _endpoint(request), CLIENT_CLOSED_REQUEST, 0, began, fields=fields)
            raise
        except Exception as raised:
            if request.writer.output_size > 0:
                logger.opt(exception=raised).error("An answer broke off half-way.")
                raise ConnectionError("an answer was already begun") from raised
            fields.endpoint = _endpoint(request)
            if request.transport is None and raised is request.content.exception():  # hung up before the body was whole
                self._account(request, request_id, fields.endpoint, CLIENT_CLOSED_REQUEST, 0, began, fields=fields)
                raise ConnectionError("the caller is gone") from raised
            response, error = self._explain(request, fields, raised)
        if not response.prepared:
            response = conditional(request, response)
            self._finish(request, response, request_id)
        body = response.body if isinstance(response, web.Response) else None
        sent = len(body) if isinstance(body, bytes) and request.method != "HEAD" else 0
        self._account(request, request_id, fields.endpoint, response.status, sent, began, fields=fields, error=error)
        return response

    def refuse(self, request: web.BaseRequest, error: BookStoreError) -> web.Response:
        """The answer to what never became a request: no HTTP, an unheard-of method, or a head that did not end."""
        METRICS.refused_by_parser.add()
        request_id = f"{self._id_prefix}{next(self._ids):012x}"
        body = problem_body(error, request_id)
        response = web.Response(body=body, status=error.status, headers={**error.headers, "Content-Type": PROBLEM_JSON})
        self._finish(request, response, request_id)
        self._account(request, request_id, UNMATCHED, error.status, len(body), time.perf_counter(), error=error)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        refuse_unreadable_url(request.raw_path)
        if not self.worker.gate_open and request.path.startswith(self._prefix):  # decoded, as the router reads it
            raise NotReady
        if (request.content_length or 0) > request._client_max_size:
            raise BodyTooLarge  # before `100 Continue` invites it in
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            raise web.HTTPExpectationFailed  # aiohttp's own refusal quotes it, and breaks on bytes that are not UTF-8
        try:
            return await self._handle(request)
        except web.HTTPMethodNotAllowed as refused:
            if request.method != "OPTIONS":
                refused.headers["Allow"] = _allowed(refused)
                raise
            return self._options(request, _allowed(refused))

    def _options(self, request: web.Request, allowed: str) -> web.Response:
        response = web.Response(status=204, headers={"Allow": allowed})
        if self._origins and "Access-Control-Request-Method" in request.headers:
            response.headers["Access-Control-Allow-Methods"] = allowed
            response.headers["Access-Control-Allow-Headers"] = ACCEPTED_ACROSS_ORIGINS
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        return response

    def _explain(
        self, request: web.Request, fields: RequestFields, raised: Exception
    ) -> tuple[web.StreamResponse, BookStoreError | None]:
        if isinstance(raised, web.HTTPException) and raised.status < 400:  # a redirect is an answer
            return web.Response(status=raised.status, headers=raised.headers), None
        error = translate(raised)
        cause = None
        if error.status == 500:
            logger.opt(exception=raised).error("{} {} failed: {}", request.method, request.path, type(raised).__name__)
            cause = raised if self._shows_causes else None
        body = problem_body(error, fields.request_id, cause=cause)
        headers = {"Cache-Control": "no-store", **error.headers, "Content-Type": PROBLEM_JSON}
        response = web.Response(body=body, status=error.status, headers=headers)
        if error.status == RequestTimeout.status:
            response.force_close()
        return response, error

    def _finish(self, request: web.BaseRequest, response: web.StreamResponse, request_id: str) -> None:
        headers = response.headers
        headers["X-Request-ID"] = request_id
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if self._origins:
            self._allow_origin(request, response)
        if self.worker.draining:
            headers["Connection"] = "close"  # the header itself: `force_close` alone would hang up unannounced
            response.force_close()

    def _allow_origin(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        vary = response.headers.get("Vary")
        response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
        origin = request.headers.get("Origin")
        if origin is not None and ("*" in self._origins or origin in self._origins):
            response.headers["Access-Control-Allow-Origin"] = "*" if "*" in self._origins else origin
            response.headers["Access-Control-Expose-Headers"] = READABLE_ACROSS_ORIGINS

    def _is_plain(self, request: web.Request) -> bool:
        """Nothing about it asks for another answer than everybody gets."""
        if (
            request.method != "GET"
            or request.version != HttpVersion11
            or not request.keep_alive
            or self.worker.draining
        ):
            return False
        headers = request.headers
        return not any(name in headers for name in _SPECIAL)

    def _head_of(self, kept: ReadyAnswer, request: web.Request) -> bytes:
        if kept.head is None:
            kept.said = _said(request, 200)
            headers = {**kept.headers, **{n: v for n, v in SECURITY_HEADERS.items() if n not in kept.headers}}
            if self._origins:
                headers["Vary"] = f"{headers['Vary']}, Origin" if "Vary" in headers else "Origin"
            headers["Content-Length"] = str(len(kept.body))
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            kept.head = f"HTTP/1.1 200 OK\r\n{lines}".encode()
        return kept.head

    def _account(
        self,
        request: web.BaseRequest,
        request_id: str,
        endpoint: str,
        status: int,
        sent: int,
        began: float,
        said: str | None = None,
        *,
        fields: RequestFields | None = None,
        traceparent: str | None = None,
        error: BookStoreError | None = None,
    ) -> None:
        seconds = time.perf_counter() - began
        METRICS.count_request(request.method, endpoint, status, seconds, sent)
        line: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "level": "ERROR" if status >= 500 and _is_our_fault(status, endpoint) else "INFO",
            "service": "",
            "request_id": request_id,
            "user_id": fields.user_id if fields else None,
            "endpoint": endpoint,
            "method": request.method,
            "status_code": status,
            "response_time_ms": round(seconds * 1000, 3),
            "message": said or _said(request, status),
            "logger": "bookstore.access",
            "module": "front_door",
            "function": "_account",
            "line": _LINE,
            "bytes": sent,
            "remote": request.remote,
        }
        if fields is not None:
            line["queries"] = fields.queries
            line["query_ms"] = round(fields.query_seconds * 1000, 3)
            traceparent = fields.traceparent
        if traceparent is not None and TRACEPARENT(traceparent):
            line["traceparent"] = traceparent
        if error is not None:
            line["error"] = error.error
        write_access_line(line)


_LINE = FrontDoor._account.__code__.co_firstlineno


class ReadyResponse(web.StreamResponse):
    """Head and body as bytes, written in one piece. Only for a plain HTTP/1.1 GET that keeps its connection."""

    def __init__(self, head: bytes, request_id: str, body: bytes) -> None:
        super().__init__()
        self._bytes = b"%sDate: %s\r\nX-Request-ID: %s\r\n\r\n%s" % (
            head,
            rfc822_formatted_time().encode(),
            request_id.encode(),
            body,
        )

    async def prepare(self, request: web.BaseRequest) -> None:
        self._keep_alive = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the caller is gone")
        transport.write(self._bytes)
        await request.writer.drain()  # who asks without reading waits, instead of filling our memory

    async def write_eof(self, data: bytes = b"") -> None:
        self._eof_sent = True


def _said(request: web.BaseRequest, status: int) -> str:
    return redact_text(f"{request.method} {request.path} {status}")


def _is_our_fault(status: int, endpoint: str) -> bool:
    """Not when a balancer is told what it asked for, nor when nobody ever heard of the method."""
    return status != NotImplementedHere.status and not (status == NotReady.status and endpoint.startswith("/health"))


def _endpoint(request: web.Request) -> str:
    match = request._match_info
    resource = match.route.resource if match is not None and match.http_exception is None else None
    return resource.canonical if resource is not None else UNMATCHED


def _allowed(refused: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted({*refused.allowed_methods, "OPTIONS"}))
