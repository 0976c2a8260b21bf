"""From columns to fields: presets, --map and --set, and what is said when they make no sense."""

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookstore.catalogue.importing.book import BadRow, Book, Contributor, Price, Subject
from bookstore.catalogue.importing.columns import Columns, pairs
from bookstore.catalogue.importing.outcome import ImportRefused, RowProblem
from bookstore.catalogue.importing.presets import PRESETS, preset_named, title_and_series


def columns(
    header: list[str] | None = None,
    *,
    preset: str = "bookstore",
    map: Mapping[str, str] | None = None,
    set: Mapping[str, str] | None = None,
) -> Columns:
    return Columns(PRESETS[preset], map or {}, set or {}, header)


def book(set: Mapping[str, str] | None = None, **values: Any) -> Book:
    return columns(set=set).book({"sku": "a", **values})[0]


def problems(**values: Any) -> list[RowProblem]:
    with pytest.raises(BadRow) as bad:
        columns().book({"sku": "a", **values})
    return bad.value.problems


def refusal(header: list[str] | None = None, **options: Any) -> str:
    with pytest.raises(ImportRefused) as refused:
        columns(header, **options)
    return str(refused.value)


def test_every_field_of_a_csv_row_is_understood() -> None:
    found = book(
        isbn="0-306-40615-2",
        work="w1",
        work_title="Original",
        title="  A   Title ",
        subtitle="Or Not",
        authors="Ann Author; Bob  Both ;",
        translators="Bob Both",
        series="Some Series",
        series_number="1-3",
        publisher="A Press",
        format="Paperback",
        availability="10",
        language="en-GB",
        published="2008-09-14",
        subjects="poetry; thema:FBC Classic fiction; bisac:FIC004000",
        price="12.5",
        currency="usd",
        prices="JPY 1800; KWD 3.750",
        stock="7",
        rating="4.346",
        rating_count="12",
    )
    assert found == Book(
        isbn13="9780306406157",
        sku="a",
        work="w1",
        work_title="Original",
        title="A Title",
        subtitle="Or Not",
        contributors=(
            Contributor("A01", "Ann Author", "ann author", "Ann Author"),
            Contributor("A01", "Bob Both", "bob both", "Bob  Both"),
            Contributor("B06", "Bob Both", "bob both", "Bob Both"),
        ),
        series="Some Series",
        series_number="1-3",
        publisher="A Press",
        format="BC",
        availability="10",
        language="en",
        published_year=2008,
        published_on=datetime.date(2008, 9, 14),
        subjects=(
            Subject("keyword", "poetry", "poetry"),
            Subject("thema", "FBC", "Classic fiction"),
            Subject("bisac", "FIC004000", "FIC004000"),
        ),
        prices=(Price("JPY", 0, 1800), Price("KWD", 3, 3750), Price("USD", 2, 1250)),
        stock=7,
        rating=Decimal("4.35"),
        rating_count=12,
    )


