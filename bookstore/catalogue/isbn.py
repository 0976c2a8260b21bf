"""ISBNs as people write them, brought to the one form that is stored: thirteen digits."""

from __future__ import annotations

from stdnum import isbn as _stdnum
from stdnum.exceptions import ValidationError
from stdnum.util import clean


def normalise_isbn(text: str) -> str | None:
    """The ISBN-13 of an ISBN-10 or ISBN-13, with or without hyphens and spaces; None when it is neither.

    Nine digits are not completed here, though stdnum would: a feed that lost its leading zeros knows that it did. And
    979-0, which stdnum takes, is no ISBN but the ISMN of sheet music.
    """
    compact = clean(text, " -").strip().upper()
    if len(compact) not in (10, 13) or not compact.isascii() or (len(compact) == 13 and compact.startswith("9790")):
        return None
    try:
        return str(_stdnum.validate(compact, convert=True))
    except ValidationError:
        return None


def isbn10_of(isbn13: str | None) -> str | None:
    """The ISBN-10 of a 978 number. Derived, never stored; a 979 number has none.

    By hand because every book shown needs it: stdnum, which checks the number again, takes ten times as long.
    """
    if isbn13 is None or not isbn13.startswith("978"):
        return None
    digits = isbn13[3:12]
    check = sum([position * int(digit) for position, digit in enumerate(digits, 1)]) % 11
    return digits + ("X" if check == 10 else str(check))
