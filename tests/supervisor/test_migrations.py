"""One migrator at a time, each file once, whoever is killed when."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bookstore.embedded import postgres as embedded
from supervisor import migrations
from supervisor.migrations import MigrationFailed, MigrationOutcome, migrate_blocking
from supervisor.migrations.folder import transaction_control
from tests.conftest import MIGRATIONS, PROJECT, Databases, migrate_plainly
from tests.supervisor.migration_folders import ask, finish, is_sleeping, schema, settings, start, wait_until, write

BOOKS = "CREATE TABLE books (id int PRIMARY KEY); CREATE TABLE ran (id text);"
TITLES = "ALTER TABLE books ADD COLUMN title text; INSERT INTO ran VALUES ('0002');"
INDEX_TITLES = "-- transactional: false\nCREATE INDEX CONCURRENTLY IF NOT EXISTS by_title ON books (title);"
SLOW_WHEN_ASKED = """
    ALTER TABLE books ADD COLUMN price int;
    SELECT CASE WHEN to_regclass('be_slow') IS NOT NULL THEN pg_sleep(60) END;
    INSERT INTO ran VALUES ('0003');
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "migrations", _0001_create_books=BOOKS, _0002_add_titles=TITLES)


def test_files_are_applied_in_their_order_and_marked_as_yoyo_marks_them(empty_database_url: str, folder: Path) -> None:
    outcome = migrate_blocking(settings(empty_database_url, folder))

    assert outcome.applied == outcome.known == ("0001.create-books", "0002.add-titles")
    assert outcome.newer == outcome.waiting == ()
    assert ask(empty_database_url, "SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc") == [
        ("0001.create-books", "apply"),
        ("0002.add-titles", "apply"),
    ]


def test_with_nothing_to_do_nothing_is_written_and_nobody_is_waited_for(empty_database_url: str, folder: Path) -> None:
    migrate_blocking(settings(empty_database_url, folder))
    read_only = f"{empty_database_url}&options={quote('-c default_transaction_read_only=on')}"
    holder = psycopg2.connect(empty_database_url)
    holder.cursor().execute("SELECT pg_advisory_lock(%s, 1)", (0x796F796F,))

    outcome = migrate_blocking(settings(read_only, folder))

    holder.close()
    assert outcome.applied == ()
    assert outcome.known == ("0001.create-books", "0002.add-titles")


def test_of_two_migrators_at_once_one_works_and_the_other_waits(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_take_a_while="SELECT pg_sleep(0.7); INSERT INTO ran VALUES ('0003');")
    both = [start(empty_database_url, folder) for _ in range(2)]
    reports = [finish(migrator) for migrator in both]

    applied = sorted(report[-1]["outcome"]["applied"] for report in reports)
    assert applied == [[], ["0001.create-books", "0002.add-titles", "0003.take-a-while"]]
    assert any("another migrator is at work: supervisor migrate" in str(report) for report in reports)
    assert ask(empty_database_url, "SELECT id FROM ran ORDER BY 1") == [("0002",), ("0003",)]


def test_kill_9_in_the_middle_of_a_migration_leaves_nothing_and_the_next_one_goes_on_at_once(
    empty_database_url: str, folder: Path
) -> None:
    write(folder, _0003_add_prices=SLOW_WHEN_ASKED)
    ask(empty_database_url, "CREATE TABLE be_slow ()")
    victim = start(empty_database_url, folder)
    wait_until(lambda: is_sleeping(empty_database_url), "the migration is in its middle")
    victim.kill()
    victim.communicate()
    ask(empty_database_url, "DROP TABLE be_slow")

    started = time.monotonic()
    outcome = migrate_blocking(settings(empty_database_url, folder))

    assert outcome.applied == ("0003.add-prices",)
    assert time.monotonic() - started < 10  # the server itself looks for its lost client each half second
    assert ask(empty_database_url, "SELECT id FROM ran ORDER BY 1") == [("0002",), ("0003",)]
    assert ask(empty_database_url, "SELECT * FROM yoyo_lock") == []


