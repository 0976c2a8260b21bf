"""One import from its first byte to its summary. Blocking: for the command, or for a thread of the API."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import psycopg2
from psycopg2 import errorcodes, extensions

from bookstore.catalogue.search import REFRESH_WORDS
from bookstore.database import connect_blocking

from .book import BadRow, Book
from .columns import Columns
from .jobs import MOST_ROWS, fail_job, finish_job, record_batch, start_job
from .merge import MERGE_LOCK, Interfered, stored_books, write_books
from .outcome import (
    Fate,
    ImportInterrupted,
    ImportRefused,
    ImportSummary,
    Problem,
    ProblemListener,
    Progress,
    ProgressListener,
    RowOutcome,
    RowProblem,
    Severity,
    shown,
)
from .plan import StoredBook, Write, book_meant, plan
from .presets import preset_named
from .seen import Seen
from .sources import CsvRows, JsonlRows, Lines, Row, format_of, read_rows

BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20  # of the file: a thousand rows of a megabyte each are too many at once
ATTEMPTS = 6  # of one batch, when somebody else writes the same books
SHOWN_PROBLEMS = 50

# An import that is stopped (Ctrl-Z, a machine asleep) while it holds the lock must not stop all others for ever.
_BEGIN_BATCH = "SET LOCAL idle_in_transaction_session_timeout = '60s'; SELECT pg_advisory_xact_lock(%s, %s)"
_TRY_AGAIN = (errorcodes.DEADLOCK_DETECTED, errorcodes.SERIALIZATION_FAILURE)


def import_books(
    url: str,
    source: BinaryIO | Path,
    *,
    format: str | None = None,
    preset: str = "bookstore",
    mapping: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
    dry_run: bool = False,
    batch_rows: int = BATCH_ROWS,
    name: str | None = None,
    options: Mapping[str, object] | None = None,
    on_progress: ProgressListener | None = None,
    on_problem: ProblemListener | None = None,
) -> ImportSummary:
    """Brings the books of `source` into the catalogue, or (`dry_run`) says what that would do.

    `name` and `options` are what its job remembers: the file's name, and whatever else the caller will look for.

    Raises `ImportRefused` before anything is written, and `ImportInterrupted` when the database fails; then the batches
    committed so far stay, each of them whole, and the same import again completes it.
    """
    started = time.monotonic()
    known = preset_named(preset)
    name = shown(name or (source.name if isinstance(source, Path) else "stream"))
    seen: Seen[Entry]
    with _opened(source) as file, Seen() as seen:
        lines = Lines(file, name)
        format = format or format_of(name)
        rows = read_rows(format, lines, name)
        columns = Columns(known, mapping or {}, defaults or {}, rows.columns)
        with _catalogue(url) as connection:
            noted = {"mapping": dict(mapping or {}), "defaults": dict(defaults or {}), **(options or {})}
            with connection, connection.cursor() as cursor:
                job = start_job(cursor, source=name, format=format, preset=preset, options=noted, dry_run=dry_run)
            summary = ImportSummary(job=job, source=name, format=format, preset=preset, dry_run=dry_run)
            run = _Run(connection, seen, summary, on_problem)
            with _job_told(url, connection, summary):
                for batch in _batches(_looked_at(rows, columns, lines, seen), batch_rows):
                    run.store(batch)
                    if on_progress:
                        on_progress(Progress(lines.bytes_read, _size(file), summary.counts.rows))
                if not dry_run:
                    _refresh(connection, wrote=summary.counts.created + summary.counts.updated > 0)
                summary.author_names, summary.author_people = seen.authors()
                summary.seconds = time.monotonic() - started
                with connection, connection.cursor() as cursor:
                    finish_job(cursor, job, summary)
    return summary


class Entry(NamedTuple):
    """A row that makes sense by itself."""

    row: int
    line: int
    book: Book
    warnings: tuple[Problem, ...]

    def problem(self, fault: RowProblem, severity: Severity = "error") -> Problem:
        return fault.at(self.row, self.line, severity)


Batch = list[Entry | RowOutcome]  # in order; an outcome is of a row whose fate needs no look at the catalogue


def _batches(items: Iterable[tuple[Entry | RowOutcome | None, int]], batch_rows: int) -> Iterator[Batch]:
    batch: Batch = []
    begun_at = 0
    for item, bytes_read in items:
        if item is not None:
            batch.append(item)
        if len(batch) >= batch_rows or bytes_read - begun_at >= BATCH_BYTES:
            yield batch
            batch, begun_at = [], bytes_read
    if batch:
        yield batch


def _looked_at(
    rows: CsvRows | JsonlRows, columns: Columns, lines: Lines, seen: Seen[Entry]
) -> Iterator[tuple[Entry | RowOutcome | None, int]]:
    """What each row says by itself, and the bytes read for it; None for a row that comes again at the end.

    Rows without a title come last: they can only speak of books that are there, and which are is known when every row
    that makes one has had its turn. Else the first run would refuse such a row and the second take it, against the row
    behind it that made the book.
    """
    last = columns.may_give_titles
    for row in rows:
        item = RowOutcome(row.row, "failed", (row,)) if isinstance(row, Problem) else _entry(row, columns)
        if last and isinstance(item, Entry) and item.book.title is None:
            seen.put_aside(item)
            yield None, lines.bytes_read
        else:
            yield item, lines.bytes_read
    for entry, taken in seen.what_was_put_aside():
        yield entry, lines.bytes_read + taken


def _entry(row: Row, columns: Columns) -> Entry | RowOutcome:
    try:
        book, faults = columns.book(row.values)
    except BadRow as bad:
        return RowOutcome(row.number, "failed", tuple(problem.at(row.number, row.line) for problem in bad.problems))
    return Entry(row.number, row.line, book, tuple(fault.at(row.number, row.line, "warning") for fault in faults))


class _Run:
    """The batches of one import on one connection; each is one transaction, in a dry run one that is rolled back."""

    def __init__(
        self,
        connection: extensions.connection,
        seen: Seen[Entry],
        summary: ImportSummary,
        on_problem: ProblemListener | None,
    ) -> None:
        self._connection = connection
        self._seen = seen
        self._summary = summary
        self._on_problem = on_problem
        self._recorded = 0

    def store(self, batch: Batch) -> None:
        """Stores a batch; one that PostgreSQL refuses is halved until the row it refuses stands alone."""
        if not batch:
            return None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcomes = self._attempt(batch)
                break
            except (Interfered, psycopg2.errors.UniqueViolation):
                self._connection.rollback()
            except psycopg2.Error as fault:
                if fault.pgcode in _TRY_AGAIN:
                    self._connection.rollback()
                elif isinstance(fault, psycopg2.DataError | psycopg2.IntegrityError):
                    self._connection.rollback()
                    return self._isolate(batch, fault)
                else:
                    raise
            time.sleep(random.uniform(0, 0.05) * 2**attempt)  # noqa: S311 - who waits how long is no secret
        else:
            raise ImportInterrupted("others write the same books all the time; run the import again when it is quieter")
        self._tell(batch, outcomes)
        return None

    def _attempt(self, batch: Batch) -> list[RowOutcome]:
        """One transaction: look, decide, write, note in the job."""
        with self._seen.provisionally(), self._connection.cursor() as cursor:
            cursor.execute(_BEGIN_BATCH, MERGE_LOCK)
            books = [item.book for item in batch if isinstance(item, Entry)]
            outcomes, writes = self._planned(batch, stored_books(cursor, books))
            written = write_books(cursor, writes, reference=f"import {self._summary.job}") if writes else {}
            if self._summary.dry_run:
                self._connection.rollback()
                written = {}
            recorded = record_batch(cursor, self._summary.job, outcomes, written, most=MOST_ROWS - self._recorded)
            self._connection.commit()
        self._recorded += recorded
        return outcomes

    def _planned(self, batch: Batch, stored: Sequence[StoredBook]) -> tuple[list[RowOutcome], list[tuple[int, Write]]]:
        by_isbn = {book.facts.isbn13: book for book in stored if book.facts.isbn13}
        by_sku = {book.facts.sku: book for book in stored if book.facts.sku}
        outcomes: list[RowOutcome] = []
        writes: list[tuple[int, Write]] = []
        for item in batch:
            if isinstance(item, RowOutcome):
                outcomes.append(item)
                continue
            found = (by_isbn.get(item.book.isbn13 or ""), by_sku.get(item.book.sku or ""))
            outcome, write = self._decided(item, *found)
            outcomes.append(outcome)
            if write is not None:
                writes.append((item.row, write))
        return outcomes, writes

    def _decided(
        self, entry: Entry, by_isbn: StoredBook | None, by_sku: StoredBook | None
    ) -> tuple[RowOutcome, Write | None]:
        """A row's fate. Only one that is accepted claims its book: a bad row must not cost a good one its place."""
        try:
            if (earlier := self._seen.claimed(entry.book)) is not None:
                return _again(entry, *earlier), None
            meant = book_meant(entry.book, by_isbn, by_sku)
            if meant and (first := self._seen.claimed_stored(meant.id)) is not None:
                raise RowProblem(f"is the same book as row {first}, by its other number", column="sku")
            write = plan(entry.book, by_isbn, by_sku)
        except RowProblem as fault:
            return RowOutcome(entry.row, "failed", (*entry.warnings, entry.problem(fault))), None
        self._seen.claim(entry.row, entry.book, meant and meant.id)
        status: Fate = "unchanged" if write is None else "updated" if meant else "created"
        return RowOutcome(entry.row, status, _told(entry, meant)), write

    def _isolate(self, batch: Batch, fault: psycopg2.Error) -> None:
        entries = [item for item in batch if isinstance(item, Entry)]
        if len(batch) > 1 and entries:
            middle = len(batch) // 2
            self.store(batch[:middle])
            self.store(batch[middle:])
            return
        if not entries:
            raise fault  # it is no row's fault
        [entry] = entries
        refusal = entry.problem(RowProblem(f"PostgreSQL refuses it: {_sentence(fault)}"))
        self.store([RowOutcome(entry.row, "failed", (*entry.warnings, refusal))])

    def _tell(self, batch: Batch, outcomes: Sequence[RowOutcome]) -> None:
        failed = {outcome.row for outcome in outcomes if outcome.status == "failed"}
        good = [item.book for item in batch if isinstance(item, Entry) and item.row not in failed]
        self._seen.note_authors(good)
        self._summary.with_isbn += sum(book.isbn13 is not None for book in good)
        for outcome in outcomes:
            self._summary.counts.add(outcome)
            self._summary.problem_count += len(outcome.issues)
            for issue in outcome.issues:
                if len(self._summary.problems) < SHOWN_PROBLEMS:
                    self._summary.problems.append(issue)
                if self._on_problem:
                    self._on_problem(issue)


