"""Finding books by words, on PostgreSQL's own full text and nothing else.

What is stored and what is asked are folded by the same function (`folding.words`); this file holds both sides: the
document a book is found by, and what a reader's query means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bookstore.catalogue.folding import words

# Fills `books.search` from the columns of a SearchText, wherever they were put.
SEARCH_DOCUMENT = "search_document({0}.search_title, {0}.search_contributors, {0}.search_extra, {0}.search_subjects)"
# Brings the vocabulary up to date after books were written; returns how many words changed.
REFRESH_WORDS = "SELECT refresh_search_words()"


class SearchText(NamedTuple):
    """The folded words a book is found by, in the order of the arguments of `search_document(…)` in SQL."""

    title: str
    contributors: str
    extra: str
    subjects: str


def search_text(
    title: str,
    *,
    subtitle: str | None = None,
    series: str | None = None,
    contributors: Iterable[str] = (),
    subjects: Iterable[str] = (),
) -> SearchText:
    return SearchText(
        _joined([title]),
        _joined(contributors),
        _joined(part for part in (subtitle, series) if part),
        _joined(subjects),
    )


def _joined(texts: Iterable[str]) -> str:
    return " ".join([word for text in texts for word in words(text)])
