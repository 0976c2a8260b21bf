"""`/`, `/openapi.json` and `/docs`: what says where everything is."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from bookstore.app import every_operation
from bookstore.documentation import as_openapi_3_0
from bookstore.errors import Gone, NotFound, every_error
from bookstore.openapi import Routes, document
from tests.bookstore.conftest import Client

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(str(given["href"]))
        elif tag in ("script", "link"):
            self.assets.append(str(given.get("src") or given.get("href")))
        self.inline += [name for name in given if name.startswith("on") or name == "style"]


async def test_a_browser_gets_a_page_whose_links_all_work_and_a_program_the_same_as_json(api: Client) -> None:
    async with api.get("/", headers={"Accept": BROWSER}) as answer:
        text = await answer.text()
        assert answer.content_type == "text/html"
        (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
        allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{allowed}'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Vary"] == "Accept"
    page = Page(text)
    assert not page.inline
    for accept in ("text/html;q=0.9, application/json;q=0.1", "text/*", "text/html, application/json"):
        async with api.get("/", headers={"Accept": accept}) as answer:
            assert answer.content_type == "text/html", accept
    for accept in (
        *("application/json", "*/*", "", "application/json, text/html", "text/html;q=0", "text/html;q=0, */*"),
        *("text/html;q=0.1, application/json", "text/html;q=0.5, */*", "text/html;q=x", "image/png", ";,;q=1"),
    ):
        async with api.get("/", headers={"Accept": accept}) as answer:
            assert list((await answer.json())["links"]) == page.links
    for link in page.links:
        async with api.get(link) as answer:
            assert answer.status == 200, link


async def test_the_documentation_works_offline_and_under_its_own_policy(api: Client) -> None:
    async with api.get("/docs") as answer:
        page = Page(await answer.text())
        policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "default-src 'none'" in policy
    assert not page.inline and "/docs/start.js" in page.assets
    for asset in page.assets:
        assert asset.startswith("/docs/")
        async with api.get(asset) as answer:
            assert answer.status == 200 and len(await answer.read()) > 100
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.content_type in ("text/css", "text/javascript", "image/png")
            etag = answer.headers["ETag"]
        async with api.get(asset, headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304
    for nowhere in ("/docs/index.html", "/docs/..%2f__init__.py", "/docs/swagger-ui.js.map"):
        async with api.get(nowhere) as answer:
            assert answer.status == 404
    async with api.get("/docs/openapi-3.0.json") as answer:
        assert (await answer.json())["openapi"] == "3.0.3"


async def test_the_document_has_every_operation_and_a_version_that_is_answered_304(api: Client) -> None:
    async with api.get("/openapi.json") as answer:
        served: dict[str, Any] = orjson.loads(await answer.read())
        etag = answer.headers["ETag"]
    async with api.get("/openapi.json", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    assert served == orjson.loads(orjson.dumps(document(every_operation(), "/api/v1")))
    described = {(method.upper(), path) for path, item in served["paths"].items() for method in item}
    assert described == {(operation.method, f"/api/v1{operation.template}") for operation in every_operation()}
    for item in served["paths"].values():
        for operation in item.values():
            assert operation["summary"] and operation["operationId"]
            assert {"422", "503", "default"} <= set(operation["responses"])


class Thing(BaseModel):
    name: str


class Question(BaseModel):
    q: str | None = Field(None, max_length=5, description="What for")
    tag: list[str] = Field(default_factory=list)


class Place(BaseModel):
    id: str


@pytest.fixture
def described() -> dict[str, Any]:
    routes = Routes(tags=["things"])

    @routes.get(
        "/things/{id}",
        path_model=Place,
        query=Question,
        answers=Thing,
        errors=[Gone],
        headers={"Link": "Pages"},
        cached=True,
    )
    async def show_thing(_: Any) -> Any:
        """One thing.

        And more about it.
        """

    @routes.route("PUT", "/things", body=Thing, answers={201: Thing, 204: None})
    async def put_thing(_: Any) -> Any: ...

    return document(routes, "/v2")


def test_a_route_is_described_by_what_it_says(described: dict[str, Any]) -> None:
    get = described["paths"]["/v2/things/{id}"]["get"]
    assert (get["summary"], get["description"], get["tags"]) == ("One thing.", "And more about it.", ["things"])
    parameters = {parameter["name"]: parameter for parameter in get["parameters"]}
    assert parameters["id"]["required"] is True and parameters["id"]["in"] == "path"
    assert parameters["q"]["schema"] == {"type": "string", "maxLength": 5}
    assert parameters["q"]["description"] == "What for" and parameters["q"]["required"] is False
    assert parameters["tag"]["schema"]["type"] == "array"
    assert set(get["responses"]) >= {"200", "304", "400", "404", "410", "422", "503", "default"}
    assert "`gone`" in get["responses"]["410"]["description"]
    assert {"Link", "ETag"} <= set(get["responses"]["200"]["headers"])
    put = described["paths"]["/v2/things"]["put"]
    assert put["summary"] == "Put thing"
    assert set(put["responses"]) == {"201", "204", "400", "408", "413", "414", "415", "422", "431", "503", "default"}
    assert put["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert "content" not in put["responses"]["204"]
    assert "304" not in put["responses"]
    assert set(described["components"]["schemas"]) >= {"Thing", "Problem"}


def test_every_reference_leads_somewhere() -> None:
    whole = document(every_operation(), "/api/v1")
    for reference in set(re.findall(r'"\$ref":\s*"#/([^"]+)"', orjson.dumps(whole).decode())):
        found: Any = whole
        for part in reference.split("/"):
            found = found[part]
        assert found


def test_for_swagger_ui_the_document_is_said_in_3_0() -> None:
    older = as_openapi_3_0(document(every_operation(), "/api/v1"))
    text = orjson.dumps(older).decode()
    assert '"type":"null"' not in text and '"const"' not in text
    assert not re.search(r'"type":\[', text)
    assert not re.search(r'"exclusiveMinimum":\d', text)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    import bookstore.errors

    drawn = re.findall(r"(\w+) +(\d{3}) (\w+)", bookstore.errors.__doc__ or "")
    there = {(cls.__name__, str(cls.status), cls.error) for cls in every_error()}
    assert set(drawn) == there
    assert len({cls.error for cls in every_error()}) == len(every_error())
    assert all(cls.default_message().endswith((".", "`")) for cls in every_error())
    assert issubclass(NotFound, bookstore.errors.BookStoreError)
