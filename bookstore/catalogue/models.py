"""What the catalogue takes in and gives out: the shapes the OpenAPI document is made of, and rows turned into them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bookstore.catalogue.isbn import isbn10_of
from bookstore.pagination import DEFAULT_LIMIT, Cursor, Limit, Page
from bookstore.payloads import Money, Payload

Sort = Literal["relevance", "title", "-published", "price", "-price", "-rating"]
Stock = Literal["in_stock", "low", "out"]
LOW_STOCK = 5


def _boolean_word(value: object) -> object:
    """`true` or `false` and nothing else: pydantic would also take `1`, `on` and `y`."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value, "neither")
    return value


def _whole_number(value: object) -> object:
    """Digits and a sign: pydantic would also take ` 7`, `7.0` and `1_000`."""
    if isinstance(value, str) and not (value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()):
        return "not a whole number"
    return value


def _upper_case(value: object) -> object:
    """Codes, in whatever case people write them."""
    return value.upper() if isinstance(value, str) and value.isascii() else value


Flag = Annotated[bool, BeforeValidator(_boolean_word)]
# Bounds stand before it in an `Annotated`: those after it get no word in the JSON schema.
_WHOLE = BeforeValidator(_whole_number)
_UPPER_CASE = BeforeValidator(_upper_case)
Id = Annotated[
    str,
    Field(description="Opaque: promises nothing but to name this one thing", json_schema_extra={"format": "opaque-id"}),
]
Isbn = Annotated[
    str, Field(max_length=40, description="ISBN-10 or ISBN-13, hyphens welcome", json_schema_extra={"format": "isbn"})
]
Year = Annotated[int, Field(ge=-5000, le=9999, description="Negative before our era"), _WHOLE]
Amount = Annotated[
    int, Field(ge=0, le=10**15, description="In minor units of `currency`, which is then required"), _WHOLE
]


class Asked(Payload):
    """What is asked keeps its blanks until it is understood: stripped first, a text longer than the document allows
    would pass for one that is not."""

    model_config = ConfigDict(str_strip_whitespace=False)


class PageQuery(Asked):
    """Which part of a list."""

    limit: Annotated[Limit, _WHOLE] = DEFAULT_LIMIT
    cursor: Cursor | None = None


class BookQuery(PageQuery):
    """Which books, in which order. Blank text is no filter: forms send their empty fields along."""

    q: str | None = Field(
        None, max_length=200, description='Words, `"a phrase"`, `-without`, `this OR that`, an ISBN or an SKU'
    )
    author: str | None = Field(None, max_length=200, description="An author's id or words of the name")
    subject: str | None = Field(
        None,
        max_length=300,
        description="`thema:FBA` (and all below it), `bisac:FIC000000`, `keyword:poetry`, or a heading; in any case",
    )
    language: str | None = Field(
        None, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$", max_length=35, description="ISO 639 or a language tag"
    )
    format: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]$"), _UPPER_CASE] | None = Field(
        None, description="ONIX list 150: BB, BC, EB, AN …"
    )
    price_min: Amount | None = None
    price_max: Amount | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Za-z]{3}$"), _UPPER_CASE] | None = Field(
        None, description="ISO 4217: only books with a price in this currency"
    )
    in_stock: Flag | None = None
    published_from: Year | None = None
    published_to: Year | None = None
    sort: Sort | None = Field(None, description="Default: relevance with `q`, else title")


class OfOne(Asked):
    """Which one."""

    id: Id


class OfIsbn(Asked):
    """Which ISBN."""

    isbn: Isbn


class SuggestQuery(Asked):
    """What has been typed so far."""

    q: str = Field(max_length=100)


class Lookup(Asked):
    """The ISBNs to look up, in any spelling."""

    isbns: list[Annotated[str, Field(max_length=40)]] = Field(max_length=100)


class Contributor(BaseModel):
    id: Id
    name: str
    role: str = Field(description="ONIX list 17: A01 author, B06 translator …")


class Series(BaseModel):
    title: str
    number: str | None


class Subject(BaseModel):
    id: Id
    scheme: Literal["thema", "bisac", "keyword"]
    code: str
    heading: str


