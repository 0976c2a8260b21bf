"""The catalogue as anybody may read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from bookstore.catalogue import queries
from bookstore.catalogue.browse import browse, count, fetch_page
from bookstore.catalogue.isbn import normalise_isbn
from bookstore.catalogue.models import (
    Author,
    AuthorPage,
    Book,
    BookPage,
    BookQuery,
    Lookup,
    LookupResult,
    OfIsbn,
    OfOne,
    PageOfBooks,
    PageQuery,
    SubjectPage,
    Suggestions,
    SuggestQuery,
    Work,
    book_etag,
    present_book,
    present_contributor,
    present_subject,
    read_id,
)
from bookstore.catalogue.suggest import suggest
from bookstore.database import DATABASE, Row, connection
from bookstore.errors import Gone, InvalidCursor, InvalidIsbn, NotFound
from bookstore.openapi import Routes
from bookstore.pagination import Links, read_position, turn_pages, wants_total
from bookstore.payloads import as_json, read_body, read_path, read_query, respond
from bookstore.settings import SETTINGS

routes = Routes(tags=["catalogue"])

_ETAG = {"ETag": "The version; send it as `If-None-Match` to get 304 while it holds"}
_LINK = {"Link": "RFC 8288: the next and the previous page"}
_PREFER = {"Prefer": "`return=total-count` adds `total`, counted up to 10,000"}


@routes.get(
    "/books",
    query=BookQuery,
    answers=BookPage,
    errors=[InvalidCursor],
    cached=True,
    takes=_PREFER,
    headers=_LINK,
)
async def list_books(request: web.Request) -> web.Response:
    """Look through the shop.

    Filters narrow, `q` searches, `sort` orders; pages go both ways and cost the same at any depth. A search that found
    little offers `did_you_mean`; one that found nothing answers for that spelling instead and says `corrected`.
    """
    wanted = read_query(request, BookQuery)
    query = _as_parameters(wanted)
    position = read_position(request, query, wanted.cursor)
    async with connection(request) as db:
        found = await browse(request.app[DATABASE], db, wanted, position)
        total = await count(db, f"SELECT {found.shelf.found}", found.shelf.params) if wants_total(request) else None
    rows, links = turn_pages(request, query, position, found.rows, wanted.limit, found.cursor_key)
    page, headers = _page([present_book(row) for row in rows], links, total)
    if found.reading.rule is not None:
        page["matched_by"] = found.reading.rule if rows else None
        page["did_you_mean"] = found.reading.did_you_mean
        page["corrected"] = found.reading.rule == "correction"
    return respond(page, headers=headers)


@routes.get(
    "/books/{id:(?!lookup$)[^/]+}",  # so that GET of /books/lookup is 405 and not the search for a book of that id
    path_model=OfOne,
    answers=Book,
    errors=[NotFound, Gone],
    cached=True,
    headers=_ETAG,
)
async def show_book(request: web.Request) -> web.Response:
    """One edition."""
    id = read_id(read_path(request, OfOne).id)
    if id is None:
        raise NotFound(_NO_SUCH_BOOK)
    async with connection(request) as db:
        row = await db.fetch_one(queries.BOOK_BY_ID, {"id": id})
    if row is None:
        raise NotFound(_NO_SUCH_BOOK)
    if row["archived_at"] is not None:
        raise Gone("The shop no longer sells this book. Remove your reference to it.")
    return respond(present_book(row), etag=book_etag(row))


@routes.get(
    "/books/isbn/{isbn}",
    path_model=OfIsbn,
    answers=Book,
    errors=[NotFound, InvalidIsbn],
    cached=True,
    headers={**_ETAG, "Content-Location": "Where the book is under its id"},
)
async def show_book_by_isbn(request: web.Request) -> web.Response:
    """One edition, by its ISBN-10 or ISBN-13, with or without hyphens."""
    isbn = normalise_isbn(read_path(request, OfIsbn).isbn)
    if isbn is None:
        raise InvalidIsbn
    async with connection(request) as db:
        row = await db.fetch_one(queries.BOOK_BY_ISBN, {"isbn": isbn})
    if row is None:
        raise NotFound(f"The shop has no book with the ISBN {isbn}. Search at /books?q= for another edition.")
    location = f"{request.app[SETTINGS].api_prefix}/books/{row['id']}"
    return respond(present_book(row), etag=book_etag(row), content_location=location)


@routes.post("/books/lookup", body=Lookup, answers=LookupResult)
async def look_up_books(request: web.Request) -> web.Response:
    """Up to a hundred ISBNs at once.

    One result for each, in the same order, found or not; what is no ISBN is a result too, with `isbn13` null.
    """
    asked = (await read_body(request, Lookup)).isbns
    isbn13s = [normalise_isbn(text) for text in asked]
    async with connection(request) as db:
        rows = await db.fetch_all(queries.BOOKS_BY_ISBNS, {"isbns": [isbn for isbn in isbn13s if isbn]})
    books = {row["isbn13"]: present_book(row) for row in rows}
    results = [
        {"isbn": text, "isbn13": isbn, "found": isbn in books, "book": books.get(isbn)}
        for text, isbn in zip(asked, isbn13s, strict=True)
    ]
    return respond({"results": results})


@routes.get("/works/{id}", path_model=OfOne, answers=Work, errors=[NotFound], cached=True, headers=_ETAG)
async def show_work(request: web.Request) -> web.Response:
    """A work with the editions of it that the shop sells."""
    id = read_id(read_path(request, OfOne).id)
    async with connection(request) as db:
        work = await db.fetch_one(queries.WORK_BY_ID, {"id": id})
        if work is None:
            raise NotFound("There is no such work. Books name theirs as `work_id`.")
        editions = await db.fetch_all(queries.EDITIONS_OF_WORK, {"id": id})
    shown = {
        "id": str(work["id"]),
        "title": work["title"],
        "contributors": [present_contributor(*one) for one in work["contributors"] or ()],
        "editions": [present_book(row) for row in editions],
    }
    return respond(shown, etag=_content_tag(shown))


@routes.get(
    "/authors",
    query=PageQuery,
    answers=AuthorPage,
    errors=[InvalidCursor],
    cached=True,
    takes=_PREFER,
    headers=_LINK,
)
async def list_authors(request: web.Request) -> web.Response:
    """The authors of the books in the shop, by name; of a book without one, who edited it."""
    return await _list(request, queries.AUTHORS, queries.SHOWN_AUTHORS, _present_author)


@routes.get("/authors/{id}", path_model=OfOne, answers=Author, errors=[NotFound], cached=True, headers=_ETAG)
async def show_author(request: web.Request) -> web.Response:
    """Somebody with a part in a book: authors, and translators, illustrators … too."""
    async with connection(request) as db:
        row = await db.fetch_one(queries.AUTHOR_BY_ID, {"id": read_id(read_path(request, OfOne).id)})
    if row is None:
        raise NotFound(_NO_SUCH_AUTHOR)
    shown = _present_author(row)
    return respond(shown, etag=_content_tag(shown))


@routes.get(
    "/authors/{id}/books",
    path_model=OfOne,
    query=PageQuery,
    answers=PageOfBooks,
    errors=[NotFound, InvalidCursor],
    cached=True,
    takes=_PREFER,
    headers=_LINK,
)
async def list_books_of_author(request: web.Request) -> web.Response:
    """The books somebody has a part in, whatever the part, by title."""
    id = read_id(read_path(request, OfOne).id)
    async with connection(request) as db:
        if await db.fetch_one(queries.AUTHOR_BY_ID, {"id": id}) is None:
            raise NotFound(_NO_SUCH_AUTHOR)
    return await _list(request, queries.BOOKS_OF_AUTHOR, queries.SHOWN_BOOKS, present_book, of={"id": id})


@routes.get(
    "/subjects",
    query=PageQuery,
    answers=SubjectPage,
    errors=[InvalidCursor],
    cached=True,
    takes=_PREFER,
    headers=_LINK,
)
async def list_subjects(request: web.Request) -> web.Response:
    """What the books in the shop are about, by heading. An `id` is what `/books?subject=` takes."""
    return await _list(request, queries.SUBJECTS, queries.SHOWN_SUBJECTS, _present_subject_in_use)


@routes.get("/suggest", query=SuggestQuery, answers=Suggestions, cached=True)
async def suggest_completions(request: web.Request) -> web.Response:
    """What somebody who typed this may be about to ask for: titles, authors, words; at most eight."""
    typed = read_query(request, SuggestQuery).q
    async with connection(request) as db:
        return respond({"items": await suggest(db, typed)})


_NO_SUCH_BOOK = "There is no such book. Search at /books?q= or look at /books/isbn/{isbn}."
_NO_SUCH_AUTHOR = "There is no such author. Those there are, are listed at /authors."


async def _list(
    request: web.Request,
    found: str,
    shown: str,
    present: Callable[[Row], dict[str, Any]],
    *,
    of: dict[str, Any] | None = None,
) -> web.Response:
    """A list ordered by one key and the id, without filters of its own."""
    wanted = read_query(request, PageQuery)
    position = read_position(request, {}, wanted.cursor)
    async with connection(request) as db:
        rows = await fetch_page(db, found, of or {}, limit=wanted.limit, position=position, shown=shown)
        total = await count(db, found, of or {}) if wants_total(request) else None
    listed, links = turn_pages(request, {}, position, rows, wanted.limit, lambda row: (row["key"], row["id"]))
    page, headers = _page([present(row) for row in listed], links, total)
    return respond(page, headers=headers)


def _page(
    items: list[dict[str, Any]], links: Links, total: tuple[int, bool] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and its headers."""
    page: dict[str, Any] = {"items": items, "next": links.next, "prev": links.prev}
    headers = {**links.headers, "Vary": "Prefer"}
    if total is not None:
        page["total"], page["total_is_capped"] = total
        headers["Preference-Applied"] = "return=total-count"
    return page, headers


def _as_parameters(wanted: BookQuery) -> dict[str, Any]:
    """The filters and the order, as a URL spells them."""
    given = wanted.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}


def _present_author(row: Row) -> dict[str, Any]:
    return {"id": str(row["id"]), "name": row["name"], "books": row["books"]}


def _present_subject_in_use(row: Row) -> dict[str, Any]:
    return {**present_subject(row["scheme"], row["code"], row["heading"]), "books": row["books"]}


def _content_tag(shown: dict[str, Any]) -> str:
    """For what is put together from many rows: no version says that one of them changed, the content does."""
    return hashlib.sha256(as_json(shown)).hexdigest()[:24]
