"""Reading the catalogue through the front door."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from bookstore.catalogue.models import AuthorPage, Book, BookPage, LookupResult, SubjectPage, Work
from bookstore.catalogue.queries import CENSUS

from .shop import Shop

Api = TestClient[Any, Any]
PREFIX = "/api/v1"


async def read(api: Api, path: str, *, status: int = 200, **kwargs: Any) -> Any:
    async with api.get(f"{PREFIX}{path}", **kwargs) as answer:
        body = await answer.json()
        assert answer.status == status, body
        return body


def full(shop: Shop, **changes: Any) -> int:
    return shop.a_book(
        **{
            "title": "Cien años de soledad",
            "subtitle": "Edición conmemorativa",
            "isbn": "9780306406157",
            "by": ["Gabriel García Márquez", ("B06", "Gregory Rabassa")],
            "series": ("Clásicos", "3"),
            "publisher": "Sudamericana",
            "subjects": [("thema", "FBA", "Modern fiction"), ("keyword", "macondo", "Macondo")],
            "prices": {"USD": 1499, "JPY": 2200, "KWD": 4500},
            "stock": 3,
            "published": 1967,
            "published_on": date(1967, 5, 30),
            "rating": 4.07,
            "rating_count": 100,
            "language": "es",
            "format": "BB",
            **changes,
        }
    )


class TestOneBook:
    async def test_is_shown_whole(self, api: Api, shop: Shop) -> None:
        id = full(shop)
        book = await read(api, f"/books/{id}")
        Book.model_validate(book)
        updated_at, work_id = book.pop("updated_at"), book.pop("work_id")
        assert updated_at.endswith("Z")
        assert isinstance(work_id, str)
        people = {person["name"]: person for person in book.pop("contributors")}
        assert {name: person["role"] for name, person in people.items()} == {
            "Gabriel García Márquez": "A01",
            "Gregory Rabassa": "B06",
        }
        assert book == {
            "id": str(id),
            "isbn13": "9780306406157",
            "isbn10": "0306406152",
            "sku": None,
            "title": "Cien años de soledad",
            "subtitle": "Edición conmemorativa",
            "series": {"title": "Clásicos", "number": "3"},
            "publisher": "Sudamericana",
            "format": "BB",
            "availability": "20",
            "language": "es",
            "published": 1967,
            "published_on": "1967-05-30",
            "rating": 4.07,
            "rating_count": 100,
            "rating_source": "imported",
            "prices": [
                {"amount": 2200, "currency": "JPY"},
                {"amount": 4500, "currency": "KWD"},
                {"amount": 1499, "currency": "USD"},
            ],
            "stock": "low",
            "subjects": [
                {"id": "thema:FBA", "scheme": "thema", "code": "FBA", "heading": "Modern fiction"},
                {"id": "keyword:macondo", "scheme": "keyword", "code": "macondo", "heading": "Macondo"},
            ],
        }

    async def test_with_nothing_known_but_a_sku_and_a_title_is_shown_too(self, api: Api, shop: Shop) -> None:
        book = await read(api, f"/books/{shop.a_book(sku='only', language=None)}")
        Book.model_validate(book)
        assert book["sku"] == "only"
        assert book["prices"] == book["subjects"] == book["contributors"] == []
        assert book["stock"] == "out"

    async def test_shows_its_stock_as_a_word(self, api: Api, shop: Shop) -> None:
        for on_hand, allocated, word in ((0, 0, "out"), (5, 0, "low"), (6, 0, "in_stock"), (6, 6, "out")):
            id = shop.a_book(stock=on_hand)
            if allocated:
                shop.move(id, "allocated", allocated=allocated)
            book = await read(api, f"/books/{id}")
            assert book["stock"] == word
            assert not {"on_hand", "allocated", "available"} & set(book)

    async def test_is_not_sent_again_to_who_has_it(self, api: Api, shop: Shop) -> None:
        id = full(shop)
        async with api.get(f"{PREFIX}/books/{id}") as first:
            tag = first.headers["ETag"]
            assert first.headers["Cache-Control"] == "public, max-age=60, stale-while-revalidate=300"
        assert tag.startswith('"')
        async with api.get(f"{PREFIX}/books/{id}", headers={"If-None-Match": tag}) as again:
            assert again.status == 304
            assert again.headers["ETag"] == tag
            assert await again.read() == b""

    @pytest.mark.parametrize(
        "change",
        [
            lambda shop, id: shop.execute("UPDATE books SET title = 'X' WHERE id = %(id)s", {"id": id}),
            lambda shop, id: shop.price(id, "USD", 1),
            lambda shop, id: shop.move(id, "allocated", allocated=3),
        ],
        ids=["its title", "a price", "the last copy sold"],
    )
    async def test_has_another_tag_when_it_shows_something_else(self, api: Api, shop: Shop, change: Any) -> None:
        id = full(shop)
        async with api.get(f"{PREFIX}/books/{id}") as answer:
            tag, before = answer.headers["ETag"], await answer.json()
        change(shop, id)
        async with asyncio.timeout(10):
            while True:  # an answer may be a second old
                async with api.get(f"{PREFIX}/books/{id}", headers={"If-None-Match": tag}) as answer:
                    if answer.status == 200:
                        assert answer.headers["ETag"] != tag
                        assert await answer.json() != before
                        return
                await asyncio.sleep(0.05)

    async def test_that_never_was_is_404(self, api: Api, shop: Shop) -> None:
        shop.a_book()
        for id in ("999999999", "0", "01", "-1", "abc", "9" * 19, "9" * 30, "%F0%9F%93%9A", "1.0", "%20"):
            assert (await read(api, f"/books/{id}", status=404))["error"] == "not_found"

    async def test_that_is_archived_is_gone(self, api: Api, shop: Shop) -> None:
        id = full(shop, archived=True)
        assert (await read(api, f"/books/{id}", status=410))["error"] == "gone"
        await read(api, "/books/isbn/9780306406157", status=404)
        assert (await read(api, "/books"))["items"] == []

    async def test_is_found_by_its_isbn_however_written(self, api: Api, shop: Shop) -> None:
        id = full(shop)
        async with api.get(f"{PREFIX}/books/{id}") as answer:
            book, tag = await answer.json(), answer.headers["ETag"]
        for isbn in ("9780306406157", "978-0-306-40615-7", "0306406152", "0-306-40615-2"):
            async with api.get(f"{PREFIX}/books/isbn/{isbn}") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Location"] == f"{PREFIX}/books/{id}"
                assert (await answer.json(), answer.headers["ETag"]) == (book, tag)

    async def test_with_a_979_isbn_is_a_book_like_others(self, api: Api, shop: Shop) -> None:
        shop.a_book("Noir", isbn="9791090636071")
        book = await read(api, "/books/isbn/979-10-90636-07-1")
        assert (book["isbn13"], book["isbn10"]) == ("9791090636071", None)

    async def test_by_an_isbn_nobody_has_is_404_and_by_none_is_422(self, api: Api, shop: Shop) -> None:
        assert (await read(api, "/books/isbn/9780306406157", status=404))["error"] == "not_found"
        for wrong in ("9780306406158", "123", "abc", "4006381333931"):
            assert (await read(api, f"/books/isbn/{wrong}", status=422))["error"] == "invalid_isbn"


async def test_a_lookup_answers_every_isbn_in_its_place(api: Api, shop: Shop) -> None:
    id = full(shop)
    shop.a_book(isbn="9780804429573", archived=True)
    asked = ["0306406152", "rubbish", "9780804429573", "978-0-306-40615-7", "9791090636071"]
    async with api.post(f"{PREFIX}/books/lookup", json={"isbns": asked}) as answer:
        assert answer.status == 200
        body = await answer.json()
    LookupResult.model_validate(body)
    results = body["results"]
    assert [result["isbn"] for result in results] == asked
    assert [result["found"] for result in results] == [True, False, False, True, False]
    assert [result["isbn13"] for result in results][:3] == ["9780306406157", None, "9780804429573"]
    assert results[0]["book"]["id"] == results[3]["book"]["id"] == str(id)


@pytest.mark.parametrize(
    "body", [{}, {"isbns": ["1"] * 101}, {"isbns": "1"}, {"isbns": [1]}, {"isbns": [], "x": 1}, []]
)
async def test_a_lookup_of_something_else_is_422(api: Api, shop: Shop, body: Any) -> None:
    async with api.post(f"{PREFIX}/books/lookup", json=body) as answer:
        assert answer.status == 422
        assert (await answer.json())["error"] == "validation_failed"


class TestFilters:
    @pytest.fixture
    async def found(self, api: Api, shop: Shop) -> Any:
        shop.a_book(
            "A", by=["Gabriel García Márquez"], subjects=[("thema", "FBA", "Modern fiction")], language="es",
            format="BB", prices={"USD": 1000}, stock=1, published=1967,
        )  # fmt: skip
        shop.a_book(
            "B", by=["Hans Christian Ørsted", ("B06", "Gabriel García Márquez")], language="da", format="BC",
            subjects=[("thema", "FB", "Fiction"), ("keyword", "science fiction", "Science Fiction")],
            prices={"USD": 2000, "JPY": 300}, published=-750,
        )  # fmt: skip
        shop.a_book("C", subjects=[("bisac", "FIC000000", "FICTION / General")], stock=9, published=2001)
        shop.a_book("D", archived=True, by=["Gabriel García Márquez"], language="es", stock=5, published=1967)

        async def titles(query: str) -> str:
            page = await read(api, f"/books{query}")
            BookPage.model_validate(page)
            return "".join(book["title"] for book in page["items"])

        return titles

    async def test_narrow_and_order(self, found: Any) -> None:
        expected = {
            "": "ABC",
            "?author=garcia+marquez": "A",
            "?author=Márquez": "A",
            "?author=orsted": "B",
            "?author=nobody": "",
            "?author=!!!": "",
            "?author=99999999999999999999": "",
            "?subject=thema:FBA": "A",
            "?subject=thema:FB": "AB",
            "?subject=thema:fb": "AB",
            "?subject=FB": "B",
            "?subject=science+fiction": "B",
            "?subject=Science-Fiction": "B",
            "?subject=keyword:science+fiction": "B",
            "?subject=bisac:fic000000": "C",
            "?subject=THEMA:FBA": "A",
            "?subject=Thema:+fba": "A",
            "?subject=keyword:Science+Fiction": "B",
            "?subject=Keyword:SCIENCE-fiction": "B",
            "?subject=BISAC:FIC000000": "C",
            "?subject=fic000000": "C",
            "?subject=thema:": "",
            "?language=es": "A",
            "?language=spa": "A",
            "?language=es-MX": "A",
            "?language=xx": "",
            "?format=BC": "B",
            "?currency=JPY": "B",
            "?currency=jpy": "B",
            "?currency=QQQ": "",
            "?currency=USD&price_min=1000": "AB",
            "?currency=USD&price_min=1001": "B",
            "?currency=USD&price_max=1000": "A",
            "?currency=USD&price_min=5&price_max=4": "",
            "?currency=JPY&price_max=300": "B",
            "?in_stock=true": "AC",
            "?in_stock=false": "B",
            "?published_from=1967": "AC",
            "?published_to=1967": "AB",
            "?published_from=-750&published_to=-750": "B",
            "?published_from=1967&published_to=2000": "A",
            "?sort=-published": "CAB",
            "?sort=title&limit=2": "AB",
            "?sort=price&currency=USD": "AB",
            "?sort=-price&currency=USD": "BA",
            "?sort=relevance": "ABC",
            "?q=": "ABC",
            "?q=%20&author=%20&subject=%20": "ABC",
            "?author=%20%20orsted%20": "B",
            "?subject=%20thema:FBA%20": "A",
            "?author=marquez&language=es&format=BB&currency=USD&price_min=1&in_stock=true&published_to=1970": "A",
        }
        assert {query: await found(query) for query in expected} == expected

    async def test_an_author_may_be_named_by_id(self, api: Api, shop: Shop, found: Any) -> None:
        authors = await read(api, "/authors")
        orsted = next(author for author in authors["items"] if "Ørsted" in author["name"])
        assert await found(f"?author={orsted['id']}") == "B"

    async def test_that_are_none_are_422_and_named(self, api: Api) -> None:
        expected = {
            "?price_min=1": "/query/currency",
            "?price_max=1": "/query/currency",
            "?sort=price": "/query/currency",
            "?sort=-price": "/query/currency",
            "?sort=rating": "/query/sort",
            "?sort=title&sort=title": "/query/sort",
            "?in_stock=1": "/query/in_stock",
            "?in_stock=": "/query/in_stock",
            "?limit=0": "/query/limit",
            "?limit=101": "/query/limit",
            "?limit=2.0": "/query/limit",
            "?limit=%2020": "/query/limit",
            "?currency=US": "/query/currency",
            "?currency=USD&price_min=-1": "/query/price_min",
            "?currency=USD&price_min=99999999999999999999": "/query/price_min",
            "?published_from=10000": "/query/published_from",
            "?format=hardback": "/query/format",
            "?language=%20en": "/query/language",
            "?q=" + 200 * "x" + "%20": "/query/q",
            "?colour=red": "/query/colour",
            f"?q={'x' * 201}": "/query/q",
        }
        for query, pointer in expected.items():
            problem = await read(api, f"/books{query}", status=422)
            assert problem["error"] == "validation_failed"
            assert pointer in [error["pointer"] for error in problem["details"]["errors"]], query


async def test_a_parameter_that_does_not_exist_is_422_everywhere(api: Api, shop: Shop) -> None:
    id = full(shop)
    for path in (f"/books/{id}", "/books/isbn/9780306406157", "/works/1", "/authors", "/authors/1", "/authors/1/books",
                 "/subjects", "/suggest?q=a"):  # fmt: skip
        problem = await read(api, f"{path}{'&' if '?' in path else '?'}colour=red", status=422)
        assert problem["details"]["errors"][0]["pointer"] == "/query/colour"


async def test_what_is_not_known_comes_last(api: Api, shop: Shop) -> None:
    shop.a_book("Unknown")
    shop.a_book("Old", published=-3000, rating=0.0)
    shop.a_book("Dated", published=1999, published_on=date(1999, 12, 31), rating=4.5)
    shop.a_book("Undated", published=1999, rating=4.51)
    for sort, titles in [
        ("-published", ["Dated", "Undated", "Old", "Unknown"]),
        ("-rating", ["Undated", "Dated", "Old", "Unknown"]),
    ]:
        page = await read(api, f"/books?sort={sort}")
        assert [book["title"] for book in page["items"]] == titles


async def test_titles_are_in_the_order_of_their_folded_words(api: Api, shop: Shop) -> None:
    for title in ["Zebra", "Łódź", "'Salem's Lot", "apple", "Émile", "Lions", "1984"]:
        shop.a_book(title)
    page = await read(api, "/books")
    titles = [book["title"] for book in page["items"]]
    assert titles == ["1984", "apple", "Émile", "Lions", "Łódź", "'Salem's Lot", "Zebra"]


async def test_the_total_is_counted_when_asked_for(api: Api, shop: Shop) -> None:
    for number in range(7):
        shop.a_book(
            f"Book {number}", language="en" if number else "fr", by=["Everybody", f"Author {number % 3}"],
            subjects=[("keyword", f"subject {number % 4}", f"Subject {number % 4}")],
        )  # fmt: skip
    everybody = shop.a_contributor("Everybody")
    totals = {"/books?language=en&": 6, "/authors?": 4, "/subjects?": 4, f"/authors/{everybody}/books?": 7}
    for path, total in totals.items():
        async with api.get(f"{PREFIX}{path}limit=2", headers={"Prefer": "return=total-count"}) as answer:
            page = await answer.json()
            assert "Prefer" in answer.headers["Vary"]
            assert answer.headers["Preference-Applied"] == "return=total-count"
        assert (page["total"], page["total_is_capped"], len(page["items"])) == (total, False, 2), path
        async with api.get(page["next"], headers={"Prefer": "return=total-count"}) as answer:
            assert (await answer.json())["total"] == total, "on every page"
        async with api.get(f"{PREFIX}{path}limit=2") as answer:
            assert "total" not in await answer.json()
            assert "Prefer" in answer.headers["Vary"]
            assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize(
    ("prefer", "counted"),
    [
        (["return=total-count"], True),
        (['return="total-count"'], True),
        (['return="total\\-count"'], True),
        (["return = total-count; foo=1"], True),
        (['Return=total-count;foo="a, return=minimal"'], True),
        (["respond-async, return=total-count, wait=10"], True),
        (["respond-async", "return=total-count"], True),
        (['handling="a,b;return=minimal"', "return=total-count"], True),
        (["return=minimal, return=total-count"], False),  # the first counts
        (["return=minimal", "return=total-count"], False),
        (['foo="return=total-count"'], False),
        (['foo="', "return=total-count"], False),
        (["x; return=total-count"], False),
        (["return=total-counts"], False),
        (["return"], False),
        (["return total-count"], False),
        ([""], False),
        ([',;=,"\\'], False),
    ],
)
async def test_a_preference_is_read_as_rfc_7240_writes_it(
    api: Api, shop: Shop, prefer: list[str], counted: bool
) -> None:
    shop.a_book()
    async with api.get(f"{PREFIX}/authors", headers=[("Prefer", one) for one in prefer]) as answer:
        assert answer.status == 200
        assert ("total" in await answer.json()) is counted


async def test_a_total_stops_counting_at_its_cap(api: Api, shop: Shop) -> None:
    work = shop.a_work()
    shop.execute(
        "INSERT INTO books (work_id, sku, title, sort_title)"
        " SELECT %(work)s, 'many-' || n, 'Many', 'many' FROM generate_series(1, 10001) AS n",
        {"work": work},
    )
    async with api.get(f"{PREFIX}/books", headers={"Prefer": "return=total-count"}) as answer:
        page = await answer.json()
    assert (page["total"], page["total_is_capped"]) == (10_000, True)


class TestAround:
    async def test_a_work_has_its_editions_and_its_makers(self, api: Api, shop: Shop) -> None:
        work = shop.a_work("Solitude")
        shop.a_book("Old", work=work, by=["Gabriel García Márquez"], published=1967)
        shop.a_book("New", work=work, by=["Gabriel Garcia Marquez", ("B06", "Gregory Rabassa")], published=2014)
        shop.a_book("Gone", work=work, archived=True, published=2020)
        async with api.get(f"{PREFIX}/works/{work}") as answer:
            shown, tag = await answer.json(), answer.headers["ETag"]
        Work.model_validate(shown)
        assert [book["title"] for book in shown["editions"]] == ["New", "Old"]
        assert [person["name"] for person in shown["contributors"]] == ["Gabriel García Márquez"]
        async with api.get(f"{PREFIX}/works/{work}", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
        await read(api, "/works/999999999", status=404)
        await read(api, "/works/abc", status=404)

    async def test_authors_are_listed_with_their_books(self, api: Api, shop: Shop) -> None:
        shop.a_book("One", by=["Øyvind", ("B06", "Translator")])
        shop.a_book("Two", by=["Øyvind", "Adam"])
        shop.a_book("Gone", by=["Forgotten"], archived=True)
        page = await read(api, "/authors")
        AuthorPage.model_validate(page)
        assert [(author["name"], author["books"]) for author in page["items"]] == [("Adam", 1), ("Øyvind", 2)]
        id = page["items"][1]["id"]
        assert await read(api, f"/authors/{id}") == page["items"][1]
        books = await read(api, f"/authors/{id}/books?limit=1")
        assert [book["title"] for book in books["items"]] == ["One"]
        async with api.get(books["next"]) as answer:
            assert [book["title"] for book in (await answer.json())["items"]] == ["Two"]
        for path in ("/authors/999999999", "/authors/x", "/authors/999999999/books", "/authors/x/books"):
            await read(api, path, status=404)

    async def test_who_is_an_author_is_one_answer_everywhere(self, api: Api, shop: Shop) -> None:
        """By list 17: those who make a work; else who edited it; never who serves it. The banner counts the same."""
        parts = {
            "Writer": "A01", "With": "A02", "Compiler": "C01", "Libretto": "A04", "Comic": "A45",
            "Illustrator": "A12", "Preface": "A15", "Narrator": "E07", "Translator": "B06", "Editor": "B01",
        }  # fmt: skip
        shop.a_book("Everybody's", by=[(role, name) for name, role in parts.items()])
        shop.a_book("Tales", by=[("B01", "Anthologist"), ("B06", "Translator"), ("C02", "Selector")])
        shop.a_book("Pictures", by=[("A12", "Illustrator")])
        shop.a_book("Gone", by=["Forgotten"], archived=True)
        authors = {"Writer", "With", "Compiler", "Libretto", "Comic", "Anthologist", "Selector"}

        listed = (await read(api, "/authors"))["items"]
        assert {author["name"] for author in listed} == authors
        for name in {*parts, "Anthologist", "Selector"}:
            found = (await read(api, "/books", params={"author": name}))["items"]
            assert bool(found) == (name in authors), name
            by_id = (await read(api, "/books", params={"author": shop.a_contributor(name)}))["items"]
            assert [book["id"] for book in by_id] == [book["id"] for book in found]
            for book in found:
                work = await read(api, f"/works/{book['work_id']}")
                assert name in {person["name"] for person in work["contributors"]}
                assert authors >= {person["name"] for person in work["contributors"]}
        with shop.db.cursor() as cursor:
            cursor.execute(CENSUS)
            assert cursor.fetchone() == (4, 4, len(listed))

    async def test_a_translator_has_a_page_and_books_of_their_own(self, api: Api, shop: Shop) -> None:
        book = await read(api, f"/books/{shop.a_book('One', by=['Author', ('B06', 'Translator')])}")
        translator = book["contributors"][1]
        assert (await read(api, f"/authors/{translator['id']}"))["name"] == "Translator"
        assert len((await read(api, f"/authors/{translator['id']}/books"))["items"]) == 1

    async def test_subjects_are_listed_and_their_ids_are_filters(self, api: Api, shop: Shop) -> None:
        shop.a_book("One", subjects=[("thema", "FBA", "Modern fiction"), ("keyword", "ete", "Été")])
        shop.a_book("Two", subjects=[("thema", "FBA", "Modern fiction")])
        shop.a_book("Gone", subjects=[("bisac", "X", "Forgotten")], archived=True)
        page = await read(api, "/subjects")
        SubjectPage.model_validate(page)
        assert [(subject["heading"], subject["books"]) for subject in page["items"]] == [
            ("Été", 1),
            ("Modern fiction", 2),
        ]
        for subject in page["items"]:
            found = await read(api, "/books", params={"subject": subject["id"]})
            assert len(found["items"]) == subject["books"]