def _again(entry: Entry, first: int, the_same: bool) -> RowOutcome:
    fault = RowProblem(
        f"the very same book as in row {first}"
        if the_same
        else f"row {first} has the same ISBN or SKU and says otherwise",
        column="isbn" if entry.book.isbn13 else "sku",
        value=entry.book.isbn13 or entry.book.sku,
    )
    issue = entry.problem(fault, "warning" if the_same else "error")
    return RowOutcome(entry.row, "unchanged" if the_same else "failed", (*entry.warnings, issue))


def _told(entry: Entry, meant: StoredBook | None) -> tuple[Problem, ...]:
    if meant is None or not meant.archived:
        return entry.warnings
    return (*entry.warnings, entry.problem(RowProblem("the book is archived, and stays so"), "warning"))


@contextmanager
def _opened(source: BinaryIO | Path) -> Iterator[BinaryIO]:
    if not isinstance(source, Path):
        yield source
        return
    try:
        file = source.open("rb")
    except FileNotFoundError:
        raise ImportRefused(f"there is no file {source}") from None
    except OSError as fault:
        raise ImportRefused(f"{source} cannot be read: {fault.strerror}") from None
    with file:
        yield file


def _size(file: BinaryIO) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size or None
    except (OSError, AttributeError, ValueError):
        return None


