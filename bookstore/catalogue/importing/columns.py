"""From the columns of a file to checked books: the preset, `--map` and `--set` put together once, then used per row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .book import BadRow, Book, parse_book
from .fields import FIELDS, ROLES
from .outcome import ImportRefused, RowProblem
from .presets import PRESETS, Preset, Values, did_you_mean

IGNORE = "-"
_NEVER_DEFAULTS = {"isbn", "sku", "contributors"}


class Columns:
    """What each column means. Made for one file; `header` is None where every row names its own fields (JSONL)."""

    def __init__(
        self, preset: Preset, mapping: Mapping[str, str], defaults: Mapping[str, str], header: list[str] | None
    ) -> None:
        self._preset = preset
        self._defaults = _checked_defaults(defaults)
        self._fields = {_plain(column): field for column, field in preset.columns.items()}
        self._fields |= {_plain(column): IGNORE for column in preset.ignored}
        self._fields |= _checked_mapping(mapping)
        self._header_field: dict[str, str] = {}
        if header is not None:
            self._check_header(header, mapping)
            self._header_field = {column: self._fields.get(_plain(column), IGNORE) for column in header}

    @property
    def may_give_titles(self) -> bool:
        return not self._header_field or "title" in {*self._header_field.values(), *self._defaults}

    def book(self, values: Mapping[str, Any]) -> tuple[Book, list[RowProblem]]:
        """The row's book and its warnings; `BadRow` with all its faults."""
        fields, columns = self._renamed(values)
        warnings: list[RowProblem] = []
        fields = self._with_defaults(self._preset.tidy(fields, warnings.append))
        try:
            book = parse_book(fields)
        except BadRow as bad:
            raise BadRow([_in_column(problem, columns) for problem in bad.problems]) from None
        return book, [_in_column(problem, columns) for problem in warnings]

    def _renamed(self, values: Mapping[str, Any]) -> tuple[Values, dict[str, str]]:
        fields: Values = {}
        columns: dict[str, str] = {}
        for column, value in values.items():
            field = self._header_field.get(column) or self._fields.get(column) or self._fields.get(_plain(column))
            if field is None:
                hint = did_you_mean(column, FIELDS)
                raise BadRow([RowProblem(f"is no known field{hint}", column=column, value=value)])
            if field == IGNORE:
                continue
            if field in fields:
                raise BadRow([RowProblem(f"gives {field}, as {columns[field]} does", column=column, value=value)])
            fields[field] = value
            columns[field] = column
        return fields, columns

    def _with_defaults(self, fields: Values) -> Values:
        for field, value in self._defaults.items():
            instead = "prices" if field == "price" else "contributors" if field in ROLES else field
            if _lacks(fields.get(field)) and _lacks(fields.get(instead)):
                fields[field] = value
        return fields

    def _check_header(self, header: list[str], mapping: Mapping[str, str]) -> None:
        known = {column: self._fields.get(_plain(column)) for column in header if column}
        if not any(known.values()):
            raise ImportRefused(
                f"the first line names no column that is known here: is the header missing? "
                f"It begins {header[0][:60]!r}; {self._names_it_knows()}"
            )
        for column in mapping:
            if _plain(column) not in map(_plain, header):
                raise ImportRefused(
                    f"--map {column}=…: the file has no column {column!r}{did_you_mean(column, header)}"
                )
        strangers = [column for column, field in known.items() if field is None]
        if strangers:
            raise ImportRefused(self._about_strangers(strangers, header))
        givers: dict[str, str] = {}
        for column, field in known.items():
            if field is not None and field != IGNORE and givers.setdefault(field, column) != column:
                first = givers[field]
                raise ImportRefused(
                    f"columns {first!r} and {column!r} both give {field}; leave one out: --map {first}=-"
                )
        if not {"isbn", "sku"} & givers.keys():
            raise ImportRefused(
                f"no column gives an isbn or a sku, so no book could be told from another; {FIELD_LIST}"
            )
        if "price" in self._defaults and not {"currency"} & (givers.keys() | self._defaults.keys()):
            raise ImportRefused("--set price=… needs a currency: --set currency=USD")

    def _about_strangers(self, strangers: list[str], header: list[str]) -> str:
        for other in PRESETS.values():
            if other is not self._preset and {*header} <= other.columns.keys() | other.ignored:
                return (
                    f"these are not the columns of {self._preset.name!r} but of {other.name!r}: --preset {other.name}"
                )
        names = ", ".join(f"{column!r}{did_you_mean(column, FIELDS)}" for column in strangers[:5])
        more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
        first = strangers[0]
        return (
            f"unknown column{'s' * (len(strangers) > 1)} {names}{more}; say what it is (--map {first}=title) "
            f"or leave it out (--map {first}=-). {self._names_it_knows()}"
        )

    def _names_it_knows(self) -> str:
        if self._preset.name == "bookstore":
            return FIELD_LIST
        return f"columns of preset {self._preset.name!r}: {', '.join(self._preset.columns)}"


FIELD_LIST = f"fields: {', '.join(FIELDS)}"


def pairs(options: Iterable[str], option: str) -> dict[str, str]:
    """`--map a=b` or `--set a=b`, taken apart."""
    found: dict[str, str] = {}
    for text in options:
        left, sign, right = (part.strip() for part in text.partition("="))
        if not sign or not left or not right:
            raise ImportRefused(
                f"{option} {text!r} is not of the form {'column=field' if option == '--map' else 'field=value'}"
            )
        if left in found:
            raise ImportRefused(f"{option} {left}=… is given twice")
        found[left] = right
    return found


def _checked_mapping(mapping: Mapping[str, str]) -> dict[str, str]:
    for column, field in mapping.items():
        if field not in FIELDS and field != IGNORE:
            raise ImportRefused(
                f"--map {column}={field}: no field {field!r}{did_you_mean(field, FIELDS)}; {FIELD_LIST}"
            )
    return {_plain(column): field for column, field in mapping.items()}


def _checked_defaults(defaults: Mapping[str, str]) -> dict[str, str]:
    for field, value in defaults.items():
        if field not in FIELDS:
            raise ImportRefused(f"--set {field}={value}: no field {field!r}{did_you_mean(field, FIELDS)}; {FIELD_LIST}")
        if field in _NEVER_DEFAULTS:
            raise ImportRefused(f"--set {field}={value}: {field} cannot be the same for every book")
    try:
        # The currency may come from the file; then only each row can tell whether the price fits it.
        parse_book({"sku": "any", **defaults, "currency": defaults.get("currency", "KWD")})
    except BadRow as bad:
        problem = bad.problems[0]
        raise ImportRefused(f"--set {problem.column}={problem.value}: {problem.reason}") from None
    return dict(defaults)


def _in_column(problem: RowProblem, columns: Mapping[str, str]) -> RowProblem:
    field = problem.column
    if field is None:
        return problem
    name = columns.get(field, field if field not in columns and problem.value is None else f"--set {field}")
    return RowProblem(problem.reason, column=name, value=problem.value)


def _lacks(value: object) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())


def _plain(column: str) -> str:
    """`Series Number`, `series-number` and `series_number` are one column."""
    return re.sub(r"[\s_-]+", "_", column.strip().lower())
