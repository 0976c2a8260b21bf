"""What every migration must keep to, beside what squawk asks: `python -m tests.lint_migrations`.

Named NNNN.what-it-does.sql without a gap in the numbers; beside it NNNN.what-it-does.rollback.sql; the first line of
both a comment that says why; no extension, because neither the embedded server nor every managed one has it; nothing
that ends the transaction which the migrator runs the file in.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from supervisor.migrations.folder import transaction_control

MIGRATIONS = Path(__file__).parent.parent / "migrations"
NAME = re.compile(r"(?P<number>\d{4})\.[a-z0-9]+(-[a-z0-9]+)*(?P<rollback>\.rollback)?\.sql")


def faults(directory: Path) -> Iterator[str]:
    files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    forward = [path for path in files if not path.name.endswith(".rollback.sql")]
    if not forward:
        yield f"{directory.name}/: holds no migration"
    for path in files:
        if not NAME.fullmatch(path.name):
            yield f"{path.name}: is not named NNNN.what-it-does.sql (or .rollback.sql)"
        yield from _in_text(path)
    for path in forward:
        if not path.with_suffix(".rollback.sql").exists():
            yield f"{path.name}: has no {path.stem}.rollback.sql"
    for path in files:
        if path not in forward and not (directory / path.name.replace(".rollback.sql", ".sql")).exists():
            yield f"{path.name}: takes back a migration that is not there"
    numbers = [path.name[:4] for path in forward]
    for wanted, number in enumerate(numbers, start=1):
        if number != f"{wanted:04}":
            yield f"{number}: where {wanted:04} should follow (two of one number, or a gap)"
            break


def _in_text(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    first = text.split("\n", 1)[0]
    if not re.fullmatch(r"-- .{15,}", first):
        yield f"{path.name}: its first line is not a comment that says why"
    if re.search(r"(?im)^\s*create\s+extension", text):
        yield f"{path.name}: needs an extension"
    if said := transaction_control(text):
        yield f"{path.name}: says {said}, but transactions are the migrator's"


def main() -> int:
    found = list(faults(MIGRATIONS))
    for fault in found:
        print(fault)
    if not found:
        print(f"{len(list(MIGRATIONS.glob('*.rollback.sql')))} migrations keep to the rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
