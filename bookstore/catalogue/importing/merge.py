"""Reads what the catalogue has of a batch, and writes what the plan says: COPY into staging tables, then merged.

Nothing here commits. Every statement touches only what is new or differs: a conflict that was not planned (somebody
else wrote the same book meanwhile) raises `Interfered`, and the batch is planned again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg2 import extensions

from bookstore.catalogue.folding import key, name_sort_key
from bookstore.catalogue.search import SEARCH_DOCUMENT

from .book import Book
from .plan import Facts, StoredBook, Write

MERGE_LOCK = (0x424B53, 1)  # one batch at a time: two imports of one file take turns, and both count right


class Interfered(Exception):
    """Between our look at the catalogue and our write somebody else wrote."""


def stored_books(cursor: extensions.cursor, books: Sequence[Book]) -> list[StoredBook]:
    """The catalogue's books that share a natural key with any of `books`."""
    cursor.execute(
        _STORED,
        {
            "isbns": [book.isbn13 for book in books if book.isbn13],
            "skus": [book.sku for book in books if book.sku],
        },
    )
    return [
        StoredBook(
            id=row[0],
            version=row[1],
            archived=row[2],
            work=row[3],
            facts=Facts(*row[7:]),
            contributors=tuple(map(tuple, row[4] or ())),
            subjects=tuple(map(tuple, row[5] or ())),
            prices=row[6] or {},
        )
        for row in cursor
    ]


def write_books(cursor: extensions.cursor, writes: Sequence[tuple[int, Write]], *, reference: str) -> dict[int, int]:
    """Stores the planned books of a batch, each with its row number. Returns their ids by that."""
    _lock_and_compare(cursor, [write.stored for _, write in writes if write.stored])
    cursor.execute(_STAGING)
    _copy(cursor, "imported_books", (_book_line(row, write) for row, write in writes))
    _copy(
        cursor,
        "imported_contributors",
        (
            (row, position, person.role, person.name, person.key, name_sort_key(person.name))
            for row, write in writes
            for position, person in enumerate(write.contributors, 1)
        ),
    )
    _copy(
        cursor,
        "imported_subjects",
        (
            (row, subject.scheme, subject.code, subject.heading, key(subject.heading))
            for row, write in writes
            for subject in write.subjects
        ),
    )
    _copy(cursor, "imported_prices", ((row, *price) for row, write in writes for price in write.prices))
    for statement in _NAMES:
        cursor.execute(statement)
    cursor.execute(_INSERT_BOOKS)
    if cursor.rowcount != sum(write.stored is None for _, write in writes):
        raise Interfered
    if any(write.stored for _, write in writes):
        for statement in _UPDATES:
            cursor.execute(statement)
    for statement in _LISTS:
        cursor.execute(statement)
    cursor.execute(_RECEIVE, {"reference": reference})
    cursor.execute("SELECT row_number, book_id FROM imported_books")
    return dict(cursor.fetchall())


def _lock_and_compare(cursor: extensions.cursor, stored: list[StoredBook]) -> None:
    """Only books that will be written are locked: a row lock is a write, too. Any change raises a book's version."""
    if not stored:
        return
    cursor.execute(
        "SELECT id, version FROM books WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE",
        {"ids": [book.id for book in stored]},
    )
    if dict(cursor) != {book.id: book.version for book in stored}:
        raise Interfered


def _book_line(row: int, write: Write) -> Iterator[Any]:
    facts = write.facts
    yield from (row, write.stored.id if write.stored else None, write.stored is None)
    yield from (write.work, write.work_title, key(write.work_title))
    yield from facts
    yield from (key(facts.title), facts.series and key(facts.series), facts.publisher and key(facts.publisher))
    yield from write.search
    yield write.received


def _copy(cursor: extensions.cursor, table: str, lines: Iterable[Iterable[Any]]) -> None:
    text = "".join(["\t".join(map(_copied, line)) + "\n" for line in lines])
    if text:
        cursor.copy_expert(f"COPY {table} FROM STDIN", io.StringIO(text))


_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copied(value: Any) -> str:
    if value is None:
        return "\\N"
    return value.translate(_ESCAPED) if isinstance(value, str) else str(value)


