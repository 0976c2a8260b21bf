"""Text as people type it and text as it is printed, brought to one form: *Łódź*, *lodz* and *LODZ* are the same word.

The one folding there is: what is stored folded and what is asked for both come through here, so a change needs the
stored columns written again. Done in Python because no PostgreSQL extension is required (no `unaccent`).
"""

from __future__ import annotations

import re
import unicodedata

SORT_KEY_LENGTH = 200

# Letters of their own that Unicode does not decompose, though people without the keyboard type them so.
_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "æ": "ae", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "œ": "oe", "ß": "ss"}
    | {
        "ħ": "h",
        "ŧ": "t",
        "ŋ": "n",
        "ƒ": "f",
        "ə": "e",
        "ɛ": "e",
        "ɔ": "o",
        "ʻ": "",
        "ʼ": "",
        "ʽ": "",
        "ʹ": "",
        "ʺ": "",
    }
    | {"‘": "'", "’": "'", "‛": "'", "′": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "−": "-", "–": "-"}
    | {"—": "-", "‐": "-", "‑": "-"}
)
# Scripts written without spaces: every character is a word, so that a part of a title finds it.
_UNSPACED = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
# Vowel signs of the Indic and South-East Asian scripts are marks, not letters, to `re`: they belong to their words.
_SIGNS = "\u0900-\u0963\u0966-\u0df3\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_SIGNS}])+")


def fold(text: str) -> str:
    """Without accents, case, or spellings of the same character; what is no letter stays as it is."""
    if text.isascii():
        return text.lower()
    # The iota under a Greek vowel is a mark whose capital is a letter: ᾳ is ΑΙ, so it cannot go with the others.
    decomposed = unicodedata.normalize("NFKD", text).replace("\u0345", "ι")
    bare = "".join([character for character in decomposed if not unicodedata.combining(character)])
    return unicodedata.normalize("NFC", bare.casefold().translate(_LETTERS))


def words(text: str) -> list[str]:
    """The folded words, without punctuation: `Ender's Game` is `enders`, `game`, and `百年` is two words."""
    return _WORD.findall(fold(text).replace("'", ""))


def key(text: str) -> str:
    """What makes two names the same name and what titles are sorted by. Empty only when the text is blank."""
    return " ".join(words(text))[:SORT_KEY_LENGTH].rstrip() or " ".join(fold(text).split())[:SORT_KEY_LENGTH].rstrip()


def name_sort_key(name: str) -> str:
    """Where a person stands on the shelf: the last word first, `Jane Austen` under `austen jane`.

    `Austen, Jane` says so itself, and names in scripts without spaces begin with the family's. What is not known is
    whose family name has two words or comes first (*García Márquez*, *Nguyễn Du*): such a name stands by its last word.
    """
    first, comma, after = name.partition(",")
    if comma and key(after) not in _GENERATIONS:
        return key(f"{first} {after}") or key(name)
    found = words(name)
    generation = [found.pop()] if len(found) > 1 and found[-1] in _GENERATIONS else []
    if len(found) < 2 or _UNSPACED_SCRIPT.search(name):
        return key(name)
    return " ".join([found[-1], *found[:-1], *generation])[:SORT_KEY_LENGTH].rstrip()


_GENERATIONS = {"jr", "sr", "ii", "iii", "iv"}
_UNSPACED_SCRIPT = re.compile(f"[{_UNSPACED}]")