def test_what_a_mark_could_not_be_written_for_is_undone(empty_database_url: str, folder: Path) -> None:
    """The crash between change and mark that leaves plain yoyo with "already exists"."""
    migrate_blocking(settings(empty_database_url, folder))
    write(folder, _0003_add_prices="ALTER TABLE books ADD COLUMN price int;")
    ask(empty_database_url, "ALTER TABLE _yoyo_migration ADD CONSTRAINT full_up CHECK (migration_id < '0003')")

    with pytest.raises(MigrationFailed, match="full_up"):
        migrate_blocking(settings(empty_database_url, folder))
    ask(empty_database_url, "ALTER TABLE _yoyo_migration DROP CONSTRAINT full_up")

    assert migrate_blocking(settings(empty_database_url, folder)).applied == ("0003.add-prices",)


def test_a_broken_migration_is_named_with_its_reason_and_undone_while_those_before_it_stay(
    empty_database_url: str, folder: Path
) -> None:
    write(folder, _0003_break="CREATE TABLE half (id int); ALTER TABLE nowhere ADD COLUMN x int;")

    with pytest.raises(MigrationFailed) as failure:
        migrate_blocking(settings(empty_database_url, folder))

    assert failure.value.migration == "0003.break"
    assert failure.value.reason == 'relation "nowhere" does not exist (42P01)'
    assert ask(empty_database_url, "SELECT to_regclass('half')") == [(None,)]
    assert ask(empty_database_url, "SELECT count(*) FROM _yoyo_migration") == [(2,)]
    assert ask(empty_database_url, "SELECT * FROM yoyo_lock") == []

    write(folder, _0003_break="CREATE TABLE half (id int);")  # never applied: it may be put right
    assert migrate_blocking(settings(empty_database_url, folder)).applied == ("0003.break",)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE half (id int); COMMIT;",
        "CREATE TABLE half (id int); COMMIT; BEGIN; SELECT 1/0;",
        "CREATE TABLE half (id int);\n-- then\nrollback;",
        "SAVEPOINT here; CREATE TABLE half (id int); RELEASE here;",
        "BEGIN;\nCREATE TABLE half (id int);\nCOMMIT;",
        "CREATE TABLE half (id int); /* why */ start  transaction;",
        "-- transactional: false\nBEGIN",
    ],
)
def test_a_migration_that_ends_its_own_transaction_is_refused_before_any_is_run(
    empty_database_url: str, folder: Path, text: str
) -> None:
    write(folder, _0003_commit=text)

    with pytest.raises(MigrationFailed, match=r"0003\.commit: it says .*: transactions are the migrator's"):
        migrate_blocking(settings(empty_database_url, folder))

    assert ask(empty_database_url, "SELECT to_regclass('half'), to_regclass('books')") == [(None, None)]


def test_what_only_looks_like_a_transactions_end_is_applied(empty_database_url: str, folder: Path) -> None:
    write(
        folder,
        _0003_bodies="""
            CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$;
            CREATE PROCEDURE two() LANGUAGE plpgsql AS $body$ BEGIN COMMIT; END; $body$;
            CREATE TABLE said (id text DEFAULT '; COMMIT;', "; ROLLBACK;" int); -- ; COMMIT;
            COMMENT ON TABLE said IS E'it\\'s ; COMMIT; here';
        """,
    )

    assert "0003.bodies" in migrate_blocking(settings(empty_database_url, folder)).applied


def test_a_body_of_standard_sql_is_no_transaction() -> None:
    body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3;"
    assert transaction_control(body) == ""
    assert transaction_control(f"{body} COMMIT;") == "COMMIT"