_STORED = """
    SELECT books.id, books.version, books.archived_at IS NOT NULL, works.reference,
        (SELECT jsonb_agg(jsonb_build_array(role, name_key, name) ORDER BY position)
            FROM book_contributors JOIN contributors ON contributors.id = contributor_id WHERE book_id = books.id),
        (SELECT jsonb_agg(jsonb_build_array(scheme, code, heading))
            FROM book_subjects JOIN subjects ON subjects.id = subject_id WHERE book_id = books.id),
        (SELECT jsonb_object_agg(currency, amount) FROM prices WHERE book_id = books.id),
        books.isbn13, books.sku, books.title, books.subtitle, series.title, books.series_number, publishers.name,
        books.format, books.availability, books.language, books.published_year, books.published_on,
        books.rating, books.rating_count, books.rating_source
    FROM books
    JOIN works ON works.id = books.work_id
    LEFT JOIN series ON series.id = books.series_id
    LEFT JOIN publishers ON publishers.id = books.publisher_id
    WHERE books.isbn13 = ANY(%(isbns)s) OR books.sku = ANY(%(skus)s)
"""

# Dropped at the end of each batch, so that a pooler in front of PostgreSQL may hand every transaction another session.
_STAGING = """
    CREATE TEMPORARY TABLE imported_books (
        row_number bigint PRIMARY KEY, book_id bigint, is_new boolean NOT NULL,
        work text, work_title text, work_key text COLLATE "C",
        isbn13 text, sku text, title text, subtitle text, series text, series_number text, publisher text, format text,
        availability text, language text, published_year integer, published_on date, rating numeric(3, 2),
        rating_count integer, rating_source text,
        sort_title text COLLATE "C", series_key text COLLATE "C", publisher_key text COLLATE "C",
        search_title text, search_contributors text, search_extra text, search_subjects text,
        received integer NOT NULL
    ) ON COMMIT DROP;
    CREATE TEMPORARY TABLE imported_contributors (
        row_number bigint, position smallint, role text, name text, name_key text COLLATE "C", sort_key text COLLATE "C"
    ) ON COMMIT DROP;
    CREATE TEMPORARY TABLE imported_subjects (
        row_number bigint, scheme text, code text COLLATE "C", heading text, heading_key text COLLATE "C"
    ) ON COMMIT DROP;
    CREATE TEMPORARY TABLE imported_prices (
        row_number bigint, currency text, exponent smallint, amount bigint
    ) ON COMMIT DROP;
"""

# What books refer to. The first spelling of a name stays; what is known is not even tried, since a refused INSERT
# uses up an id. Sorted, because two writers that insert the same names in another order deadlock.
_NAMES = (
    """
    INSERT INTO publishers (name, name_key)
    SELECT DISTINCT ON (publisher_key) publisher, publisher_key FROM imported_books AS new
    WHERE publisher_key IS NOT NULL AND NOT EXISTS (SELECT FROM publishers WHERE name_key = new.publisher_key)
    ORDER BY publisher_key, row_number
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO series (title, title_key)
    SELECT DISTINCT ON (series_key) series, series_key FROM imported_books AS new
    WHERE series_key IS NOT NULL AND NOT EXISTS (SELECT FROM series WHERE title_key = new.series_key)
    ORDER BY series_key, row_number
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO works (reference, title, sort_title)
    SELECT DISTINCT ON (work) work, work_title, work_key FROM imported_books AS new
    WHERE work IS NOT NULL AND NOT EXISTS (SELECT FROM works WHERE reference = new.work)
    ORDER BY work, row_number
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO contributors (name, name_key, sort_key)
    SELECT DISTINCT ON (name_key) name, name_key, sort_key FROM imported_contributors AS new
    WHERE NOT EXISTS (SELECT FROM contributors WHERE name_key = new.name_key)
    ORDER BY name_key, row_number, position
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO subjects (scheme, code, heading, heading_key)
    SELECT DISTINCT ON (scheme, code) scheme, code, heading, heading_key FROM imported_subjects AS new
    WHERE NOT EXISTS (SELECT FROM subjects WHERE scheme = new.scheme AND code = new.code)
    ORDER BY scheme, code, row_number
    ON CONFLICT DO NOTHING
    """,
)

