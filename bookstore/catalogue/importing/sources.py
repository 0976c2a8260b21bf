"""Turns a file into rows, a bounded piece at a time. What cannot be read becomes a problem of its row."""

import codecs
import csv
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, NamedTuple, NoReturn

from .outcome import SHOWN_VALUE, ImportInterrupted, ImportRefused, Problem, RowProblem

FORMATS = ("csv", "jsonl", "onix")
LINE_LIMIT = 1 << 20  # bytes; a file that never ends its line would otherwise sit in memory whole

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
    """Rows of a CSV file with a header. The separator is whichever of , ; tab | the header uses most."""

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        try:
            header = lines.first_with_text()
            if not header:
                raise ImportRefused(f"{name} is empty: not even a header")
            # strict: a stray quote is an error of its row, not a silent shift of columns
            self._reader = csv.reader(lines, delimiter=max(",;\t|", key=header.count), strict=True)
            self.columns: list[str] = [column.strip() for column in next(self._reader)]
        except (csv.Error, RowProblem) as fault:
            raise ImportRefused(f"{name}: the header cannot be read: {fault}") from None
        twice = sorted({column for column in self.columns if column and self.columns.count(column) > 1})
        if twice:
            raise ImportRefused(f"{name}: the header has {', '.join(twice)} more than once")

    def __iter__(self) -> Iterator[Row | Problem]:
        number = 0
        while True:
            line = self._lines.number + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except (csv.Error, RowProblem) as fault:
                number += 1
                problem = (
                    fault if isinstance(fault, RowProblem) else RowProblem(_explained(fault, line, self._lines.number))
                )
                yield problem.at(number, line)
                continue
            if not any(cells):
                continue
            number += 1
            if len(cells) == len(self.columns):
                yield Row(number, line, dict(zip(self.columns, cells, strict=True)))
            else:
                ragged = RowProblem(f"has {len(cells)} cells where the header has {len(self.columns)}", value=cells[0])
                yield ragged.at(number, line)


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


def _explained(fault: csv.Error, first_line: int, last_line: int) -> str:
    text = str(fault)
    if "unexpected end of data" in text:
        return f"a quote opened in line {first_line} is never closed"
    if "field larger than field limit" in text:
        swallowed = f" (a quote never closed? it ran to line {last_line})" if last_line > first_line else ""
        return f"a cell is longer than {csv.field_size_limit():,} characters{swallowed}"
    if "expected after" in text:
        return "a quote inside a quoted cell is not doubled"
    return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except json.JSONDecodeError as fault:
        raise RowProblem(f"is not JSON: {fault.msg} at character {fault.pos + 1}", value=text.strip()) from None
    except RecursionError:
        raise RowProblem("is nested too deeply") from None
    except ValueError as fault:  # an integer of more digits than Python converts
        raise RowProblem(f"is not usable JSON: {fault}") from None
    if not isinstance(value, dict):
        raise RowProblem("is not a JSON object", value=text.strip())
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise RowProblem(f"is not JSON: {name} is no number", value=name)
