"""Decides what a row means for the catalogue. PURE: the stored book and the row's book in, what to write out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from bookstore.catalogue.folding import key
from bookstore.catalogue.roles import makers
from bookstore.catalogue.search import SearchText, search_text

from .book import Book, Contributor, Price, Subject
from .outcome import RowProblem


class Facts(NamedTuple):
    """The columns of `books` that an import writes, names in the place of ids."""

    isbn13: str | None
    sku: str | None
    title: str
    subtitle: str | None
    series: str | None
    series_number: str | None
    publisher: str | None
    format: str | None
    availability: str
    language: str | None
    published_year: int | None
    published_on: datetime.date | None
    rating: Decimal | None
    rating_count: int | None
    rating_source: str | None


class StoredBook(NamedTuple):
    """A book as the catalogue has it now."""

    id: int
    version: int
    archived: bool
    work: str | None
    facts: Facts
    contributors: tuple[tuple[str, str, str], ...]  # role, key and name, in order
    subjects: tuple[tuple[str, str, str], ...]  # scheme, code and heading
    prices: Mapping[str, int]


class Write(NamedTuple):
    """What to store. A work that is None and lists that are empty stay as they are."""

    stored: StoredBook | None  # None: a new book
    facts: Facts
    work: str | None
    work_title: str
    search: SearchText
    contributors: tuple[Contributor, ...]
    subjects: tuple[Subject, ...]
    prices: tuple[Price, ...]
    received: int


def plan(book: Book, by_isbn: StoredBook | None, by_sku: StoredBook | None) -> Write | None:
    """What to write for this row; None when the catalogue already says all of it. `RowProblem` when it cannot be."""
    stored = book_meant(book, by_isbn, by_sku)
    return _new(book) if stored is None else _changed(book, stored)


def book_meant(book: Book, by_isbn: StoredBook | None, by_sku: StoredBook | None) -> StoredBook | None:
    """ISBN first, then SKU. A natural key once given never changes, so no row decides what another row means."""
    if by_isbn and by_sku and by_isbn.id != by_sku.id:
        raise RowProblem(
            f"ISBN {book.isbn13} and SKU {book.sku} are two different books here ({by_isbn.id} and {by_sku.id})",
            column="sku",
            value=book.sku,
        )
    stored = by_isbn or by_sku
    if stored is None:
        return None
    if book.isbn13 and stored.facts.isbn13 not in (None, book.isbn13):
        raise RowProblem(
            f"SKU {book.sku} is the book with ISBN {stored.facts.isbn13} here", column="isbn", value=book.isbn13
        )
    if book.sku and stored.facts.sku not in (None, book.sku):
        raise RowProblem(f"ISBN {book.isbn13} has the SKU {stored.facts.sku} here", column="sku", value=book.sku)
    return stored


def _new(book: Book) -> Write:
    if book.title is None:
        raise RowProblem("the book is new here, and a new book needs a title", column="title")
    return Write(
        stored=None,
        facts=Facts(
            isbn13=book.isbn13,
            sku=book.sku,
            title=book.title,
            subtitle=book.subtitle,
            series=book.series,
            series_number=book.series_number,
            publisher=book.publisher,
            format=book.format,
            availability=book.availability or "20",
            language=book.language,
            published_year=book.published_year,
            published_on=book.published_on,
            rating=book.rating,
            rating_count=book.rating_count,
            rating_source=None if book.rating is None else "imported",
        ),
        work=book.work or _reference(book, book.title),
        work_title=book.work_title or book.title,
        search=search_text(
            book.title,
            subtitle=book.subtitle,
            series=book.series,
            contributors=[contributor.name for contributor in book.contributors],
            subjects=[subject.heading for subject in book.subjects],
        ),
        contributors=book.contributors,
        subjects=book.subjects,
        prices=book.prices,
        received=book.stock or 0,
    )


def _reference(book: Book, title: str) -> str:
    """What groups editions when the feed does not: the same title by the same first author, however spelled."""
    authors = makers(book.contributors)
    if not authors:
        return f"book:{book.isbn13 or book.sku}"  # two nameless *Poems* are not one work
    return f"title:{key(title)}/{authors[0].key}"


def _changed(book: Book, stored: StoredBook) -> Write | None:
    facts = _laid_over(stored.facts, book)
    people = [(contributor.role, contributor.key) for contributor in book.contributors]
    new_people = bool(people) and people != [(role, key) for role, key, _ in stored.contributors]
    codes = {(subject.scheme, subject.code) for subject in book.subjects}
    new_subjects = bool(codes) and codes != {(scheme, code) for scheme, code, _ in stored.subjects}
    prices = tuple(price for price in book.prices if stored.prices.get(price.currency) != price.amount)
    work = book.work if book.work != stored.work else None
    if facts == stored.facts and not (new_people or new_subjects or prices or work):
        return None
    return Write(
        stored=stored,
        facts=facts,
        work=work,
        work_title=book.work_title or facts.title,
        search=search_text(
            facts.title,
            subtitle=facts.subtitle,
            series=facts.series,
            contributors=[person.name for person in book.contributors] or [name for _, _, name in stored.contributors],
            subjects=[subject.heading for subject in book.subjects] or [heading for _, _, heading in stored.subjects],
        ),
        contributors=book.contributors if new_people else (),
        subjects=book.subjects if new_subjects else (),
        prices=prices,
        received=0,  # a second run must never undo sales
    )


def _laid_over(stored: Facts, book: Book) -> Facts:
    """What the row says where it says something. One name in another spelling is no change: the first one stays."""
    same_series = book.series is None or _same(book.series, stored.series)
    same_publisher = book.publisher is None or _same(book.publisher, stored.publisher)
    same_date = book.published_on is None and book.published_year in (None, stored.published_year)
    rated_by_readers = stored.rating_source == "readers"  # who know better than a feed
    same_rating = rated_by_readers or book.rating is None
    return Facts(
        isbn13=stored.isbn13 or book.isbn13,
        sku=stored.sku or book.sku,
        title=book.title or stored.title,
        subtitle=book.subtitle or stored.subtitle,
        series=stored.series if same_series else book.series,
        series_number=book.series_number or (stored.series_number if same_series else None),
        publisher=stored.publisher if same_publisher else book.publisher,
        format=book.format or stored.format,
        availability=book.availability or stored.availability,
        language=book.language or stored.language,
        published_year=stored.published_year if same_date else book.published_year,
        published_on=stored.published_on if same_date else book.published_on,
        rating=stored.rating if same_rating else book.rating,
        rating_count=stored.rating_count if rated_by_readers or book.rating_count is None else book.rating_count,
        rating_source=stored.rating_source if same_rating else "imported",
    )


def _same(one: str, other: str | None) -> bool:
    return other is not None and key(one) == key(other)