# Counts the books that were made and could be told by their natural keys; fewer than staged: somebody was faster.
_INSERT_BOOKS = f"""
    WITH made AS (
        INSERT INTO books (work_id, isbn13, sku, title, subtitle, sort_title, series_id, series_number, publisher_id,
            format, availability, language, published_year, published_on, rating, rating_count, rating_source, search)
        SELECT works.id, new.isbn13, new.sku, new.title, new.subtitle, new.sort_title, series.id, new.series_number,
            publishers.id, new.format, new.availability, new.language, new.published_year, new.published_on,
            new.rating, new.rating_count, new.rating_source, {SEARCH_DOCUMENT.format("new")}
        FROM imported_books AS new
        JOIN works ON works.reference = new.work
        LEFT JOIN series ON series.title_key = new.series_key
        LEFT JOIN publishers ON publishers.name_key = new.publisher_key
        WHERE new.is_new
        ORDER BY new.row_number
        ON CONFLICT DO NOTHING
        RETURNING id, coalesce('isbn ' || isbn13, 'sku ' || sku) AS natural_key
    )
    UPDATE imported_books AS new SET book_id = made.id
    FROM made WHERE new.is_new AND made.natural_key = coalesce('isbn ' || new.isbn13, 'sku ' || new.sku)
"""  # noqa: S608 - the search document's call is ours

_UPDATES = (
    """
    CREATE TEMPORARY TABLE left_works ON COMMIT DROP AS
    SELECT DISTINCT books.work_id FROM imported_books AS new JOIN books ON books.id = new.book_id
    WHERE NOT new.is_new AND new.work IS NOT NULL
    """,
    f"""
    UPDATE books SET
        work_id = coalesce(works.id, books.work_id), isbn13 = new.isbn13, sku = new.sku, title = new.title,
        subtitle = new.subtitle, sort_title = new.sort_title, series_id = series.id,
        series_number = new.series_number, publisher_id = publishers.id, format = new.format,
        availability = new.availability, language = new.language, published_year = new.published_year,
        published_on = new.published_on, rating = new.rating, rating_count = new.rating_count,
        rating_source = new.rating_source, search = {SEARCH_DOCUMENT.format("new")}
    FROM imported_books AS new
    LEFT JOIN works ON works.reference = new.work
    LEFT JOIN series ON series.title_key = new.series_key
    LEFT JOIN publishers ON publishers.name_key = new.publisher_key
    WHERE books.id = new.book_id AND NOT new.is_new
    """,  # noqa: S608 - the same
    """
    DELETE FROM works WHERE id IN (SELECT work_id FROM left_works)
        AND NOT EXISTS (SELECT FROM books WHERE books.work_id = works.id)
    """,
    """
    DELETE FROM book_contributors WHERE book_id IN (
        SELECT book_id FROM imported_books JOIN imported_contributors USING (row_number) WHERE NOT is_new)
    """,
    """
    DELETE FROM book_subjects WHERE book_id IN (
        SELECT book_id FROM imported_books JOIN imported_subjects USING (row_number) WHERE NOT is_new)
    """,
)

_LISTS = (
    """
    INSERT INTO book_contributors (book_id, position, contributor_id, role)
    SELECT book_id, position, contributors.id, role
    FROM imported_books JOIN imported_contributors AS new USING (row_number)
    JOIN contributors ON contributors.name_key = new.name_key
    ORDER BY book_id, position
    """,
    """
    INSERT INTO book_subjects (book_id, subject_id)
    SELECT book_id, subjects.id
    FROM imported_books JOIN imported_subjects AS new USING (row_number)
    JOIN subjects ON subjects.scheme = new.scheme AND subjects.code = new.code
    ORDER BY book_id, subjects.id
    """,
    """
    INSERT INTO prices (book_id, currency, exponent, amount)
    SELECT book_id, currency, exponent, amount FROM imported_books JOIN imported_prices USING (row_number)
    ORDER BY book_id, currency
    ON CONFLICT (book_id, currency) DO UPDATE SET amount = excluded.amount, exponent = excluded.exponent
        WHERE prices.amount <> excluded.amount
    """,
)

_RECEIVE = """
    INSERT INTO stock_movements (book_id, kind, on_hand_change, reference)
    SELECT book_id, 'received', received, %(reference)s FROM imported_books WHERE is_new AND received > 0
    ORDER BY book_id
"""
