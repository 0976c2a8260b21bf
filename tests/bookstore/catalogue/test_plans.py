"""What a page costs, in blocks PostgreSQL reads and not in milliseconds: a busy machine changes nothing here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from bookstore.catalogue.browse import browse, fetch_page
from bookstore.catalogue.models import BookQuery
from bookstore.catalogue.queries import AUTHORS, SHOWN_AUTHORS
from bookstore.catalogue.search import matches, understand
from bookstore.pagination import Position

from .shop import Shop

BOOKS = 10_000
DEEP = 400 * 20


class Explaining:
    """Stands where a connection does, and answers with what the statement would read."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def fetch_all(self, sql: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        for _ in range(2):  # the first time also fills PostgreSQL's caches
            plan = self._shop.value(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
        return [plan[0]["Plan"]]


@pytest.fixture(scope="module")
def full_shop(module_database_url: str) -> Iterator[Shop]:
    with closing(Shop(module_database_url)) as shop:
        shop.execute(
            """
            INSERT INTO works (title, sort_title) VALUES ('Work', 'work');
            INSERT INTO contributors (name, name_key, sort_key)
                SELECT 'Author ' || n, 'author ' || n, 'author ' || n FROM generate_series(1, 10000) AS n;
            INSERT INTO books (work_id, sku, title, sort_title, language, published_year, rating, rating_source)
                SELECT 1, 'sku-' || n, 'Title ' || n % 997, 'title ' || n % 997, 'en', nullif(n % 300, 0) + 1700,
                    (n % 500) / 100.0, 'imported' FROM generate_series(1, 10000) AS n;
            INSERT INTO book_contributors SELECT id, 1, id, 'A01' FROM books;
            INSERT INTO prices (book_id, currency, exponent, amount) SELECT id, 'USD', 2, 1499 FROM books;
            INSERT INTO stock_movements (book_id, kind, on_hand_change) SELECT id, 'received', 10 FROM books;
            """
        )
        shop.execute("VACUUM ANALYZE")
        yield shop


@pytest.mark.parametrize(
    ("query", "key", "order"),
    [
        ({}, "sort_title, id", "sort_title, id"),
        ({"sort": "-published"}, "published_key, id", "published_key DESC, id DESC"),
        ({"sort": "-rating"}, "rating_key::text, id", "rating_key DESC, id DESC"),
        ({"sort": "price", "currency": "USD"}, "1499, id", "id"),
        ({"sort": "-price", "currency": "USD"}, "1499, id", "id DESC"),
        ({"language": "en"}, "sort_title, id", "sort_title, id"),
        ({"in_stock": "true"}, "sort_title, id", "sort_title, id"),
    ],
    ids=str,
)
async def test_page_400_reads_no_more_than_page_1(full_shop: Shop, query: dict[str, str], key: str, order: str) -> None:
    with full_shop.db.cursor() as cursor:
        cursor.execute(f"SELECT {key} FROM books ORDER BY {order} OFFSET {DEEP} LIMIT 1")
        deep = cursor.fetchone()
    assert deep is not None
    wanted = BookQuery.model_validate(query)

    async def plan_at(position: Position | None) -> dict[str, Any]:
        return (await browse(None, Explaining(full_shop), wanted, position)).rows[0]  # type: ignore[arg-type]

    first, after, before = (
        await plan_at(None),
        await plan_at(Position("next", deep)),
        await plan_at(Position("prev", deep)),
    )
    for plan in (after, before):
        assert plan["Actual Rows"] == first["Actual Rows"] == 21
        assert read(plan) <= 1.5 * read(first)
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan) if node.get("Relation Name") == "books"}


@pytest.mark.parametrize("sku", ["sku-7654", "SKU-7654"])
def test_a_number_is_found_by_an_index_in_any_case(full_shop: Shop, sku: str) -> None:
    meaning = understand(sku)
    sql = f"SELECT id FROM books b WHERE b.archived_at IS NULL AND {matches(meaning, 'words')}"
    with full_shop.db.cursor() as cursor:
        cursor.execute(sql, meaning.params())
        assert len(cursor.fetchall()) == 1
    plan = full_shop.value(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", meaning.params())[0]["Plan"]
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
    assert read(plan) <= 30


async def test_the_last_authors_read_no_more_than_the_first(full_shop: Shop) -> None:
    async def plan_at(position: Position | None) -> dict[str, Any]:
        return (
            await fetch_page(Explaining(full_shop), AUTHORS, {}, shown=SHOWN_AUTHORS, limit=20, position=position)  # type: ignore[arg-type]
        )[0]

    first, deep = await plan_at(None), await plan_at(Position("next", ("author 9", 9)))
    assert read(deep) <= 1.5 * read(first)


def read(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
