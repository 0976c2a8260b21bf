"""Finding books by words, on PostgreSQL's own full text and nothing else.

What is stored and what is asked are folded by the same function (`folding.words`); this file holds both sides: the
document a book is found by, and what a reader's query means.

The rules, in order: an ISBN, or a SKU in any case; all the words (`websearch_to_tsquery`, in `english`, which knows
that *running* is *run*, and in `simple`, which keeps *It*); when that finds fewer than five books, the last word as a
beginning too; when nothing was found at all, the words as the catalogue's own vocabulary spells them.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from rapidfuzz import process
from rapidfuzz.distance import OSA

from bookstore.catalogue.folding import key, words
from bookstore.catalogue.isbn import normalise_isbn
from bookstore.catalogue.queries import VOCABULARY
from bookstore.database import Connection, Database

Rule = Literal["words", "prefix", "correction"]

FEW = 5
VOCABULARY_SECONDS = 10.0

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


class Meaning(NamedTuple):
    """What a reader's query asks for; `wanted` and `unwanted` are folded, in the syntax of `websearch_to_tsquery`."""

    wanted: str
    unwanted: str
    words: tuple[str, ...]  # empty when there are operators: then nothing is completed or corrected
    isbn: str | None
    sku: str | None
    title: str

    @property
    def unfinished(self) -> bool:
        """May the last word be the beginning of one? A single letter begins half the catalogue."""
        return bool(self.words) and (len(self.words[-1]) > 1 or not self.words[-1].isascii())

    def params(self) -> dict[str, Any]:
        return {
            "wanted": self.wanted,
            "unwanted": self.unwanted,
            "before": _as_words(self.words[:-1]),
            "last": f"'{self.words[-1]}':*" if self.words else "",
            "isbn": self.isbn,
            "sku": self.sku,
            "exact_title": self.title,
        }


def understand(q: str) -> Meaning:
    """Never fails: what is no syntax is words, and what is no word is nothing."""
    q = q.strip()
    wanted: list[str] = []
    unwanted: list[str] = []
    plain: list[str] = []
    operators = False
    for sign, phrase, word in _TERM.findall(q.translate(_QUOTES)):
        found = words(phrase or word)
        if word == "OR" and not sign:
            wanted.append("or")
            operators = True
        elif found and (sign or phrase):
            (unwanted if sign else wanted).append(f'"{" ".join(found)}"')
            operators = True
        else:
            wanted.append(_as_words(found))
            plain.extend(found)
    return Meaning(
        wanted=" ".join(filter(None, wanted)),
        unwanted=" or ".join(unwanted),
        words=() if operators else tuple(plain),
        isbn=normalise_isbn(q),
        sku=q if not any(character.isspace() for character in q) else None,
        title=key(q),
    )


def matches(meaning: Meaning, rule: Rule) -> str:
    """The condition on `books b` under which a book is found, for the parameters `meaning.params()`."""
    arms = [_identified(meaning)] if _identified(meaning) else []
    if meaning.wanted or meaning.unwanted:
        arms.append(f"b.search @@ {_tsquery(meaning, rule)}")
    else:
        arms.append("b.sort_title = %(exact_title)s")  # a title of signs alone has no words
    return f"({' OR '.join(arms)})"


def relevance(meaning: Meaning, rule: Rule) -> str:
    """The key that orders by relevance: the number itself, the title itself, the words, their beginnings; among these
    PostgreSQL's rank, raised a little for what many have read. An integer, so that a cursor holds it exactly."""
    identified = _identified(meaning)
    tiers = f"WHEN {identified} THEN 3 " if identified else ""
    tiers += "WHEN b.sort_title = %(exact_title)s THEN 2 "
    tiers += f"WHEN b.search @@ {_tsquery(meaning, 'words')} THEN 1 "
    rank = f"ts_rank(b.search, {_tsquery(meaning, rule)}, 1) * (1 + ln(1 + coalesce(b.rating_count, 0)) / 20)"
    return f"(CASE {tiers} ELSE 0 END * 1000000000::bigint + ({rank} * 1000000)::bigint)"


def hits(meaning: Meaning) -> str:
    """How many books each rule finds, counted no further than is of interest."""

    def count(rule: Rule) -> str:
        found = f"SELECT FROM books b WHERE b.archived_at IS NULL AND {matches(meaning, rule)} LIMIT {FEW}"
        return f"(SELECT count(*) FROM ({found}) AS by_{rule}) AS {rule}"  # noqa: S608 – constants of this file

    prefix = count("prefix") if meaning.unfinished else "0 AS prefix"
    return f"SELECT {count('words')}, {prefix}"


