"""Pages by key, not by number: page 400 costs what page 1 does, and what is inserted meanwhile shifts nothing.

A cursor is the sort key of the row it stands beside, signed and bound to the query it came from.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

import orjson
from aiohttp import web
from pydantic import BaseModel, Field

from bookstore.errors import InvalidCursor
from bookstore.settings import SETTINGS

Item = TypeVar("Item")
Direction = Literal["next", "prev"]

DEFAULT_LIMIT = 20
LIMIT_MAX = 100
TOTAL_CAP = 10_000

Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX, description="How many items a page holds at most")]
Cursor = Annotated[
    str,
    Field(
        max_length=2000,
        description="Where the page begins: taken from `next` or `prev` of another page",
        json_schema_extra={"format": "cursor"},
    ),
]


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next` and `prev` are relative URLs with every filter repeated."""

    items: list[Item]
    next: str | None = Field(None, description="The following page, or null")
    prev: str | None = Field(None, description="The page before, or null")
    total: int | None = Field(None, description="Only with `Prefer: return=total-count`, capped at 10,000")
    total_is_capped: bool | None = Field(None, description="Beside `total`: there are more than the cap")


@dataclass(frozen=True, slots=True)
class Position:
    """Beside which row a page begins, and in which direction it is read."""

    direction: Direction
    key: tuple[Any, ...]


def encode_cursor(secret: bytes, query: Mapping[str, Any], position: Position) -> str:
    """`query` is every filter and the sort: a cursor is worth nothing with another."""
    body = orjson.dumps([position.direction[0], *position.key])
    return _written(_signature(secret, query, body) + body)


def decode_cursor(secret: bytes, query: Mapping[str, Any], cursor: str) -> Position:
    """The position `encode_cursor` wrote, or `InvalidCursor` for anything else."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidCursor from None
    signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if _written(raw) != cursor or not hmac.compare_digest(signature, _signature(secret, query, body)):
        raise InvalidCursor
    direction, *key = orjson.loads(body)
    return Position("next" if direction == "n" else "prev", tuple(key))


def read_position(request: web.Request, query: Mapping[str, Any], cursor: str | None) -> Position | None:
    """Where the caller wants to begin; None is the first page."""
    return None if cursor is None else decode_cursor(_secret(request), _of_this_list(request, query), cursor)


@dataclass(frozen=True, slots=True)
class Links:
    next: str | None
    prev: str | None

    @property
    def headers(self) -> dict[str, str]:
        """RFC 8288."""
        links = [f'<{url}>; rel="{rel}"' for rel, url in (("next", self.next), ("prev", self.prev)) if url]
        return {"Link": ", ".join(links)} if links else {}


def turn_pages(
    request: web.Request,
    query: Mapping[str, Any],
    position: Position | None,
    rows: Sequence[Any],
    limit: int,
    key: Any,
) -> tuple[list[Any], Links]:
    """The rows of this page in reading order, and the way to its neighbours.

    `rows` is what the query found going in `position`'s direction from it, `limit + 1` of them at most: the extra one
    only says that there is more. `key(row)` is the row's full sort key and ends in a unique one. `query` holds every
    filter and the sort as they go into the URL; None is left out.
    """
    more, backwards = len(rows) > limit, position is not None and position.direction == "prev"
    page = list(rows[:limit])
    if backwards:
        page.reverse()
    if not page:
        return page, Links(None, None)
    has_next = backwards or more
    has_prev = more if backwards else position is not None
    secret, bound = _secret(request), _of_this_list(request, query)

    def url(direction: Direction, row: Any) -> str:
        cursor = encode_cursor(secret, bound, Position(direction, tuple(key(row))))
        given = {name: value for name, value in query.items() if value is not None}
        if "limit" in request.query:
            given["limit"] = limit
        return f"{request.rel_url.raw_path}?{urlencode({**given, 'cursor': cursor}, doseq=True)}"

    return page, Links(url("next", page[-1]) if has_next else None, url("prev", page[0]) if has_prev else None)


def wants_total(request: web.Request) -> bool:
    """`Prefer: return=total-count`, in any form of RFC 7240; of one preference given twice the first counts."""
    for preference in _LISTED.findall(",".join(request.headers.getall("Prefer", []))):
        found = _PREFERENCE.match(preference)
        if found is not None and found[1].lower() == "return":
            value = found[2] or ""
            return (re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value).lower() == "total-count"
    return False


_LISTED = re.compile(r"""(?:[^,"]|"(?:[^"\\]|\\.)*"?)+""")  # a comma in quotes separates nothing
_PREFERENCE = re.compile(r"""\s*([^\s=;"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*))?\s*(?:;|$)""")
_SIGNATURE_BYTES = 12


def _secret(request: web.Request) -> bytes:
    return request.app[SETTINGS].secret_key.get_secret_value().encode()


def _of_this_list(request: web.Request, query: Mapping[str, Any]) -> dict[str, Any]:
    """The path too: a cursor of one author's books is worth nothing with another's, or with the list of authors."""
    return {**query, "": request.path}


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signature(secret: bytes, query: Mapping[str, Any], body: bytes) -> bytes:
    bound = orjson.dumps(
        {name: value for name, value in query.items() if value is not None}, option=orjson.OPT_SORT_KEYS
    )
    message = len(bound).to_bytes(4) + bound + body
    return hmac.new(secret, b"cursor\0" + message, hashlib.sha256).digest()[:_SIGNATURE_BYTES]
