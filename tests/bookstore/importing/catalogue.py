"""What is in the catalogue, as a whole: to compare two states of it."""

import csv
import io
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor

TABLES = (
    *("works", "books", "publishers", "series", "contributors", "book_contributors", "subjects", "book_subjects"),
    *("prices", "stock", "stock_movements", "search_words"),
)

_CONTENTS = """
    SELECT coalesce(isbn13, '') || '/' || coalesce(sku, '') AS natural_key, books.title, subtitle, books.sort_title,
        works.reference AS work, works.title AS work_title, series.title AS series, series_number,
        publishers.name AS publisher, format, availability, language, published_year, published_on, rating::text,
        rating_count, rating_source, search::text, on_hand, allocated,
        (SELECT array_agg(role || ' ' || name ORDER BY position)
            FROM book_contributors JOIN contributors ON contributors.id = contributor_id WHERE book_id = books.id
        ) AS contributors,
        (SELECT array_agg(scheme || ' ' || code || ' ' || heading ORDER BY scheme, code)
            FROM book_subjects JOIN subjects ON subjects.id = subject_id WHERE book_id = books.id) AS subjects,
        (SELECT array_agg(currency || ' ' || exponent || ' ' || amount ORDER BY currency)
            FROM prices WHERE book_id = books.id) AS prices,
        (SELECT array_agg(kind || ' ' || on_hand_change ORDER BY id)
            FROM stock_movements WHERE book_id = books.id) AS movements
    FROM books JOIN works ON works.id = work_id LEFT JOIN series ON series.id = series_id
    LEFT JOIN publishers ON publishers.id = publisher_id LEFT JOIN stock ON stock.book_id = books.id
    ORDER BY 1
"""


def query(url: str, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    """The rows of `sql`, committed."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def contents(url: str) -> dict[str, dict[str, Any]]:
    """Every book with all that belongs to it, by its natural key; without ids and times, which may differ."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_CONTENTS)
        return {row.pop("natural_key"): row for row in map(dict, cursor)}


def vocabulary(url: str) -> list[tuple[Any, ...]]:
    return query(url, "SELECT word, books FROM search_words ORDER BY word")


def marks(url: str) -> dict[str, str]:
    """What any write would move: each row's place and writer in every table, and every sequence."""
    row = "concat_ws(',', t.ctid, t.xmin, t.xmax, t::text)"
    every_row = f"SELECT %s, count(*)::text || ' ' || md5(string_agg({row}, ',' ORDER BY t.ctid)) FROM %s AS t"
    tables = " UNION ALL ".join(every_row % (f"'{table}'", table) for table in TABLES)
    sequences = "SELECT sequencename, last_value::text FROM pg_sequences WHERE sequencename NOT LIKE 'import%'"
    found: dict[str, str] = dict(query(url, f"{tables} UNION ALL {sequences}"))
    return found


def empty(url: str) -> None:
    query(url, f"TRUNCATE {', '.join(TABLES)}, import_jobs, import_rows")


def csv_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def many_books(count: int) -> list[dict[str, str]]:
    """Books enough for several batches, that share authors, series, publishers and subjects."""
    return [
        {
            "sku": f"many-{number}",
            "title": f"Volume {number} of the Long Shelf",
            "authors": f"Author {number % 97}; Somebody Else {number % 13}",
            "translators": f"Translator {number % 7}",
            "series": f"Shelf {number % 50}",
            "series_number": str(number // 50),
            "publisher": f"Press {number % 5}",
            "subjects": f"shelves; thema:FBC Classics; letter {chr(97 + number % 26)}",
            "language": "eng",
            "published": str(1800 + number % 200),
            "prices": f"USD {number % 90}.99; JPY {100 + number}",
            "stock": str(number % 4),
        }
        for number in range(count)
    ]


def written(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path