def test_jsonl_has_lists_and_numbers() -> None:
    found = book(
        contributors=[{"name": "Homer"}, {"name": "Samuel Butler", "role": "translator"}, {"name": "X", "role": "A24"}],
        authors=["Homer", "Ann Author"],
        prices={"USD": Decimal("14.99"), "JPY": 1800},
        published=-431,
        subjects=["epics; not split", "thema:FBC"],
    )
    assert [(person.role, person.name) for person in found.contributors] == [
        ("A01", "Homer"),
        ("B06", "Samuel Butler"),
        ("A24", "X"),
        ("A01", "Ann Author"),
    ]
    assert found.prices == (Price("JPY", 0, 1800), Price("USD", 2, 1499))
    assert found.published_year == -431
    assert [subject.code for subject in found.subjects] == ["epics not split", "FBC"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("isbn", "9780306406158", "wrong check digit"),
        ("isbn", "030640615", "has 9 digits"),
        ("title", "x" * 1001, "at most 1,000 fit"),
        ("title", "nul \0 byte", "NUL byte"),
        ("title", "half \ud800", "lone surrogate"),
        ("title", "\u0301", "no visible character"),
        ("title", ["a list"], "is not text"),
        ("title", True, "is not text"),
        ("sku", "s" * 101, "at most 100 fit"),
        ("authors", "x" * 301, "at most 300 fit"),
        ("authors", ";".join("abc" * 400), "names; at most 1,000 fit"),
        ("contributors", "Homer", "is not a list"),
        ("contributors", [{"nom": "Homer"}], "has an entry that is not"),
        ("contributors", [{"name": "Homer", "role": "poet"}], "is no role"),
        ("contributors", [{"name": " "}], "empty name"),
        ("series_number", "3", "needs a series"),
        ("language", "english", "no language code"),
        ("format", "scroll", "ONIX list 150"),
        ("availability", "yes", "ONIX list 65"),
        ("published", "last year", "neither a year nor a date"),
        ("published", "2008-02-30", "the calendar does not have"),
        ("published", "-9999", "outside"),
        ("stock", "-1", "not a whole number"),
        ("stock", "2147483648", "not a whole number"),
        ("stock", Decimal("1.5"), "not a whole number"),
        ("rating", "5.01", "from 0 to 5"),
        ("rating", "many", "is not a number"),
        ("price", "9.99", "needs a currency"),
        ("prices", "USD 9.999", "USD has 2 decimals"),
        ("prices", "JPY 9.5", "JPY has 0 decimals"),
        ("prices", "KWD 1.2345", "KWD has 3 decimals"),
        ("prices", "XXX 1", "not a currency"),
        ("prices", "USD -1", "a number from 0 up"),
        ("prices", "USD", "is not a list such as"),
        ("prices", "USD 1; usd 2", "names a currency twice"),
        ("prices", {"USD": None}, "is not text"),
        ("subjects", "thema:", "has no code of thema"),
        ("subjects", "\u0301", "without a visible character"),
        ("subjects", "x" * 301, "at most 300 fit"),
    ],
)
def test_a_bad_value_is_named_with_its_column_and_its_reason(field: str, value: object, words: str) -> None:
    [problem] = problems(**{field: value})
    assert problem.column == field
    assert words in problem.reason


def test_all_faults_of_a_row_are_told_at_once() -> None:
    assert [problem.column for problem in problems(isbn="1", stock="x", language="?")] == ["isbn", "language", "stock"]


def test_what_would_steer_a_terminal_or_turn_text_round_is_left_out() -> None:
    found = book(
        sku="a", title="\x1b[31mRed\x07\x1b[0m \u202eesrever\u202c\x9b1m", authors="Ann\u2066\u200dBo\x7f; C\x85D"
    )
    assert found.title == "[31mRed[0m esrever1m"
    assert [person.name for person in found.contributors] == ["Ann\u200dBo", "C D"]


def test_compilers_are_a_column_of_their_own() -> None:
    found = book(sku="a", title="Kalevala", compilers="Elias Lönnrot")
    assert [(person.role, person.name) for person in found.contributors] == [("C01", "Elias Lönnrot")]


def test_a_row_without_natural_key_is_refused() -> None:
    with pytest.raises(BadRow, match="needs an ISBN or a SKU"):
        columns().book({"title": "T"})


def test_a_price_said_twice_must_agree() -> None:
    assert book(price="1.00", currency="USD", prices="USD 1").prices == (Price("USD", 2, 100),)
    [problem] = problems(price="1.00", currency="USD", prices="USD 2")
    assert "another USD price" in problem.reason


