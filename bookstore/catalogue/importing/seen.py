"""What this file said so far: its natural keys and names, on disk, because a file may hold more than memory does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from types import TracebackType

from .book import Book


class Seen:
    """One per import. SQLite's own temporary database: it spills to disk when it grows and is gone when closed."""

    def __init__(self) -> None:
        self._sqlite = sqlite3.connect("", isolation_level=None)
        self._sqlite.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            CREATE TABLE keys (key TEXT PRIMARY KEY, row INTEGER NOT NULL, digest INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE books (id INTEGER PRIMARY KEY, row INTEGER NOT NULL);
            CREATE TABLE names (written TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE people (key TEXT PRIMARY KEY) WITHOUT ROWID;
            BEGIN;
            """
        )

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sqlite.close()

    def claim(self, row: int, book: Book) -> tuple[int, bool] | None:
        """None when no earlier row has this book's ISBN or SKU; else that row, and whether it says the very same."""
        keys = [text for text in (book.isbn13 and f"isbn {book.isbn13}", book.sku and f"sku {book.sku}") if text]
        for key in keys:
            found = self._sqlite.execute("SELECT row, digest FROM keys WHERE key = ?", (key,)).fetchone()
            if found is not None:
                return found[0], found[1] == hash(book)
        self._sqlite.executemany("INSERT INTO keys VALUES (?, ?, ?)", [(key, row, hash(book)) for key in keys])
        return None

    def claim_stored(self, row: int, book_id: int) -> int:
        """The first row of this file that turned out to be the stored book `book_id`; `row`, when it is that."""
        self._sqlite.execute("INSERT OR IGNORE INTO books VALUES (?, ?)", (book_id, row))
        found: tuple[int] = self._sqlite.execute("SELECT row FROM books WHERE id = ?", (book_id,)).fetchone()
        return found[0]

    def note_authors(self, books: Iterable[Book]) -> None:
        names = [(person.written, person.key) for book in books for person in book.contributors if person.role == "A01"]
        self._sqlite.executemany("INSERT OR IGNORE INTO names VALUES (?)", [(written,) for written, _ in names])
        self._sqlite.executemany("INSERT OR IGNORE INTO people VALUES (?)", [(key,) for _, key in names])

    def authors(self) -> tuple[int, int]:
        """How many distinct names of authors, as written, and how many people once spelling is folded away."""
        [(names,)] = self._sqlite.execute("SELECT count(*) FROM names")
        [(people,)] = self._sqlite.execute("SELECT count(*) FROM people")
        return names, people
