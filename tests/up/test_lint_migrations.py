"""The rules that `make check` holds migrations to."""

from pathlib import Path

import pytest

from tests.lint_migrations import MIGRATIONS, faults

WHY = "-- Why this is needed, in a sentence.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("0001.first", "0002.second"):
        for kind in ("", ".rollback"):
            (tmp_path / f"{name}{kind}.sql").write_text(f"{WHY}SELECT 1;\n")
    return tmp_path


def test_our_own_migrations_keep_to_the_rules() -> None:
    assert list(faults(MIGRATIONS)) == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("0003.third.sql", WHY, "has no 0003.third.rollback.sql"),
        ("0003.third.rollback.sql", WHY, "takes back a migration that is not there"),
        ("0002.again.sql", WHY, "where 0003 should follow"),
        ("0004.later.sql", WHY, "where 0003 should follow"),
        ("0003_third.sql", WHY, "is not named"),
        ("0002.second.sql", "SELECT 1;\n", "its first line is not a comment"),
        ("0002.second.sql", "-- short\nSELECT 1;\n", "its first line is not a comment"),
        ("0002.second.sql", f"{WHY}CREATE EXTENSION citext;\n", "needs an extension"),
        ("0002.second.sql", f"{WHY}SELECT 1;\nCOMMIT;\n", "0002.second.sql: says COMMIT"),
        ("0002.second.rollback.sql", f"{WHY}ROLLBACK;\n", "0002.second.rollback.sql: says ROLLBACK"),
    ],
)
def test_each_rule_names_the_file_that_breaks_it(folder: Path, name: str, text: str, said: str) -> None:
    assert list(faults(folder)) == []
    (folder / name).write_text(text)
    assert any(said in fault for fault in faults(folder))


def test_an_empty_folder_is_a_fault(tmp_path: Path) -> None:
    assert [fault for fault in faults(tmp_path) if "holds no migration" in fault]
