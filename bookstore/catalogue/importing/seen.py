"""What this file said so far: its natural keys and names, on disk, because a file may hold more than memory does."""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Generic, TypeVar

from bookstore.catalogue.roles import makers

from .book import Book
from .outcome import ImportInterrupted

Kept = TypeVar("Kept")


class Seen(Generic[Kept]):
    """One per import. SQLite's own temporary database: it spills to disk when it grows and is gone when closed."""

    def __init__(self) -> None:
        self._sqlite = sqlite3.connect("", isolation_level=None)
        self._sqlite.executescript(
            """
            PRAGMA journal_mode = MEMORY;
            PRAGMA synchronous = OFF;
            CREATE TABLE keys (key TEXT PRIMARY KEY, row INTEGER NOT NULL, digest INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE books (id INTEGER PRIMARY KEY, row INTEGER NOT NULL);
            CREATE TABLE names (written TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE people (key TEXT PRIMARY KEY) WITHOUT ROWID;
            """
        )
        self._aside = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest

    def __enter__(self) -> Seen[Kept]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sqlite.close()
        with suppress(OSError):  # what could not be written before cannot now, and nobody wants it any more
            self._aside.close()

    @contextmanager
    def provisionally(self) -> Iterator[None]:
        """What is claimed in here counts only when it ends well, as what PostgreSQL is told in a transaction."""
        self._sqlite.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._sqlite.execute("ROLLBACK")
            raise
        self._sqlite.execute("COMMIT")

    def claimed(self, book: Book) -> tuple[int, bool] | None:
        """The accepted row that has this book's ISBN or SKU, and whether it says the very same."""
        for key in _keys(book):
            found = self._sqlite.execute("SELECT row, digest FROM keys WHERE key = ?", (key,)).fetchone()
            if found is not None:
                return found[0], found[1] == hash(book)
        return None

    def claimed_stored(self, book_id: int) -> int | None:
        """The accepted row that turned out to be the stored book `book_id`."""
        found = self._sqlite.execute("SELECT row FROM books WHERE id = ?", (book_id,)).fetchone()
        return None if found is None else int(found[0])

    def claim(self, row: int, book: Book, book_id: int | None) -> None:
        """This row is accepted: no later one of this file speaks of its book."""
        self._sqlite.executemany("INSERT INTO keys VALUES (?, ?, ?)", [(key, row, hash(book)) for key in _keys(book)])
        if book_id is not None:
            self._sqlite.execute("INSERT INTO books VALUES (?, ?)", (book_id, row))

    def put_aside(self, thing: Kept) -> None:
        with _room():
            pickle.dump(thing, self._aside, pickle.HIGHEST_PROTOCOL)

    def what_was_put_aside(self) -> Iterator[tuple[Kept, int]]:
        """In the order it came, each with how many bytes were taken so far; once, and after the last was put there."""
        with _room():
            end = self._aside.tell()
            self._aside.seek(0)
        while (at := self._aside.tell()) < end:
            yield pickle.load(self._aside), at  # noqa: S301 - our own, from a file without a name

    def note_authors(self, books: Iterable[Book]) -> None:
        names = [(person.written, person.key) for book in books for person in makers(book.contributors)]
        with self.provisionally():
            self._sqlite.executemany("INSERT OR IGNORE INTO names VALUES (?)", [(written,) for written, _ in names])
            self._sqlite.executemany("INSERT OR IGNORE INTO people VALUES (?)", [(key,) for _, key in names])

    def authors(self) -> tuple[int, int]:
        """How many distinct names of authors, as written, and how many people once spelling is folded away."""
        [(names,)] = self._sqlite.execute("SELECT count(*) FROM names")
        [(people,)] = self._sqlite.execute("SELECT count(*) FROM people")
        return names, people


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise ImportInterrupted(f"no room for rows put aside in {tempfile.gettempdir()}: {fault.strerror}") from fault


def _keys(book: Book) -> list[str]:
    return [text for text in (book.isbn13 and f"isbn {book.isbn13}", book.sku and f"sku {book.sku}") if text]
