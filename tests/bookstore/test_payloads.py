"""What is read at the edge, and what is refused there."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from bookstore.errors import BookStoreError, Invalid, MalformedJson
from bookstore.openapi import Routes
from bookstore.payloads import (
    Money,
    Payload,
    as_json,
    parse_json,
    read_body,
    read_path,
    read_query,
    respond,
)
from tests.bookstore.conftest import Client, serving
from tests.conftest import Environ


class Order(Payload):
    price: Money
    titles: list[str] = Field(default_factory=list, max_length=3)


class Filter(Payload):
    q: str | None = None
    year: int | None = None
    tag: list[str] = Field(default_factory=list)


class Place(BaseModel):
    id: Annotated[str, Field(max_length=5)]


@pytest.fixture
async def client(module_database_url: str, environ: Environ, runtime_dir: Path) -> AsyncIterator[Client]:
    routes = Routes()

    @routes.post("/orders", body=Order)
    async def order(request: web.Request) -> web.Response:
        return respond(await read_body(request, Order), status=201, location="/orders/1", cache="private")

    @routes.get("/filter", query=Filter)
    async def search(request: web.Request) -> web.Response:
        return respond(read_query(request, Filter))

    @routes.get("/places/{id}", path_model=Place)
    async def place(request: web.Request) -> web.Response:
        return respond({"id": read_path(request, Place).id})

    async with serving(environ(module_database_url, runtime_dir=runtime_dir), more=routes) as client:
        yield client


async def refusal(client: Client, body: bytes | str, **headers: str) -> tuple[int, str, dict[str, str]]:
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with client.post("/orders", data=body, headers=sent) as answer:
        problem = await answer.json(content_type="application/problem+json")
        listed = (problem["details"] or {}).get("errors", [])
        return answer.status, problem["error"], {each["pointer"]: each["detail"] for each in listed}


async def test_a_body_becomes_its_model(client: Client) -> None:
    async with client.post("/orders", json={"price": {"amount": 5, "currency": "USD"}, "titles": [" It "]}) as answer:
        assert answer.status == 201
        assert await answer.json() == {"price": {"amount": 5, "currency": "USD"}, "titles": ["It"]}
        assert answer.headers["Location"] == "/orders/1"
        assert answer.headers["Cache-Control"] == "private, no-store"


async def test_what_does_not_fit_is_422_with_a_pointer_to_each_place(client: Client) -> None:
    status, error, places = await refusal(
        client, json.dumps({"price": {"amount": -1, "currency": "usd"}, "extra~/": 1})
    )
    assert (status, error) == (422, "validation_failed")
    assert set(places) == {"/price/amount", "/price/currency", "/extra~0~1"}


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "{'a': 1}", "[1,]", "NaN", '{"a": Infinity}', b"\xff\xfe", b"\xed\xa0\x80", "[" * 9000),
        *('{"titles": []}'.encode(coding) for coding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig")),
    ],
)
async def test_what_is_no_json_is_400(client: Client, body: bytes | str) -> None:
    status, error, _ = await refusal(client, body)
    assert (status, error) == (400, "malformed_json")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"titles": ["a\\u0000b"]}', "/titles/0"),
        ('{"titles": ["\\ud800"]}', "/titles/0"),
        ('{"price": {"\\udfff": 1}}', "/price"),
    ],
)
async def test_text_nobody_can_store_is_422_where_it_stands(client: Client, body: str, pointer: str) -> None:
    status, error, places = await refusal(client, body)
    assert (status, error, set(places)) == (422, "validation_failed", {pointer})


async def test_another_kind_of_body_is_415(client: Client) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "image/json",
        "nonsense",
    ):
        assert (await refusal(client, "{}", Content_Type=kind))[:2] == (415, "unsupported_media_type")


async def test_a_body_that_is_too_large_is_413(client: Client) -> None:
    assert (await refusal(client, b"[" + b" " * 1024 * 1024 + b"]"))[:2] == (413, "body_too_large")


async def test_a_body_that_breaks_its_own_encoding_is_400(client: Client) -> None:
    status, error, _ = await refusal(client, b"this is no gzip", Content_Encoding="gzip")
    assert (status, error) == (400, "bad_request")


async def test_a_body_may_be_packed_in_ways_we_can_undo_and_no_other(client: Client) -> None:
    order = json.dumps({"price": {"amount": 5, "currency": "USD"}}).encode()
    for packed, encoding in ((order, "identity"), (gzip.compress(order), "gzip"), (gzip.compress(order), "GZip")):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        async with client.post("/orders", data=packed, headers=headers) as answer:
            assert answer.status == 201, encoding
    for unknown in ("br", "zstd", "compress", "gzip, gzip", "nonsense"):
        headers = {"Content-Type": "application/json", "Content-Encoding": unknown}
        async with client.post("/orders", data=order, headers=headers) as answer:
            assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "gzip, deflate"), unknown


async def test_a_query_becomes_its_model(client: Client) -> None:
    async with client.get("/filter?q=a+b&year=-5&tag=x&tag=y") as answer:
        assert await answer.json() == {"q": "a b", "year": -5, "tag": ["x", "y"]}


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("nonsense=1&year=soon", {"/query/nonsense", "/query/year"}),
        ("q=1&q=2", {"/query/q"}),
        ("q=a%00b", {"/query/q"}),
        ("a/b~=1", {"/query/a~1b~0"}),
    ],
)
async def test_unknown_repeated_and_wrong_parameters_are_422(client: Client, query: str, pointers: set[str]) -> None:
    async with client.get(f"/filter?{query}") as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["error"]) == (422, "validation_failed")
        assert {each["pointer"] for each in problem["details"]["errors"]} == pointers


async def test_paths_are_checked_too(client: Client) -> None:
    async with client.get("/places/abc") as answer:
        assert await answer.json() == {"id": "abc"}
    async with client.get("/places/abcdefg") as answer:
        assert answer.status == 422
        assert (await answer.json(content_type=None))["details"]["errors"][0]["pointer"] == "/path/id"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    try:
        document = parse_json(raw)
    except (MalformedJson, Invalid):
        return
    assert json.loads(raw.decode("utf-8")) == document


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(exclude_categories=()))),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES)
def test_a_document_is_read_as_it_was_meant_unless_it_cannot_be_stored(document: Any) -> None:
    raw = json.dumps(document).encode()
    try:
        assert parse_json(raw) == document
    except BookStoreError as refused:
        assert refused.status == 422
        assert b"\\u0000" in raw or b"\\ud" in raw
    else:
        assert b"\\u0000" not in raw


def test_money_is_integer_minor_units() -> None:
    assert as_json({"price": Money(amount=1299, currency="USD")}) == b'{"price":{"amount":1299,"currency":"USD"}}'
    for wrong in (
        {"amount": 12.99, "currency": "USD"},
        {"amount": "5", "currency": "USD"},
        {"amount": 1, "currency": "$"},
    ):
        with pytest.raises(ValidationError):
            Money.model_validate(wrong)