def test_a_migration_in_python_that_commits_by_itself_is_refused_its_mark(
    empty_database_url: str, folder: Path
) -> None:
    (folder / "0003.by-itself.py").write_text("from yoyo import step\nsteps = [step('COMMIT; BEGIN')]\n")

    with pytest.raises(MigrationFailed, match="ends its own transaction"):
        migrate_blocking(settings(empty_database_url, folder))

    assert ask(empty_database_url, "SELECT count(*) FROM _yoyo_migration") == [(2,)]


async def test_a_reason_of_two_megabytes_is_told_in_four_kilobytes(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_long="SELECT '" + "x" * 2_000_000 + "'::int;")

    with pytest.raises(MigrationFailed, match=r"0003\.long: invalid input syntax") as failure:
        await migrations.migrate(settings(empty_database_url, folder), say=print)

    assert 3000 < len(failure.value.reason) <= 4000


def test_a_file_changed_after_it_was_applied_is_refused_by_name(empty_database_url: str, folder: Path) -> None:
    migrate_blocking(settings(empty_database_url, folder))
    write(folder, _0002_add_titles=TITLES + "-- and a thought", _0003_more="SELECT 1;")

    with pytest.raises(MigrationFailed, match=r"0002\.add-titles\.sql was changed after it was applied"):
        migrate_blocking(settings(empty_database_url, folder))

    assert ask(empty_database_url, "SELECT count(*) FROM _yoyo_migration") == [(2,)]


def test_another_way_to_end_lines_is_no_change(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_two_lines="SELECT 1;\nSELECT 2;\n")
    migrate_blocking(settings(empty_database_url, folder))
    (folder / "0003.two-lines.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")

    assert migrate_blocking(settings(empty_database_url, folder)).applied == ()


