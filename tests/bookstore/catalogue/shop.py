"""A shop to try things on: books put into the database by name, as an import would put them there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import psycopg2.extensions

from bookstore.catalogue.currencies import EXPONENTS
from bookstore.catalogue.folding import key, name_sort_key
from bookstore.catalogue.search import REFRESH_WORDS, search_text
from bookstore.database import connect_blocking


class Shop:
    def __init__(self, url: str) -> None:
        self.db: psycopg2.extensions.connection = connect_blocking(url)
        self.db.autocommit = True
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self.db.close()

    def a_book(
        self,
        title: str = "A Book",
        *,
        isbn: str | None = None,
        sku: str | None = None,
        subtitle: str | None = None,
        by: Sequence[str | tuple[str, str]] = (),
        work: int | None = None,
        series: tuple[str, str | None] | None = None,
        publisher: str | None = None,
        subjects: Sequence[tuple[str, str, str]] = (),
        prices: Mapping[str, int] | None = None,
        stock: int = 0,
        published: int | None = None,
        published_on: date | None = None,
        rating: float | None = None,
        rating_count: int | None = None,
        language: str | None = "en",
        format: str | None = None,
        archived: bool = False,
    ) -> int:
        """Its id. `by` names authors, or (role, name); `subjects` are (scheme, code, heading)."""
        if isbn is None and sku is None:
            sku = f"test-{next(self._numbers)}"
        people = [(one, "A01") if isinstance(one, str) else (one[1], one[0]) for one in by]
        text = search_text(
            title,
            subtitle=subtitle,
            series=series[0] if series else None,
            contributors=[name for name, _ in people],
            subjects=[heading for _, _, heading in subjects],
        )
        book_id = self.value(
            """
            INSERT INTO books (
                work_id, isbn13, sku, title, subtitle, sort_title, series_id, series_number, publisher_id, language,
                format, published_year, published_on, rating, rating_count, rating_source, archived_at, search
            ) VALUES (
                %(work)s, %(isbn)s, %(sku)s, %(title)s, %(subtitle)s, %(key)s, %(series)s, %(number)s, %(publisher)s,
                %(language)s, %(format)s, %(published)s, %(published_on)s, %(rating)s, %(rating_count)s,
                CASE WHEN %(rating)s IS NOT NULL THEN 'imported' END, CASE WHEN %(archived)s THEN now() END,
                search_document(%(words)s, %(people)s, %(extra)s, %(about)s)
            )
            RETURNING id
            """,
            {
                "work": work or self.a_work(title),
                "isbn": isbn,
                "sku": sku,
                "title": title,
                "subtitle": subtitle,
                "key": key(title),
                "series": self._named("series", "title", series[0]) if series else None,
                "number": series[1] if series else None,
                "publisher": self._named("publishers", "name", publisher) if publisher else None,
                "language": language,
                "format": format,
                "published": published,
                "published_on": published_on,
                "rating": rating,
                "rating_count": rating_count,
                "archived": archived,
                "words": text.title,
                "people": text.contributors,
                "extra": text.extra,
                "about": text.subjects,
            },
        )
        for position, (name, role) in enumerate(people, 1):
            self.value(
                "INSERT INTO book_contributors VALUES (%(book)s, %(position)s, %(who)s, %(role)s) RETURNING 1",
                {"book": book_id, "position": position, "who": self.a_contributor(name), "role": role},
            )
        for scheme, code, heading in subjects:
            self.value(
                "INSERT INTO book_subjects VALUES (%(book)s, %(subject)s) RETURNING 1",
                {"book": book_id, "subject": self.a_subject(scheme, code, heading)},
            )
        for currency, amount in (prices or {}).items():
            self.price(book_id, currency, amount)
        if stock:
            self.receive(book_id, stock)
        return int(book_id)

    def a_work(self, title: str = "A Work") -> int:
        return int(
            self.value(
                "INSERT INTO works (title, sort_title) VALUES (%(title)s, %(key)s) RETURNING id",
                {"title": title, "key": key(title)},
            )
        )

    def a_contributor(self, name: str) -> int:
        return int(
            self.value(
                "INSERT INTO contributors (name, name_key, sort_key) VALUES (%(name)s, %(key)s, %(sort_key)s)"
                " ON CONFLICT (name_key) DO UPDATE SET name = contributors.name RETURNING id",
                {"name": name, "key": key(name), "sort_key": name_sort_key(name)},
            )
        )

    def a_subject(self, scheme: str, code: str, heading: str) -> int:
        return int(
            self.value(
                "INSERT INTO subjects (scheme, code, heading, heading_key) VALUES (%(s)s, %(c)s, %(h)s, %(key)s)"
                " ON CONFLICT (scheme, code) DO UPDATE SET heading = excluded.heading RETURNING id",
                {"s": scheme, "c": code, "h": heading, "key": key(heading)},
            )
        )

    def price(self, book_id: int, currency: str, amount: int) -> None:
        self.value(
            "INSERT INTO prices (book_id, currency, exponent, amount) VALUES (%(b)s, %(c)s, %(e)s, %(a)s)"
            " ON CONFLICT (book_id, currency) DO UPDATE SET amount = excluded.amount RETURNING 1",
            {"b": book_id, "c": currency, "e": EXPONENTS[currency], "a": amount},
        )

    def receive(self, book_id: int, copies: int) -> None:
        self.move(book_id, "received", on_hand=copies)

    def move(self, book_id: int, kind: str, *, on_hand: int = 0, allocated: int = 0, reason: str | None = None) -> None:
        self.value(
            "INSERT INTO stock_movements (book_id, kind, on_hand_change, allocated_change, reason)"
            " VALUES (%(b)s, %(k)s, %(o)s, %(a)s, %(r)s) RETURNING 1",
            {"b": book_id, "k": kind, "o": on_hand, "a": allocated, "r": reason},
        )

    def learn_words(self) -> int:
        return int(self.value(REFRESH_WORDS))

    def value(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        with self.db.cursor() as cursor:
            cursor.execute(sql, params)
            row = cursor.fetchone()
            return row[0] if row else None

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        with self.db.cursor() as cursor:
            cursor.execute(sql, params)

    def _named(self, table: str, column: str, text: str) -> int:
        return int(
            self.value(
                f"INSERT INTO {table} ({column}, {column}_key) VALUES (%(text)s, %(key)s)"
                f" ON CONFLICT ({column}_key) DO UPDATE SET {column} = excluded.{column} RETURNING id",
                {"text": text, "key": key(text)},
            )
        )
