"""What an import does to the catalogue: creates, updates, leaves alone, refuses."""

import io
import json
import threading
import tracemalloc
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from bookstore.catalogue.importing import (
    ImportInterrupted,
    ImportRefused,
    ImportSummary,
    Problem,
    Progress,
    import_books,
)
from bookstore.catalogue.importing import run as importing_run

from .catalogue import contents, csv_bytes, many_books, marks, query, vocabulary, written

HOMER = {"sku": "homer", "title": "The Odyssey", "authors": "Homer", "price": "9.99", "currency": "USD", "stock": "5"}
SAPPHO = {"isbn": "9780306406157", "sku": "sappho", "title": "Fragments", "authors": "Sappho", "language": "en"}


def run(url: str, *rows: Mapping[str, Any], **options: Any) -> ImportSummary:
    return import_books(url, BytesIO(csv_bytes(rows)), format="csv", name="books.csv", **options)


def counts(summary: ImportSummary) -> tuple[int, int, int, int]:
    found = summary.counts
    assert found.rows == found.created + found.updated + found.unchanged + found.failed
    return found.created, found.updated, found.unchanged, found.failed


def test_a_second_run_of_the_same_file_writes_nothing(database_url: str) -> None:
    rows = many_books(2500)
    assert counts(run(database_url, *rows)) == (2500, 0, 0, 0)
    before = marks(database_url)
    assert counts(run(database_url, *rows)) == (0, 0, 2500, 0)
    assert marks(database_url) == before


def test_a_dry_run_predicts_the_run_and_changes_nothing(database_url: str) -> None:
    run(database_url, HOMER, SAPPHO)
    before = contents(database_url), vocabulary(database_url)
    rows = [{**HOMER, "title": "Ilias"}, SAPPHO, {**HOMER, "sku": "new"}, {**HOMER, "sku": "x", "price": "much"}, HOMER]
    dry = run(database_url, *rows, dry_run=True)
    assert (contents(database_url), vocabulary(database_url)) == before
    wet = run(database_url, *rows)
    assert counts(dry) == counts(wet) == (1, 1, 1, 2)
    assert dry.problems == wet.problems
    assert (dry.with_isbn, dry.author_names) == (wet.with_isbn, wet.author_names)


def test_everything_a_row_says_is_stored_and_found(database_url: str) -> None:
    run(database_url, many_books(50)[7])
    [book] = contents(database_url).values()
    del book["search"]
    assert book == {
        "title": "Volume 7 of the Long Shelf",
        "subtitle": None,
        "sort_title": "volume 7 of the long shelf",
        "work": "title:volume 7 of the long shelf/author 7",
        "work_title": "Volume 7 of the Long Shelf",
        "series": "Shelf 7",
        "series_number": "0",
        "publisher": "Press 2",
        "format": None,
        "availability": "20",
        "language": "en",
        "published_year": 1807,
        "published_on": None,
        "rating": None,
        "rating_count": None,
        "rating_source": None,
        "on_hand": 3,
        "allocated": 0,
        "contributors": ["A01 Author 7", "A01 Somebody Else 7", "B06 Translator 0"],
        "subjects": ["keyword letter h letter h", "keyword shelves shelves", "thema FBC Classics"],
        "prices": ["JPY 0 107", "USD 2 799"],
        "movements": ["received 3"],
    }
    for words in ("volume shelf", "translator", "classics", "of the"):
        assert query(database_url, "SELECT id FROM books WHERE search @@ plainto_tsquery('simple', %s)", [words]), words
    assert ("volume", 1) in vocabulary(database_url)


def test_a_row_changes_only_what_it_says(database_url: str) -> None:
    run(database_url, {**SAPPHO, "publisher": "A Press", "subjects": "poetry", "prices": "USD 5; EUR 4", "stock": "3"})
    [(version,)] = query(database_url, "SELECT version FROM books")
    assert counts(run(database_url, {"isbn": "0-306-40615-2", "price": "6", "currency": "USD"})) == (0, 1, 0, 0)
    [book] = contents(database_url).values()
    assert (book["title"], book["publisher"], book["contributors"]) == ("Fragments", "A Press", ["A01 Sappho"])
    assert book["prices"] == ["EUR 2 400", "USD 2 600"]
    assert book["movements"] == ["received 3"]
    assert query(database_url, "SELECT version FROM books") == [(version + 1,)], "one update, however much it changes"