def yoyo(verb: str, url: str, folder: Path, *arguments: str) -> None:
    subprocess.run(
        [
            Path(sys.executable).parent / "yoyo",
            verb,
            "--batch",
            "--no-config-file",
            "--database",
            url,
            *arguments,
            folder,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_plain_yoyo_does_the_first_half_and_we_the_second(empty_database_url: str, folder: Path) -> None:
    yoyo("apply", empty_database_url, folder)
    write(folder, _0003_more="CREATE TABLE more (id int);")

    assert migrate_blocking(settings(empty_database_url, folder)).applied == ("0003.more",)
    write(folder, _0001_create_books=BOOKS + "-- changed")
    with pytest.raises(MigrationFailed, match=r"0001\.create-books\.sql"):  # what it applied was adopted
        migrate_blocking(settings(empty_database_url, folder))


def test_we_do_the_first_half_and_plain_yoyo_the_second(empty_database_url: str, folder: Path) -> None:
    migrate_blocking(settings(empty_database_url, folder))
    write(folder, _0003_more="CREATE TABLE more (id int);")
    yoyo("apply", empty_database_url, folder)

    outcome = migrate_blocking(settings(empty_database_url, folder))
    assert outcome.applied == ()
    assert outcome.known == ("0001.create-books", "0002.add-titles", "0003.more")


def test_what_yoyo_rolled_back_may_be_changed_and_applied_anew_by_either(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_more="CREATE TABLE more (id int);", _0003_more__rollback="DROP TABLE more;")
    migrate_blocking(settings(empty_database_url, folder))

    yoyo("rollback", empty_database_url, folder, "--revision", "0003.more")
    write(folder, _0003_more="CREATE TABLE more (id bigint);")
    assert migrate_blocking(settings(empty_database_url, folder)).applied == ("0003.more",)

    yoyo("rollback", empty_database_url, folder, "--revision", "0003.more")
    write(folder, _0003_more="CREATE TABLE more (id text);")
    yoyo("apply", empty_database_url, folder)
    assert migrate_blocking(settings(empty_database_url, folder)).applied == ()


def test_the_lock_of_a_killed_yoyo_is_removed(empty_database_url: str, folder: Path) -> None:
    yoyo("apply", empty_database_url, folder)
    write(folder, _0003_more="SELECT 1;")
    ask(empty_database_url, "INSERT INTO yoyo_lock VALUES (1, timezone('utc', now()) - interval '9 s', 4711)")
    said: list[str] = []

    outcome = migrate_blocking(settings(empty_database_url, folder), say=said.append)

    assert outcome.applied == ("0003.more",)
    assert any("removing yoyo's lock left by process 4711" in line for line in said)


def test_plain_yoyo_is_kept_out_while_we_work_and_let_in_the_moment_we_are_killed(
    empty_database_url: str, folder: Path
) -> None:
    write(folder, _0003_add_prices=SLOW_WHEN_ASKED)
    ask(empty_database_url, "CREATE TABLE be_slow ()")
    victim = start(empty_database_url, folder)
    wait_until(lambda: is_sleeping(empty_database_url), "the migration is in its middle")
    take = "SET lock_timeout = '100ms'; INSERT INTO yoyo_lock VALUES (1, timezone('utc', now()), 4711)"

    with pytest.raises(psycopg2.errors.LockNotAvailable):
        ask(empty_database_url, take)
    victim.kill()
    victim.communicate()
    ask(empty_database_url, take.replace("100ms", "30s"))


def test_a_file_without_a_transaction_is_applied_once_by_two_migrators(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_index_titles=INDEX_TITLES, _0004_more="CREATE TABLE more (id int);")
    both = [start(empty_database_url, folder) for _ in range(2)]

    applied = sorted(len(finish(migrator)[-1]["outcome"]["applied"]) for migrator in both)

    assert applied == [0, 4]
    assert ask(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_title'::regclass") == [
        (True,)
    ]


def test_an_index_left_half_built_is_built_again(empty_database_url: str, folder: Path) -> None:
    migrate_blocking(settings(empty_database_url, folder))
    ask(empty_database_url, "INSERT INTO books VALUES (1, 'Emma'), (2, 'Emma')")
    unique = "-- transactional: false\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_title ON books (title);"
    write(folder, _0003_unique_titles=unique)
    with pytest.raises(MigrationFailed, match=r"0003\.unique-titles.*could not create unique index"):
        migrate_blocking(settings(empty_database_url, folder))
    validity = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_title'::regclass"
    assert ask(empty_database_url, validity) == [(False,)]
    ask(empty_database_url, "DELETE FROM books WHERE id = 2")

    assert migrate_blocking(settings(empty_database_url, folder)).applied == ("0003.unique-titles",)
    assert ask(empty_database_url, validity) == [(True,)]


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT 1; SELECT 2;", "holds one statement, this has 2"),
        ("-- nothing", "holds one statement, this has 0"),
        ("CREATE INDEX CONCURRENTLY by_id ON books (id);", "must be idempotent"),
    ],
)
def test_without_a_transaction_a_file_holds_one_idempotent_statement(
    empty_database_url: str, folder: Path, sql: str, complaint: str
) -> None:
    write(folder, _0003_at_fault=f"-- transactional: false\n{sql}")

    with pytest.raises(MigrationFailed, match=rf"0003\.at-fault.*{complaint}"):
        migrate_blocking(settings(empty_database_url, folder))
    assert ask(empty_database_url, "SELECT to_regclass('books')") == [(None,)]  # found out before anything was done


def test_contracting_files_wait_until_they_are_asked_for(empty_database_url: str, folder: Path) -> None:
    write(
        folder, _0003_drop_titles="-- why\n-- phase: after\nALTER TABLE books DROP COLUMN title;", _0004_x="SELECT 1;"
    )

    first = migrate_blocking(settings(empty_database_url, folder))
    assert first.applied == ("0001.create-books", "0002.add-titles", "0004.x")
    assert first.waiting == ("0003.drop-titles",)

    second = migrate_blocking(settings(empty_database_url, folder), after=True)
    assert second.applied == ("0003.drop-titles",)
    assert second.waiting == ()


