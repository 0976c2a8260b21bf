"""One folding on both sides: what is stored and what is typed meet in it."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookstore.catalogue.folding import SORT_KEY_LENGTH, fold, key, name_sort_key, words
from bookstore.catalogue.isbn import isbn10_of, normalise_isbn
from bookstore.catalogue.languages import normalise_language

ANY_TEXT = st.text(max_size=60)
MANY = settings(max_examples=300, deadline=None)


@pytest.mark.parametrize(
    ("printed", "typed"),
    [
        ("Łódź", "lodz"),
        ("Ørsted", "orsted"),
        ("García Márquez", "garcia marquez"),
        ("Ægir Þórðarson", "aegir thordarson"),
        ("Straße", "STRASSE"),
        ("Œuvres", "oeuvres"),
        ("Đặng", "dang"),
        ("İstanbul ısı", "istanbul isi"),
        ("Ёлка", "елка"),
        ("Ｆｕｌｌ Ｗｉｄｔｈ", "full width"),
        ("ﬁne", "fine"),
        ("ΟΔΥΣΣΕΎΣ", "οδυσσευς"),
        ("‘Salem’s Lot", "'salem's lot"),
    ],
)
def test_what_is_printed_and_what_is_typed_fold_to_the_same(printed: str, typed: str) -> None:
    assert fold(printed) == fold(typed)


@MANY
@given(ANY_TEXT)
def test_folding_what_is_folded_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_no_character_shows_its_marks_only_when_folded_twice() -> None:
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    folded = [fold(character) for character in every]
    assert [character for character in folded if fold(character) != character] == []


@MANY
@given(ANY_TEXT)
def test_every_spelling_of_the_same_characters_folds_to_the_same(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold(unicodedata.normalize(form, text)) == fold(text)


@pytest.mark.parametrize("text", ["ᾳ", "\u0345", "ᾴ", "ᾼ", "ΐ", "ﬁ", "İ"])
def test_case_does_not_matter_where_unicode_makes_it_hard(text: str) -> None:
    assert fold(text.casefold()) == fold(text) == fold(fold(text))


@MANY
@given(ANY_TEXT)
def test_case_never_matters(text: str) -> None:
    assert fold(text.casefold()) == fold(text)


@MANY
@given(ANY_TEXT)
def test_words_are_folded_and_hold_no_punctuation(text: str) -> None:
    for word in words(text):
        assert word
        assert word == fold(word)
        assert not set(word) & set("'\"\\&|!():*<> \t\n-_.,;")
    assert words(" ".join(words(text))) == words(text)


@MANY
@given(ANY_TEXT)
def test_a_key_is_empty_only_for_blank_text(text: str) -> None:
    assert len(key(text)) <= SORT_KEY_LENGTH
    if any(not c.isspace() and not unicodedata.combining(c) and c not in "ʻʼʽʹʺ" for c in text):
        assert key(text) or not fold(text).strip()


def test_a_script_without_spaces_is_searched_by_its_characters() -> None:
    assert words("百年の孤独") == ["百", "年", "の", "孤", "独"]


@pytest.mark.parametrize(
    ("name", "sorted_by"),
    [
        ("Jane Austen", "austen jane"),
        ("Austen, Jane", "austen jane"),
        ("Homer", "homer"),
        ("夏目漱石", "夏 目 漱 石"),
        ("ガルシア・マルケス", "カ ル シ ア マ ル ケ ス"),
        ("이광수", "이광수"),
        ("Ludwig van Beethoven", "beethoven ludwig van"),
        ("Martin Luther King Jr.", "king martin luther jr"),
        ("Martin Luther King, Jr.", "king martin luther jr"),
        ("John Paul II", "paul john ii"),
        ("Flannery O’Connor", "oconnor flannery"),
        (",", ","),
    ],
)
def test_people_stand_on_the_shelf_by_their_last_word_unless_their_name_says_otherwise(
    name: str, sorted_by: str
) -> None:
    assert name_sort_key(name) == sorted_by


@MANY
@given(st.text(max_size=30) | st.lists(st.sampled_from(["Ann", "II", ",", "jr", "夏", "d'"])).map(" ".join))
def test_every_name_has_its_place_on_the_shelf(name: str) -> None:
    assert bool(name_sort_key(name)) == bool(key(name))


def test_an_apostrophe_does_not_cut_a_word() -> None:
    assert words("Ender's Game, O’Brien") == ["enders", "game", "obrien"]


@pytest.mark.parametrize(
    ("written", "isbn13"),
    [
        ("978-0-306-40615-7", "9780306406157"),
        ("0-8044-2957-x", "9780804429573"),
        (" 080442957X ", "9780804429573"),
        ("979 10 90636 07 1", "9791090636071"),
        ("979-0-2600-0043-8", None),  # an ISMN: sheet music
        ("9790260000438", None),
        ("439023483", None),
        ("9780306406158", None),
        ("4006381333931", None),
        ("٩٧٨٠٣٠٦٤٠٦١٥٧", None),
        ("", None),
        ("978030640615X", None),
    ],
)
def test_an_isbn_is_known_however_it_is_written(written: str, isbn13: str | None) -> None:
    assert normalise_isbn(written) == isbn13


@MANY
@given(st.text(max_size=20) | st.text("0123456789xX- ", max_size=20))
def test_no_text_breaks_the_reading_of_isbns(text: str) -> None:
    isbn = normalise_isbn(text)
    assert isbn is None or normalise_isbn(isbn) == isbn


@MANY
@given(st.integers(0, 999_999_999))
def test_the_isbn_10_of_a_978_number_leads_back_to_it(number: int) -> None:
    digits = f"978{number:09}"
    check = -sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10
    isbn13 = f"{digits}{check}"
    isbn10 = isbn10_of(isbn13)
    assert isbn10 is not None
    assert normalise_isbn(isbn10) == isbn13


def test_a_979_number_has_no_isbn_10() -> None:
    assert isbn10_of("9791090636071") is None
    assert isbn10_of(None) is None


@pytest.mark.parametrize(
    ("named", "code"),
    [("eng", "en"), ("en-US", "en"), ("EN_gb", "en"), ("fre", "fr"), ("fra", "fr"), ("ger", "de"), ("grc", "grc"),
     ("zh-Hant-TW", "zh"), ("xx", None), ("", None), ("e", None), ("english", None)],
)  # fmt: skip
def test_a_language_has_one_code_however_it_is_named(named: str, code: str | None) -> None:
    assert normalise_language(named) == code
