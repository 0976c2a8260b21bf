"""Small migration folders, and real migrator processes to run on them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2

from supervisor.settings import Settings, load_settings
from tests.conftest import build_environ

RUN = """
import sys
from supervisor.migrations import run_reporting
from supervisor.settings import load_settings
sys.exit(run_reporting(load_settings(env_file=None), after="after" in sys.argv))
"""


def write(folder: Path, **files: str) -> Path:
    """`_0001_create_books="…"` becomes 0001.create-books.sql; a trailing `__rollback` its rollback."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        stem, _, kind = name.strip("_").partition("__")
        number, _, words = stem.partition("_")
        suffix = {"": ".sql", "rollback": ".rollback.sql", "py": ".py"}[kind]
        (folder / f"{number}.{words.replace('_', '-')}{suffix}").write_text(text)
    return folder


def settings(url: str, folder: Path, **overrides: Any) -> Settings:
    return load_settings(build_environ(url, migrations_dir=folder, **overrides), env_file=None)


def start(url: str, folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        env=build_environ(url, migrations_dir=folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(migrator: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it reported, line by line."""
    out, err = migrator.communicate(timeout=60)
    assert out, f"it reported nothing: {err}"
    return [json.loads(line) for line in out.splitlines()]


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def wait_until(true: Callable[[], object], what: str, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        time.sleep(0.02)


def is_sleeping(url: str) -> bool:
    """Is a migration in the middle of its pg_sleep?"""
    seen = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    return bool(ask(url, seen))


def schema(url: str) -> list[tuple[Any, ...]]:
    """Everything about the schema that a difference could hide in; quicker than pg_dump, for many rounds."""
    return ask(
        url,
        """
        SELECT 'column', table_name, column_name, ordinal_position::text, data_type, column_default, is_nullable
            FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        ORDER BY 1, 2, 3, 4
        """,
    )
