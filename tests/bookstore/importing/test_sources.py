"""Any bytes at all: what can be read is read, what cannot is named with its row and line."""

import csv
import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookstore.catalogue.importing import sources
from bookstore.catalogue.importing.outcome import ImportRefused, Problem
from bookstore.catalogue.importing.sources import LINE_LIMIT, Lines, Row, format_of, read_rows


def read(content: bytes, format: str = "csv") -> list[Row | Problem]:
    return list(read_rows(format, Lines(io.BytesIO(content), "books.csv"), "books.csv"))


def refusal(content: bytes, format: str = "csv") -> str:
    with pytest.raises(ImportRefused) as refused:
        read(content, format)
    return str(refused.value)


def test_rows_are_counted_from_one_and_lines_as_an_editor_counts_them() -> None:
    assert read(b'sku,title\n\na,"two\nlines"\nb,B\n') == [
        Row(1, 3, {"sku": "a", "title": "two\nlines"}),
        Row(2, 5, {"sku": "b", "title": "B"}),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_the_header_uses(separator: str) -> None:
    content = f"sku{separator}title\na{separator}A B\n".encode()
    assert read(content) == [Row(1, 2, {"sku": "a", "title": "A B"})]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text() -> None:
    assert read(b"\xef\xbb\xbfsku,title\r\na,A\r\n") == [Row(1, 2, {"sku": "a", "title": "A"})]
    assert read(b'\xef\xbb\xbf{"sku": "a"}\r\n', "jsonl") == [Row(1, 1, {"sku": "a"})]


def test_ragged_rows_are_problems_and_the_rows_around_them_survive() -> None:
    good, short, long, last = read(b"sku,title\na,A\nb\nc,C,what\nd,D\n")
    assert isinstance(good, Row)
    assert isinstance(last, Row)
    assert last.number == 4
    assert isinstance(short, Problem)
    assert (short.row, short.line, short.reason) == (2, 3, "has 1 cells where the header has 2")
    assert isinstance(long, Problem)
    assert long.reason == "has 3 cells where the header has 2"


def test_a_row_of_empty_cells_is_no_row() -> None:
    assert read(b"sku,title\n,\na,A\n,\n") == [Row(1, 3, {"sku": "a", "title": "A"})]


def test_a_byte_of_another_encoding_is_a_problem_of_its_row() -> None:
    bad, good = read("sku,title\na,Brontë\nb,B\n".encode("latin-1"))
    assert isinstance(bad, Problem)
    assert (bad.row, bad.line, bad.value) == (1, 2, "a,Brontë")
    assert "0xeb is not UTF-8" in bad.reason
    assert good == Row(2, 3, {"sku": "b", "title": "B"})


def good_rows(first: int, last: int) -> bytes:
    return "".join(f"{number},a title of some length to fill the cell\n" for number in range(first, last + 1)).encode()


def test_a_quote_that_is_never_closed_is_one_bad_row_and_swallows_no_good_one() -> None:
    for rows in (3, 3000, 10_000):  # shorter and longer than a cell may be
        found = read(b"sku,title\n" + good_rows(1, 100) + b'bad,"open\n' + good_rows(102, rows + 101))
        assert len(found) == 101 + rows
        problems = [row for row in found if isinstance(row, Problem)]
        assert [(problem.row, problem.line) for problem in problems] == [(101, 102)]
        assert "a quote opened in line 102 is never closed" in problems[0].reason
        assert found[-1] == Row(len(found), len(found) + 1, {"sku": str(rows + 101), "title": found[0].values["title"]})  # type: ignore[union-attr]


def test_a_quote_that_only_a_later_row_closes_swallows_no_good_one() -> None:
    found = read(b"sku,title\n" + b'bad,"open\n' + good_rows(2, 50) + b'51,"One, two"\n' + good_rows(52, 60))
    assert [row.row for row in found if isinstance(row, Problem)] == [1]
    assert [row.values["sku"] for row in found if isinstance(row, Row)] == [str(number) for number in range(2, 61)]
    assert "line 2 is never closed, or in line 52 a quote inside a quoted cell" in str(found[0])


def test_reading_goes_on_behind_the_line_that_opened_the_quote_not_the_one_that_began_the_row() -> None:
    rows = b'a,"two\nlines",x\nb,"two\nlines","open\n' + b"c,C,x\n" + b'd,"D ""D""","x"\n'
    found = read(b"sku,title,subtitle\n" + rows)
    assert [type(row) for row in found] == [Row, Problem, Row, Row]
    assert isinstance(found[1], Problem)
    assert (found[1].row, found[1].line) == (2, 4)
    assert "opened in line 5" in found[1].reason
    assert found[2] == Row(3, 6, {"sku": "c", "title": "C", "subtitle": "x"})
    assert found[3] == Row(4, 7, {"sku": "d", "title": 'D "D"', "subtitle": "x"})


@pytest.mark.parametrize("closing", ['51,5",x', '51,5","x', '51,"5"","x', 'a","b","c","d'])
def test_a_quote_that_a_later_row_closes_by_chance_swallows_no_good_one(closing: str) -> None:
    found = read(b"sku,title\n" + b'bad,"open\n' + good_rows(2, 50) + closing.encode() + b"\n" + good_rows(52, 9000))
    good = [row.values["sku"] for row in found if isinstance(row, Row)]
    assert [sku for sku in good if sku != "51"] == [*map(str, range(2, 51)), *map(str, range(52, 9001))]
    assert next(row.row for row in found if isinstance(row, Problem)) == 1


def test_a_file_of_nothing_but_stray_quotes_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_AGAIN_LIMIT", 1_000_000)
    found = read(b"sku,title\n" + b'a","""\n' * 5000 + good_rows(1, 3))
    assert all(isinstance(row, Problem) for row in found)
    assert "is left out with it" in str(found[-1])


def test_a_quote_that_runs_into_a_line_nobody_can_read_makes_two_bad_rows_of_two_bad_lines() -> None:
    found = read(b'sku,title\na,"open\nb,B\nc,Bront\xeb\nd,D\n')
    assert [(row.row, row.line) for row in found if isinstance(row, Problem)] == [(1, 2), (3, 4)]
    assert [row.values["sku"] for row in found if isinstance(row, Row)] == ["b", "d"]


def test_a_row_without_end_is_given_up_though_each_of_its_cells_is_short() -> None:
    lines = Lines(io.BytesIO(b'sku,title\n1,"\n' + b'a","\n' * (LINE_LIMIT // 2)), "books.csv")
    first = next(iter(read_rows("csv", lines, "books.csv")))
    assert isinstance(first, Problem)
    assert f"a row is longer than {LINE_LIMIT:,} characters" in first.reason
    assert lines.bytes_read < 2 * LINE_LIMIT


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), min_size=3, max_size=3)
    ),
    st.integers(0, 5),
)
def test_what_was_written_is_read_around_a_row_that_opens_a_quote(rows: list[list[str]], place: int) -> None:
    """Quotes of the rows behind it may close it: then that row is worse than it was, never the rows behind."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(["sku", "title", "note"])
    rows = [[f"s{number}", *row[1:]] for number, row in enumerate(rows)]
    before, behind = (
        rows[:place],
        [
            [cell.replace('"', "").replace("\r", "").replace("\n", "").replace(",", "") for cell in row]
            for row in rows[place:]
        ],
    )
    writer.writerows(before)
    text.write('bad,"open\n')
    writer.writerows(behind)
    found = read(text.getvalue().encode())
    assert [list(row.values.values()) for row in found if isinstance(row, Row)] == [*before, *behind]
    assert [row.row for row in found if isinstance(row, Problem)] == [len(before) + 1]


def test_a_quote_open_at_the_end_and_one_inside_a_cell_are_explained() -> None:
    first, second = read(b'sku,title\na,"He said "no" twice"\nb,"open')
    assert isinstance(first, Problem)
    assert first.reason == "a quote inside a quoted cell is not doubled"
    assert isinstance(second, Problem)
    assert second.reason == "a quote opened in line 3 is never closed"


def test_a_stray_carriage_return_is_explained_without_python() -> None:
    bad, good = read(b"sku,title\na,A\rB,x\nb,B\n")
    assert isinstance(bad, Problem)
    assert bad.reason.startswith("has a CR inside a line")
    assert good == Row(2, 3, {"sku": "b", "title": "B"})


def test_lines_of_megabytes_are_skipped_and_never_kept() -> None:
    huge = b"x" * (3 * LINE_LIMIT)
    lines = Lines(io.BytesIO(b"sku,title\na," + huge + b"\nb,B\n"), "books.csv")
    bad, good = list(read_rows("csv", lines, "books.csv"))
    assert isinstance(bad, Problem)
    assert bad.reason == f"the line is longer than {LINE_LIMIT:,} bytes"
    assert len(bad.value or "") <= 300
    assert good == Row(2, 3, {"sku": "b", "title": "B"})
    assert lines.bytes_read == 10 + 2 + len(huge) + 1 + 4


def test_a_cell_too_large_for_a_cell_is_a_problem_of_its_row() -> None:
    bad, good = read(b"sku,title\na," + b"x" * 200_000 + b"\nb,B\n")
    assert isinstance(bad, Problem)
    assert bad.reason == f"a cell is longer than {csv.field_size_limit():,} characters"
    assert isinstance(good, Row)


def test_jsonl_keeps_decimals_exact_and_a_broken_line_to_itself() -> None:
    good, broken, number, infinite, last = read(
        b'{"price": 14.999}\n{"sku": "a"\n\n17\n{"rating": Infinity}\n{"sku": "b"}\n', "jsonl"
    )
    assert good == Row(1, 1, {"price": Decimal("14.999")})
    assert isinstance(broken, Problem)
    assert (broken.row, broken.line) == (2, 2)
    assert broken.reason.startswith("is not JSON")
    assert isinstance(number, Problem)
    assert (number.line, number.reason) == (4, "is not a JSON object")
    assert isinstance(infinite, Problem)
    assert "Infinity" in infinite.reason
    assert last == Row(5, 6, {"sku": "b"})


def test_a_bad_first_line_of_jsonl_does_not_end_the_file() -> None:
    bad, good = read(b'{"title": "Bront\xeb"}\n{"sku": "b"}\n', "jsonl")
    assert isinstance(bad, Problem)
    assert bad.row == 1
    assert good == Row(2, 2, {"sku": "b"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a": ' + b"[" * 100_000 + b"}", "is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "has a number of too many digits"),
        (b'{"a": 1e99999999999999999999}', "has a number that is too large"),
        (b'{"sku": "a", "title": "A", "sku": "b"}', "names a member twice"),
        (b'{"sku": "a", "prices": {"USD": 1, "USD": 2}}', "names a member twice"),
    ],
)
def test_json_that_would_hurt_or_hide_something_is_a_problem_of_its_row(line: bytes, words: str) -> None:
    bad, good = read(line + b'\n{"sku": "b"}\n', "jsonl")
    assert isinstance(bad, Problem)
    assert bad.reason == words
    assert good == Row(2, 2, {"sku": "b"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        ("sku,title\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("sku,title\n".encode("utf-16-le"), "NUL bytes"),
        (b"PK\x03\x04rest of a workbook", "Excel"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"sku,title\ra,A\rb,B\r", "CR alone"),
        (b"sku,title,sku\n", "more than once"),
        (b"sku,Bront\xeb\n", "the header cannot be read"),
        (b'sku,"title\n', "the header cannot be read"),
    ],
)
def test_what_is_no_csv_at_all_is_refused_in_one_sentence(content: bytes, words: str) -> None:
    message = refusal(content)
    assert words in message
    assert message.startswith("books.csv")
    assert "\n" not in message


def test_what_is_no_jsonl_at_all_is_refused_in_one_sentence() -> None:
    assert "one JSON array" in refusal(b'[\n{"sku": "a"}\n]\n', "jsonl")
    assert "is empty" in refusal(b"", "jsonl")


def test_onix_and_unknown_formats_say_what_to_do_instead() -> None:
    assert "ONIX is not read yet" in refusal(b"<ONIXMessage/>", "onix")
    assert "csv, jsonl, onix" in refusal(b"", "xls")


def test_the_name_tells_the_format() -> None:
    assert [format_of(name) for name in ("a.CSV", "b.tsv", "c.jsonl", "d.ndjson", "e.xml")] == [
        "csv",
        "csv",
        "jsonl",
        "jsonl",
        "onix",
    ]
    with pytest.raises(ImportRefused, match="--format csv"):
        format_of("books")


@given(st.binary(max_size=300), st.sampled_from(["csv", "jsonl"]))
def test_no_bytes_break_the_reading(content: bytes, format: str) -> None:
    try:
        found = read(content, format)
    except ImportRefused:
        return
    assert [row.row if isinstance(row, Problem) else row.number for row in found] == list(range(1, len(found) + 1))


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=20)), max_size=5))
def test_jsonl_comes_out_as_it_went_in(rows: list[dict[str, str]]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    try:
        assert [row.values for row in read(content, "jsonl") if isinstance(row, Row)] == rows
    except ImportRefused:
        assert not rows
