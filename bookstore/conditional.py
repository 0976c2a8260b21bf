"""304 for who has it already (RFC 9110, 13.2.2)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from aiohttp import web


def conditional(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """`response`, or the 304 that stands for it."""
    if response.status != 200 or request.method not in ("GET", "HEAD"):
        return response
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    known = request.headers.getall("If-None-Match", ())
    if known:
        tags = {_opaque(tag) for line in known for tag in line.split(",")}  # ours hold no comma
        fresh = etag is not None and ("*" in tags or _opaque(etag) in tags)
    else:
        since = request.headers.get("If-Modified-Since")
        fresh = since is not None and modified is not None and not _is_later(modified, since)
    if not fresh:
        return response
    kept = {name: value for name, value in response.headers.items() if name not in ("Content-Type", "Content-Length")}
    return web.Response(status=304, headers=kept)


def _opaque(tag: str) -> str:
    return tag.strip().removeprefix("W/")


def _is_later(modified: str, since: str) -> bool:
    try:
        return parsedate_to_datetime(modified) > parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return True