def test_lists_are_replaced_and_the_words_to_find_the_book_by_with_them(database_url: str) -> None:
    run(database_url, {**SAPPHO, "subjects": "poetry; love"})
    run(database_url, {"sku": "sappho", "authors": "Psappho", "translators": "H. T. Wharton", "subjects": "love"})
    [book] = contents(database_url).values()
    assert book["contributors"] == ["A01 Psappho", "B06 H. T. Wharton"]
    assert book["subjects"] == ["keyword love love"]
    assert "'wharton'" in book["search"]
    assert "'sappho'" not in book["search"]
    assert "'fragments'" in book["search"]


def test_another_spelling_of_a_name_is_no_change(database_url: str) -> None:
    run(database_url, {**SAPPHO, "authors": "José  Ørsted", "publisher": "Łódź Press", "series": "The Série"})
    before = marks(database_url)
    again = {**SAPPHO, "authors": "JOSE ORSTED", "publisher": "lodz press", "series": "the serie"}
    assert counts(run(database_url, again)) == (0, 0, 1, 0)
    assert marks(database_url) == before


def test_spellings_of_one_name_share_a_contributor_and_the_summary_counts_both(database_url: str) -> None:
    names = ("Alex Ross", "Alex  Ross", "ÁLEX ROSS", "B")
    rows = [{"sku": f"s{number}", "title": "T", "authors": name} for number, name in enumerate(names)]
    summary = run(database_url, *rows)
    assert (summary.author_names, summary.author_people) == (4, 2)
    assert query(database_url, "SELECT name, sort_key FROM contributors ORDER BY id") == [
        ("Alex Ross", "ross alex"),
        ("B", "b"),
    ]


def test_stock_is_received_once_and_never_again(database_url: str) -> None:
    run(database_url, HOMER, {**SAPPHO, "stock": "0"})
    assert query(database_url, "SELECT kind, on_hand_change FROM stock_movements") == [("received", 5)]
    query(
        database_url,
        "INSERT INTO stock_movements (book_id, kind, on_hand_change, reason)"
        " SELECT id, 'adjusted', -2, 'sold' FROM books WHERE sku = 'homer'",
    )
    run(database_url, {**HOMER, "title": "Odyssey", "stock": "50"}, {**SAPPHO, "stock": "9"})
    assert query(database_url, "SELECT on_hand FROM stock") == [(3,)]


def test_the_isbn_comes_first_then_the_sku(database_url: str) -> None:
    run(database_url, {"isbn": SAPPHO["isbn"], "title": "Fragments"}, HOMER)
    assert counts(run(database_url, {"isbn": SAPPHO["isbn"], "sku": "late"})) == (0, 1, 0, 0)
    assert counts(run(database_url, {"sku": "homer", "isbn": "9780140449112"})) == (0, 1, 0, 0)
    assert list(contents(database_url)) == ["9780140449112/homer", f"{SAPPHO['isbn']}/late"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"isbn": "9780306406157", "sku": "homer"}, "are two different books here"),
        ({"isbn": "9780306406157", "sku": "other"}, "ISBN 9780306406157 has the SKU sappho here"),
        ({"isbn": "9780140449112", "sku": "sappho"}, "SKU sappho is the book with ISBN 9780306406157 here"),
        ({"sku": "unknown", "price": "1", "currency": "USD"}, "a new book needs a title"),
    ],
)
def test_a_row_whose_keys_contradict_the_catalogue_is_left_out(
    database_url: str, row: dict[str, str], reason: str
) -> None:
    run(database_url, HOMER, SAPPHO)
    before = marks(database_url)
    summary = run(database_url, row)
    assert counts(summary) == (0, 0, 0, 1)
    assert reason in summary.problems[0].reason
    assert marks(database_url) == before


