"""Finding books by words through the front door, as people type them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookstore.catalogue.search import Vocabulary, understand

from .shop import Shop
from .test_reading import read

Api = TestClient[Any, Any]


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    shop.a_book("It", by=["Stephen King"], isbn="9780306406157", rating=4.2, rating_count=900)
    shop.a_book("It Girl", by=["Katy Birchall"])
    shop.a_book("Running with It", subtitle="A tale of two runners", by=["Robert O'Brien"])
    shop.a_book("The Gunslinger", by=["Stephen King"], series=("The Dark Tower", "1"), sku="dt/1")
    shop.a_book("The Waste Lands", by=["Stephen King"], series=("The Dark Tower", "3"))
    shop.a_book("Catch-22", by=["Joseph Heller"], subjects=[("keyword", "war", "War")])
    shop.a_book("Ziemia obiecana: Łódź", by=["Władysław Reymont"], sku="SKU-77")
    shop.a_book("The Soul in Nature", by=["Hans Christian Ørsted"])
    shop.a_book("Cien años de soledad", by=["Gabriel García Márquez"])
    shop.a_book("To Have or Have Not", by=["Somebody Else"])
    shop.a_book("百年の孤独", by=["ガルシア・マルケス"])
    shop.a_book("!!!", by=["Tommy Donbavand"])
    shop.a_book("Gone Running", archived=True)
    shop.learn_words()
    return shop


async def titles(api: Api, q: str, **filters: str) -> list[str]:
    return [book["title"] for book in (await read(api, "/books", params={"q": q, **filters}))["items"]]


async def test_words_find_what_people_mean_by_them(api: Api, stocked: Shop) -> None:
    expected = {
        "it": ["It"],  # a stop word; the title that is only this comes first
        "lodz": ["Ziemia obiecana: Łódź"],
        "ŁÓDŹ": ["Ziemia obiecana: Łódź"],
        "orsted": ["The Soul in Nature"],
        "garcia marquez": ["Cien años de soledad"],
        "MÁRQUEZ anos": ["Cien años de soledad"],
        "run": ["Running with It"],
        "runner": ["Running with It"],
        "o'brien": ["Running with It"],
        "O’Brien": ["Running with It"],
        "obrien": ["Running with It"],
        "catch-22": ["Catch-22"],
        "catch 22": ["Catch-22"],
        "war heller": ["Catch-22"],
        "孤独": ["百年の孤独"],
        "マルケス": ["百年の孤独"],
        '"dark tower" waste': ["The Waste Lands"],
        "tower -waste": ["The Gunslinger"],
        'tower -"waste lands"': ["The Gunslinger"],
        "-stephen tower": [],
        "to have or have not": ["To Have or Have Not"],
        "lodz OR orsted": ["Ziemia obiecana: Łódź", "The Soul in Nature"],
        "the": ["The Soul in Nature", "The Gunslinger", "The Waste Lands"],
        "!!!": ["!!!"],
        "gone": [],
    }
    for q, wanted in expected.items():
        found = await titles(api, q)
        if q in ("it", "run"):
            assert found[0] == wanted[0], q
        elif q in ("the", "lodz OR orsted"):
            assert set(found) >= set(wanted), q
        else:
            assert found == wanted, q


async def test_a_number_finds_its_book_first(api: Api, stocked: Shop) -> None:
    stocked.a_book("A book about 9780306406157 and 0306406152")
    for q in ("9780306406157", "978-0-306-40615-7", "0-306-40615-2", " 0306406152 "):
        assert (await titles(api, q))[0] == "It", q
    assert await titles(api, "dt/1") == ["The Gunslinger"]
    assert await titles(api, "SKU-77") == ["Ziemia obiecana: Łódź"]
    assert await titles(api, "sku-77") == ["Ziemia obiecana: Łódź"]
    assert await titles(api, "DT/1") == ["The Gunslinger"]


async def test_the_last_word_may_be_unfinished(api: Api, stocked: Shop) -> None:
    page = await read(api, "/books", params={"q": "dark tow"})
    assert {book["title"] for book in page["items"]} == {"The Gunslinger", "The Waste Lands"}
    assert (page["matched_by"], page["corrected"]) == ("prefix", False)
    # whole words come before their beginnings
    assert (await titles(api, "run"))[0] == "Running with It"
    assert await titles(api, "tow dark") == []


async def test_a_misspelt_word_is_corrected_when_nothing_else_matched(api: Api, stocked: Shop) -> None:
    for q, meant in [("gunslnger", "gunslinger"), ("garsia marqez", "garcia marquez"), ("reymnot", "reymont")]:
        page = await read(api, "/books", params={"q": q})
        assert (page["did_you_mean"], page["corrected"], page["matched_by"]) == (meant, True, "correction")
        assert len(page["items"]) == 1
    page = await read(api, "/books", params={"q": "xqzxqzxqz"})
    assert (page["items"], page["did_you_mean"], page["corrected"]) == ([], None, False)


async def test_a_correction_is_only_offered_when_something_matched(api: Api, stocked: Shop) -> None:
    stocked.a_book("Gunslngers")  # nobody has learnt this word yet
    page = await read(api, "/books", params={"q": "gunslnger"})
    assert [book["title"] for book in page["items"]] == ["Gunslngers"]
    assert (page["did_you_mean"], page["corrected"]) == ("gunslinger", False)


async def test_filters_do_not_make_a_right_word_wrong(api: Api, stocked: Shop) -> None:
    page = await read(api, "/books", params={"q": "gunslinger", "language": "fr"})
    assert (page["items"], page["did_you_mean"], page["corrected"]) == ([], None, False)


async def test_every_page_of_a_corrected_search_means_the_same(api: Api, stocked: Shop) -> None:
    for number in range(6):
        stocked.a_book(f"Gunslinger {number}")
    url, seen = "/api/v1/books?q=gunslingr&limit=2&sort=title", []
    while url:
        async with api.get(url) as answer:
            page = await answer.json()
        assert (page["did_you_mean"], page["corrected"]) == ("gunslinger", True)
        seen += [book["title"] for book in page["items"]]
        url = page["next"]
    assert seen == [*[f"Gunslinger {number}" for number in range(6)], "The Gunslinger"]


async def test_a_correction_that_finds_nothing_is_not_offered(api: Api, stocked: Shop) -> None:
    for q in ("gunslnger heller", "97803064061x7 heller"):  # no book has both
        page = await read(api, "/books", params={"q": q})
        assert (page["items"], page["did_you_mean"], page["matched_by"]) == ([], None, None)


async def test_the_word_or_in_a_title_is_a_word(api: Api, stocked: Shop) -> None:
    assert await titles(api, "have or ha") == ["To Have or Have Not"]
    assert await titles(api, "haev or not") == ["To Have or Have Not"]


async def test_a_better_known_book_comes_before_one_that_matches_alike(api: Api, shop: Shop) -> None:
    shop.a_book("Solaris", rating=4.0, rating_count=10)
    shop.a_book("Solaris", rating=4.0, rating_count=100_000)
    page = await read(api, "/books?q=solaris")
    assert [book["rating_count"] for book in page["items"]] == [100_000, 10]


async def test_no_syntax_is_an_error(api: Api, stocked: Shop) -> None:
    for q in [
        '"',
        '""',
        "-",
        "--",
        "OR",
        "or",
        "OR OR",
        '-"',
        '"a',
        "a:*",
        "!a & (b",
        "'",
        "''':*",
        "\\",
        "<->",
        ":",
        "a|b",
    ]:
        page = await read(api, "/books", params={"q": q})
        assert isinstance(page["items"], list), q


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    q=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
    | st.text("ab\"-OR '\\:*&|!()<>", max_size=30)
)
async def test_whatever_is_typed_is_answered(api: Api, stocked: Shop, q: str) -> None:
    await read(api, "/books", params={"q": q, "limit": "3"})
    await read(api, "/suggest", params={"q": q})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_every_query_has_a_meaning(q: str) -> None:
    meaning = understand(q)
    assert not set("&|!():*\\<>") & set(meaning.wanted + meaning.unwanted)
    assert meaning.params()["last"].count("'") in (0, 2)


class TestVocabulary:
    words = Vocabulary({"potter": 9, "pottery": 1, "peter": 90, "harry": 9, "larry": 1, "it": 5, "1984": 1})

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            (["harry", "potetr"], ["harry potter", "harry peter"]),
            (["hary", "poter"], ["harry peter", "harry potter", "harry pottery"]),
            (["harry", "potter"], []),
            (["barry"], ["harry", "larry"]),
            (["xx", "harryy"], ["xx harry", "xx larry"]),
            (["1985"], []),
            (["zzzzzz"], []),
            ([], []),
        ],
    )
    def test_the_nearest_words_are_offered_and_of_two_the_commoner_first(
        self, written: list[str], meant: list[str]
    ) -> None:
        assert self.words.corrections(written)[: len(meant) or None] == meant

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text("hary poterl", min_size=1, max_size=9), max_size=30))
    def test_there_are_never_many(self, written: list[str]) -> None:
        assert len(self.words.corrections(written)) <= 12


async def test_of_the_corrections_the_one_that_finds_books_is_meant(api: Api, shop: Shop) -> None:
    shop.a_book("Harry Potter")
    for number in range(3):
        shop.a_book(f"Peter {number}")
    shop.learn_words()
    page = await read(api, "/books?q=hary+poter")
    assert (page["did_you_mean"], [book["title"] for book in page["items"]]) == ("harry potter", ["Harry Potter"])


class TestSuggest:
    async def test_titles_authors_and_words_are_completed(self, api: Api, stocked: Shop) -> None:
        async def texts(q: str) -> list[tuple[str, str]]:
            body = await read(api, "/suggest", params={"q": q})
            return [(item["kind"], item["text"]) for item in body["items"]]

        assert ("title", "The Gunslinger") in await texts("the gun")
        assert ("title", "The Gunslinger") in await texts("gunsl")
        assert ("author", "Gabriel García Márquez") in await texts("garcia mar")
        assert ("author", "Gabriel García Márquez") in await texts("marq")
        assert ("word", "gunslinger") in await texts("gunsl")
        assert ("title", "百年の孤独") in await texts("百年")
        assert await texts("zzzz") == []
        assert await texts("") == []
        assert not any("Gone" in text for _, text in await texts("gone"))

    async def test_what_is_offered_finds_a_book(self, api: Api, stocked: Shop) -> None:
        stocked.a_book("Don Quijote de la Mancha", by=["Miguel de Cervantes"])
        stocked.a_book("Mar", by=["Somebody Madrigal"], archived=True)
        stocked.learn_words()
        offered: dict[str, list[str]] = {}
        for q in ("garcia ma", "garcia m", "ma", "stephen ru", "the gu", "som", "gone", "la man", "madr", "百 孤"):
            offered[q] = [item["text"] for item in (await read(api, "/suggest", params={"q": q}))["items"]]
            for text in offered[q]:
                page = await read(api, "/books", params={"q": text})
                assert page["items"], (q, text)
                assert not page["corrected"], (q, text)
        assert "garcia marquez" in offered["garcia ma"]
        assert "la mancha" in offered["la man"]

    async def test_there_are_at_most_eight_and_none_twice(self, api: Api, shop: Shop) -> None:
        for number in range(30):
            shop.a_book(f"Star {number % 20}", by=[f"Stara {number}"])
        shop.learn_words()
        items = (await read(api, "/suggest?q=star"))["items"]
        assert len(items) == 8
        assert len({(item["kind"], item["text"]) for item in items}) == 8
        assert {item["kind"] for item in items} >= {"title", "author"}
