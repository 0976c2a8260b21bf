"""What comes in, read and checked at the edge; what goes out, as bytes. Handlers between them see models only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bookstore.errors import BodyTooLarge, Invalid, MalformedJson, RequestTimeout, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

BODY_SECONDS = 30.0  # from the head of a request to the end of its body
ENCODINGS = ("", "identity", "gzip", "deflate")  # of a body; aiohttp undoes these, and hands others on as they are

CACHE_CONTROL = {
    "public": "public, max-age=60, stale-while-revalidate=300",
    "private": "private, no-store",
}


class Payload(BaseModel):
    """Base of what comes in: unknown members are refused, so that a misspelt filter never passes for no filter."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Money(BaseModel):
    """An amount in minor units: 1299 USD is $12.99, 1299 JPY is ¥1299, 1299 KWD is 1.299 dinars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Annotated[int, Field(ge=0, le=2**53 - 1, strict=True, description="Integer minor units of the currency")]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217", examples=["USD"])]


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The JSON body as `model`. 400: no JSON. 408: too slow. 413: too large. 415: another type. 422: does not fit."""
    if "Content-Type" in request.headers and not _is_json(request.content_type):
        raise UnsupportedMediaType
    if ", ".join(request.headers.getall("Content-Encoding", ())).strip().lower() not in ENCODINGS:
        raise UnsupportedMediaType.packed()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.read()
    except TimeoutError:
        raise RequestTimeout from None
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge from None
    document = parse_json(raw)
    try:
        return model.model_validate(document)
    except ValidationError as refused:
        _refuse(refused, "")


def read_query(request: web.Request, model: type[Model]) -> Model:
    """The query string as `model`. A parameter given twice fits only a list; an unknown one fits nothing."""
    given = request.query
    values: dict[str, Any] = {}
    errors: list[dict[str, str]] = []
    for name in dict.fromkeys(given):
        every = given.getall(name)
        if name not in model.model_fields:
            errors.append({"pointer": f"/query/{_escaped(name)}", "detail": "there is no such parameter here"})
        elif _takes_many(model.model_fields[name].annotation):
            values[name] = every
        elif len(every) > 1:
            errors.append({"pointer": f"/query/{_escaped(name)}", "detail": "may be given only once"})
        else:
            values[name] = every[0]
    _refuse_unspeakable(values, "/query", errors)
    try:
        read = model.model_validate(values)
    except ValidationError as refused:
        _refuse(refused, "/query", errors)
    if errors:
        raise Invalid.listing(errors)
    return read


def read_path(request: web.Request, model: type[Model]) -> Model:
    """The variable parts of the path as `model`."""
    values = dict(request.match_info)
    errors: list[dict[str, str]] = []
    _refuse_unspeakable(values, "/path", errors)
    if errors:
        raise Invalid.listing(errors)
    try:
        return model.model_validate(values)
    except ValidationError as refused:
        _refuse(refused, "/path")


def refuse_unreadable_url(target: str) -> None:
    """422 for a request target whose escapes hold U+0000, or bytes that are not UTF-8: the router and the query parser
    would leave the latter as they are, and take `%ff` for the text it is spelt with."""
    if "%" not in target:
        return
    path, _, query = target.partition("?")
    if not _readable(path):
        raise Invalid.at("/path", _UNREADABLE)
    for pair in query.split("&") if "%" in query else ():
        if not _readable(pair):
            name = pair.partition("=")[0]
            shown = f"/{_escaped(unquote_to_bytes(name.replace('+', ' ')).decode())}" if _readable(name) else ""
            raise Invalid.at(f"/query{shown}", _UNREADABLE)


def respond(
    content: BaseModel | Mapping[str, Any] | None,
    *,
    status: int = 200,
    etag: str | None = None,
    last_modified: datetime | None = None,
    location: str | None = None,
    content_location: str | None = None,
    headers: Mapping[str, str] | None = None,
    cache: Literal["public", "private"] = "public",
) -> web.Response:
    """The answer, as bytes. `etag` is the bare version: quotes are put here; a 304 is made where responses finish."""
    all_headers = {"Cache-Control": CACHE_CONTROL[cache], **(headers or {})}
    if etag is not None:
        all_headers["ETag"] = f'"{etag}"'
    if last_modified is not None:
        all_headers["Last-Modified"] = format_datetime(last_modified.astimezone(UTC), usegmt=True)
    if location is not None:
        all_headers["Location"] = location
    if content_location is not None:
        all_headers["Content-Location"] = content_location
    if content is None:
        return web.Response(status=status, headers=all_headers)
    all_headers["Content-Type"] = "application/json; charset=utf-8"
    return web.Response(body=as_json(content), status=status, headers=all_headers)


def as_json(content: BaseModel | Mapping[str, Any]) -> bytes:
    if isinstance(content, BaseModel):
        return content.__pydantic_serializer__.to_json(content, by_alias=True)
    return orjson.dumps(content, default=_plain)


def parse_json(raw: bytes) -> Any:
    """JSON by the letter of RFC 8259. A well-formed document with U+0000 or half a surrogate pair in it is 422."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as fault:
        try:
            document = json.loads(
                raw.decode(), parse_constant=_no_constant
            )  # of bytes it would guess UTF-16 and 32 too
        except (ValueError, RecursionError):
            where = f" (line {fault.lineno}, column {fault.colno})"
            raise MalformedJson(f"{MalformedJson.default_message().rstrip('.')}{where}.") from None
    errors: list[dict[str, str]] = []
    _refuse_unspeakable(document, "", errors)
    if errors:
        raise Invalid.listing(errors)
    return document


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(refused: ValidationError, root: str, more: list[dict[str, str]] | None = None) -> NoReturn:
    found = [
        {
            "pointer": root + "".join(f"/{_escaped(str(part))}" for part in error["loc"]),
            "detail": error["msg"].removeprefix("Value error, "),
        }
        for error in refused.errors(include_url=False, include_context=False, include_input=False)
    ]
    raise Invalid.listing([*(more or []), *found]) from None


def _refuse_unspeakable(value: object, pointer: str, errors: list[dict[str, str]]) -> None:
    """Text PostgreSQL cannot hold and UTF-8 cannot write: U+0000 and lone surrogates, at any depth, in names too."""
    waiting: list[tuple[object, str]] = [(value, pointer)]
    while waiting:
        here, where = waiting.pop()
        if isinstance(here, str):
            if not _speakable(here):
                errors.append({"pointer": where, "detail": "holds U+0000 or half of a surrogate pair"})
        elif isinstance(here, dict):
            for name, below in here.items():
                if _speakable(name):
                    waiting.append((below, f"{where}/{_escaped(name)}"))
                else:
                    errors.append({"pointer": where, "detail": "has a name with U+0000 or half of a surrogate pair"})
        elif isinstance(here, list):
            waiting.extend((below, f"{where}/{index}") for index, below in enumerate(here))


_UNREADABLE = "holds U+0000 or bytes that are not UTF-8"


def _readable(escaped: str) -> bool:
    raw = unquote_to_bytes(escaped)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in raw


def _speakable(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(part: str) -> str:
    """As in RFC 6901; what cannot be written is shown as a question mark."""
    return part.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


def _takes_many(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _takes_many(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(_takes_many(part) for part in get_args(annotation))
    return (origin or annotation) in (list, tuple, set, frozenset)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
