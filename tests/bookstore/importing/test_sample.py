"""The sample catalogue: what is in it, and that it comes in once."""

import json
import threading
from collections import Counter
from typing import Any

import pytest

from bookstore.catalogue.importing import ImportSummary
from bookstore.catalogue.isbn import isbn10_of
from bookstore.catalogue.queries import AUTHORS
from bookstore.catalogue.sample import SAMPLE, load_sample

from .catalogue import contents, marks, query


@pytest.fixture(scope="module")
def books() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLE.read_text().splitlines()]


@pytest.fixture(scope="module")
def sampled_url(module_database_url: str) -> str:
    summary = load_sample(module_database_url)
    assert summary is not None
    assert (summary.counts.failed, summary.counts.warnings) == (0, 0)
    return module_database_url


def test_every_book_of_the_sample_comes_in(books: list[dict[str, Any]], sampled_url: str) -> None:
    assert len(contents(sampled_url)) == len(books) >= 150


def test_it_speaks_many_languages_and_scripts(books: list[dict[str, Any]]) -> None:
    languages = {book["language"] for book in books}
    assert {"en", "pl", "da", "es", "ru", "grc", "el", "ja", "ar", "zh", "hi", "ko", "he", "ka"} <= languages
    assert len(languages) >= 25


def test_it_has_every_kind_of_price_stock_and_format(books: list[dict[str, Any]]) -> None:
    priced = Counter(currency for book in books for currency in book.get("prices", {}))
    assert {"USD", "EUR", "JPY", "KWD"} == set(priced)
    assert min(priced.values()) >= 20
    assert any(not book.get("prices") for book in books), "not for sale yet"
    assert {0, 1, 120} <= {book["stock"] for book in books}
    assert {book["format"] for book in books} == {"BB", "BC", "EB", "AN"}


def test_works_have_several_editions_and_translators(sampled_url: str) -> None:
    editions = query(sampled_url, "SELECT count(*) FROM books GROUP BY work_id HAVING count(*) > 1")
    assert len(editions) >= 20
    roles = dict(query(sampled_url, "SELECT role, count(*) FROM book_contributors GROUP BY role"))
    assert roles["B06"] >= 30
    assert {"A01", "A12", "C01", "E07"} <= roles.keys()


def test_who_put_tales_together_is_their_author_and_who_drew_the_pictures_is_not(sampled_url: str) -> None:
    names = f"SELECT name FROM contributors WHERE id IN (SELECT id FROM ({AUTHORS}) AS authors)"
    authors = {name for (name,) in query(sampled_url, names)}
    assert {"Jacob Grimm", "Wilhelm Grimm", "Elias Lönnrot", "Jane Austen"} <= authors
    assert not authors & {"John Tenniel"}


def test_a_year_is_that_of_the_book_not_of_the_stage_or_of_instalments(books: list[dict[str, Any]]) -> None:
    years = {book["title"]: book.get("published") for book in books}
    assert years["The Importance of Being Earnest"] == 1899
    assert years["Heart of Darkness"] == 1902
    assert years["Bodas de sangre"] == 1936


def test_only_the_fictional_press_has_isbns_and_says_so(sampled_url: str) -> None:
    found = query(
        sampled_url,
        "SELECT isbn13, publishers.name, array_agg(heading) FROM books"
        " JOIN publishers ON publishers.id = publisher_id JOIN book_subjects ON book_id = books.id"
        " JOIN subjects ON subjects.id = subject_id GROUP BY isbn13, publishers.name",
    )
    assert len(found) == len(query(sampled_url, "SELECT id FROM books WHERE isbn13 IS NOT NULL")) >= 8
    assert all("fictional press" in publisher for _, publisher, _ in found)
    assert all("fictional demonstration edition" in subjects for _, _, subjects in found)
    assert all(isbn.startswith(("97899999", "97999")) for isbn, _, _ in found), "groups that nobody was given"
    assert any(isbn.startswith("979") for isbn, _, _ in found)
    assert any((isbn10_of(isbn) or "").endswith("X") for isbn, _, _ in found)


def test_its_difficult_titles_are_found(sampled_url: str) -> None:
    for words in ("it", "lodz", "orsted", "garcia marquez nunez", "she", "quillfeather"):
        assert query(sampled_url, "SELECT id FROM books WHERE search @@ plainto_tsquery('simple', %s)", [words]), words


def test_it_loads_once_also_when_all_its_books_were_archived(sampled_url: str) -> None:
    query(sampled_url, "UPDATE books SET archived_at = now()")
    before = marks(sampled_url)
    assert load_sample(sampled_url) is None
    assert marks(sampled_url) == before


def test_two_pods_that_load_it_at_once_load_it_once(database_url: str) -> None:
    found: list[ImportSummary | None] = []
    threads = [threading.Thread(target=lambda: found.append(load_sample(database_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(summary is not None for summary in found) == 1
    assert len(found) == 4
    assert query(database_url, "SELECT count(*) FROM import_jobs") == [(1,)]


def test_a_load_that_was_cut_off_is_completed(database_url: str) -> None:
    load_sample(database_url)
    query(database_url, "UPDATE import_jobs SET status = 'failed'")
    summary = load_sample(database_url)
    assert summary is not None
    assert summary.counts.unchanged == summary.counts.rows


def test_a_file_that_happens_to_be_called_sample_is_not_the_sample(database_url: str) -> None:
    query(
        database_url,
        "INSERT INTO import_jobs (source, format, status, finished_at) VALUES ('sample', 'csv', 'finished', now())",
    )
    assert load_sample(database_url) is not None