@contextmanager
def _catalogue(url: str) -> Iterator[extensions.connection]:
    try:
        connection = connect_blocking(url, application_name="bookstore import")
    except psycopg2.Error as fault:
        raise ImportInterrupted(f"PostgreSQL cannot be reached: {_sentence(fault)}") from None
    try:
        yield connection
    except psycopg2.errors.UndefinedTable as fault:
        raise ImportRefused(
            f"the database has no catalogue yet ({_sentence(fault)}); run: supervisor migrate"
        ) from None
    except psycopg2.Error as fault:
        raise ImportInterrupted(f"PostgreSQL failed: {_sentence(fault)}") from fault
    finally:
        connection.close()


@contextmanager
def _job_told(url: str, connection: extensions.connection, summary: ImportSummary) -> Iterator[None]:
    """However the import ends before its end, its job says so: on its own connection, or if that is gone on another."""
    try:
        yield
    except BaseException as fault:
        reason = "interrupted" if isinstance(fault, KeyboardInterrupt) else _sentence(fault) or type(fault).__name__
        with contextlib.suppress(psycopg2.Error):
            if connection.closed:
                connection = connect_blocking(url)
            connection.rollback()
            with connection, connection.cursor() as cursor:
                fail_job(cursor, summary.job, reason)
        if isinstance(fault, psycopg2.Error):
            done = "nothing was written" if summary.dry_run else "every batch before it is stored, whole"
            raise ImportInterrupted(
                f"after {summary.counts.rows:,} rows PostgreSQL failed: {reason}. {done.capitalize()}; "
                "the same import again completes it"
            ) from fault
        raise


def _refresh(connection: extensions.connection, *, wrote: bool) -> None:
    """The vocabulary, and what the query planner knows; also after a run that changed nothing, because the one before
    may have been killed just here."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", MERGE_LOCK)
        cursor.execute(REFRESH_WORDS)
        if wrote:
            cursor.execute(
                "ANALYZE books, works, contributors, book_contributors, subjects, book_subjects, prices, stock"
            )


def _sentence(fault: BaseException) -> str:
    diagnosis = getattr(fault, "diag", None)
    text = (diagnosis.message_primary if diagnosis else None) or str(fault)
    return " ".join(text.split()).rstrip(".")
