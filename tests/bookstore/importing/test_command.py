"""`bookstore import` as people and scripts meet it, in a process of its own where that matters."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bookstore.__main__ import app
from tests.conftest import PROJECT, Environ

from .catalogue import contents, csv_bytes, many_books, query, vocabulary, written

Command = Callable[..., Result]


@pytest.fixture
def command(database_url: str, environ: Environ, monkeypatch: pytest.MonkeyPatch) -> Command:
    for name, value in environ(database_url).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, **options: CliRunner().invoke(app, ["import", *map(str, arguments)], **options)


@pytest.fixture
def start(database_url: str, environ: Environ) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "bookstore", "import", *map(str, arguments)]
        started.append(subprocess.Popen(line, env=environ(database_url), cwd=PROJECT, **options))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return written(tmp_path, "good.csv", csv_bytes(many_books(3)))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    bad = [{"sku": f"bad-{number}", "title": "=cmd()", "language": "=english"} for number in range(15)]
    return written(tmp_path, "mixed.csv", csv_bytes([*many_books(3), *bad]))


def test_the_summary_is_a_table_for_people(command: Command, good: Path) -> None:
    first = command(good)
    assert first.exit_code == 0, first.output
    words = " ".join(first.stdout.split())
    for expected in ("good.csv: imported", "created │ 3", "unchanged │ 0", "author names │ 6", "rows/s"):
        assert expected in words
    assert "unchanged │ 3" in " ".join(command(good).stdout.split())


def test_the_summary_is_json_for_machines(command: Command, good: Path) -> None:
    found = json.loads(command(good, "--json", "--dry-run").stdout)
    assert (found["created"], found["dry_run"], found["problems"]) == (3, True, [])
    assert json.loads(command(good, "--json").stdout)["created"] == 3


def test_a_dry_run_says_what_it_leaves_behind(command: Command, good: Path, database_url: str) -> None:
    said = " ".join(command(good, "--dry-run").stdout.split())
    [(job, dry_run, status)] = query(database_url, "SELECT id, dry_run, status FROM import_jobs")
    assert (dry_run, status) == (True, "finished")
    assert f"the catalogue was not changed. What it found is remembered as job {job}." in said
    assert contents(database_url) == {}


def test_bad_rows_are_shown_a_few_and_written_all_and_the_status_is_one(
    command: Command, mixed: Path, tmp_path: Path
) -> None:
    shown = command(mixed)
    assert shown.exit_code == 1
    assert "failed │ 15" in " ".join(shown.stdout.split())
    assert "… and 5 more; --errors FILE writes them all" in shown.stderr
    errors = tmp_path / "errors.csv"
    again = command(mixed, "--errors", errors)
    assert again.exit_code == 1
    lines = errors.read_text().splitlines()
    assert lines[0] == "row,line,severity,column,value,reason"
    assert len(lines) == 16
    assert lines[1].startswith("4,5,error,language,'=english,"), "no spreadsheet runs what a feed says"


def test_one_open_quote_costs_one_row(command: Command, tmp_path: Path, database_url: str) -> None:
    good = csv_bytes([{"sku": f"s{number}", "title": f"Title {number}"} for number in range(3100)]).splitlines(True)
    path = written(tmp_path, "open.csv", b"".join([*good[:101], b'bad,"open\r\n', *good[101:]]))
    found = json.loads(command(path, "--json").stdout)
    assert (found["rows"], found["created"], found["failed"]) == (3101, 3100, 1)
    assert [problem["row"] for problem in found["problems"]] == [101]
    assert query(database_url, "SELECT count(*) FROM books") == [(3100,)]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("name", ["mixed.csv", "hard.csv", "soft.csv"])
def test_the_file_that_is_imported_is_never_written_over(
    start: Callable[..., subprocess.Popen[bytes]], mixed: Path, more: list[str], name: str
) -> None:
    (mixed.parent / "hard.csv").hardlink_to(mixed)
    (mixed.parent / "soft.csv").symlink_to(mixed)
    before = mixed.read_bytes()
    named = start(mixed, "--errors", mixed.with_name(name), *more, stderr=subprocess.PIPE)
    with mixed.open("rb") as file:
        piped = start(
            "-", "--format", "csv", "--errors", mixed.with_name(name), *more, stdin=file, stderr=subprocess.PIPE
        )
    for process in (named, piped):
        assert b"is the very file that is imported" in process.communicate()[1]
        assert process.returncode == 2
    assert mixed.read_bytes() == before


def test_an_older_errors_file_stays_until_there_is_a_newer_one(
    command: Command, good: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = tmp_path / "errors.csv"
    errors.write_text("from last time")
    assert command(good, "--errors", errors, "--preset", "goodbooks").exit_code == 2
    assert command(tmp_path / "absent.csv", "--errors", errors).exit_code == 2
    assert errors.read_text() == "from last time"
    link = tmp_path / "link.csv"
    link.symlink_to(errors)
    assert command(mixed, "--errors", link).exit_code == 1
    assert link.is_symlink()
    assert len(errors.read_text().splitlines()) == 16
    assert command(good, "--errors", errors).exit_code == 0
    assert errors.read_text() == "row,line,severity,column,value,reason\n"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_errors_file_may_be_a_pipe(start: Callable[..., subprocess.Popen[bytes]], mixed: Path) -> None:
    process = start(mixed, "--errors", "/dev/stdout", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert b"row,line,severity,column,value,reason" in process.communicate()[0]
    assert Path("/dev/stdout").is_symlink()


def test_standard_input_is_a_file_too(command: Command) -> None:
    line = b'{"sku": "a", "title": "A", "prices": {"KWD": 1.250}}\n'
    assert command("-", "--format", "jsonl", input=line).exit_code == 0
    refused = command("-", input=line)
    assert refused.exit_code == 2
    assert "--format csv or --format jsonl" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.csv"], "there is no file"),
        (["{good}", "--preset", "goodbook"], "did you mean 'goodbooks'?"),
        (["{good}", "--preset", "goodbooks"], "--preset bookstore"),
        (["{good}", "--map", "sku"], "is not of the form column=field"),
        (["{good}", "--set", "price=14.999", "--set", "currency=USD"], "USD has 2 decimals"),
        (["{good}", "--format", "onix"], "ONIX is not read yet"),
        (["{good}", "--format", "xls"], "there is no format 'xls'"),
        (["{good}", "--errors", "/nowhere/errors.csv"], "cannot be written"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_status_two(
    command: Command, good: Path, arguments: list[str], words: str
) -> None:
    result = command(*[argument.format(good=good) for argument in arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_no_database_is_one_sentence_and_status_three(
    command: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/books")
    result = command(good)
    assert result.exit_code == 3
    assert result.stderr.startswith("bookstore import: PostgreSQL cannot be reached")
    assert result.stderr.count("\n") == 1


def test_help_tells_the_fields_the_examples_and_the_exit_statuses(command: Command) -> None:
    help = " ".join(command("--help", env={"COLUMNS": "200"}).stdout.split())
    for expected in (
        "bookstore import books.csv --preset goodbooks",
        "series_number",
        "the same import again completes",
    ):
        assert expected in help


def test_wrong_settings_end_with_status_78(good: Path, environ: Environ) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bookstore", "import", good],
        env=environ("not-a-url"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 78
    assert "DATABASE_URL" in result.stderr


def test_a_terminal_sees_a_bar(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    path = written(tmp_path, "many.csv", csv_bytes(many_books(2500)))
    ours, theirs = pty.openpty()
    process = start(path, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.wait() == 0
    assert b"rows" in seen
    assert b"many.csv" in seen


@pytest.mark.system
@pytest.mark.parametrize("rows_before", [0, 2000])
def test_a_killed_import_is_completed_by_the_next(
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    database_url: str,
    module_database_url: str,
    environ: Environ,
    rows_before: int,
) -> None:
    path = written(tmp_path, "many.csv", csv_bytes(many_books(4000)))
    victim = start(path, "--json", stdout=subprocess.DEVNULL)
    wait_for_rows(database_url, rows_before)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    [(stored,)] = query(database_url, "SELECT count(*) FROM books")
    assert stored < 4000, "it was killed in the middle"

    second = start(path, "--json", stdout=subprocess.PIPE)
    summary = json.loads(second.communicate()[0])
    assert summary["created"] + summary["unchanged"] == 4000
    assert summary["unchanged"] == stored or summary["unchanged"] == stored + 1000, "batches are whole"
    assert query(database_url, "SELECT status FROM import_jobs ORDER BY id") == [("failed",), ("finished",)]

    untouched = subprocess.run(
        [sys.executable, "-m", "bookstore", "import", path, "--json"],
        env=environ(module_database_url),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    assert untouched.returncode == 0
    assert contents(database_url) == contents(module_database_url)
    assert vocabulary(database_url) == vocabulary(module_database_url)


def test_ctrl_c_ends_it_and_says_so_in_its_job(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, database_url: str
) -> None:
    process = start(written(tmp_path, "many.csv", csv_bytes(many_books(8000))), stdout=subprocess.DEVNULL)
    wait_for_rows(database_url, 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert query(database_url, "SELECT status, error FROM import_jobs") == [("failed", "interrupted")]


def test_no_room_for_what_is_put_aside_is_one_sentence(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, database_url: str
) -> None:
    path = tmp_path / "prices.jsonl"
    path.write_text("".join(json.dumps({"sku": f"s{n}", "prices": {"USD": 1}}) + "\n" for n in range(20_000)))
    limit = (1 << 20, 1 << 20)
    process = start(path, stderr=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    said = process.communicate()[1].decode()
    assert process.returncode == 3
    assert said.count("\n") == 1
    assert "no room for rows put aside" in said
    assert query(database_url, "SELECT status FROM import_jobs") == [("failed",)]


def wait_for_rows(url: str, rows: int) -> None:
    deadline = time.monotonic() + 60
    while not query(url, "SELECT id FROM import_jobs WHERE rows_read >= %s", [rows]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