class Vocabulary:
    """The words of the catalogue, and which of them somebody may have meant."""

    def __init__(self, books: Mapping[str, int]) -> None:
        self._books = books
        self._by_length: dict[int, list[str]] = {}
        for word in books:
            self._by_length.setdefault(len(word), []).append(word)

    def corrections(self, written: Sequence[str]) -> list[str]:
        """The same words with unknown ones replaced, the nearest and commonest first; none when all are known.

        More than one, because the commonest word is not always the one that goes with the others: *hary poter* is
        nearer to *harry peter* by numbers, but only *harry potter* finds a book.
        """
        choices = [
            self._nearest(word) if place < _CORRECTED else [(0, 0.0, word)] for place, word in enumerate(written)
        ]
        ways = itertools.islice(itertools.product(*choices), _COMBINED)
        ranked = sorted(
            (sum(cost for cost, _, _ in way), sum(rarity for _, rarity, _ in way), " ".join(word for *_, word in way))
            for way in ways
        )
        as_written = " ".join(written)
        return [text for _, _, text in ranked if text != as_written][:_TRIED]

    def _nearest(self, word: str) -> list[tuple[int, float, str]]:
        """(edits, rarity, word), the best first; the word itself where it is known, or nothing is like it."""
        if word in self._books or len(word) < 3 or word.isdigit():
            return [(0, 0.0, word)]
        allowed = 1 if len(word) < 5 else 2
        near = [
            # the first letter is seldom wrong: another one counts as half an edit more
            (2 * int(edits) + (known[0] != word[0]), -math.log(self._books[known]), known)
            for length in range(len(word) - allowed, len(word) + allowed + 1)
            for known, edits, _ in process.extract_iter(
                word, self._by_length.get(length, []), scorer=OSA.distance, score_cutoff=allowed
            )
        ]
        return sorted(near)[:_CANDIDATES] or [(0, 0.0, word)]


async def vocabulary_of(database: Database, connection: Connection) -> Vocabulary:
    """Read again after a few seconds; one per database, because a process under test has several."""
    known = _VOCABULARIES.get(database)
    if known is None or time.monotonic() - known[0] > VOCABULARY_SECONDS:
        rows = await connection.fetch_all(VOCABULARY)
        known = (time.monotonic(), Vocabulary({row["word"]: row["books"] for row in rows}))
        _VOCABULARIES[database] = known
    return known[1]


_VOCABULARIES: WeakKeyDictionary[Database, tuple[float, Vocabulary]] = WeakKeyDictionary()
_CORRECTED = 4  # how many words are looked up at most: each costs about a millisecond of the event loop
_CANDIDATES = 5  # for each of them
_COMBINED = _CANDIDATES**_CORRECTED
_TRIED = 12  # how many combinations PostgreSQL is asked for
# As the index `books_by_sku_in_any_case` has it.
SKU_IN_ANY_CASE = """lower(b.sku COLLATE "C") = lower(%(sku)s COLLATE "C")"""
_TERM = re.compile(r"""(-?)(?:"([^"]*)"?|([^\s"]+))""")
_QUOTES = str.maketrans("“”„«»", '"' * 5)


def _as_words(words: Iterable[str]) -> str:
    """`or` in quotes, so that in a title it is a word; capitals make the operator."""
    return " ".join(['"or"' if word == "or" else word for word in words])


def _tsquery(meaning: Meaning, rule: Rule) -> str:
    query = _both("wanted")
    if meaning.unwanted:
        query = f"({query} && !!{_both('unwanted')})"
    if rule == "prefix":
        query = f"({query} || ({_both('before')} && to_tsquery('pg_catalog.simple', %(last)s)))"
    return query


def _both(name: str) -> str:
    return (
        f"(websearch_to_tsquery('pg_catalog.english', %({name})s)"
        f" || websearch_to_tsquery('pg_catalog.simple', %({name})s))"
    )


def _identified(meaning: Meaning) -> str:
    return " OR ".join(
        condition
        for condition, name in (("b.isbn13 = %(isbn)s", "isbn"), (SKU_IN_ANY_CASE, "sku"))
        if getattr(meaning, name) is not None
    )


def _joined(texts: Iterable[str]) -> str:
    return " ".join([word for text in texts for word in words(text)])
