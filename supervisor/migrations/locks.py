"""One migrator at a time, whoever is killed when. Nothing here waits inside PostgreSQL.

A blocked `pg_advisory_lock` holds a snapshot, and CREATE INDEX CONCURRENTLY waits for every older snapshot: the two
deadlock. Asking again and again does not.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping

import psycopg2
from psycopg2.extensions import connection, make_dsn

from supervisor.migrations.outcome import MigrationFailed

Say = Callable[[str], None]

FAMILY = 0x796F796F  # "yoyo"
RUN, APPLY = 1, 2
"""Held by a session for a whole run; and by whoever changes the schema, for as long as PostgreSQL works at it."""
STALE_AFTER = 10.0
"""yoyo itself gives up waiting for its row after 10 s; a row older than that was left by one that was killed."""
KEPT_ALIVE = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""A holder whose machine is gone is noticed by PostgreSQL's keepalives, and PostgreSQL's loss by these."""

WHO_HOLDS = """
    SELECT concat_ws(' ', application_name, 'from ' || client_addr, 'since ' || date_trunc('second', backend_start))
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND granted
      AND datname = current_database()
"""
CREATE_YOYO_LOCK = """
    CREATE TABLE yoyo_lock (locked INT DEFAULT 1, ctime TIMESTAMP, pid INT NOT NULL, PRIMARY KEY (locked))
"""  # as yoyo makes it
TAKE_YOYO_LOCK = """
    INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, timezone('utc', now()), %s) ON CONFLICT DO NOTHING
"""


def connect(url: str, parameters: Mapping[str, str]) -> connection:
    mine = f"supervisor migrate (pid {os.getpid()})"
    opened: connection = psycopg2.connect(
        make_dsn(url, connect_timeout=5, tcp_user_timeout=15_000, application_name=mine, **KEPT_ALIVE)
    )
    opened.autocommit = True
    with opened.cursor() as cursor:
        cursor.execute("; ".join(f"SET {name} = {value}" for name, value in parameters.items()))
    return opened


@contextlib.contextmanager
def run_lock(url: str, *, say: Say) -> Iterator["RunLock"]:
    """On a session of its own, so that it is free the moment its holder is gone."""
    session = connect(url, {"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0"})
    told = ""

    def say_who_holds() -> None:
        nonlocal told
        holder = _holder(session)
        if holder and holder != told:
            say(f"another migrator is at work: {holder}")
            told = holder

    try:
        _poll(lambda: _granted(session, "pg_try_advisory_lock", RUN), say_who_holds)
        _keep_plain_yoyo_out(session, say)
        yield RunLock(session)
    finally:
        session.close()


class RunLock:
    def __init__(self, session: connection) -> None:
        self._session = session

    def confirm(self) -> None:
        """Its session may have been cut off while a long migration ran."""
        try:
            with self._session.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            raise MigrationFailed("the session that holds the migrator's lock was cut off") from error


def take_apply_lock(session: connection, *, patience: float, until_commit: bool) -> None:
    """Against a killed migrator whose last statement PostgreSQL still runs, though its run lock is free again."""
    function = "pg_try_advisory_xact_lock" if until_commit else "pg_try_advisory_lock"
    deadline = time.monotonic() + patience

    def give_up() -> None:
        if time.monotonic() > deadline:
            raise MigrationFailed(
                f"another migrator's statement has been running for {patience:g} s; trying again later"
            )

    _poll(lambda: _granted(session, function, APPLY), give_up)


def _granted(session: connection, function: str, key: int) -> bool:
    with session.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s, %s)", (FAMILY, key))  # one of two names, above
        row = cursor.fetchone()
    return bool(row and row[0])


def _poll(attempt: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
    while not attempt():
        meanwhile()
        time.sleep(random.uniform(0.05, 0.15))  # noqa: S311  # jitter


def _holder(session: connection) -> str | None:
    with session.cursor() as cursor:
        cursor.execute(WHO_HOLDS, (FAMILY, RUN))
        row = cursor.fetchone()
    return row[0] if row else None


def _keep_plain_yoyo_out(session: connection, say: Say) -> None:
    """yoyo's own lock is a committed row, and survives its writer. Ours is never committed: a plain `yoyo apply` waits
    for it as for any other, and when we are killed it is gone. Only the holder of the run lock removes an old one."""
    first_seen = time.monotonic()

    def attempt() -> bool:
        with session.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(TAKE_YOYO_LOCK, (os.getpid(),))
            if cursor.rowcount:
                return True  # the transaction stays open
            cursor.execute("ROLLBACK")
            cursor.execute("SELECT pid, extract(epoch FROM timezone('utc', now()) - ctime) FROM yoyo_lock")
            for pid, age in cursor.fetchall():
                if age > STALE_AFTER or time.monotonic() - first_seen > STALE_AFTER:
                    say(f"removing yoyo's lock left by process {pid} {age:.0f} s ago")
                    cursor.execute("DELETE FROM yoyo_lock WHERE pid = %s", (pid,))
        return False

    with session.cursor() as cursor:
        cursor.execute("SELECT to_regclass('yoyo_lock') IS NULL")
        row = cursor.fetchone()
        if row and row[0]:
            cursor.execute(CREATE_YOYO_LOCK)
    _poll(attempt, lambda: None)
