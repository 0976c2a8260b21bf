"""What can go wrong, as a tree; and the one place where it becomes an answer.

    BookStoreError                     500 internal_error
    ├── BadRequest                     400 bad_request
    │   ├── MalformedJson              400 malformed_json
    │   └── InvalidCursor              400 invalid_cursor
    ├── NotFound                       404 not_found
    ├── MethodNotAllowed               405 method_not_allowed
    ├── RequestTimeout                 408 request_timeout
    ├── Conflict                       409 conflict
    ├── Gone                           410 gone
    ├── PreconditionFailed             412 precondition_failed
    ├── BodyTooLarge                   413 body_too_large
    ├── UriTooLong                     414 uri_too_long
    ├── UnsupportedMediaType           415 unsupported_media_type
    ├── Invalid                        422 validation_failed
    │   └── InvalidIsbn                422 invalid_isbn
    ├── PreconditionRequired           428 precondition_required
    ├── HeadersTooLarge                431 headers_too_large
    ├── NotImplementedHere             501 not_implemented
    └── Unavailable                    503 unavailable (Retry-After)
        ├── NotReady                   503 not_ready
        ├── DatabaseUnavailable        503 database_unavailable
        └── QueryTooSlow               503 query_timeout

A docstring here is the message a caller reads when the one who raises has nothing better to say.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

PROBLEM_JSON = "application/problem+json"
MOST_FAULTS = 20
LONGEST_TEXT = 300


class BookStoreError(Exception):
    """Something went wrong on our side; it was logged. Try again, and quote the request id if it persists."""

    status: int = 500
    error: str = "internal_error"
    title: str = "Internal server error"

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message()
        self.details = details
        self.headers = dict(headers or {})
        super().__init__(self.message)

    @classmethod
    def default_message(cls) -> str:
        return " ".join((cls.__doc__ or BookStoreError.__doc__ or "").split())


class BadRequest(BookStoreError):
    """The request could not be understood. Check its syntax and send it again."""

    status, error, title = 400, "bad_request", "Bad request"


class MalformedJson(BadRequest):
    """The body is not well-formed JSON in UTF-8. Check it and send it again."""

    error, title = "malformed_json", "Malformed JSON"


class InvalidCursor(BadRequest):
    """This cursor was altered, or belongs to another query. Start again from the first page, without `cursor`."""

    error, title = "invalid_cursor", "Invalid cursor"


class NotFound(BookStoreError):
    """There is nothing at this address. The paths that exist are listed at /openapi.json."""

    status, error, title = 404, "not_found", "Not found"


class MethodNotAllowed(BookStoreError):
    """This address exists but does not answer that method. The `Allow` header lists those it does."""

    status, error, title = 405, "method_not_allowed", "Method not allowed"


class RequestTimeout(BookStoreError):
    """The request took too long to arrive. Send it again, whole and at once."""

    status, error, title = 408, "request_timeout", "Request timeout"


class Conflict(BookStoreError):
    """The change contradicts the present state. Read it again and decide anew."""

    status, error, title = 409, "conflict", "Conflict"


class Gone(BookStoreError):
    """This existed once and has been archived. Remove your reference to it."""

    status, error, title = 410, "gone", "Gone"


class PreconditionFailed(BookStoreError):
    """It was changed since you read it. Read it again and repeat the change with its new ETag."""

    status, error, title = 412, "precondition_failed", "Precondition failed"


class BodyTooLarge(BookStoreError):
    """The body is larger than this address accepts. Send less at once."""

    status, error, title = 413, "body_too_large", "Content too large"


class UriTooLong(BookStoreError):
    """The address is too long: 8,190 bytes are read. Ask for less at once, or with a shorter search."""

    status, error, title = 414, "uri_too_long", "URI too long"


class UnsupportedMediaType(BookStoreError):
    """This address reads another kind of body. Send JSON with `Content-Type: application/json`."""

    status, error, title = 415, "unsupported_media_type", "Unsupported media type"

    @classmethod
    def packed(cls) -> UnsupportedMediaType:
        return cls(
            "Nothing here undoes that `Content-Encoding`. Send the body as it is, or in one `Accept-Encoding` names.",
            headers={"Accept-Encoding": "gzip, deflate"},
        )


class Invalid(BookStoreError):
    """Some of what was sent does not fit. `details.errors` names each place and what is wrong there."""

    status, error, title = 422, "validation_failed", "Validation failed"

    @classmethod
    def at(cls, pointer: str, detail: str) -> Invalid:
        """One fault, at one place: a JSON pointer into the body, or `/query/…`, `/path/…`, `/header/…`."""
        return cls.listing([{"pointer": pointer, "detail": detail}])

    @classmethod
    def listing(cls, errors: Sequence[Mapping[str, str]]) -> Invalid:
        """The first twenty, cut to a length people read: what was sent must not decide how much comes back."""
        told = [{name: _cut(text) for name, text in error.items()} for error in errors[:MOST_FAULTS]]
        more = len(errors) - len(told)
        return cls(details={"errors": told, "more": more} if more else {"errors": told})


class InvalidIsbn(Invalid):
    """This is not a valid ISBN. Check its length and check digit; hyphens are welcome."""

    error, title = "invalid_isbn", "Invalid ISBN"


class PreconditionRequired(BookStoreError):
    """This change needs an `If-Match` header with the ETag you read, so that nobody's change is lost."""

    status, error, title = 428, "precondition_required", "Precondition required"


