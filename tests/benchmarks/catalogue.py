"""10,000 books to measure with: goodbooks-10k where it is at hand, else as many made-up ones of the same shape."""

import csv
import io
import json
import os
import random
import time
import urllib.request
from pathlib import Path

import psycopg2

from bookstore.catalogue.importing import import_books
from tests.benchmarks.servers import ROOT

GOODBOOKS = Path(os.environ.get("BOOKSTORE_GOODBOOKS", ROOT.parent / "shared/data/goodbooks-10k/books.csv"))
BOOKS = 10_000
DEFAULTS = {"price": "14.99", "currency": "USD", "stock": "10"}


def bring(database_url: str) -> float:
    """Imports them; how many rows a second that was."""
    source = GOODBOOKS if GOODBOOKS.exists() else io.BytesIO(_made_up())
    began = time.perf_counter()
    summary = import_books(
        database_url, source, format="csv", preset="goodbooks", defaults=DEFAULTS, name="benchmark.csv"
    )
    if summary.counts.created != BOOKS:
        raise RuntimeError(f"{summary.counts.created} of {BOOKS} books were imported")
    _settle(database_url)
    return BOOKS / (time.perf_counter() - began)


def copy_raw(database_url: str) -> float:
    """The same rows, unread and unchecked, by COPY into a table without a key: what the disk and the wire can do."""
    data = GOODBOOKS.read_bytes() if GOODBOOKS.exists() else _made_up()
    header = data.split(b"\n", 1)[0].decode().split(",")
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE raw ({', '.join(f'{name} text' for name in header)})")
            began = time.perf_counter()
            cursor.copy_expert("COPY raw FROM STDIN WITH (FORMAT csv, HEADER)", io.BytesIO(data))
            return BOOKS / (time.perf_counter() - began)
    finally:
        connection.close()


def a_book(api: str) -> str:
    """The id of the first book that a search for a common word finds."""
    with urllib.request.urlopen(f"{api}/books?q=harry&limit=1", timeout=10) as answer:
        return str(json.load(answer)["items"][0]["id"])


def page(api: str, number: int) -> str:
    """The path of that page of twenty, found as a client finds it: by following `next`."""
    path = f"{api}/books?limit=20"
    host = "/".join(api.split("/")[:3])
    for _ in range(number - 1):
        with urllib.request.urlopen(path, timeout=10) as answer:
            path = host + json.load(answer)["next"]
    return path.removeprefix(host)


def _settle(database_url: str) -> None:
    """Statistics for the planner: the throw-away server has no autovacuum to gather them."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    connection.cursor().execute("VACUUM ANALYZE")
    connection.close()


def _made_up() -> bytes:
    chance = random.Random(10_000)
    words = ["harry", "river", "stone", "winter", "letters", "garden", "silent", "crow", "harbour", "glass"]
    out = io.StringIO()
    rows = csv.writer(out)
    names = ["book_id", "work_id", "isbn", "authors", "original_publication_year", "original_title", "title"]
    rows.writerow([*names, "language_code", "average_rating", "ratings_count"])
    for number in range(1, BOOKS + 1):
        title = " ".join(chance.choices(words, k=4)).title()
        author = f"{chance.choice(words)} {chance.choice(words)} {number % 5800}".title()
        rows.writerow([number, number, "", author, 1900 + number % 100, title, title, "eng", "3.99", number])
    return out.getvalue().encode()