def test_set_fills_what_a_row_lacks_and_nothing_else() -> None:
    defaults = {"price": "14.99", "currency": "USD", "language": "en", "authors": "Anonymous"}
    assert book(defaults).prices == (Price("USD", 2, 1499),)
    assert book(defaults, price="3").prices == (Price("USD", 2, 300),)
    assert book(defaults, price="3", currency="EUR").prices == (Price("EUR", 2, 300),)
    assert book(defaults, prices="EUR 3").prices == (Price("EUR", 2, 300),)
    assert book(defaults, language=" ").language == "en"
    assert book(defaults, language="de").language == "de"
    assert [person.name for person in book(defaults, contributors=[{"name": "Homer"}]).contributors] == ["Homer"]


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"price": "14.999", "currency": "USD"}, "--set price=14.999: USD has 2 decimals"),
        ({"price": "14.5", "currency": "JPY"}, "JPY has 0 decimals"),
        ({"prise": "14"}, "did you mean 'price'?"),
        ({"isbn": "9780306406157"}, "cannot be the same for every book"),
        ({"stock": "many"}, "--set stock=many: is not a whole number"),
        ({"language": "english"}, "--set language=english"),
    ],
)
def test_a_bad_set_is_refused_before_anything_happens(defaults: dict[str, str], words: str) -> None:
    assert words in refusal(set=defaults)


def test_a_set_price_without_any_currency_is_refused() -> None:
    assert "--set currency=USD" in refusal(["sku", "title"], set={"price": "1"})
    columns(["sku", "title", "currency"], set={"price": "1"})


def test_headers_are_matched_as_people_write_them() -> None:
    found, _ = columns(["ISBN", "Series Number", "SERIES", "Title"]).book(
        {"ISBN": "9780306406157", "Series Number": "2", "SERIES": "S", "Title": "T"}
    )
    assert (found.isbn13, found.series, found.series_number) == ("9780306406157", "S", "2")


def test_map_renames_and_leaves_out_and_problems_name_the_column_of_the_file() -> None:
    made = columns(["EAN", "Titel", "Notes"], map={"EAN": "isbn", "titel": "title", "Notes": "-"})
    found, _ = made.book({"EAN": "9780306406157", "Titel": "T", "Notes": "whatever"})
    assert (found.isbn13, found.title) == ("9780306406157", "T")
    with pytest.raises(BadRow) as bad:
        made.book({"EAN": "9780306406158", "Titel": "T", "Notes": ""})
    assert bad.value.problems[0].column == "EAN"


@pytest.mark.parametrize(
    ("header", "options", "words"),
    [
        (["sku", "titel"], {}, "unknown column 'titel' (did you mean 'title'?)"),
        (["sku", "titel"], {}, "fields: isbn, sku"),
        (["sku", "foo", "bar"], {}, "unknown columns 'foo', 'bar'"),
        (["9780306406157", "Some Book"], {}, "is the header missing?"),
        (["title", "authors"], {}, "no column gives an isbn or a sku"),
        (["sku", "title"], {"map": {"EAN": "isbn"}}, "the file has no column 'EAN'"),
        (["sku", "t"], {"map": {"t": "titel"}}, "no field 'titel' (did you mean 'title'?)"),
        (["isbn", "EAN"], {"map": {"EAN": "isbn"}}, "columns 'isbn' and 'EAN' both give isbn"),
        (["book_id", "isbn", "title"], {}, "--preset goodbooks"),
        (["sku", "title"], {"preset": "goodbooks"}, "--preset bookstore"),
        (["book_id", "unheard"], {"preset": "goodbooks"}, "columns of preset 'goodbooks': book_id"),
    ],
)
def test_a_header_that_makes_no_sense_is_explained(header: list[str], options: dict[str, Any], words: str) -> None:
    assert words in refusal(header, **options)


def test_unknown_fields_of_jsonl_are_problems_of_their_row() -> None:
    with pytest.raises(BadRow) as bad:
        columns().book({"sku": "a", "titel": "T"})
    assert bad.value.problems[0].reason == "is no known field (did you mean 'title'?)"
    with pytest.raises(BadRow, match="gives title, as title does"):
        columns().book({"sku": "a", "title": "T", "Title": "U"})


