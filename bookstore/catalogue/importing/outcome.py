"""What an import says: problems of single rows, the summary of all of them, and the faults that end it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]
Fate = Literal["created", "updated", "unchanged", "failed"]
SHOWN_VALUE = 300  # characters of an offending value that are kept; a megabyte of it would help nobody


class ImportRefused(Exception):
    """The file or the options make no sense; nothing was imported."""

    exit_status = 2


class ImportInterrupted(Exception):
    """The database went away or refused; batches that were committed stay, and running again completes them."""

    exit_status = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one row. A row with an error is left out; one with a warning came in without that value."""

    row: int
    line: int
    column: str | None
    value: str | None
    reason: str
    severity: Severity = "error"

    def __post_init__(self) -> None:
        for name in ("column", "value", "reason"):
            text = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, shown(text))


def shown(text: str, longest: int = SHOWN_VALUE) -> str:
    """What a file said, fit for a terminal, a CSV and PostgreSQL: short, and without what would steer any of them."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if text.isprintable() else "".join([_escaped(character) for character in text])


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class RowProblem(Exception):
    """Raised where a row turns out bad; whoever knows the row's number makes a `Problem` of it."""

    def __init__(self, reason: str, *, column: str | None = None, value: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column
        self.value = None if value is None else str(value)

    def at(self, row: int, line: int, severity: Severity = "error") -> Problem:
        return Problem(row, line, self.column, self.value, self.reason, severity)


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of one row."""

    row: int
    status: Fate
    issues: tuple[Problem, ...] = ()


@dataclass(slots=True)
class Counts:
    """How many rows met which fate; rows = created + updated + unchanged + failed."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    warnings: int = 0

    def add(self, outcome: RowOutcome) -> None:
        self.rows += 1
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        self.warnings += sum(issue.severity == "warning" for issue in outcome.issues)


@dataclass(slots=True)
class ImportSummary:
    """The end of an import, for people (`report.py`) and machines (`as_json`)."""

    job: int
    source: str
    format: str
    preset: str
    dry_run: bool
    counts: Counts = field(default_factory=Counts)
    with_isbn: int = 0
    author_names: int = 0  # distinct, as written
    author_people: int = 0  # distinct after folding: what they share a contributor by
    seconds: float = 0.0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)  # the first ones only; all of them go to `on_problem`

    @property
    def rows_per_second(self) -> float:
        return self.counts.rows / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "source": self.source,
            "format": self.format,
            "preset": self.preset,
            "dry_run": self.dry_run,
            **asdict(self.counts),
            "with_isbn": self.with_isbn,
            "author_names": self.author_names,
            "author_people": self.author_people,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second, 1),
            "problem_count": self.problem_count,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True, slots=True)
class Progress:
    bytes_read: int
    bytes_total: int | None
    rows: int


ProgressListener = Callable[[Progress], None]
ProblemListener = Callable[[Problem], None]