def test_a_book_twice_in_one_file_is_told(database_url: str) -> None:
    run(database_url, SAPPHO)
    rows = [
        HOMER,
        HOMER,
        {**HOMER, "title": "Otherwise"},
        {"isbn": SAPPHO["isbn"]},
        {"sku": "sappho", "language": "de"},
    ]
    summary = run(database_url, *rows)
    assert counts(summary) == (1, 0, 2, 2)
    assert [(issue.row, issue.severity, issue.reason) for issue in summary.problems] == [
        (2, "warning", "the very same book as in row 1"),
        (3, "error", "row 1 has the same ISBN or SKU and says otherwise"),
        (5, "error", "is the same book as row 4, by its other number"),
    ]


def test_editions_of_one_title_by_one_author_are_one_work(database_url: str) -> None:
    run(
        database_url,
        {"sku": "1", "title": "Émile", "authors": "Jean-Jacques Rousseau", "format": "BC"},
        {"sku": "2", "title": "EMILE", "authors": "Jean Jacques Rousseau; Somebody", "format": "EB"},
        {"sku": "3", "title": "Emile", "authors": "Someone Else"},
        {"sku": "4", "title": "Poems"},
        {"sku": "5", "title": "Poems"},
    )
    works = dict(query(database_url, "SELECT sku, work_id FROM books"))
    assert works["1"] == works["2"]
    assert len(set(works.values())) == 4


def test_a_feed_that_names_the_work_groups_its_translations_and_may_say_so_later(database_url: str) -> None:
    run(database_url, {"sku": "1", "title": "Sult", "authors": "Knut Hamsun", "work": "w", "work_title": "Sult"})
    run(database_url, {"sku": "2", "title": "Hunger", "authors": "Knut Hamsun"})
    assert query(database_url, "SELECT count(*) FROM works") == [(2,)]
    assert counts(run(database_url, {"sku": "2", "work": "w"})) == (0, 1, 0, 0)
    assert query(database_url, "SELECT reference, title FROM works") == [("w", "Sult")]
    assert counts(run(database_url, {"sku": "2", "title": "Hunger"})) == (0, 0, 1, 0), "no word of the work: it stays"


def test_what_readers_said_of_a_book_is_not_overwritten_by_a_feed(database_url: str) -> None:
    run(database_url, {**SAPPHO, "rating": "3.5", "rating_count": "10"})
    assert query(database_url, "SELECT rating::text, rating_source FROM books") == [("3.50", "imported")]
    query(database_url, "UPDATE books SET rating = 4.9, rating_count = 2, rating_source = 'readers'")
    assert counts(run(database_url, {**SAPPHO, "rating": "3.5", "rating_count": "11"})) == (0, 0, 1, 0)
    assert query(database_url, "SELECT rating::text, rating_count FROM books") == [("4.90", 2)]


def test_a_full_date_is_kept_when_a_feed_knows_the_year_only(database_url: str) -> None:
    run(database_url, {**SAPPHO, "published": "2008-09-14"})
    assert counts(run(database_url, {**SAPPHO, "published": "2008"})) == (0, 0, 1, 0)
    assert counts(run(database_url, {**SAPPHO, "published": "-600"})) == (0, 1, 0, 0)
    assert query(database_url, "SELECT published_year, published_on FROM books") == [(-600, None)]


def test_an_archived_book_stays_archived(database_url: str) -> None:
    run(database_url, HOMER)
    query(database_url, "UPDATE books SET archived_at = now()")
    summary = run(database_url, {**HOMER, "title": "Odyssey"})
    assert counts(summary) == (0, 1, 0, 0)
    assert summary.problems[0].reason == "the book is archived, and stays so"
    assert query(database_url, "SELECT title, archived_at IS NOT NULL FROM books") == [("Odyssey", True)]


def test_good_rows_survive_bad_ones_and_every_bad_one_is_reported(database_url: str) -> None:
    rows = [
        {**row, **({"prices": "USD ten"} if number % 3 == 0 else {})} for number, row in enumerate(many_books(1500))
    ]
    reported: list[Problem] = []
    summary = run(database_url, *rows, on_problem=reported.append)
    assert counts(summary) == (1000, 0, 0, 500)
    assert len(contents(database_url)) == 1000
    assert len(summary.problems) == 50, "the summary is bounded"
    assert len(reported) == summary.problem_count == 500
    assert (reported[1].row, reported[1].line, reported[1].column, reported[1].value) == (4, 5, "prices", "USD ten")


