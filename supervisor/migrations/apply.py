"""yoyo's files and tables, our locks. Blocks; runs in a process of its own."""

import contextlib
import getpass
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS, connection
from yoyo import internalmigrations
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, default_migration_table

from supervisor.migrations.folder import File, Folder, read_folder
from supervisor.migrations.locks import RunLock, connect, run_lock, take_apply_lock
from supervisor.migrations.outcome import MigrationFailed, MigrationOutcome
from supervisor.migrations.plan import Plan, Recorded, State, decide
from supervisor.settings import Settings

Say = Callable[[str], None]

CREATE_CHECKSUMS = """
    CREATE TABLE IF NOT EXISTS _supervisor_checksum
        (migration_id text PRIMARY KEY, checksum text NOT NULL, applied_at_utc timestamp NOT NULL)
"""
RECORD_CHECKSUM = """
    INSERT INTO _supervisor_checksum (migration_id, checksum, applied_at_utc)
    SELECT migration_id, %(checksum)s, applied_at_utc FROM _yoyo_migration WHERE migration_id = %(id)s
    ON CONFLICT (migration_id) DO UPDATE SET checksum = EXCLUDED.checksum, applied_at_utc = EXCLUDED.applied_at_utc
"""
INVALID_INDEXES = """
    SELECT relname, indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND pg_table_is_visible(indexrelid)
"""


def bring_up_to_date(settings: Settings, *, after: bool, say: Say) -> MigrationOutcome:
    started = time.monotonic()
    folder = read_folder(settings.migrations_dir)
    database = Database(settings)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # yoyo prints the rows of a migration's SELECT
            state = database.look()
            plan = decide(folder, state, after=after)
            applied: tuple[str, ...] = ()
            if not plan.is_empty:  # else nothing is written, so that a standby serves, and nobody is waited for
                with run_lock(database.url, say=say) as lock:
                    applied = _catch_up(database, folder, lock, after=after, say=say)
                state = database.look()
                plan = decide(folder, state, after=after)
    except psycopg2.Error as error:
        raise MigrationFailed(_in_words(error)) from error
    if plan.newer:
        say(f"the database is newer than this code: {', '.join(plan.newer)}")
    return MigrationOutcome(applied, tuple(state.marks), plan.newer, round(time.monotonic() - started, 3), plan.waiting)


def _catch_up(database: "Database", folder: Folder, lock: RunLock, *, after: bool, say: Say) -> tuple[str, ...]:
    database.prepare()
    plan: Plan = decide(folder, database.look(), after=after)  # again: another pod may have done it while we waited
    if plan.adopt:
        database.adopt(plan.adopt)
    done = []
    for file in plan.apply:
        lock.confirm()
        started = time.monotonic()
        try:
            database.apply(file)
        except psycopg2.Error as error:
            raise MigrationFailed(_in_words(error), file.id) from error
        except MigrationFailed as error:
            raise MigrationFailed(error.reason, file.id) from error
        except Exception as error:  # a migration in Python may raise anything
            raise MigrationFailed(f"{type(error).__name__}: {error}", file.id) from error
        done.append(file.id)
        say(f"applied {file.id} in {time.monotonic() - started:.2f} s")
    if done:
        for hook in folder.hooks:
            database.run(hook)
    return tuple(done)


