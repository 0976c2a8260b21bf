"""The README says what is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SOURCES = [*PROJECT.glob("bookstore/**/*.py"), *PROJECT.glob("supervisor/**/*.py"), PROJECT / "Makefile"]


def test_the_table_of_settings_is_the_one_that_make_docs_writes() -> None:
    sys.path.insert(0, str(PROJECT / "docs"))
    try:
        from settings_table import written_anew
    finally:
        sys.path.pop(0)
    assert written_anew(README, (PROJECT / ".env.example").read_text(encoding="utf-8")) == README


def test_every_setting_in_the_table_says_what_it_means() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| (.*) \|$", README, flags=re.MULTILINE)
    assert len(rows) > 30
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_the_commands_listed_are_those_of_make_help() -> None:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(["make", "help"], cwd=PROJECT, env=alone, capture_output=True, text=True, check=True).stdout
    assert said.rstrip() in README


def troubles() -> list[str]:
    table = README.partition("| you see |")[2].partition("## ")[0]
    return re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE)


@pytest.mark.parametrize("text", troubles())
def test_every_trouble_is_told_in_words_that_the_programs_really_use(text: str) -> None:
    wanted = re.sub(r"\b8000\b", "{port}", text).removeprefix('"error":').strip('"')
    assert any(wanted in source.read_text(encoding="utf-8") for source in SOURCES), text


def test_every_path_named_exists_and_holds_something() -> None:
    named = set(re.findall(r"`((?:bookstore|supervisor|migrations|tests|docs)/[\w./-]*)`", README))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", README))
    assert len(named) > 15
    assert sorted(path for path in named if not (PROJECT / path).exists() or not (PROJECT / path).stat().st_size) == []
