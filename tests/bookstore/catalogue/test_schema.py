"""What the database itself refuses, whoever writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum.ean import calc_check_digit

from bookstore.catalogue.currencies import EXPONENTS, minor_units
from bookstore.catalogue.isbn import normalise_isbn
from bookstore.catalogue.search import search_text

from .shop import Shop


@pytest.fixture(scope="module")
def shop(module_database_url: str) -> Iterator[Shop]:
    with closing(Shop(module_database_url)) as shop:
        yield shop


@settings(max_examples=200, deadline=None)
@given(
    st.from_regex(r"97[89][0-9]{10}", fullmatch=True)
    | st.from_regex(r"979[01][0-9]{8}", fullmatch=True).map(lambda digits: digits + calc_check_digit(digits))
    | st.text("0123456789X-", min_size=9, max_size=14)
    | st.text(max_size=15)
)
def test_the_database_and_the_application_agree_on_what_an_isbn_13_is(shop: Shop, text: str) -> None:
    in_python = len(text) == 13 and normalise_isbn(text) == text
    text = text.replace("\0", "").encode("utf-8", "ignore").decode()
    assert shop.value("SELECT isbn13_is_valid(%(text)s)", {"text": text}) is in_python


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("isbn13", "9780306406158"),
        ("isbn13", "0306406152"),
        ("isbn13", "9790260000438"),
        ("format", "hardback"),
        ("availability", "in stock"),
        ("language", "EN"),
        ("rating", 5.5),
        ("published_year", 10_000),
        ("published_on", date(1999, 1, 1)),
        ("series_number", "1"),
        ("title", ""),
        ("sku", None),
    ],
)
def test_a_book_with_a_wrong_value_is_refused(shop: Shop, column: str, value: object) -> None:
    book = shop.a_book(published=2001)
    with pytest.raises(psycopg2.errors.CheckViolation):
        shop.execute(f"UPDATE books SET {column} = %(value)s WHERE id = %(id)s", {"value": value, "id": book})


def test_an_isbn_and_a_sku_name_one_book_each(shop: Shop) -> None:
    shop.a_book(isbn="9780306406157", sku="one")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        shop.a_book(isbn="9780306406157", sku="another")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        shop.a_book(sku="one")


def test_the_currencies_of_the_database_are_those_of_the_application(shop: Shop) -> None:
    with shop.db.cursor() as cursor:
        cursor.execute("SELECT code, exponent FROM currencies")
        assert dict(cursor.fetchall()) == EXPONENTS


def test_a_price_with_the_wrong_decimals_is_refused(shop: Shop) -> None:
    book = shop.a_book()
    for currency, exponent, amount, refusal in [
        ("JPY", 2, 100, psycopg2.errors.ForeignKeyViolation),
        ("XXX", 2, 100, psycopg2.errors.ForeignKeyViolation),
        ("KWD", 2, 100, psycopg2.errors.ForeignKeyViolation),
        ("USD", 2, -1, psycopg2.errors.CheckViolation),
    ]:
        with pytest.raises(refusal):
            shop.execute(
                "INSERT INTO prices (book_id, currency, exponent, amount) VALUES (%(b)s, %(c)s, %(e)s, %(a)s)",
                {"b": book, "c": currency, "e": exponent, "a": amount},
            )


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("14.99", "USD", 1499),
        ("15", "JPY", 15),
        ("1.234", "KWD", 1234),
        ("0", "EUR", 0),
        ("1E+2", "EUR", 10000),
        ("1.2345", "CLF", 12345),
        ("0.0001", "UYW", 1),
    ],
)
def test_a_price_is_read_by_the_decimals_of_its_currency(amount: str, currency: str, units: int) -> None:
    from decimal import Decimal

    assert minor_units(Decimal(amount), currency) == units


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("1.5", "JPY"),
        ("1.999", "USD"),
        ("-1", "USD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        ("1E+30", "USD"),
        ("1", "XXX"),
    ],
)
def test_a_price_is_never_rounded_or_guessed(amount: str, currency: str) -> None:
    from decimal import Decimal

    with pytest.raises(ValueError, match=r"\w"):
        minor_units(Decimal(amount), currency)


class TestStock:
    def test_the_counter_is_written_by_the_ledger_only(self, shop: Shop) -> None:
        book = shop.a_book(stock=3)
        for sql in (
            "UPDATE stock SET on_hand = 100 WHERE book_id = %(id)s",
            "DELETE FROM stock WHERE book_id = %(id)s",
            "UPDATE stock_movements SET on_hand_change = 100 WHERE book_id = %(id)s",
            "DELETE FROM stock_movements WHERE book_id = %(id)s",
        ):
            with pytest.raises(psycopg2.errors.RestrictViolation, match="insert a row into stock_movements"):
                shop.execute(sql, {"id": book})
        assert _stock(shop, book) == (3, 0)

    def test_what_is_promised_is_never_more_than_there_is(self, shop: Shop) -> None:
        book = shop.a_book(stock=3)
        shop.move(book, "allocated", allocated=3)
        for kind, on_hand, allocated in [("allocated", 0, 1), ("adjusted", -1, 0), ("released", 0, -4)]:
            with pytest.raises(psycopg2.errors.CheckViolation):
                shop.move(book, kind, on_hand=on_hand, allocated=allocated, reason="a test")
        shop.move(book, "shipped", on_hand=-2, allocated=-2)
        shop.move(book, "released", allocated=-1)
        assert _stock(shop, book) == (1, 0)

    @pytest.mark.parametrize(
        ("kind", "on_hand", "allocated"),
        [("received", -1, 0), ("received", 0, 0), ("adjusted", 1, 0), ("shipped", -1, 0), ("lost", -1, 0)],
    )
    def test_a_movement_means_what_it_says(self, shop: Shop, kind: str, on_hand: int, allocated: int) -> None:
        book = shop.a_book(stock=3)
        with pytest.raises(psycopg2.errors.CheckViolation):
            shop.move(book, kind, on_hand=on_hand, allocated=allocated)

    def test_the_ledger_adds_up_to_the_counter_under_unsorted_concurrent_movements(
        self, shop: Shop, module_database_url: str
    ) -> None:
        books = [shop.a_book(stock=50) for _ in range(5)]
        failures: list[Exception] = []

        def move(lines: list[int]) -> None:
            with closing(Shop(module_database_url)) as other:
                for _ in range(20):
                    try:
                        other.execute(
                            "INSERT INTO stock_movements (book_id, kind, allocated_change)"
                            " SELECT book, 'allocated', 1 FROM unnest(%(lines)s::bigint[]) AS book",
                            {"lines": lines},
                        )
                    except psycopg2.errors.CheckViolation:
                        pass
                    except Exception as failure:
                        failures.append(failure)

        threads = [
            threading.Thread(target=move, args=(lines,)) for lines in (books, books[::-1], books[2:] + books[:2])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []  # no deadlock, though the lines were not sorted
        for book in books:
            assert _stock(shop, book) == (50, 50)
            assert shop.value(
                "SELECT sum(on_hand_change)::int = 50 AND sum(allocated_change)::int = 50"
                " FROM stock_movements WHERE book_id = %(id)s",
                {"id": book},
            )


class TestVersions:
    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE books SET title = 'Another' WHERE id = %(id)s",
            "UPDATE prices SET amount = 2 WHERE book_id = %(id)s",
            "DELETE FROM prices WHERE book_id = %(id)s",
            "DELETE FROM book_contributors WHERE book_id = %(id)s",
            "UPDATE book_contributors SET role = 'B06' WHERE book_id = %(id)s",
            "DELETE FROM book_subjects WHERE book_id = %(id)s",
            "INSERT INTO prices (book_id, currency, exponent, amount) VALUES (%(id)s, 'JPY', 0, 7)",
        ],
    )
    def test_every_change_of_what_is_shown_raises_the_version(self, shop: Shop, sql: str) -> None:
        book = shop.a_book(by=["Somebody"], subjects=[("keyword", "it", "It")], prices={"USD": 1})
        before = _version(shop, book)
        shop.execute(sql, {"id": book})
        assert _version(shop, book) == before + 1

    def test_what_is_written_with_the_book_does_not_raise_it(self, shop: Shop) -> None:
        shop.execute("BEGIN")
        book = shop.a_book(by=["Somebody"], subjects=[("keyword", "it", "It")], prices={"USD": 1, "EUR": 1}, stock=1)
        shop.execute("COMMIT")
        assert _version(shop, book) == 1

    def test_a_sale_is_no_new_version(self, shop: Shop) -> None:
        book = shop.a_book(stock=2)
        shop.move(book, "allocated", allocated=1)
        assert _version(shop, book) == 1


def test_the_vocabulary_is_written_only_where_it_changed(shop: Shop) -> None:
    book = shop.a_book("Zymurgy and zythum", by=["Zyzzyva Q. Xylophone"])
    assert shop.learn_words() >= 4
    assert shop.learn_words() == 0
    assert shop.value("SELECT books FROM search_words WHERE word = 'zymurgy'") == 1
    shop.execute("UPDATE books SET archived_at = now() WHERE id = %(id)s", {"id": book})
    assert shop.learn_words() > 0
    assert shop.value("SELECT books FROM search_words WHERE word = 'zymurgy'") is None


def test_a_search_document_weighs_titles_over_contributors_over_the_rest(shop: Shop) -> None:
    text = search_text(
        "Running It", subtitle="A Tale", series="The Łódź Cycle", contributors=["Ørsted"], subjects=["Fiction"]
    )
    document = shop.value(
        "SELECT search_document(%(a)s, %(b)s, %(c)s, %(d)s)::text", dict(zip("abcd", text, strict=True))
    )
    for lexeme in ("'run':", "'running':", "'it':", "'orsted':", "'lodz':", "'fiction':"):
        assert lexeme in document
    weight = {entry.split(":")[0]: entry[-1] for entry in document.split()}
    assert (weight["'it'"], weight["'orsted'"]) == ("A", "B")


def _stock(shop: Shop, book: int) -> tuple[int, int]:
    with shop.db.cursor() as cursor:
        cursor.execute("SELECT on_hand, allocated FROM stock WHERE book_id = %(id)s", {"id": book})
        row = cursor.fetchone()
        assert row is not None
        return row


def _version(shop: Shop, book: int) -> int:
    return int(shop.value("SELECT version FROM books WHERE id = %(id)s", {"id": book}))
