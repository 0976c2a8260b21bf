"""Known kinds of files: which column is which field, and what to tidy up before the fields are checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import DamerauLevenshtein

from .book import isbn13_of
from .fields import FIELDS
from .outcome import ImportRefused, RowProblem

Values = dict[str, Any]
Warn = Callable[[RowProblem], None]


def _as_it_is(values: Values, warn: Warn) -> Values:
    return values


@dataclass(frozen=True)
class Preset:
    name: str
    about: str
    columns: Mapping[str, str]  # column to field
    ignored: frozenset[str] = frozenset()
    tidy: Callable[[Values, Warn], Values] = _as_it_is


def preset_named(name: str) -> Preset:
    if name not in PRESETS:
        raise ImportRefused(f"there is no preset {name!r}{did_you_mean(name, PRESETS)}; known are {', '.join(PRESETS)}")
    return PRESETS[name]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    found = process.extractOne(word.lower(), list(known), scorer=DamerauLevenshtein.normalized_similarity)
    return f" (did you mean {found[0]!r}?)" if found and found[1] >= 0.5 else ""


# goodbooks-10k: https://github.com/zygmuntz/goodbooks-10k, books.csv


def _tidy_goodbooks(values: Values, warn: Warn) -> Values:
    tidied = dict(values)
    if book_id := _text(values, "sku"):
        tidied["sku"] = f"goodbooks-{book_id}"
    if work_id := _text(values, "work"):
        tidied["work"] = f"goodreads:{work_id}"
    tidied["isbn"] = _isbn_with_its_zeros(_text(values, "isbn"), warn)
    tidied["authors"] = [name for name in _text(values, "authors").split(",") if name.strip()]
    tidied["published"] = re.sub(r"\.0+$", "", _text(values, "published"))  # years went through a float column
    tidied["title"], tidied["series"], tidied["series_number"] = title_and_series(_text(values, "title"))
    tidied["work_title"] = title_and_series(_text(values, "work_title"))[0]
    return tidied


def _isbn_with_its_zeros(text: str, warn: Warn) -> str | None:
    if not text:
        return None
    padded = text.zfill(10)
    if isbn13_of(padded) is None:
        warn(RowProblem("has a wrong check digit; the book comes in without an ISBN", column="isbn", value=text))
        return None
    return padded


# `Hunted (House of Night, #5)`. Brackets without a number sign are part of the title: `I Am America (And So Can You!)`.
_SERIES = re.compile(r"\s*\((?P<series>(?:[^()#]|\([^()]*\))+?)[\s,;:]*#\s*(?P<number>\d[^()]*?)\s*\)\s*$")
_ANOTHER_SERIES = re.compile(
    r"[,;]\s*[^\d\s,;#][^,;#]*#.*$"
)  # `Discworld, #40, Moist von Lipwig #3`: the first one counts


def title_and_series(text: str) -> tuple[str, str | None, str | None]:
    found = _SERIES.search(text)
    if found is None or not text[: found.start()].strip():
        return text, None, None
    number = re.sub(r"\s*([-–])\s*", r"\1", _ANOTHER_SERIES.sub("", found["number"]).strip())
    return text[: found.start()], found["series"].strip(), number[:50]


def _text(values: Values, field: str) -> str:
    value = values.get(field)
    return "" if value is None else str(value).strip()


_NOT_OURS = """
goodreads_book_id best_book_id books_count isbn13 work_ratings_count work_text_reviews_count ratings_1 ratings_2
ratings_3 ratings_4 ratings_5 image_url small_image_url
"""

PRESETS = {
    "bookstore": Preset(
        "bookstore", "our own: the columns are named as the fields", {field: field for field in FIELDS}
    ),
    "goodbooks": Preset(
        "goodbooks",
        "books.csv of goodbooks-10k",
        {
            "book_id": "sku",
            "work_id": "work",
            "isbn": "isbn",
            "authors": "authors",
            "original_publication_year": "published",
            "original_title": "work_title",
            "title": "title",
            "language_code": "language",
            "average_rating": "rating",
            "ratings_count": "rating_count",
        },
        ignored=frozenset(_NOT_OURS.split()),
        tidy=_tidy_goodbooks,
    ),
}
