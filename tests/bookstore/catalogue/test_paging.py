"""Pages by key: whatever the filters and the limits, every book once, in order, in both directions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookstore.catalogue.folding import key
from bookstore.metrics import METRICS
from bookstore.pagination import Position, encode_cursor
from bookstore.settings import SETTINGS

from .shop import Shop
from .test_reading import PREFIX, read

Api = TestClient[Any, Any]
MISSING = float("-inf")


@dataclass(frozen=True)
class Known:
    """What the test knows of a book it put there."""

    id: int
    title: str
    author: str
    language: str | None
    format: str | None
    published: int | None
    rating: float | None
    usd: int | None
    stock: int


def a_varied_shop(shop: Shop) -> list[Known]:
    """45 books in which every key repeats and every nullable one is missing somewhere."""
    chance = random.Random(20261120)
    books = []
    for number in range(45):
        title = chance.choice(["Alpha", "alpha", "Älpha", "Beta", "Gamma Ray", "It", f"Unique {number}"])
        author = chance.choice(["Ann Other", "Bo Łódź"])
        language = chance.choice(["en", "en", "fr", None])
        format = chance.choice(["BB", "BC", None])
        published = chance.choice([None, -20, 1999, 1999, 2020])
        rating = chance.choice([None, 0.0, 3.5, 3.5, 4.99])
        usd = chance.choice([None, 0, 999, 999, 1499])
        stock = chance.choice([0, 0, 1, 9])
        id = shop.a_book(
            title, by=[author], language=language, format=format, published=published, rating=rating,
            prices={} if usd is None else {"USD": usd, "JPY": 5}, stock=stock,
        )  # fmt: skip
        books.append(Known(id, title, author, language, format, published, rating, usd, stock))
    shop.a_book("Alpha", archived=True)
    return books


FILTERS: dict[str, tuple[st.SearchStrategy[str], Callable[[Known, str], bool]]] = {
    "author": (st.sampled_from(["ann", "lodz", "bo lodz"]), lambda b, v: set(v.split()) <= set(key(b.author).split())),
    "language": (st.sampled_from(["en", "fre"]), lambda b, v: b.language == v[:2]),
    "format": (st.sampled_from(["BB", "BC"]), lambda b, v: b.format == v),
    "in_stock": (st.sampled_from(["true", "false"]), lambda b, v: (b.stock > 0) is (v == "true")),
    "published_from": (
        st.integers(-30, 2021).map(str),
        lambda b, v: b.published is not None and b.published >= int(v),
    ),
    "published_to": (st.integers(-30, 2021).map(str), lambda b, v: b.published is not None and b.published <= int(v)),
    "currency": (st.just("USD"), lambda b, v: b.usd is not None),
    "price_min": (st.integers(0, 1500).map(str), lambda b, v: b.usd is not None and b.usd >= int(v)),
    "price_max": (st.integers(0, 1500).map(str), lambda b, v: b.usd is not None and b.usd <= int(v)),
    "q": (
        st.sampled_from(["alpha", "it", "lodz", "gamma ray", "uniq"]),
        lambda b, v: all(any(w.startswith(p) for w in key(f"{b.title} {b.author}").split()) for p in v.split()),
    ),
}
ORDER: dict[str, Callable[[Known], Any]] = {
    "title": lambda b: (key(b.title).encode(), b.id),
    "-published": lambda b: (-(b.published if b.published is not None else MISSING), -b.id),
    "-rating": lambda b: (-(b.rating if b.rating is not None else MISSING), -b.id),
    "price": lambda b: (b.usd, b.id),
    "-price": lambda b: (-(b.usd or 0), -b.id),
}


@st.composite
def lists_of_books(draw: st.DrawFn) -> dict[str, str]:
    names = draw(st.sets(st.sampled_from(sorted(FILTERS)), max_size=4))
    query = {name: draw(FILTERS[name][0]) for name in sorted(names)}
    sort = draw(st.sampled_from([None, "relevance", *ORDER]))
    if sort is not None:
        query["sort"] = sort
    if {"price_min", "price_max"} & query.keys() or (sort or "").endswith("price"):
        query["currency"] = "USD"
    return query


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=lists_of_books(), limits=st.lists(st.integers(1, 100), min_size=1, max_size=4))
async def test_forward_and_back_again_gives_every_book_once_and_in_order(
    api: Api, varied: list[Known], query: dict[str, str], limits: list[int]
) -> None:
    expected = [book for book in varied if all(FILTERS[n][1](book, v) for n, v in query.items() if n in FILTERS)]
    sort = query.get("sort", "relevance" if "q" in query else "title")
    forward: list[int] = []
    pages = 0
    turned = {**query}
    while True:
        limit = limits[pages % len(limits)]  # the limit may change between pages
        page = await read(api, "/books", params={**turned, "limit": str(limit)})
        assert len(page["items"]) <= limit
        forward += [int(book["id"]) for book in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        assert len(page["items"]) == limit
        turned = parameters(page["next"])
    assert sorted(forward) == sorted(book.id for book in expected)
    if sort in ORDER:
        assert forward == [book.id for book in sorted(expected, key=ORDER[sort])]
    elif "q" not in query:
        assert forward == [book.id for book in sorted(expected, key=ORDER["title"])]

    backward = [int(book["id"]) for book in page["items"]]
    while page["prev"] is not None:
        page = await read(api, "/books", params={**parameters(page["prev"]), "limit": str(limits[pages % len(limits)])})
        pages += 1
        backward = [int(book["id"]) for book in page["items"]] + backward
    assert backward == forward


def asked() -> int:
    """How many queries this process has made."""
    return sum(sum(series.counts) for series in METRICS.query_seconds.series.values())


@pytest.fixture
def varied(shop: Shop) -> list[Known]:
    books = a_varied_shop(shop)
    shop.learn_words()
    return books


def parameters(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    assert not parts.netloc
    assert parts.path == f"{PREFIX}/books"
    given = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
    given.pop("limit", None)
    return given


async def test_authors_and_subjects_are_paged_in_both_directions_too(api: Api, shop: Shop) -> None:
    for number in range(7):
        shop.a_book(f"Book {number}", by=[f"Author {number}", "Everybody"], subjects=[("thema", f"F{number}", "Same")])
    everybody = next(a for a in (await read(api, "/authors"))["items"] if a["name"] == "Everybody")
    for path in ("/authors", "/subjects", f"/authors/{everybody['id']}/books"):
        whole = (await read(api, path))["items"]
        url: str | None = f"{path}?limit=3"
        forward: list[Any] = []
        while url:
            page = await read(api, url.removeprefix(PREFIX))
            forward += page["items"]
            url, before = page["next"], page["prev"]
        assert forward == whole
        backward = page["items"]
        while before:
            page = await read(api, before.removeprefix(PREFIX))
            backward, before = page["items"] + backward, page["prev"]
        assert backward == whole


async def test_books_that_come_and_go_between_pages_shift_nothing(api: Api, shop: Shop) -> None:
    ids = [shop.a_book(title) for title in ("B", "D", "F", "H")]
    first = await read(api, "/books?limit=2")
    shop.a_book("A")
    shop.a_book("E")
    shop.execute(
        "UPDATE books SET archived_at = now() WHERE id = %(id)s", {"id": ids[1]}
    )  # the one the cursor is beside
    second = await read(api, first["next"].removeprefix(PREFIX))
    assert [book["title"] for book in second["items"]] == ["E", "F"]


async def test_the_link_header_says_what_the_page_says(api: Api, shop: Shop) -> None:
    for title in ("A", "B", "C"):
        shop.a_book(title, language="fr")
    first = await read(api, "/books?limit=1&language=fr")
    async with api.get(first["next"]) as answer:
        second = await answer.json()
        assert answer.headers["Link"] == f'<{second["next"]}>; rel="next", <{second["prev"]}>; rel="prev"'
    assert "language=fr" in second["next"]
    assert "limit=1" in second["next"]


async def test_a_cursor_is_worth_nothing_changed_or_with_another_list(api: Api, shop: Shop) -> None:
    for title in ("A", "B", "C"):
        shop.a_book(title, by=["Ann", "Bo", "Cy"], language="en")
    ann, bo, _ = (await read(api, "/authors"))["items"]
    mine = parameters((await read(api, "/books?limit=1&language=en"))["next"])
    cursor = mine["cursor"]
    ones = (await read(api, f"/authors/{ann['id']}/books?limit=1"))["next"].partition("cursor=")[2]
    middle = len(cursor) // 2
    for path, params in [
        ("/books", {"cursor": cursor}),
        ("/books", {**mine, "language": "fr"}),
        ("/books", {**mine, "sort": "title"}),
        ("/books", {**mine, "q": "a"}),
        ("/books", {**mine, "cursor": cursor[:-1]}),
        ("/books", {**mine, "cursor": cursor + "A"}),
        (
            "/books",
            {**mine, "cursor": cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]},
        ),
        ("/books", {**mine, "cursor": ""}),
        ("/books", {**mine, "cursor": "é"}),
        ("/authors", {"cursor": cursor}),
        ("/authors", {"cursor": ones}),
        (f"/authors/{bo['id']}/books", {"cursor": ones}),
    ]:
        assert (await read(api, path, status=400, params=params))["error"] == "invalid_cursor", (path, params)
    await read(api, f"/authors/{ann['id']}/books", params={"cursor": ones})


async def test_a_cursor_of_another_shape_though_signed_by_us_is_400(api: Api, shop: Shop) -> None:
    secret = api.app[SETTINGS].secret_key.get_secret_value().encode()  # as after an upgrade
    cursor = encode_cursor(secret, {"q": "it", "": f"{PREFIX}/books"}, Position("next", ("a", 1)))
    assert (await read(api, "/books", status=400, params={"q": "it", "cursor": cursor}))["error"] == "invalid_cursor"


async def test_a_list_makes_no_more_queries_for_a_hundred_items_than_for_one(api: Api, shop: Shop) -> None:
    async def queries_of(path: str) -> int:
        before = asked()
        await read(api, path)
        return asked() - before

    for number in range(110):
        shop.a_book(
            f"Star {number}", by=[f"Star {number}", ("B06", "Everybody")], prices={"USD": number, "EUR": 5}, stock=2,
            subjects=[("keyword", f"star {number}", f"Star {number}"), ("thema", "FBA", "Fiction")],
        )  # fmt: skip
    shop.learn_words()
    everybody = shop.a_contributor("Everybody")
    works = {editions: shop.a_work() for editions in (1, 100)}
    for editions, work in works.items():
        shop.execute(
            "UPDATE books SET work_id = %(work)s WHERE id IN (SELECT id FROM books ORDER BY id LIMIT %(editions)s"
            " OFFSET %(offset)s)",
            {"work": work, "editions": editions, "offset": 0 if editions == 1 else 1},
        )
    for path in (
        "/books?",
        "/books?q=star&",
        "/books?q=stra&",
        "/books?currency=USD&sort=-price&in_stock=true&author=star&subject=thema:F&",
        f"/authors/{everybody}/books?",
        "/authors?",
        "/subjects?",
    ):
        one, hundred = await queries_of(f"{path}limit=1"), await queries_of(f"{path}limit=100")
        assert hundred <= one <= 6, path
    one, hundred = [await queries_of(f"/works/{work}") for work in works.values()]
    assert hundred == one == 2
    for editions, work in works.items():
        assert len((await read(api, f"/works/{work}"))["editions"]) == editions
