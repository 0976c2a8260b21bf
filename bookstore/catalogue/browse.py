"""A reader looks through the shop: filters, an order, perhaps words; one page at a time, at one price at any depth."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bookstore.catalogue import queries
from bookstore.catalogue.folding import key, words
from bookstore.catalogue.languages import normalise_language
from bookstore.catalogue.models import BookQuery, Sort, read_id
from bookstore.catalogue.search import FEW, Meaning, Rule, hits, matches, relevance, understand, vocabulary_of
from bookstore.database import Connection, Database, Row
from bookstore.errors import Invalid, InvalidCursor
from bookstore.pagination import TOTAL_CAP, Position


@dataclass(frozen=True, slots=True)
class Shelf:
    """Which books, in which order: everything about a list but where its page begins."""

    found: str  # FROM … WHERE …
    params: dict[str, Any]
    sort_key: tuple[str, str]  # the key and the id beside it
    key_type: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What a search turned out to mean. It travels in the cursor, so that every page of a list means the same."""

    rule: Rule | None = None
    did_you_mean: str | None = None


@dataclass(frozen=True, slots=True)
class Browsed:
    rows: list[Row]
    reading: Reading
    shelf: Shelf

    def cursor_key(self, row: Row) -> tuple[Any, ...]:
        value = str(row["key"]) if isinstance(row["key"], Decimal) else row["key"]
        if self.reading.rule is None:
            return (value, row["id"])
        return (value, row["id"], self.reading.rule, self.reading.did_you_mean)


async def browse(database: Database, connection: Connection, wanted: BookQuery, position: Position | None) -> Browsed:
    """One more row than the page holds, read in the direction of `position`."""
    if not wanted.q or not wanted.q.strip():
        shelf = _shelf(wanted, None, Reading())
        return Browsed(await _rows(connection, shelf, wanted.limit, position), Reading(), shelf)
    if position is not None:
        reading = _reading_of(position)
        shelf = _shelf(wanted, understand(_searched(wanted.q, reading)), reading)
        return Browsed(await _rows(connection, shelf, wanted.limit, position), reading, shelf)

    meaning = understand(wanted.q)
    reading = Reading("words")
    shelf = _shelf(wanted, meaning, reading)
    rows = await _rows(connection, shelf, wanted.limit, None)
    if len(rows) < FEW:  # too few here; the filters, the limit or the words may be why
        better = await _read_again(database, connection, meaning)
        if better.rule != "words":
            shelf = _shelf(wanted, understand(_searched(wanted.q, better)), better)
            rows = await _rows(connection, shelf, wanted.limit, None)
        reading = better
    return Browsed(rows, reading, shelf)


async def count(connection: Connection, found: str, params: dict[str, Any]) -> tuple[int, bool]:
    """How many rows `found` has, counted up to the cap, and whether there are more."""
    counted = int(await connection.fetch_value(queries.COUNT.format(found=found), {**params, "cap": TOTAL_CAP + 1}))
    return min(counted, TOTAL_CAP), counted > TOTAL_CAP


async def fetch_page(
    connection: Connection,
    found: str,
    params: dict[str, Any],
    *,
    shown: str,
    limit: int,
    position: Position | None,
    key_type: str = "text",
    descending: bool = False,
) -> list[Row]:
    """The rows of one page of whatever is listed by `key` and `id`; `position` may turn the direction round."""
    if position is not None:
        params = {**params, "after_key": position.key[0], "after_id": position.key[1]}
        descending ^= position.direction == "prev"
    page = queries.page_of(found, after=position is not None, descending=descending, key_type=key_type)
    sql = queries.in_page_order(shown.format(page=page), descending=descending)
    return await connection.fetch_all(sql, {**params, "rows": limit + 1})


async def _rows(connection: Connection, shelf: Shelf, limit: int, position: Position | None) -> list[Row]:
    return await fetch_page(
        connection,
        "SELECT {1} AS id, {0} AS key {found}".format(*shelf.sort_key, found=shelf.found),
        shelf.params,
        shown=queries.SHOWN_BOOKS,
        limit=limit,
        position=position,
        key_type=shelf.key_type,
        descending=shelf.descending,
    )


