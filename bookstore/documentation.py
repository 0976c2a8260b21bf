"""`/openapi.json`, and `/docs` for people: Swagger UI from the package, offline, under a strict policy of its own."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from swagger_ui_bundle import swagger_ui_path

from bookstore.errors import NotFound
from bookstore.openapi import Operation, Routes, document

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>BookStore API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """window.ui = SwaggerUIBundle({
  url: "/docs/openapi-3.0.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


def documentation(operations: Iterable[Operation], prefix: str) -> Routes:
    routes = Routes()
    described = document(operations, prefix)
    whole, older = orjson.dumps(described), orjson.dumps(as_openapi_3_0(described))
    # In memory, 1.5 MB: a file answer makes its own 206, 304 and 416, past the place where ours are finished.
    assets = {name: Path(str(swagger_ui_path), name).read_bytes() for name in ASSETS}

    @routes.get("/openapi.json")
    async def show_document(_: web.Request) -> web.Response:
        return _page(whole, "application/json; charset=utf-8")

    @routes.get("/docs/openapi-3.0.json")
    async def show_older_document(_: web.Request) -> web.Response:
        return _page(older, "application/json; charset=utf-8")

    @routes.get("/docs")
    async def show_page(_: web.Request) -> web.Response:
        return _page(PAGE.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": POLICY})

    @routes.get("/docs/start.js")
    async def show_start(_: web.Request) -> web.Response:
        return _page(START.encode(), "text/javascript; charset=utf-8")

    @routes.get("/docs/{asset}")
    async def show_asset(request: web.Request) -> web.Response:
        name = request.match_info["asset"]
        if name not in assets:
            raise NotFound
        return _page(assets[name], ASSETS[name], {"Cache-Control": "public, max-age=86400"})

    return routes


def as_openapi_3_0(described: dict[str, Any]) -> dict[str, Any]:
    """For Swagger UI 4, which refuses 3.1. Programs read `/openapi.json`."""
    older: dict[str, Any] = _older(copy.deepcopy(described))
    older["openapi"] = "3.0.3"
    older.pop("jsonSchemaDialect", None)
    older["info"]["license"].pop("identifier", None)
    return older


def _older(node: Any) -> Any:
    if isinstance(node, list):
        return [_older(below) for below in node]
    if not isinstance(node, dict):
        return node
    node = {name: _older(below) for name, below in node.items()}
    if isinstance(node.get("type"), list):
        kinds = [kind for kind in node["type"] if kind != "null"]
        node["nullable"], node["type"] = len(kinds) < len(node["type"]), kinds[0]
    if isinstance(node.get("anyOf"), list) and {"type": "null"} in node["anyOf"]:
        choices = [choice for choice in node.pop("anyOf") if choice != {"type": "null"}]
        node |= {"nullable": True} | (
            choices[0] if len(choices) == 1 and "$ref" not in choices[0] else {"anyOf": choices}
        )
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("examples"), list):
        node["example"] = node.pop("examples")[0]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(bound), int | float) and not isinstance(node[bound], bool):
            node[limit], node[bound] = node[bound], True
    return node


def _page(body: bytes, content_type: str, headers: dict[str, str] | None = None) -> web.Response:
    tag = hashlib.sha256(body).hexdigest()[:24]
    return web.Response(
        body=body,
        headers={"Content-Type": content_type, "Cache-Control": "no-cache", "ETag": f'"{tag}"', **(headers or {})},
    )