def test_unknown_presets_and_malformed_options_are_explained() -> None:
    with pytest.raises(ImportRefused, match=r"did you mean 'goodbooks'\?"):
        preset_named("goodbook")
    assert pairs(["a = b=c"], "--set") == {"a": "b=c"}
    for option in ("price", "=1", "price="):
        with pytest.raises(ImportRefused, match="is not of the form field=value"):
            pairs([option], "--set")
    with pytest.raises(ImportRefused, match="given twice"):
        pairs(["a=isbn", "a=sku"], "--map")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("The Hunger Games (The Hunger Games, #1)", ("The Hunger Games", "The Hunger Games", "1")),
        ("His Dark Materials (His Dark Materials #1-3)", ("His Dark Materials", "His Dark Materials", "1-3")),
        ("One Thousand White Women (One Thousand White Women#1)", ("One Thousand White Women",) * 2 + ("1",)),
        ("Judy Moody (Judy Moody, # 1)", ("Judy Moody", "Judy Moody", "1")),
        ("Four (Divergent, #0.1 - 0.4)", ("Four", "Divergent", "0.1-0.4")),
        ("Raising Steam (Discworld, #40, Moist von Lipwig #3 )", ("Raising Steam", "Discworld", "40")),
        ("Order of the Phoenix (Harry Potter, #5, Part 1)", ("Order of the Phoenix", "Harry Potter", "5, Part 1")),
        ("Ranma ½, Vol. 1 (Ranma ½ (US 2nd), #1)", ("Ranma ½, Vol. 1", "Ranma ½ (US 2nd)", "1")),
        ("The Selection Stories (The Selection, #0.5, 2.5)", ("The Selection Stories", "The Selection", "0.5, 2.5")),
        ("I Am America (And So Can You!)", ("I Am America (And So Can You!)", None, None)),
        ("The Poky Little Puppy (A Little Golden Book)", ("The Poky Little Puppy (A Little Golden Book)", None, None)),
        ("(Series, #1)", ("(Series, #1)", None, None)),
        (
            "A Kiss for Little Bear (An I Can Read Book) by E",
            ("A Kiss for Little Bear (An I Can Read Book) by E", None, None),
        ),
    ],
)
def test_a_series_in_brackets_is_told_from_a_title(title: str, expected: tuple[str, str | None, str | None]) -> None:
    assert title_and_series(title) == expected


def test_goodbooks_rows_get_their_zeros_back() -> None:
    made = columns(preset="goodbooks")
    row = {"book_id": "1", "work_id": "2792775", "isbn": "439023483", "authors": "A, B", "title": "T"}
    found, warnings = made.book({**row, "original_publication_year": "-750.0", "language_code": "en-US"})
    assert (found.isbn13, found.sku, found.work) == ("9780439023481", "goodbooks-1", "goodreads:2792775")
    assert (found.published_year, found.language, len(found.contributors)) == (-750, "en", 2)
    assert warnings == []


def test_a_wrong_check_digit_is_a_warning_in_goodbooks_only() -> None:
    found, [warning] = columns(preset="goodbooks").book({"book_id": "916", "isbn": "812971060", "title": "T"})
    assert found.isbn13 is None
    assert (warning.column, warning.value) == ("isbn", "812971060")
    [problem] = problems(isbn="0812971060")
    assert "wrong check digit" in problem.reason


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(PRESETS)), st.data())
def test_no_value_of_any_field_breaks_the_checking(preset: str, data: st.DataObject) -> None:
    values = data.draw(st.dictionaries(st.sampled_from(list(PRESETS[preset].columns)), _anything))
    try:
        found, _ = columns(preset=preset).book(values)
    except BadRow as bad:
        assert all(problem.reason for problem in bad.problems)
    else:
        assert found.isbn13 or found.sku
        hash(found)
