"""An import as people read it: the bar while it runs, on standard error, and the table when it ends."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .outcome import ImportInterrupted, ImportRefused, ImportSummary, Problem, ProblemListener, ProgressListener
from .outcome import Progress as Seen

SHOWN_ROWS = 10


def show(summary: ImportSummary, console: Console) -> None:
    counts = summary.counts
    title = f"{summary.source}: what an import would do" if summary.dry_run else f"{summary.source}: imported"
    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("rows", f"{counts.rows:,}", "")
    table.add_row("created", f"{counts.created:,}", "")
    table.add_row("updated", f"{counts.updated:,}", "")
    table.add_row("unchanged", f"{counts.unchanged:,}", "")
    table.add_row("failed", f"{counts.failed:,}", "left out" if counts.failed else "")
    table.add_row("warnings", f"{counts.warnings:,}", "")
    table.add_row(
        "with ISBN-13", f"{summary.with_isbn:,}", f"{counts.rows - counts.failed - summary.with_isbn:,} without"
    )
    table.add_row("author names", f"{summary.author_names:,}", f"of {summary.author_people:,} people, spelling folded")
    table.add_row("time", f"{summary.seconds:.1f} s", f"{summary.rows_per_second:,.0f} rows/s")
    console.print(table)
    if summary.dry_run:
        console.print(
            Text(f"A dry run: the catalogue was not changed. What it found is remembered as job {summary.job}.")
        )


def show_problems(summary: ImportSummary, console: Console, errors: Path | None) -> None:
    shown = summary.problems[:SHOWN_ROWS]
    if not shown:
        return
    table = Table(title="Rows with something to say", title_justify="left", title_style="bold")
    for heading in ("row", "line", "", "column", "value", "reason"):
        table.add_column(heading, justify="right" if heading in ("row", "line") else "left")
    for problem in shown:
        style = "red" if problem.severity == "error" else "yellow"
        table.add_row(
            str(problem.row),
            str(problem.line),
            Text(problem.severity, style=style),
            Text(problem.column or ""),
            Text(_short(problem.value or "")),
            Text(problem.reason),
        )
    console.print(table)
    more = summary.problem_count - len(shown)
    if errors:
        console.print(Text(f"All of them: {errors}"))
    elif more > 0:
        console.print(Text(f"… and {more:,} more; --errors FILE writes them all"))


@contextmanager
def progress_bar(console: Console, name: str) -> Iterator[ProgressListener | None]:
    """A bar on a terminal; nothing where nobody looks."""
    if not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    times = (TextColumn("{task.fields[rows]:,} rows"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, transient=True) as progress:
        task = progress.add_task(Text(name).plain, total=None, rows=0)

        def advance(seen: Seen) -> None:
            progress.update(task, completed=seen.bytes_read, total=seen.bytes_total, rows=seen.rows)

        yield advance


@contextmanager
def errors_file(path: Path | None, source: Path | BinaryIO) -> Iterator[ProblemListener | None]:
    """A CSV of every problem, written as they are found. It takes its name when the import was no nonsense; until then
    an older file of that name stays as it is."""
    if path is None:
        yield None
        return
    if _is_source(path, source):
        raise ImportRefused(f"--errors {path} is the very file that is imported; name another")
    replaced = path.is_file() or not path.exists()  # /dev/stdout and pipes are written as they are
    path = path.resolve() if replaced else path  # what a symbolic link names is replaced, not the link
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part") if replaced else path
    try:
        file = part.open("w", encoding="utf-8", newline="", errors="backslashreplace")
    except OSError as fault:
        raise ImportRefused(f"--errors {path} cannot be written: {fault.strerror}") from None
    try:
        with file:
            yield _written(file, path)
    except ImportRefused:
        _take_back(part, replaced)
        raise
    except BaseException:  # cut off: what was found until then is worth keeping
        _take_place(part, path, replaced)
        raise
    _take_place(part, path, replaced)


def _written(file: TextIO, path: Path) -> ProblemListener:
    writer = csv.writer(file)
    writer.writerow(["row", "line", "severity", "column", "value", "reason"])

    def write(problem: Problem) -> None:
        values = (problem.column or "", problem.value or "", problem.reason)
        try:
            writer.writerow([problem.row, problem.line, problem.severity, *map(_harmless, values)])
        except OSError as fault:
            raise ImportInterrupted(f"--errors {path} cannot be written any further: {fault.strerror}") from fault

    return write


def _is_source(path: Path, source: Path | BinaryIO) -> bool:
    try:
        read = source.stat() if isinstance(source, Path) else os.fstat(source.fileno())
        return stat.S_ISREG(read.st_mode) and os.path.samestat(read, path.stat())
    except (OSError, ValueError):  # one of them is not there, or no file at all
        return False


def _take_place(part: Path, path: Path, replaced: bool) -> None:
    if replaced:
        part.replace(path)


def _take_back(part: Path, replaced: bool) -> None:
    if replaced:
        part.unlink(missing_ok=True)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _harmless(text: str) -> str:
    """A spreadsheet runs what begins like a formula; what is shown here came from who knows where."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