def test_a_row_that_only_postgresql_refuses_is_found_and_left_out(database_url: str) -> None:
    query(database_url, "ALTER TABLE books ADD CONSTRAINT no_sevens CHECK (title NOT LIKE '%% 777 %%')", [])
    dry = run(database_url, *many_books(1100), dry_run=True)
    summary = run(database_url, *many_books(1100))
    assert counts(dry) == counts(summary) == (1099, 0, 0, 1)
    [problem] = summary.problems
    assert problem.row == 778
    assert "no_sevens" in problem.reason
    assert dry.problems == summary.problems


@pytest.mark.parametrize("batch_rows", [1, 2, 1000])
def test_a_bad_row_takes_no_good_one_with_it(database_url: str, batch_rows: int) -> None:
    isbn = "9780306406157"
    stored = {"isbn": "9780140449112", "sku": "taken", "title": "Was There Before"}
    run(database_url, stored)
    rows = [
        {"isbn": isbn, "publisher": "Of the bad row"},  # new, and no title
        {"isbn": isbn, "title": "A Good New Book", "publisher": "Of the good row"},
        {"isbn": isbn, "title": "Says Otherwise"},
        {"isbn": "9781402894626", "sku": "taken", "title": "Another's SKU"},
        {"isbn": "9781402894626", "title": "Nobody's Rival"},
        {"isbn": stored["isbn"], "sku": "another", "title": "Another SKU"},
        {"sku": "another", "title": "A Free SKU"},
        {"sku": "nowhere", "language": "en"},
        {"sku": "nowhere", "language": "en"},
    ]
    dry = run(database_url, *rows, dry_run=True, batch_rows=batch_rows)
    summary = run(database_url, *rows, batch_rows=batch_rows)
    assert counts(dry) == counts(summary) == (3, 0, 0, 6)
    assert sorted(problem.row for problem in summary.problems) == [1, 3, 4, 6, 8, 9]
    assert {book["title"] for book in contents(database_url).values()} == {
        "Was There Before", "A Good New Book", "Nobody's Rival", "A Free SKU",
    }  # fmt: skip
    before = marks(database_url)
    again = run(database_url, *rows, batch_rows=batch_rows)
    assert counts(again) == (0, 0, 3, 6)
    assert marks(database_url) == before, "the row that was refused the first time does not undo the good one now"


def test_a_row_that_postgresql_refuses_leaves_its_isbn_to_a_good_one_and_is_counted_once(database_url: str) -> None:
    query(database_url, "ALTER TABLE books ADD CONSTRAINT no_curses CHECK (title <> 'Abracadabra')")
    rows = [
        {"sku": "a", "title": "Bad", "language": "!"},
        {"sku": "b", "title": "Abracadabra"},
        {"sku": "b", "title": "Good"},
        {"sku": "c", "title": "Bad too", "language": "!"},
        {"sku": "d", "title": "Good too"},
    ]
    dry, summary = run(database_url, *rows, dry_run=True), run(database_url, *rows)
    assert counts(dry) == counts(summary) == (2, 0, 0, 3)
    assert [problem.row for problem in summary.problems] == [1, 2, 4]
    assert {book["title"] for book in contents(database_url).values()} == {"Good", "Good too"}


def test_a_feed_of_prices_needs_no_titles_whatever_its_length(database_url: str) -> None:
    books = many_books(250)
    run(database_url, *books)
    prices = [{"sku": book["sku"], "prices": "USD 1.50"} for book in books]
    content = "".join(json.dumps(row) + "\n" for row in prices).encode()
    seen: list[Progress] = []
    summary = import_books(
        database_url, BytesIO(content), format="jsonl", batch_rows=100, on_progress=seen.append, name="prices"
    )
    assert counts(summary) == (0, 250, 0, 0)
    assert counts(run(database_url, *prices)) == (0, 0, 250, 0)


