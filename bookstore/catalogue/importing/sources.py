"""Turns a file into rows, a bounded piece at a time. What cannot be read becomes a problem of its row."""

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, NamedTuple, NoReturn

from .outcome import SHOWN_VALUE, ImportInterrupted, ImportRefused, Problem, RowProblem

FORMATS = ("csv", "jsonl", "onix")
LINE_LIMIT = 1 << 20  # bytes; a file that never ends its line would otherwise sit in memory whole
READ_AGAIN_LIMIT = 64 << 20  # characters of one file, behind quotes that nobody closed: ten seconds at the very most
LONGEST_NUMBER = 1000  # digits; Python converts no more than 4,300, and no field has a use for them

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xml": "onix",
    ".onix": "onix",
}
_NOT_TEXT = {
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "is compressed with gzip; unpack it first, or `zcat FILE | bookstore import - --format csv`",
    codecs.BOM_UTF16_LE: "is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16; save it as UTF-8",
}


class Row(NamedTuple):
    number: int  # counts the books of the file from 1, the header not
    line: int  # the line it begins on, as an editor counts
    values: dict[str, Any]


def format_of(name: str) -> str:
    for suffix, known in _SUFFIXES.items():
        if name.lower().endswith(suffix):
            return known
    raise ImportRefused(f"{name}: its name does not tell the format; say --format csv or --format jsonl")


class Lines:
    """Decoded lines of a binary file, none longer than LINE_LIMIT; a faulty one raises, and reading can go on."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._held: str | RowProblem | None = None
        self.number = 0
        self.bytes_read = 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        if (held := self._held) is not None:
            self._held = None
            if isinstance(held, RowProblem):
                raise held
            return held
        try:
            raw = self._file.readline(LINE_LIMIT)
        except OSError as fault:
            raise ImportInterrupted(f"{self._name} cannot be read any further: {fault.strerror}") from fault
        if not raw:
            raise StopIteration
        self.number += 1
        self.bytes_read += len(raw)
        if self.number == 1:
            raw = self._first(raw)
        if len(raw) == LINE_LIMIT and not raw.endswith(b"\n"):
            self._skip_to_next_line()
            shown = raw[:SHOWN_VALUE].decode("utf-8", "replace")
            raise RowProblem(f"the line is longer than {LINE_LIMIT:,} bytes", value=shown)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as fault:
            raise RowProblem(
                f"byte 0x{raw[fault.start]:02x} is not UTF-8 (the file is Latin-1 or Windows-1252?); save it as UTF-8",
                value=raw[max(0, fault.start - 20) : fault.start + 20].decode("latin-1").strip(),
            ) from None

    def first_with_text(self) -> str:
        """The first line that is not blank, which stays to be read; "" when there is none. Its fault stays, too."""
        try:
            line = next((line for line in self if line.strip()), "")
        except RowProblem as fault:
            self._held = fault
            raise
        if line:
            self._held = line
        return line

    def _first(self, raw: bytes) -> bytes:
        for magic, what in _NOT_TEXT.items():
            if raw.startswith(magic):
                raise ImportRefused(f"{self._name} {what}")
        if b"\0" in raw[:SHOWN_VALUE]:
            raise ImportRefused(f"{self._name} has NUL bytes in its first line: not text, or UTF-16; save it as UTF-8")
        if b"\r" in raw.rstrip(b"\r\n") and not raw.endswith(b"\n"):
            raise ImportRefused(f"{self._name} ends its lines in CR alone (old Macintosh); save it with LF or CRLF")
        return raw.removeprefix(codecs.BOM_UTF8)

    def _skip_to_next_line(self) -> None:
        while raw := self._file.readline(LINE_LIMIT):
            self.bytes_read += len(raw)
            if raw.endswith(b"\n"):
                return


class CsvRows:
    """Rows of a CSV file with a header. The separator is whichever of , ; tab | the header uses most.

    A quote that is never closed, or by chance by a later row, makes one bad row: what it ran over is read again, from
    the line after the one it was opened in.
    """

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = _LinesOfRecord(lines)
        try:
            header = lines.first_with_text()
            if not header:
                raise ImportRefused(f"{name} is empty: not even a header")
            self._separator = max(",;\t|", key=header.count)
            # strict: a stray quote is an error of its row, not a silent shift of columns
            self._reader = csv.reader(self._lines, delimiter=self._separator, strict=True)
            self.columns: list[str] = [column.strip() for column in next(self._reader)]
        except (csv.Error, RowProblem) as fault:
            raise ImportRefused(f"{name}: the header cannot be read: {fault}") from None
        twice = sorted({column for column in self.columns if column and self.columns.count(column) > 1})
        if twice:
            raise ImportRefused(f"{name}: the header has {', '.join(twice)} more than once")

    def __iter__(self) -> Iterator[Row | Problem]:
        number = 0
        while True:
            line = self._lines.begin()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, RowProblem) as fault:
                number += 1
                yield self._given_up(fault, line).at(number, line)
                continue
            if not any(cells):
                continue
            number += 1
            if len(cells) == len(self.columns):
                yield Row(number, line, dict(zip(self.columns, cells, strict=True)))
            else:
                yield self._ragged(cells, line).at(number, line)

    def _ragged(self, cells: list[str], first: int) -> RowProblem:
        reason = f"has {len(cells)} cells where the header has {len(self.columns)}"
        last = first + len(self._lines.record) - 1
        if last > first:  # a stray quote of a later row closed the one that this row opened?
            reason += f"; a quote opened in line {first} is closed in line {last}{self._lines.read_again_after(first)}"
        return RowProblem(reason, value=cells[0])

    def _given_up(self, fault: csv.Error | RowProblem, first: int) -> RowProblem:
        """What is wrong with the record that began in line `first`; the lines it had no right to will come again."""
        read = self._lines.record
        last = first + len(read) - 1
        if len(read) == 1:
            return fault if isinstance(fault, RowProblem) else RowProblem(_explained(fault, first))
        index, cells = _open_quote([line for line in read if isinstance(line, str)], self._separator)
        opened = first + (index if cells <= len(self.columns) else 0)  # too many: an earlier quote was closed by chance
        missed = self._lines.read_again_after(opened)
        if isinstance(fault, RowProblem):
            return RowProblem(f"the quote opened in line {opened} runs on to line {last}: {fault.reason}{missed}")
        return RowProblem(_explained(fault, opened, last) + missed)


class _LinesOfRecord:
    """The lines of a file, those of the present record kept so that they can be read again."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._again: deque[str | RowProblem] = deque()
        self._size = 0
        self._began = 0
        self._left = READ_AGAIN_LIMIT
        self.record: list[str | RowProblem] = []

    def begin(self) -> int:
        """A new record. Returns the number of the line it begins in."""
        self.record = []
        self._size = 0
        self._began = self._lines.number - len(self._again) + 1
        return self._began

    def __iter__(self) -> "_LinesOfRecord":
        return self

    def __next__(self) -> str:
        if self._size > LINE_LIMIT:  # csv itself looks at the size of single cells only, and keeps them all
            raise csv.Error(_ENDLESS)
        line = self._next()
        self.record.append(line)
        if isinstance(line, RowProblem):
            raise line
        self._size += len(line)
        return line

    def read_again_after(self, number: int) -> str:
        """Returns what is to be said when that is too much, in the end: a file of nothing but stray quotes."""
        again = self.record[number - self._began + 1 :]
        self._left -= self._size
        if self._left < 0:
            return f"; what follows, up to line {self._began + len(self.record) - 1}, is left out with it"
        self._again.extendleft(reversed(again))
        return ""

    def _next(self) -> str | RowProblem:
        if self._again:
            return self._again.popleft()
        try:
            return next(self._lines)
        except RowProblem as fault:
            return fault


