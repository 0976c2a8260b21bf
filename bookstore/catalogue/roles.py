"""Who is an author: the one answer, for lists and filters, for works, for what the import groups by, for the banner.

By ONIX code list 17, the authors of a book are those whose part makes it the work it is. A book without any was made by
whoever edited or selected what is in it. Those who serve a work (translators, illustrators, narrators …, writers of
prefaces) are found by `q` and have a page under `/authors/{id}`, but are nobody's author.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

AUTHOR_ROLES = (
    "A01",  # by
    "A02",  # with
    "A03",  # screenplay
    "A04",  # libretto
    "A05",  # lyrics
    "A06",  # composer
    "A07",  # artist: of an artist's book; whoever illustrates is A12
    "A08",  # photographer, likewise
    "A09",  # created by
    "A14",  # text
    "A31",  # book and lyrics
    "A38",  # original author
    "A42",  # continued by
    "A45",  # comic script
    "A99",  # other primary creator
    "C01",  # compiled by: the Grimms, Lönnrot
)
EDITOR_ROLES = ("B01", "C02")  # edited by, selected by


def _listed(roles: tuple[str, ...]) -> str:
    return ", ".join(f"'{role}'" for role in roles)


# The condition on `book_contributors bc` under which it names an author of its book.
IS_AUTHOR = f"""(bc.role IN ({_listed(AUTHOR_ROLES)}) OR bc.role IN ({_listed(EDITOR_ROLES)}) AND NOT EXISTS (
    SELECT FROM book_contributors bc2 WHERE bc2.book_id = bc.book_id AND bc2.role IN ({_listed(AUTHOR_ROLES)})))"""


class HasRole(Protocol):
    @property
    def role(self) -> str: ...


Contributor = TypeVar("Contributor", bound=HasRole)


def makers(contributors: Sequence[Contributor]) -> list[Contributor]:
    """The same, of contributors at hand."""
    authors = [person for person in contributors if person.role in AUTHOR_ROLES]
    return authors or [person for person in contributors if person.role in EDITOR_ROLES]