def test_what_depends_on_a_waiting_file_is_refused(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_drop="-- phase: after\nDROP TABLE ran;", _0004_next="-- depends: 0003.drop\nSELECT 1;")

    with pytest.raises(MigrationFailed, match=r"0004\.next: depends on 0003\.drop, which waits for"):
        migrate_blocking(settings(empty_database_url, folder))
    write(folder, _0003_drop="-- phase: sometimes\nDROP TABLE ran;")
    with pytest.raises(MigrationFailed, match="sometimes is neither before nor after"):
        migrate_blocking(settings(empty_database_url, folder))


def test_a_database_newer_than_the_code_is_reported_and_left_alone(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_more="CREATE TABLE more (id int);")
    migrate_blocking(settings(empty_database_url, folder))
    (folder / "0003.more.sql").unlink()
    said: list[str] = []

    outcome = migrate_blocking(settings(empty_database_url, folder), say=said.append)

    assert outcome.newer == ("0003.more",)
    assert said == ["the database is newer than this code: 0003.more"]
    assert ask(empty_database_url, "SELECT to_regclass('more')::text") == [("more",)]


def test_a_migration_in_python_that_prints_and_one_that_raises(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_talk__py="from yoyo import step\nprint('not a report')\nsteps = [step('SELECT 1 AS shown')]")
    assert finish(start(empty_database_url, folder))[-1]["outcome"]["applied"][-1] == "0003.talk"

    raising = "from yoyo import step\ndef fall(connection): raise LookupError('no such shelf')\nstep(fall)"
    write(folder, _0004_fall__py=raising)
    report = finish(start(empty_database_url, folder))[-1]
    assert report["failed"] == {"reason": "LookupError: no such shelf", "migration": "0004.fall"}

    write(folder, _0004_fall__py="import nowhere")
    with pytest.raises(MigrationFailed, match="nowhere"):
        migrate_blocking(settings(empty_database_url, folder))


def test_a_hook_runs_whenever_something_was_applied(empty_database_url: str, folder: Path) -> None:
    (folder / "post-apply.sql").write_text("INSERT INTO ran VALUES ('hook');")
    for _ in range(2):
        migrate_blocking(settings(empty_database_url, folder))

    assert ask(empty_database_url, "SELECT count(*) FROM ran WHERE id = 'hook'") == [(1,)]


def test_a_lock_that_others_hold_is_given_up_after_the_lock_timeout(empty_database_url: str, folder: Path) -> None:
    migrate_blocking(settings(empty_database_url, folder))
    write(folder, _0003_more="ALTER TABLE books ADD COLUMN more int;")
    reader = psycopg2.connect(empty_database_url)
    reader.cursor().execute("SELECT * FROM books")

    with pytest.raises(MigrationFailed, match=r"0003\.more: canceling statement due to lock timeout"):
        migrate_blocking(settings(empty_database_url, folder, migration_lock_timeout=0.2))
    reader.close()


def test_a_killed_migrator_whose_statement_postgresql_still_runs_is_waited_for(
    empty_database_url: str, folder: Path
) -> None:
    """Its run lock is free already; the one that its transaction holds is not."""
    remains = psycopg2.connect(empty_database_url)
    remains.cursor().execute("SELECT pg_advisory_xact_lock(%s, 2)", (0x796F796F,))

    with pytest.raises(MigrationFailed, match="another migrator's statement has been running"):
        migrate_blocking(settings(empty_database_url, folder, migration_statement_timeout=0.3))
    assert ask(empty_database_url, "SELECT count(*) FROM _yoyo_migration") == [(0,)]
    remains.close()
    assert len(migrate_blocking(settings(empty_database_url, folder)).applied) == 2