class HeadersTooLarge(BookStoreError):
    """The headers are too large: up to 128 of them are read, each up to 8,190 bytes. Send fewer or shorter ones."""

    status, error, title = 431, "headers_too_large", "Request header fields too large"


class NotImplementedHere(BookStoreError):
    """Nothing here knows that method. The methods there are, are listed at /openapi.json."""

    status, error, title = 501, "not_implemented", "Not implemented"


class Unavailable(BookStoreError):
    """The service cannot answer right now. Try again after the time in `Retry-After`."""

    status, error, title = 503, "unavailable", "Service unavailable"
    retry_after: int = 1

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, details=details, headers={"Retry-After": str(self.retry_after), **(headers or {})})


class NotReady(Unavailable):
    """This pod is still starting. Try again after the time in `Retry-After`."""

    error = "not_ready"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached right now. Try again after the time in `Retry-After`."""

    error = "database_unavailable"


class QueryTooSlow(Unavailable):
    """The database took too long to answer this. Narrow the request down, or try again later."""

    error, retry_after = "query_timeout", 5


def every_error() -> list[type[BookStoreError]]:
    """The whole tree, for the documentation and its test."""

    def below(cls: type[BookStoreError]) -> Iterable[type[BookStoreError]]:
        yield cls
        for child in cls.__subclasses__():
            yield from below(child)

    return list(below(BookStoreError))


def translate(raised: BaseException) -> BookStoreError:
    """Whatever was raised, in our vocabulary. What is not recognised is an internal error."""
    if isinstance(raised, BookStoreError):
        return raised
    if isinstance(raised, web.HTTPException):
        return _from_aiohttp(raised)
    if isinstance(raised, RequestPayloadError):
        return BadRequest("The body could not be read: it does not keep to its own framing or encoding.")
    return BookStoreError()


def problem_body(error: BookStoreError, request_id: str, *, cause: BaseException | None = None) -> bytes:
    """The error body of the API. `cause` is shown with its traceback: development only, the caller decides."""
    details = dict(error.details) if error.details is not None else None
    if cause is not None:
        details = {
            **(details or {}),
            "exception": f"{type(cause).__name__}: {cause}",
            "traceback": traceback.format_exception(cause),
        }
    return orjson.dumps(
        {
            "type": f"urn:bookstore:error:{error.error}",
            "title": error.title,
            "status": error.status,
            "detail": error.message,
            "error": error.error,
            "message": error.message,
            "request_id": request_id,
            "details": details,
        },
        default=str,
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


_OF_STATUS: dict[int, type[BookStoreError]] = {cls.status: cls for cls in BookStoreError.__subclasses__()}


def _from_aiohttp(raised: web.HTTPException) -> BookStoreError:
    kept = {name: value for name, value in raised.headers.items() if name in ("Allow", "Location", "Retry-After")}
    known = _OF_STATUS.get(raised.status)
    if known is not None:
        return known(headers=kept)
    phrase = HTTPStatus(raised.status).phrase if raised.status in HTTPStatus._value2member_map_ else "Error"
    other = BookStoreError(f"{phrase}.", headers=kept)
    other.status, other.title = raised.status, phrase
    other.error = "_".join(phrase.lower().replace("-", " ").split())
    return other
