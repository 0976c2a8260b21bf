"""`GET /`: where everything is, as a page for a browser and as JSON for a program."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape

from aiohttp import web

from bookstore import __version__
from bookstore.openapi import Routes
from bookstore.payloads import respond
from bookstore.settings import SETTINGS

routes = Routes()

STYLE = """
:root { color-scheme: light dark; --ink: #1c1917; --paper: #faf7f2; --faint: #78716c; --line: #e7e0d5; --link: #9a3412 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ece7df; --paper: #191613; --faint: #a8a29e; --line: #37312b; --link: #fdba74 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 44rem; padding: 3rem 1.25rem; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 ui-serif, Georgia, serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem }
h2 { font-size: 1rem; margin: 2.25rem 0 .5rem; color: var(--faint); font-weight: 600 }
p { margin: 0 }
ul { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line) }
li { padding: .6rem 0; border-bottom: 1px solid var(--line) }
a { color: var(--link); font: .95rem ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 3px }
span { display: block; color: var(--faint) }
"""
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def links(prefix: str) -> dict[str, dict[str, str]]:
    """Group → path → what one finds there."""
    return {
        "The shop": {
            f"{prefix}/books": "Books, by title",
            f"{prefix}/books?q=sea": "A search",
            f"{prefix}/authors": "Authors",
            f"{prefix}/subjects": "Subjects",
            f"{prefix}/suggest?q=mo": "Completions for what somebody types",
        },
        "For programs": {
            "/docs": "Every request, to read and to try",
            "/openapi.json": "The same as an OpenAPI 3.1 document",
        },
        "How it is": {
            "/health": "Health in words",
            "/health/ready": "Whether it takes requests, and every check",
            "/health/live": "Whether this process answers",
        },
    }


@routes.get("/")
async def show_links(request: web.Request) -> web.Response:
    """Where everything is."""
    groups = links(request.app[SETTINGS].api_prefix)
    if _prefers_page(",".join(request.headers.getall("Accept", ()))):
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-cache",
            "Vary": "Accept",
            "Content-Security-Policy": POLICY,
        }
        return web.Response(body=_page(groups).encode(), headers=headers)
    flat = {path: meaning for group in groups.values() for path, meaning in group.items()}
    content = {"name": "BookStore API", "version": __version__, "links": flat}
    return respond(content, headers={"Cache-Control": "no-cache", "Vary": "Accept"})


def _prefers_page(accept: str) -> bool:
    """Browsers name HTML; programs name JSON, anything, or nothing. Of two liked equally, the one named first."""
    wanted = _preferences(accept)
    page, data = _quality(wanted, "text/html"), _quality(wanted, "application/json")
    if page == data:
        names = [name for name in wanted if name in ("text/html", "application/json")]
        return page > 0 and names[:1] == ["text/html"]
    return page > data


def _preferences(accept: str) -> dict[str, float]:
    """Media range → how much it is liked (RFC 9110, 12.5.1)."""
    wanted: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        liked = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    liked = float(parameter[2:])
                except ValueError:
                    liked = 0.0
        if name:
            wanted[name] = liked
    return wanted


def _quality(wanted: dict[str, float], kind: str) -> float:
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if name in wanted:
            return wanted[name]
    return 0.0


def _page(groups: dict[str, dict[str, str]]) -> str:
    sections = "".join(
        f"<h2>{escape(title)}</h2><ul>"
        + "".join(
            f'<li><a href="{escape(path)}">{escape(path)}</a><span>{escape(meaning)}</span></li>'
            for path, meaning in group.items()
        )
        + "</ul>"
        for title, group in groups.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>BookStore</title><style>{STYLE}</style></head><body><main><h1>BookStore</h1>"
        f"<p>A bookshop’s API, version {escape(__version__)}.</p>{sections}</main></body></html>"
    )