class Database:
    def __init__(self, settings: Settings) -> None:
        self.url = (settings.migration_database_url or settings.database_url).get_secret_value()
        self._lock_timeout = settings.migration_lock_timeout
        self._statement_timeout = settings.migration_statement_timeout
        self._prepared = False

    def look(self) -> State:
        with self._backend() as backend:
            if internalmigrations.needs_upgrading(backend):
                return State({}, {})
            marks = dict(_rows(backend, "SELECT migration_id, applied_at_utc FROM _yoyo_migration ORDER BY 2, 1"))
            if not _rows(backend, "SELECT 1 WHERE to_regclass('_supervisor_checksum') IS NOT NULL"):
                return State(marks, {})
            checksums = _rows(backend, "SELECT migration_id, checksum, applied_at_utc FROM _supervisor_checksum")
            return State(marks, {id_: Recorded(checksum, at) for id_, checksum, at in checksums})

    def prepare(self) -> None:
        with self._backend() as backend:
            backend.ensure_internal_schema_updated()
            backend.execute(CREATE_CHECKSUMS)
        self._prepared = True

    def adopt(self, files: tuple[File, ...]) -> None:
        with self._backend() as backend, backend.transaction():
            for file in files:
                backend.connection.cursor().execute(RECORD_CHECKSUM, {"id": file.id, "checksum": file.checksum})

    def apply(self, file: File) -> None:
        """A session for each file, so that what one sets is not there for the next."""
        with self._backend() as backend:
            if file.transactional:
                with backend.transaction():
                    take_apply_lock(backend.connection, patience=self._statement_timeout, until_commit=True)
                    if not backend.is_applied(file.yoyo):
                        ours = _rows(backend, "SELECT pg_current_xact_id()::text")
                        file.yoyo.process_steps(backend, "apply")
                        _confirm_still_in(backend, ours)
                        _mark(backend, file)
            else:
                take_apply_lock(backend.connection, patience=self._statement_timeout, until_commit=False)
                _drop_half_built_indexes(backend, file)
                file.yoyo.process_steps(backend, "apply")
                with backend.transaction():
                    if not backend.is_applied(file.yoyo):
                        _mark(backend, file)

    def run(self, hook: Migration) -> None:
        with self._backend() as backend:
            hook.process_steps(backend, "apply")

    @contextlib.contextmanager
    def _backend(self) -> Iterator["_Backend"]:
        """A new one each time: after an exception yoyo's own keeps a wrong idea of its lock and transaction."""
        with _Backend(self.url, self._lock_timeout, self._statement_timeout) as backend:
            backend._internal_schema_updated = self._prepared  # else it looks again before each mark
            yield backend


class _Backend(PostgresqlBackend):  # type: ignore[misc]  # yoyo has no types
    """yoyo's, on a connection made by libpq from the URL as it is, and without yoyo's lock: ours is held."""

    _is_locked = True

    def __init__(self, url: str, lock_timeout: float, statement_timeout: float) -> None:
        self._limits = {
            "lock_timeout": f"{lock_timeout * 1000:.0f}",
            "statement_timeout": f"{statement_timeout * 1000:.0f}",
            "client_connection_check_interval": "500",  # a killed migrator is noticed in mid-statement
        }
        uri = DatabaseURI("postgresql", None, None, None, None, None, {"url": url})
        super().__init__(uri, default_migration_table)

    def connect(self, dburi: DatabaseURI) -> connection:
        return connect(dburi.args["url"], self._limits)

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """yoyo's asks the passwd file, which may not know us, and the name server, which may not answer."""
        return {
            "id": str(uuid.uuid1()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": _user(),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def _confirm_still_in(backend: _Backend, ours: list[Any]) -> None:
    """A file in Python may have committed by itself. It is too late to undo that, and not too late to say so."""
    if (
        backend.connection.info.transaction_status != TRANSACTION_STATUS_INTRANS
        or _rows(backend, "SELECT pg_current_xact_id()::text") != ours
    ):
        raise MigrationFailed("it ends its own transaction: leave BEGIN, COMMIT and ROLLBACK to the migrator")


def _mark(backend: _Backend, file: File) -> None:
    """In the transaction of the change itself: there is no moment between the two to be killed in."""
    backend.log_migration(file.yoyo, "apply")
    backend.mark_one(file.yoyo, log=False)
    backend.connection.cursor().execute(RECORD_CHECKSUM, {"id": file.id, "checksum": file.checksum})


def _drop_half_built_indexes(backend: _Backend, file: File) -> None:
    """CREATE INDEX CONCURRENTLY that was interrupted leaves an invalid index, which IF NOT EXISTS takes for done."""
    text = file.path.read_text(encoding="utf-8")
    for name, qualified in _rows(backend, INVALID_INDEXES):
        if name in text:
            backend.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}")


def _rows(backend: _Backend, sql: str) -> list[Any]:
    return list(backend.execute(sql).fetchall())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _in_words(error: psycopg2.Error) -> str:
    said = error.diag
    if not said.message_primary:
        return " ".join(str(error).split())
    details = [said.message_primary, said.message_detail, said.message_hint, said.context]
    return f"{'; '.join(' '.join(part.split()) for part in details if part)} ({said.sqlstate})"