def test_the_import_is_remembered_with_the_rows_that_had_something_to_say(database_url: str) -> None:
    bad = {**SAPPHO, "language": "x\x01"}
    summary = run(database_url, HOMER, bad, {**HOMER, "sku": "h2", "stock": "\0"}, HOMER, defaults={"language": "en"})
    [job] = query(
        database_url,
        "SELECT id, source, format, preset, dry_run, status, rows_read, options, summary, error FROM import_jobs",
    )
    assert job[:7] == (summary.job, "books.csv", "csv", "bookstore", False, "finished", 4)
    assert job[7] == {"mapping": {}, "defaults": {"language": "en"}}
    assert (job[8]["created"], job[8]["failed"], job[9]) == (1, 2, None)
    rows = query(database_url, "SELECT row_number, status, issues FROM import_rows ORDER BY row_number")
    assert [(row, status) for row, status, _ in rows] == [(2, "failed"), (3, "failed"), (4, "unchanged")]
    assert rows[0][2][0]["column"] == "language"
    assert rows[2][2][0]["severity"] == "warning"


def test_what_no_database_can_store_is_reported_and_stored_escaped(database_url: str) -> None:
    rows = [{"sku": "a\ud800", "title": "\0 \x1b[31m"}, {"sku": "b", "\ud800": 1}, {"sku": "c", "title": "C"}]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    summary = import_books(database_url, BytesIO(content), format="jsonl", name="odd \udcff name.jsonl")
    assert counts(summary) == (1, 0, 0, 2)
    assert query(database_url, "SELECT source FROM import_jobs") == [("odd \\udcff name.jsonl",)]
    [(first,), (second,)] = query(database_url, "SELECT issues FROM import_rows ORDER BY row_number")
    assert [issue["value"] for issue in first] == ["a\\ud800", "\\x00 \\x1b[31m"]
    assert second[0]["column"] == "\\ud800"


def test_two_imports_of_one_file_at_once_create_every_book_once(database_url: str) -> None:
    content = csv_bytes(many_books(3000))
    summaries: list[ImportSummary] = []

    def work() -> None:
        summaries.append(import_books(database_url, BytesIO(content), format="csv", name="books.csv"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(summary.counts.created for summary in summaries) == 3000
    assert sum(summary.counts.unchanged for summary in summaries) == 6000
    assert len(contents(database_url)) == 3000
    assert query(database_url, "SELECT sum(on_hand) FROM stock") == [(sum(n % 4 for n in range(3000)),)]


def test_a_book_that_somebody_else_adds_meanwhile_is_planned_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other writers (the API) do not take the import's lock."""
    look, rivals = importing_run.stored_books, iter(["9780306406157", "9780140449112"])

    def look_and_be_overtaken(cursor: Any, books: Any) -> Any:
        found = look(cursor, books)
        for isbn in rivals:
            query(
                database_url,
                "WITH work AS (INSERT INTO works (title, sort_title) VALUES ('Rival', 'rival') RETURNING id)"
                " INSERT INTO books (work_id, isbn13, title, sort_title) SELECT id, %s, 'Rival', 'rival' FROM work",
                [isbn],
            )
            break
        return found

    monkeypatch.setattr(importing_run, "stored_books", look_and_be_overtaken)
    summary = run(database_url, SAPPHO, HOMER, {"isbn": "9780140449112", "title": "Odyssey"})
    assert counts(summary) == (1, 2, 0, 0)
    assert [book["title"] for book in contents(database_url).values()] == ["The Odyssey", "Odyssey", "Fragments"]


def test_a_book_that_somebody_else_changes_meanwhile_is_planned_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database_url, SAPPHO)
    look, changes = importing_run.stored_books, iter(["UPDATE books SET subtitle = 'By staff'"])

    def look_and_be_overtaken(cursor: Any, books: Any) -> Any:
        found = look(cursor, books)
        for change in changes:
            query(database_url, change)
        return found

    monkeypatch.setattr(importing_run, "stored_books", look_and_be_overtaken)
    assert counts(run(database_url, {**SAPPHO, "title": "All Fragments"})) == (0, 1, 0, 0)
    assert query(database_url, "SELECT title, subtitle FROM books") == [("All Fragments", "By staff")]


def test_progress_is_told_in_bytes_and_rows(database_url: str, tmp_path: Path) -> None:
    content = csv_bytes(many_books(2500))
    seen: list[Progress] = []
    import_books(database_url, written(tmp_path, "many.csv", content), on_progress=seen.append)
    assert [progress.rows for progress in seen] == [1000, 2000, 2500]
    assert seen[-1].bytes_read == seen[-1].bytes_total == len(content)


def test_batches_are_bounded_in_bytes_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing_run, "BATCH_BYTES", 10_000)
    seen: list[Progress] = []
    run(database_url, *many_books(300), on_progress=seen.append)
    assert len(seen) > 3