class Book(BaseModel):
    """One edition: what the shop sells."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    work_id: Id
    isbn13: str | None
    isbn10: str | None = Field(description="Derived, for 978 numbers only")
    sku: str | None
    title: str
    subtitle: str | None
    contributors: list[Contributor] = Field(description="In the order of the title page")
    series: Series | None
    publisher: str | None
    format: str | None = Field(description="ONIX list 150: BB hardback, BC paperback, EB digital, AN audio download")
    availability: str = Field(description="ONIX list 65: 20 available, 21 in stock, 40 not available …")
    language: str | None = Field(description="The shortest ISO 639 code")
    published: int | None = Field(description="The year; negative before our era")
    published_on: str | None = Field(
        description="The full date where it is known", json_schema_extra={"format": "date"}
    )
    rating: float | None = Field(ge=0, le=5)
    rating_count: int | None
    rating_source: Literal["readers", "imported"] | None
    prices: list[Money] = Field(description="One per currency; none: not for sale yet")
    stock: Stock
    subjects: list[Subject]
    updated_at: str = Field(json_schema_extra={"format": "date-time"})


class PageOfBooks(Page[Book]):
    """A page of books."""


class BookPage(PageOfBooks):
    """A page of books. The last three members speak of a search; without `q` they are null, null and false."""

    matched_by: Literal["words", "prefix", "correction"] | None = Field(
        None, description="The rule that found them: whole words; the last word as a beginning; `did_you_mean` instead"
    )
    did_you_mean: str | None = Field(None, description="A spelling this catalogue knows, when little was found")
    corrected: bool = Field(False, description="Nothing else matched, so these are the books for `did_you_mean`")


class Found(BaseModel):
    """What became of one ISBN."""

    isbn: str = Field(description="As it was asked for")
    isbn13: str | None = Field(description="Null when it is no valid ISBN")
    found: bool
    book: Book | None


class LookupResult(BaseModel):
    results: list[Found] = Field(description="One per ISBN asked for, in the same order")


class Work(BaseModel):
    """The editions of one title."""

    id: Id
    title: str
    contributors: list[Contributor] = Field(
        description="Who made the work itself, whatever the edition: authors and compilers, else editors"
    )
    editions: list[Book] = Field(description="The newest first, at most 100")


class Author(BaseModel):
    id: Id
    name: str
    books: int = Field(description="How many of the shop's books they have a part in")


class AuthorPage(Page[Author]):
    """A page of authors."""


class SubjectInUse(Subject):
    books: int


class SubjectPage(Page[SubjectInUse]):
    """A page of subjects."""


class Suggestion(BaseModel):
    text: str
    kind: Literal["title", "author", "word"]
    id: Id | None = Field(description="Of the book or the author")


class Suggestions(BaseModel):
    items: list[Suggestion] = Field(max_length=8)


def read_id(text: str) -> int | None:
    """The id a client was given, or None for what no id of ours looks like."""
    if not (text.isascii() and text.isdigit()) or text.startswith("0") or len(text) > 19:
        return None
    return number if (number := int(text)) < 2**63 else None


def present_book(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `queries.SHOWN_BOOK` as a `Book`: a plain dict, since validating our own rows would only cost time."""
    return {
        "id": str(row["id"]),
        "work_id": str(row["work_id"]),
        "isbn13": row["isbn13"],
        "isbn10": isbn10_of(row["isbn13"]),
        "sku": row["sku"],
        "title": row["title"],
        "subtitle": row["subtitle"],
        "contributors": [present_contributor(*contributor) for contributor in row["contributors"] or ()],
        "series": {"title": row["series"], "number": row["series_number"]} if row["series"] else None,
        "publisher": row["publisher"],
        "format": row["format"],
        "availability": row["availability"],
        "language": row["language"],
        "published": row["published_year"],
        "published_on": row["published_on"],
        "rating": None if row["rating"] is None else float(row["rating"]),
        "rating_count": row["rating_count"],
        "rating_source": row["rating_source"],
        "prices": [{"amount": amount, "currency": currency} for amount, currency in row["prices"] or ()],
        "stock": stock_word(row["available"]),
        "subjects": [present_subject(*subject) for subject in row["subjects"] or ()],
        "updated_at": _rfc3339(row["updated_at"]),
    }


def book_etag(row: dict[str, Any]) -> str:
    """The version, and the word for the stock: that one changes with sales, which are no new version of the book."""
    return f"{row['version']}-{stock_word(row['available'])}"


def stock_word(available: int | None) -> Stock:
    if not available:
        return "out"
    return "low" if available <= LOW_STOCK else "in_stock"


def present_contributor(id: int, name: str, role: str) -> dict[str, str]:
    return {"id": str(id), "name": name, "role": role}


def present_subject(scheme: str, code: str, heading: str) -> dict[str, str]:
    return {"id": f"{scheme}:{code}", "scheme": scheme, "code": code, "heading": heading}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