def test_a_migrator_that_lost_its_lock_in_a_long_migration_stops_after_it(
    empty_database_url: str, folder: Path
) -> None:
    write(folder, _0003_add_prices=SLOW_WHEN_ASKED.replace("60", "1"), _0004_more="CREATE TABLE more (id int);")
    ask(empty_database_url, "CREATE TABLE be_slow ()")
    migrator = start(empty_database_url, folder)
    wait_until(lambda: is_sleeping(empty_database_url), "the migration is in its middle")
    holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 2037348719 AND objid = 1"
    ask(empty_database_url, f"SELECT pg_terminate_backend(({holder}))")

    report = finish(migrator)
    assert "lock was cut off" in report[-1]["failed"]["reason"]
    assert ask(empty_database_url, "SELECT max(migration_id) FROM _yoyo_migration") == [("0003.add-prices",)]


def test_a_statement_that_takes_too_long_is_given_up(empty_database_url: str, folder: Path) -> None:
    write(folder, _0003_slow="SELECT pg_sleep(60);")

    with pytest.raises(MigrationFailed, match=r"0003\.slow: canceling statement due to statement timeout"):
        migrate_blocking(settings(empty_database_url, folder, migration_statement_timeout=0.3))


def test_the_url_for_migrations_is_used_when_there_is_one(empty_database_url: str, folder: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    given = settings(nowhere, folder, migration_database_url=empty_database_url)

    assert len(migrate_blocking(given).applied) == 2
    with pytest.raises(MigrationFailed, match="refused"):
        migrate_blocking(settings(nowhere, folder))


def test_a_folder_that_is_not_there_is_said(empty_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed, match=r"there is no folder .*nowhere \(MIGRATIONS_DIR\)"):
        migrate_blocking(settings(empty_database_url, tmp_path / "nowhere"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user the passwd file does not know")
def test_a_user_the_passwd_file_does_not_know_gets_a_name_in_the_log() -> None:
    """The identity containers run under: no name, no home, no LOGNAME; yoyo itself dies of it."""
    ask_who = "import os, pwd; from supervisor.migrations import apply; os.setuid(54321); print(apply._user())"
    answer = subprocess.run(
        [sys.executable, "-c", ask_who], env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "uid 54321", answer.stderr


class TestTheSubprocess:
    async def test_its_words_and_outcome_come_back(self, empty_database_url: str, folder: Path) -> None:
        said: list[str] = []
        outcome = await migrations.migrate(settings(empty_database_url, folder), say=said.append)

        assert isinstance(outcome, MigrationOutcome)
        assert outcome.applied == ("0001.create-books", "0002.add-titles")
        assert [line.split(" in ")[0] for line in said] == ["applied 0001.create-books", "applied 0002.add-titles"]

    async def test_its_failure_comes_back_with_reason_and_name(self, empty_database_url: str, folder: Path) -> None:
        write(folder, _0003_break="ALTER TABLE nowhere ADD COLUMN x int;")
        with pytest.raises(MigrationFailed) as failure:
            await migrations.migrate(settings(empty_database_url, folder), say=print)
        assert failure.value.migration == "0003.break"
        assert "nowhere" in failure.value.reason

    async def test_cancelled_it_is_ended_and_what_it_did_undone(self, empty_database_url: str, folder: Path) -> None:
        write(folder, _0003_add_prices=SLOW_WHEN_ASKED)
        ask(empty_database_url, "CREATE TABLE be_slow ()")
        under_way = asyncio.create_task(migrations.migrate(settings(empty_database_url, folder), say=print))
        await asyncio.to_thread(wait_until, lambda: is_sleeping(empty_database_url), "it is in its middle")
        started = time.monotonic()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert time.monotonic() - started < 10

        mine = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'supervisor migrate%' AND datname = %s"
        name = ask(empty_database_url, "SELECT current_database()")[0][0]
        await asyncio.to_thread(
            wait_until, lambda: not ask(empty_database_url, mine.replace("%s", f"'{name}'")), "its sessions are gone"
        )
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'books' ORDER BY 1"
        assert ask(empty_database_url, columns) == [("id",), ("title",)]

    async def test_a_killed_one_is_a_failure_that_says_so(self, empty_database_url: str, folder: Path) -> None:
        write(folder, _0003_add_prices=SLOW_WHEN_ASKED)
        ask(empty_database_url, "CREATE TABLE be_slow ()")
        under_way = asyncio.create_task(migrations.migrate(settings(empty_database_url, folder), say=print))
        await asyncio.to_thread(wait_until, lambda: is_sleeping(empty_database_url), "it is in its middle")
        named = "SELECT application_name FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        pid = int(ask(empty_database_url, named)[0][0].removeprefix("supervisor migrate (pid ").rstrip(")"))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(MigrationFailed, match="was ended by SIGKILL"):
            await under_way


class TestWaitingForTheDatabase:
    async def test_it_returns_once_postgresql_answers(self, empty_database_url: str) -> None:
        said: list[str] = []
        async with asyncio.timeout(30):
            await migrations.wait_for_database(empty_database_url, say=said.append)
        assert said == []

    async def test_it_waits_for_ever_saying_why_once_and_can_be_ended(self) -> None:
        said: list[str] = []
        waiting = asyncio.create_task(
            migrations.wait_for_database("postgresql://nobody@127.0.0.1:1/nowhere", say=said.append)
        )
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(said) == 1
        assert "waiting for PostgreSQL at " in said[0]
        assert "refused" in said[0]


def test_both_ways_give_the_same_schema_by_pg_dump(postgres: Databases, tmp_path: Path) -> None:
    """The project's own folder, by plain yoyo as in CI and by us."""
    plain, ours = postgres.create(), postgres.create()
    try:
        migrate_plainly(plain)
        migrate_blocking(settings(plain, MIGRATIONS))  # our own table beside yoyo's, so that only the rest could differ
        migrate_blocking(settings(ours, MIGRATIONS))
        assert dump(plain) == dump(ours)
    finally:
        postgres.drop(plain)
        postgres.drop(ours)


def dump(url: str) -> str:
    program = embedded._binaries() / "pg_dump"
    dumped = subprocess.run([program, "--schema-only", "--no-owner", url], capture_output=True, text=True, timeout=60)
    assert dumped.returncode == 0, dumped.stderr
    return "\n".join(line for line in dumped.stdout.splitlines() if "restrict" not in line)


@pytest.fixture(scope="module")
def pods() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, kept for all rounds."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        yield processes


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same service's code at three points in its life: each knows one file more."""
    files = {
        "_0001_create_books": BOOKS,
        "_0002_add_titles": TITLES,
        "_0003_index_titles": INDEX_TITLES,
    }
    names = list(files)
    return [
        write(tmp_path_factory.mktemp("release"), **{name: files[name] for name in names[:count]})
        for count in range(1, len(names) + 1)
    ]


@pytest.fixture(scope="module")
def expected(postgres: Databases, releases: list[Path]) -> list[tuple[object, ...]]:
    """What plain yoyo makes of the newest release, with our checksums beside it."""
    url = postgres.create()
    migrate_plainly(url, releases[-1])
    migrate_blocking(settings(url, releases[-1]))
    made = schema(url)
    postgres.drop(url)
    return made


@pytest.mark.property("P8")
@given(waves=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=2), max_size=2))
@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_number_of_pods_any_number_of_times_make_the_same_schema(
    empty_database_url: str,
    pods: ProcessPoolExecutor,
    releases: list[Path],
    expected: list[tuple[object, ...]],
    waves: list[list[int]],
) -> None:
    """Each wave starts up to two pods at once, each of any release; the last one is of the newest."""
    ask(empty_database_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    applied: list[str] = []
    for wave in [*waves, [2]]:
        starting = [pods.submit(migrate_blocking, settings(empty_database_url, releases[release])) for release in wave]
        for pod in starting:
            applied += pod.result(timeout=60).applied
    assert sorted(applied) == ["0001.create-books", "0002.add-titles", "0003.index-titles"]
    assert ask(empty_database_url, "SELECT id FROM ran") == [("0002",)]
    assert schema(empty_database_url) == expected
