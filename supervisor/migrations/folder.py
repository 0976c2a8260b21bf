"""The files: what each says of itself in its head, and what is wrong with a folder whatever the database."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yoyo
import yoyo.exceptions
import yoyo.migrations

from supervisor.migrations.outcome import MigrationFailed

PHASE = re.compile(r"^\s*(?:--|#)\s*phase\s*:\s*(\S+)\s*$", re.IGNORECASE)
MUST_ASK_FIRST = re.compile(r"\s*(?:CREATE|DROP|ALTER\s+TYPE)\b", re.IGNORECASE)
ASKS_FIRST = re.compile(r"\bIF\s+(?:NOT\s+)?EXISTS\b", re.IGNORECASE)
LITERAL = re.compile(
    r"""--[^\n]* | /\*.*?\*/                              # comments
    | (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*'    # texts
    | "(?:[^"]|"")*"                                     # names
    | (?<![\w$])\$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$   # bodies of functions
    """,
    re.VERBOSE | re.DOTALL,
)
ENDS_TRANSACTION = re.compile(
    r"(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class File:
    """One migration, as yoyo read it and with what we add."""

    id: str
    path: Path
    checksum: str
    after: bool
    depends: frozenset[str]
    yoyo: yoyo.migrations.Migration

    @property
    def transactional(self) -> bool:
        return bool(self.yoyo.use_transactions)


@dataclass(frozen=True)
class Folder:
    files: tuple[File, ...]
    """In the order of their names, what each depends on before it."""
    hooks: tuple[yoyo.migrations.Migration, ...]
    """yoyo's post-apply files: run each time something was applied, never marked."""


def read_folder(directory: Path) -> Folder:
    if not directory.is_dir():
        raise MigrationFailed(f"there is no folder {directory} (MIGRATIONS_DIR)")
    try:
        found = yoyo.read_migrations(str(directory).replace("[", "[[]"))  # it takes a glob
        ordered = list(yoyo.migrations.topological_sort(found))
        files = tuple(_read(migration) for migration in ordered)
    except yoyo.exceptions.BadMigration as error:
        raise MigrationFailed(" ".join(str(part) for part in error.args)) from error
    except (OSError, ValueError, KeyError) as error:  # KeyError: `transactional:` something
        raise MigrationFailed(f"{directory} cannot be read: {error!r}") from error
    return Folder(files, tuple(found.post_apply))


def _read(migration: yoyo.migrations.Migration) -> File:
    path = Path(migration.path)
    content = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows is no change
    file = File(
        id=migration.id,
        path=path,
        checksum=hashlib.sha256(content).hexdigest(),
        after=_phase(content.decode(), migration.id) == "after",
        depends=frozenset(needed.id for needed in migration.depends),
        yoyo=migration,
    )
    if path.suffix == ".sql":
        if said := transaction_control(content.decode()):
            raise MigrationFailed(f"it says {said}: transactions are the migrator's, leave them to it", file.id)
        if not file.transactional:
            _check_without_transaction(file)
    return file


def transaction_control(sql: str) -> str:
    """The first statement that would end the migration's transaction, or part it: half of the file would stay behind.

    What is within a function's body is no such statement, be it quoted or BEGIN ATOMIC … END.
    """
    within = False
    for statement in LITERAL.sub(" ", sql).split(";"):
        words = statement.split()
        if within:
            within = words[:1] != [] and words[0].upper() != "END"
        elif found := ENDS_TRANSACTION.match(" ".join(words)):
            return found[0].upper()
        else:
            within = bool(re.search(r"\bBEGIN\s+ATOMIC\b", statement, re.IGNORECASE))
    return ""


def _phase(text: str, migration: str) -> str:
    phase = next((match[1].lower() for line in _head(text) if (match := PHASE.match(line))), "before")
    if phase not in ("before", "after"):
        raise MigrationFailed(f"phase: {phase} is neither before nor after", migration)
    return phase


def _head(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("--", "#")):
            return
        yield line


def _check_without_transaction(file: File) -> None:
    """A crash between the statement and its mark means it runs again: it must be one, and bear that."""
    _, _, statements = yoyo.migrations.read_sql_migration(str(file.path))
    statements = [statement for statement in statements if statement.strip(" \t\r\n;")]
    if len(statements) != 1:
        raise MigrationFailed(
            f"a file with transactional: false holds one statement, this has {len(statements)}", file.id
        )
    if MUST_ASK_FIRST.match(statements[0]) and not ASKS_FIRST.search(statements[0]):
        raise MigrationFailed("without a transaction the statement must be idempotent: say IF [NOT] EXISTS", file.id)
