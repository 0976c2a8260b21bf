"""Whatever a file says: a dry run tells what a run then does, and the same file again writes nothing."""

import json
from io import BytesIO
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookstore.catalogue.importing import ImportSummary, Problem, import_books

from .catalogue import contents, csv_bytes, empty, marks, vocabulary

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
_subjects = st.lists(st.sampled_from(["poetry", "Poétry", "thema:FBC", "thema:FBC Fiction"]), max_size=3)
_names = st.lists(st.sampled_from(["Ann", "ANN", "Ańn", "Bob", "Zoë"]) | _text, max_size=3).map("; ".join)
# Few keys, so that rows meet each other and what is stored; one in five is wrong.
_row = st.fixed_dictionaries(
    {
        "isbn": st.sampled_from(["", "9780306406157", "0306406152", "9780140449112", "9780306406158"]),
        "sku": st.sampled_from(["", "a", "b", "c", "ｃ"]),
        "title": st.sampled_from(["Title", "TITLE", "Other", ""]) | _text,
    },
    optional={
        "work": st.sampled_from(["", "w1", "w2"]),
        "work_title": _text,
        "subtitle": _text,
        "authors": _names,
        "translators": _names,
        "series": st.sampled_from(["", "Série", "SERIE"]) | _text,
        "series_number": st.sampled_from(["", "1", "2.5"]),
        "publisher": st.sampled_from(["", "Press", "press"]) | _text,
        "format": st.sampled_from(["", "paperback", "EB", "scroll!"]),
        "availability": st.sampled_from(["", "20", "10"]),
        "language": st.sampled_from(["", "en", "eng", "e"]),
        "published": st.sampled_from(["", "1999", "1999-02-28", "-431", "soon"]),
        "subjects": _subjects.map("; ".join),
        "prices": st.sampled_from(["", "USD 1", "USD 1.00; JPY 5", "JPY 5.5", "KWD 1.234"]),
        "stock": st.sampled_from(["", "0", "5", "-1"]),
        "rating": st.sampled_from(["", "4.349", "4.35", "6"]),
        "rating_count": st.sampled_from(["", "0", "7"]),
    },
)
_rows = st.lists(_row, max_size=8)


def run(
    url: str, rows: list[dict[str, str]], format: str, batch_rows: int, *, dry_run: bool = False
) -> tuple[Any, ...]:
    """What the import said, but for the job's number and the time it took."""
    problems: list[Problem] = []
    content = csv_bytes(rows) if format == "csv" else b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    summary: ImportSummary = import_books(
        url,
        BytesIO(content),
        format=format,
        name="rows",
        dry_run=dry_run,
        batch_rows=batch_rows,
        on_problem=problems.append,
    )
    assert len(problems) == summary.problem_count
    return summary.counts, summary.with_isbn, summary.author_names, summary.author_people, problems


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    before=_rows.filter(bool),
    rows=_rows.filter(bool),
    format=st.sampled_from(["csv", "jsonl"]),
    batch_rows=st.sampled_from([1, 2, 3, 1000]),
)
def test_a_dry_run_predicts_the_run_and_a_second_run_writes_nothing(
    module_database_url: str, before: list[dict[str, str]], rows: list[dict[str, str]], format: str, batch_rows: int
) -> None:
    url = module_database_url
    empty(url)
    run(url, before, format, 1000)

    held = contents(url), vocabulary(url)
    predicted = run(url, rows, format, batch_rows, dry_run=True)
    assert (contents(url), vocabulary(url)) == held

    assert run(url, rows, format, batch_rows) == predicted
    written = marks(url)
    counts, *_ = run(url, rows, format, 1000)
    assert (counts.created, counts.updated) == (0, 0)
    assert counts.failed == predicted[0].failed
    assert marks(url) == written