def test_a_database_that_goes_away_ends_the_import_and_a_second_one_completes_it(database_url: str) -> None:
    rows = many_books(3000)

    def cut(progress: Progress) -> None:
        if progress.rows == 1000:
            query(
                database_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bookstore import'"
                " AND datname = current_database()",
            )

    with pytest.raises(
        ImportInterrupted, match=r"after 1,000 rows PostgreSQL failed.*the same import again completes it"
    ):
        run(database_url, *rows, on_progress=cut)
    assert query(database_url, "SELECT count(*) FROM books") == [(1000,)], "whole batches only"
    assert query(database_url, "SELECT status, rows_read FROM import_jobs") == [("failed", 1000)]
    assert counts(run(database_url, *rows)) == (2000, 0, 1000, 0)


def test_a_full_disk_leaves_no_half_batch(database_url: str) -> None:
    query(
        database_url,
        """
        CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER no_space BEFORE INSERT ON stock_movements FOR EACH STATEMENT EXECUTE FUNCTION no_space();
        """,
    )
    with pytest.raises(ImportInterrupted, match="No space left on device"):
        run(database_url, *many_books(1500))
    assert contents(database_url) == {}
    assert query(database_url, "SELECT status, error FROM import_jobs")[0][0] == "failed"


def test_no_database_and_no_catalogue_are_one_sentence_each(empty_database_url: str) -> None:
    with pytest.raises(ImportInterrupted, match="PostgreSQL cannot be reached"):
        run("postgresql://nobody@127.0.0.1:1/books", HOMER)
    with pytest.raises(ImportRefused, match=r"no catalogue yet.*supervisor migrate"):
        run(empty_database_url, HOMER)


def test_the_file_is_judged_before_the_database_is_asked(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/books"
    with pytest.raises(ImportRefused, match="there is no file"):
        import_books(nowhere, tmp_path / "absent.csv")
    with pytest.raises(ImportRefused, match="cannot be read: Is a directory"):
        import_books(nowhere, tmp_path)
    with pytest.raises(ImportRefused, match="its name does not tell the format"):
        import_books(nowhere, written(tmp_path, "books", b"sku,title\n"))
    with pytest.raises(ImportRefused, match="unknown column"):
        run(nowhere, {"sku": "a", "colour": "red"})


def test_a_header_alone_is_an_import_of_nothing(database_url: str) -> None:
    assert counts(import_books(database_url, BytesIO(b"sku,title\n"), format="csv")) == (0, 0, 0, 0)


def test_unexpected_errors_are_not_swallowed(database_url: str) -> None:
    query(database_url, "ALTER TABLE works DROP COLUMN reference")
    with pytest.raises(ImportInterrupted, match="reference") as interrupted:
        run(database_url, HOMER)
    assert isinstance(interrupted.value.__cause__, psycopg2.Error)


def test_a_file_is_never_held_in_memory(database_url: str) -> None:
    line = b'{"sku": "a", "title": "' + b"x" * 900_000 + b'"}\n'
    whole = _Repeated(line, 200)
    tracemalloc.start()
    try:
        summary = import_books(database_url, io.BufferedReader(whole), format="jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counts(summary) == (0, 0, 0, 200)
    assert peak < 30_000_000 < whole.length


class _Repeated(io.RawIOBase):
    """A long file that is nowhere."""

    def __init__(self, line: bytes, times: int) -> None:
        self._line = line
        self._at = 0
        self.length = len(line) * times

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start = self._at % len(self._line)
        piece = self._line[start : start + min(len(buffer), self.length - self._at)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