def _open_quote(lines: list[str], separator: str) -> tuple[int, int]:
    """Which of the lines of one record opened the quote that is open at their end, and which cell of it that is."""
    opened, cells, quoted = 0, 1, False
    for index, line in enumerate(lines):
        at = 0  # while not quoted: where a cell begins
        while at >= 0:
            if not quoted and line.startswith('"', at):
                quoted, opened, at = True, index, at + 1
            elif not quoted:
                end = line.find(separator, at)
                cells += end >= 0
                at = end + 1 if end >= 0 else -1
            elif (end := line.find('"', at)) < 0:
                at = -1
            elif line.startswith('"', end + 1):
                at = end + 2
            elif line.startswith(separator, end + 1):
                cells += 1
                quoted, at = False, end + 2
            else:
                return opened, cells  # the quote that made csv give up
    return opened, cells


class JsonlRows:
    """Rows of a file with one JSON object a line, each of which names its own fields."""

    columns: list[str] | None = None

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        try:
            first = lines.first_with_text()
        except RowProblem:
            return  # row 1 is bad and will be told so; the next may be good
        if not first:
            raise ImportRefused(f"{name} is empty")
        if first.lstrip().startswith("["):
            raise ImportRefused(f"{name} is one JSON array; JSONL has one object a line (`jq -c '.[]' FILE` makes it)")

    def __iter__(self) -> Iterator[Row | Problem]:
        number = 0
        while True:
            try:
                text = next(self._lines)
            except StopIteration:
                return
            except RowProblem as fault:
                number += 1
                yield fault.at(number, self._lines.number)
                continue
            if not text.strip():
                continue
            number += 1
            try:
                yield Row(number, self._lines.number, _json_object(text))
            except RowProblem as fault:
                yield fault.at(number, self._lines.number)


def read_rows(format: str, lines: Lines, name: str) -> CsvRows | JsonlRows:
    if format == "csv":
        return CsvRows(lines, name)
    if format == "jsonl":
        return JsonlRows(lines, name)
    if format == "onix":
        raise ImportRefused(
            "ONIX is not read yet; export the feed as CSV or JSONL with the fields of `bookstore import --help`"
        )
    raise ImportRefused(f"there is no format {format!r}; known are {', '.join(FORMATS)}")


_ENDLESS = f"a row is longer than {LINE_LIMIT:,} characters"


def _explained(fault: csv.Error, opened: int, last: int | None = None) -> str:
    """`last` is the line where reading was given up, when that is not the line of the quote."""
    text = str(fault)
    if "unexpected end of data" in text:
        return f"a quote opened in line {opened} is never closed"
    if "field larger than field limit" in text:
        text = f"a cell is longer than {csv.field_size_limit():,} characters"
    elif "expected after" in text:
        text = "a quote inside a quoted cell is not doubled"
    elif "new-line character" in text:
        text = "has a CR inside a line; end lines with LF or CRLF, and put quotes around a cell of several lines"
    return text if last is None else f"a quote opened in line {opened} is never closed, or in line {last} {text}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_members,
        )
    except json.JSONDecodeError as fault:
        raise RowProblem(f"is not JSON: {fault.msg} at character {fault.pos + 1}", value=text.strip()) from None
    except RecursionError:
        raise RowProblem("is nested too deeply") from None
    if not isinstance(value, dict):
        raise RowProblem("is not a JSON object", value=text.strip())
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RowProblem("names a member twice", column=twice)
    return members


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise RowProblem("has a number of too many digits", value=digits)
    return int(digits)


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent of twenty digits
        raise RowProblem("has a number that is too large", value=digits) from None


def _refuse_constant(name: str) -> NoReturn:
    raise RowProblem(f"is not JSON: {name} is no number", value=name)
