"""Ten thousand real books, as dirty as they come."""

import os
from pathlib import Path

import pytest

from bookstore.catalogue.importing import ImportSummary, Problem, import_books
from tests.conftest import PROJECT, skip_or_fail

from .catalogue import contents, marks, query

DEFAULTS = {"price": "14.99", "currency": "USD", "stock": "10"}


@pytest.fixture(scope="module")
def goodbooks() -> Path:
    path = Path(os.environ.get("BOOKSTORE_GOODBOOKS", PROJECT.parent / "shared/data/goodbooks-10k/books.csv"))
    if not path.exists():
        skip_or_fail(f"goodbooks-10k is not at {path}; BOOKSTORE_GOODBOOKS may say where its books.csv is")
    return path


def run(url: str, path: Path, *, dry_run: bool = False) -> tuple[ImportSummary, list[Problem]]:
    problems: list[Problem] = []
    summary = import_books(
        url, path, preset="goodbooks", defaults=DEFAULTS, dry_run=dry_run, on_problem=problems.append
    )
    return summary, problems


def test_all_ten_thousand_come_in_and_a_second_run_writes_nothing(module_database_url: str, goodbooks: Path) -> None:
    url = module_database_url
    dry, predicted = run(url, goodbooks, dry_run=True)
    assert contents(url) == {}

    first, problems = run(url, goodbooks)
    assert (first.counts, problems) == (dry.counts, predicted)
    counts = first.counts
    assert (counts.rows, counts.created, counts.failed, counts.warnings) == (10_000, 10_000, 0, 23)
    assert (first.with_isbn, first.author_names, first.author_people) == (9277, 5841, 5833)
    assert {problem.column for problem in problems} == {"isbn"}
    assert (problems[0].row, problems[0].line, problems[0].value) == (916, 917, "812971060")

    before = marks(url)
    second, again = run(url, goodbooks)
    assert (second.counts.unchanged, second.counts.rows, again) == (10_000, 10_000, problems)
    assert marks(url) == before


def test_what_was_lost_in_the_file_is_whole_in_the_catalogue(module_database_url: str, goodbooks: Path) -> None:
    url = module_database_url
    run(url, goodbooks)
    books = contents(url)
    assert len(books) == 10_000
    assert sum(not natural_key.startswith("/") for natural_key in books) == 9277
    games = books["9780439023481/goodbooks-1"]
    assert (games["title"], games["series"], games["series_number"]) == ("The Hunger Games", "The Hunger Games", "1")
    assert (games["work"], games["published_year"], games["language"]) == ("goodreads:2792775", 2008, "en")
    assert (games["prices"], games["on_hand"], games["rating"]) == (["USD 2 1499"], 10, "4.34")
    assert games["contributors"] == ["A01 Suzanne Collins"]
    assert books["/goodbooks-916"]["title"] == "Reading Lolita in Tehran"
    assert query(url, "SELECT sku FROM books WHERE search @@ plainto_tsquery('simple', %s)", ["fever pitch hornby"])
    assert query(url, "SELECT count(DISTINCT work_id) FROM books") == [(10_000,)]
    assert query(url, "SELECT count(*) FROM contributors") == [(5833,)]
    assert query(url, "SELECT sum(on_hand) FROM stock") == [(100_000,)]
    [(series,)] = query(url, "SELECT count(*) FROM books WHERE series_id IS NOT NULL")
    assert series > 4400
    assert query(url, "SELECT count(*) FROM books WHERE title LIKE '%#%)'") == [(0,)]
