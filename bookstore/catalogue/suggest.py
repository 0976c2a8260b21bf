"""What somebody who is still typing may be about to ask for."""

from __future__ import annotations

from typing import Any

from bookstore.catalogue import queries
from bookstore.catalogue.folding import words
from bookstore.database import Connection

MOST = 8
_AFTER_EVERY_LETTER = "\U0010ffff"


async def suggest(connection: Connection, typed: str) -> list[dict[str, Any]]:
    """At most eight, each text once: titles that begin so, authors, titles with these words, and the word completed
    where a book has it together with those before it.

    Authors get up to three of the places and words what is left, so that no kind crowds out the others.
    """
    written = words(typed)
    if not written:
        return []
    begun, last = " ".join(written), written[-1]
    params = {
        "typed": begun,
        "typed_end": begun + _AFTER_EVERY_LETTER,
        "unfinished": " & ".join([f"'{word}'" for word in written[:-1]] + [f"'{last}':*"]),
        "last": last,
        "last_end": last + _AFTER_EVERY_LETTER,
    }
    titles = await connection.fetch_all(queries.SUGGEST_TITLES, params)
    authors = await connection.fetch_all(queries.SUGGEST_AUTHORS, params)
    by_words = await connection.fetch_all(queries.SUGGEST_BY_WORDS, params) if len(begun) > 1 else []
    completing = queries.SUGGEST_WORDS if len(written) == 1 else queries.SUGGEST_WORDS_BESIDE
    completed = await connection.fetch_all(completing, params) if len(last) > 1 else []

    ranked = [
        *[("title", row) for row in titles[: MOST - 3]],
        *[("author", row) for row in authors[:3]],
        *[("title", row) for row in [*titles[MOST - 3 :], *by_words]],
        *[("author", row) for row in authors[3:]],
        *[("word", {"text": " ".join([*written[:-1], row["text"]]), "id": None}) for row in completed],
    ]
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, row in ranked:
        id = None if row["id"] is None else str(row["id"])
        once.setdefault((kind, row["text"]), {"text": row["text"], "kind": kind, "id": id})
    return list(once.values())[:MOST]
