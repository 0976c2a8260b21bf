"""What one row says about one book, checked field by field. A field the row says nothing about is None or empty."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, NamedTuple

from bookstore.catalogue.currencies import EXPONENTS, minor_units
from bookstore.catalogue.folding import key
from bookstore.catalogue.isbn import normalise_isbn
from bookstore.catalogue.languages import normalise_language

from .fields import FORMATS, ROLES
from .outcome import RowProblem

LARGEST_COUNT = 2**31 - 1
MOST_NAMES = 1000

# Controls but for those that are white space, and the overrides and isolates of writing direction. The marks of
# direction (U+200E, U+200F) and the joiners stay: Persian and Hindi are spelt with them.
_STEERING = re.compile("[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")

_ROLE_WORDS = {field.removesuffix("s"): role for field, role in ROLES.items()}


isbn13_of = lru_cache(maxsize=16)(
    normalise_isbn
)  # a preset looks at the number before the field is checked: 80 µs each


class Contributor(NamedTuple):
    role: str
    name: str
    key: str
    written: str  # as the file has it, odd spaces included


class Subject(NamedTuple):
    scheme: str
    code: str
    heading: str


class Price(NamedTuple):
    currency: str
    exponent: int
    amount: int


@dataclass(frozen=True, slots=True)
class Book:
    isbn13: str | None = None
    sku: str | None = None
    work: str | None = None
    work_title: str | None = None
    title: str | None = None
    subtitle: str | None = None
    contributors: tuple[Contributor, ...] = ()
    series: str | None = None
    series_number: str | None = None
    publisher: str | None = None
    format: str | None = None
    availability: str | None = None
    language: str | None = None
    published_year: int | None = None
    published_on: datetime.date | None = None
    subjects: tuple[Subject, ...] = ()
    prices: tuple[Price, ...] = ()
    stock: int | None = None
    rating: Decimal | None = None
    rating_count: int | None = None


class BadRow(Exception):
    """All that is wrong with one row."""

    def __init__(self, problems: list[RowProblem]) -> None:
        super().__init__("; ".join(problem.reason for problem in problems))
        self.problems = problems


def parse_book(values: Mapping[str, Any]) -> Book:
    """The book of a row whose columns were already renamed to fields. `BadRow` names every fault at once."""
    problems: list[RowProblem] = []

    def read(field: str, parse: Callable[[Any], Any]) -> Any:
        value = values.get(field)
        if value is None or value == "" or value == [] or value == {}:
            return None
        try:
            return parse(value)
        except (RowProblem, ValueError) as fault:
            reason = fault.reason if isinstance(fault, RowProblem) else str(fault)
            problems.append(RowProblem(reason, column=field, value=value))
            return None

    published = read("published", _published) or (None, None)
    series = read("series", _text(1000, keyed=True))
    series_number = read("series_number", _text(50))
    if series_number is not None and series is None and not problems:
        problems.append(RowProblem("a series number needs a series", column="series_number", value=series_number))
    book = Book(
        isbn13=read("isbn", _isbn),
        sku=read("sku", _text(100)),
        work=read("work", _text(200)),
        work_title=read("work_title", _text(1000, keyed=True)),
        title=read("title", _text(1000, keyed=True)),
        subtitle=read("subtitle", _text(1000)),
        contributors=_contributors(read),
        series=series,
        series_number=series_number,
        publisher=read("publisher", _text(300, keyed=True)),
        format=read("format", _format),
        availability=read("availability", _availability),
        language=read("language", _language),
        published_year=published[0],
        published_on=published[1],
        subjects=read("subjects", _subjects) or (),
        prices=_prices(values, read, problems),
        stock=read("stock", _count),
        rating=read("rating", _rating),
        rating_count=read("rating_count", _count),
    )
    if not problems and book.isbn13 is None and book.sku is None:
        problems.append(RowProblem("a book needs an ISBN or a SKU", column="isbn"))
    if problems:
        raise BadRow(problems)
    return book


def clean(value: Any) -> str:
    """Text in one canonical form: no stray spaces, composed characters, nothing that would steer a terminal or turn
    round what stands beside it; refuses what PostgreSQL cannot store."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise RowProblem("is not text", value=value)
    text = str(value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise RowProblem("has half a character (a lone surrogate)")
    if "\0" in text:
        raise RowProblem("has a NUL byte")
    if not text.isprintable():
        text = _STEERING.sub("", text)
    return " ".join(text.split())


def _text(longest: int, *, keyed: bool = False) -> Callable[[Any], str | None]:
    """`keyed`: the text is also compared in its folded form, which must leave something of it."""

    def parse(value: Any) -> str | None:
        text = clean(value)
        if len(text) > longest:
            raise RowProblem(f"is {len(text):,} characters long; at most {longest:,} fit")
        if keyed and text and not key(text):
            raise RowProblem("has no visible character")
        return text or None

    return parse


def _isbn(value: Any) -> str | None:
    text = clean(value)
    if not text:
        return None
    isbn = isbn13_of(text)
    if isbn is None:
        digits = sum(character.isalnum() for character in text)
        wrong = "has a wrong check digit" if digits in (10, 13) else f"has {digits} digits, not 10 or 13"
        raise RowProblem(f"{wrong}: no ISBN")
    return isbn


def _language(value: Any) -> str | None:
    text = clean(value)
    code = normalise_language(text)
    if text and code is None:
        raise RowProblem("is no language code of ISO 639 (en, eng, en-GB)")
    return code


def _format(value: Any) -> str | None:
    text = clean(value)
    code = FORMATS.get(text.lower(), text.upper())
    if text and not re.fullmatch(r"[A-Z][A-Z0-9]", code, re.ASCII):
        raise RowProblem(f"is no code of ONIX list 150 and none of {', '.join(FORMATS)}")
    return code or None


def _availability(value: Any) -> str | None:
    text = clean(value)
    if text and not re.fullmatch(r"[0-9]{2}", text):
        raise RowProblem("is no code of ONIX list 65 (two digits; 20: available)")
    return text or None


def _published(value: Any) -> tuple[int | None, datetime.date | None]:
    text = clean(value)
    if not text:
        return None, None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            day = datetime.date.fromisoformat(text)
        except ValueError:
            raise RowProblem("is a day the calendar does not have") from None
        return day.year, day
    found = re.fullmatch(r"(-?[0-9]{1,4})|([0-9]{4})-(0[1-9]|1[0-2])", text)
    if found is None:
        raise RowProblem("is neither a year nor a date (1866, -431, 2008-09-14)")
    year = int(found[1] or found[2])
    if not -5000 <= year <= 9999:
        raise RowProblem("is a year outside -5000 … 9999")
    return year, None


def _count(value: Any) -> int | None:
    text = clean(value)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > LARGEST_COUNT:
        raise RowProblem(f"is not a whole number from 0 to {LARGEST_COUNT:,}")
    return int(text)


def _number(text: str) -> Decimal:
    if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", text):
        raise RowProblem("is not a number such as 14.99")
    return Decimal(text)


def _rating(value: Any) -> Decimal | None:
    text = clean(value)
    if not text:
        return None
    rating = _number(text)
    if not 0 <= rating <= 5:
        raise RowProblem("is not a rating from 0 to 5")
    return rating.quantize(Decimal("0.01"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else clean(value).split(";")


def _contributors(read: Callable[[str, Callable[[Any], Any]], Any]) -> tuple[Contributor, ...]:
    found: dict[tuple[str, str], Contributor] = {}
    for contributor in read("contributors", _contributor_list) or ():
        found.setdefault((contributor.role, contributor.key), contributor)
    for field, role in ROLES.items():
        for contributor in read(field, partial(_all_named, role)) or ():
            found.setdefault((contributor.role, contributor.key), contributor)
    return tuple(found.values())


def _names(value: Any) -> list[Any]:
    names = value if isinstance(value, list) else str(clean(value) and value).split(";")
    names = [name for name in names if not isinstance(name, str) or name.strip()]
    if len(names) > MOST_NAMES:
        raise RowProblem(f"has {len(names):,} names; at most {MOST_NAMES:,} fit")
    return names


def _all_named(role: str, value: Any) -> list[Contributor]:
    return [_named(name, role) for name in _names(value)]


def _named(name: Any, role: str) -> Contributor:
    text = _text(300, keyed=True)(name)
    if text is None:
        raise RowProblem("has an empty name")
    return Contributor(role, text, key(text), str(name).strip())


def _contributor_list(value: Any) -> list[Contributor]:
    if not isinstance(value, list):
        raise RowProblem('is not a list such as [{"name": "Homer", "role": "A01"}]')
    found = []
    for entry in _names(value):
        if not isinstance(entry, dict) or not {"name"} <= entry.keys() <= {"name", "role"}:
            raise RowProblem('has an entry that is not {"name": …, "role": …}')
        role = clean(entry.get("role", "A01"))
        code = _ROLE_WORDS.get(role.lower(), role.upper())
        if not re.fullmatch(r"[A-Z][0-9]{2}", code, re.ASCII):
            raise RowProblem(f"{role!r} is no role of ONIX list 17 and none of {', '.join(_ROLE_WORDS)}")
        found.append(_named(entry["name"], code))
    return found


def _subjects(value: Any) -> tuple[Subject, ...]:
    found: dict[tuple[str, str], Subject] = {}
    for entry in _listed(value):
        text = _text(300)(entry)
        if not text:
            continue
        scheme, colon, rest = text.partition(":")
        if colon and scheme.lower() in ("thema", "bisac"):
            code, _, heading = rest.strip().partition(" ")
            if not re.fullmatch(r"[A-Z0-9-]{1,20}", code, re.ASCII):
                raise RowProblem(f"{text!r} has no code of {scheme}")
            subject = Subject(scheme.lower(), code, heading.strip() or code)
        else:
            subject = Subject("keyword", key(text), text)
        if not subject.code or not key(subject.heading):
            raise RowProblem("has a subject without a visible character")
        found.setdefault((subject.scheme, subject.code), subject)
    if len(found) > MOST_NAMES:
        raise RowProblem(f"has {len(found):,} subjects; at most {MOST_NAMES:,} fit")
    return tuple(found.values())


def _prices(
    values: Mapping[str, Any], read: Callable[[str, Callable[[Any], Any]], Any], problems: list[RowProblem]
) -> tuple[Price, ...]:
    found: dict[str, Price] = {price.currency: price for price in read("prices", _price_list) or ()}
    amount = read("price", lambda value: clean(value) or None)
    if amount is not None:
        currency = read("currency", lambda value: clean(value).upper() or None)
        if currency is None:
            problems.append(RowProblem("a price needs a currency", column="price", value=amount))
        else:
            price = read("price", lambda value: _price(currency, value))
            if price is not None and found.setdefault(currency, price) != price:
                problems.append(RowProblem(f"`prices` says another {currency} price", column="price", value=amount))
    return tuple(found[currency] for currency in sorted(found))


def _price(currency: str, amount: Any) -> Price:
    if currency not in EXPONENTS:
        raise RowProblem(f"{currency} is not a currency of ISO 4217")
    return Price(currency, EXPONENTS[currency], minor_units(_number(clean(amount)), currency))


def _price_list(value: Any) -> list[Price]:
    if isinstance(value, dict):
        pairs = [(clean(currency).upper(), amount) for currency, amount in value.items()]
    else:
        entries = [entry.split() for entry in clean(value).split(";") if entry.strip()]
        if any(len(entry) != 2 for entry in entries):
            raise RowProblem("is not a list such as: USD 14.99; JPY 1800")
        pairs = [(currency.upper(), amount) for currency, amount in entries]
    if len({currency for currency, _ in pairs}) < len(pairs):
        raise RowProblem("names a currency twice")
    return [_price(currency, amount) for currency, amount in pairs]