async def _read_again(database: Database, connection: Connection, meaning: Meaning) -> Reading:
    """The words found few books: may the last be unfinished, or one be misspelt? Asked of the whole shop, whatever the
    filters: a word that is right does not become wrong by looking among the hardbacks only."""
    found = await connection.fetch_one(hits(meaning), meaning.params()) or {}
    if found["words"] >= FEW or not meaning.words:
        return Reading("words")
    rule: Rule = "prefix" if found["prefix"] > found["words"] else "words"
    if max(found["words"], found["prefix"]) >= FEW:
        return Reading(rule)
    vocabulary = await vocabulary_of(database, connection)
    corrections = vocabulary.corrections(meaning.words)
    if meaning.isbn is not None or not corrections:
        return Reading(rule)
    asked = [understand(text).wanted for text in corrections]
    tried = await connection.fetch_all(queries.HITS_OF_CORRECTIONS, {"corrections": asked})
    finding = {one["place"] for one in tried if one["hits"]}
    meant = next((text for place, text in enumerate(corrections, 1) if place in finding), None)
    if meant is None:
        return Reading(rule)
    return Reading(rule if found["words"] or found["prefix"] else "correction", meant)


def _searched(q: str, reading: Reading) -> str:
    return reading.did_you_mean if reading.rule == "correction" and reading.did_you_mean else q


def _reading_of(position: Position) -> Reading:
    if len(position.key) != 4:
        raise InvalidCursor
    return Reading(position.key[2], position.key[3])


def _shelf(wanted: BookQuery, meaning: Meaning | None, reading: Reading) -> Shelf:
    conditions, params = _narrowed(wanted)
    sort: Sort = wanted.sort or ("relevance" if meaning else "title")
    if sort == "relevance" and meaning is None:
        sort = "title"
    books = queries.BOOKS_WITH_PRICE if wanted.currency else queries.BOOKS
    sort_key = queries.SORT_KEYS.get(sort)
    if meaning is not None and reading.rule is not None:
        conditions.append(matches(meaning, reading.rule))
        params |= meaning.params()
        sort_key = sort_key or (relevance(meaning, reading.rule), "b.id")
    assert sort_key is not None
    return Shelf(
        found=" AND ".join([books, *conditions]),
        params=params,
        sort_key=sort_key,
        key_type=_KEY_TYPES.get(sort, "bigint"),
        descending=sort not in ("title", "price"),
    )


_KEY_TYPES = {"title": "text", "-published": "integer", "-rating": "numeric"}


def _narrowed(wanted: BookQuery) -> tuple[list[str], dict[str, Any]]:
    needs_currency = [name for name in ("price_min", "price_max") if getattr(wanted, name) is not None]
    if wanted.sort in ("price", "-price"):
        needs_currency.append("sort")
    if needs_currency and wanted.currency is None:
        raise Invalid.listing(
            [{"pointer": "/query/currency", "detail": f"is required with {name}"} for name in needs_currency]
        )
    given: dict[str, Any] = {
        name: getattr(wanted, name)
        for name in ("format", "currency", "price_min", "price_max", "in_stock", "published_from", "published_to")
    }
    if wanted.language is not None:
        given["language"] = normalise_language(wanted.language) or ""
    if wanted.author and (author := wanted.author.strip()):
        given |= _author(author)
    if wanted.subject and (subject := wanted.subject.strip()):
        given |= _subject(subject)
    params = {name: value for name, value in given.items() if value is not None}
    return [queries.FILTERS[name] for name in params if name in queries.FILTERS], params


def _author(author: str) -> dict[str, Any]:
    if author.isascii() and author.isdigit():
        return {"author_id": read_id(author) or 0}
    return {"author": " ".join(words(author))}


def _subject(subject: str) -> dict[str, Any]:
    scheme, _, code = (part.strip() for part in subject.partition(":"))
    scheme = scheme.lower()
    if code and scheme == "thema":
        return {"thema": code.upper()}
    if code and scheme == "bisac":
        return {"subject_scheme": scheme, "subject_code": code.upper()}
    if code and scheme == "keyword":
        return {"subject_scheme": scheme, "subject_code": key(code)}
    return {"subject": key(subject), "subject_as_code": subject.upper()}
