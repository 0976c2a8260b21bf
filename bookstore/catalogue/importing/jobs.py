"""Imports remembered: what ran, how it ended, and which rows had something to say. For people who ask afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2 import extensions
from psycopg2.extras import execute_values

from .outcome import ImportSummary, RowOutcome

JOB_LOCK = 0x424B4A  # the class of the session locks that tell running jobs from those whose process is gone
MOST_ROWS = 10_000  # of one job; the rest is counted in its summary and written to the --errors file

NO_SUCH_PROCESS = "its process ended before the import did; the same import again completes it"


def start_job(
    cursor: extensions.cursor, *, source: str, format: str, preset: str, options: Mapping[str, Any], dry_run: bool
) -> int:
    """Also closes the jobs of processes that are gone: nobody holds their lock any more."""
    cursor.execute(
        """
        UPDATE import_jobs SET status = 'failed', error = %(error)s, finished_at = now()
        WHERE status = 'running' AND pg_try_advisory_xact_lock(%(class)s, (id %% 2147483647)::int)
        """,
        {"error": NO_SUCH_PROCESS, "class": JOB_LOCK},
    )
    cursor.execute(
        """
        INSERT INTO import_jobs (source, format, preset, options, dry_run)
        VALUES (%(source)s, %(format)s, %(preset)s, %(options)s, %(dry_run)s) RETURNING id
        """,
        {
            "source": source,
            "format": format,
            "preset": preset,
            "options": json.dumps(options, ensure_ascii=False).encode("utf-8", "backslashreplace").decode(),
            "dry_run": dry_run,
        },
    )
    [(job,)] = cursor.fetchall()
    cursor.execute("SELECT pg_advisory_lock(%(class)s, (%(job)s %% 2147483647)::int)", {"class": JOB_LOCK, "job": job})
    return int(job)


def record_batch(
    cursor: extensions.cursor, job: int, outcomes: Sequence[RowOutcome], written: Mapping[int, int], *, most: int
) -> int:
    """Adds a batch to its job, in the batch's own transaction: the job never tells more than was stored.

    Writes down at most `most` of the rows that have something to say, and returns how many. Only rows that were written
    name their book: the foreign key locks it, and a book that is unchanged shall not even be locked.
    """
    cursor.execute(
        "UPDATE import_jobs SET rows_read = rows_read + %(rows)s WHERE id = %(job)s",
        {"rows": len(outcomes), "job": job},
    )
    told = [outcome for outcome in outcomes if outcome.issues][:most]
    if told:
        lines = [(job, row.row, row.status, written.get(row.row), _issues(row)) for row in told]
        columns = "job_id, row_number, status, book_id, issues"
        execute_values(cursor, f"INSERT INTO import_rows ({columns}) VALUES %s", lines, page_size=500)  # noqa: S608
    return len(told)


def _issues(outcome: RowOutcome) -> str:
    issues = [
        {"severity": issue.severity, "column": issue.column, "value": issue.value, "reason": issue.reason}
        for issue in outcome.issues
    ]
    return json.dumps(issues)


def finish_job(cursor: extensions.cursor, job: int, summary: ImportSummary) -> None:
    found = summary.as_json()
    found.pop("problems")  # they are rows of import_rows
    cursor.execute(
        "UPDATE import_jobs SET status = 'finished', finished_at = now(), summary = %(summary)s WHERE id = %(job)s",
        {"job": job, "summary": json.dumps(found)},
    )


def fail_job(cursor: extensions.cursor, job: int, error: str) -> None:
    cursor.execute(
        """
        UPDATE import_jobs SET status = 'failed', finished_at = now(), error = %(error)s
        WHERE id = %(job)s AND status = 'running'
        """,
        {"job": job, "error": error[:2000]},
    )
