"""Every line is one JSON object with the fields of R11, whoever speaks; nothing secret is in it; none is lost."""

import json
import logging
import re
import string
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from bookstore import log_files
from bookstore.log_files import LogFiles, RotatingFile
from bookstore.logs import LONGEST_TEXT, RequestFields, as_text_line, configure_logging, current_request
from bookstore.redaction import HIDDEN, redact, redact_text
from bookstore.settings import load_settings
from tests.conftest import PROJECT, Environ

FIELDS = {
    *("timestamp", "level", "service", "request_id", "user_id", "endpoint", "method", "status_code"),
    *("response_time_ms", "message", "logger", "module", "function", "line"),
}


PREAMBLE = """
import logging, os, sys
from bookstore.settings import load_settings
from bookstore.logs import configure_logging, write_access_line, flush_logs
from loguru import logger
configure_logging(load_settings())
"""


class Output:
    """Standard output of a process whose logging was configured as the service does it."""

    def __init__(self, file: IO[bytes], environment: dict[str, str]) -> None:
        self._file = file
        self._settings = {
            threshold: load_settings({**environment, "LOG_LEVEL": threshold}, Path("/nonexistent"))
            for threshold in THRESHOLDS
        }

    def configure(self, threshold: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "stdout", self._file)
            configure_logging(self._settings[threshold])

    def read(self) -> bytes:
        self._file.seek(0)
        written = self._file.read()
        self._file.seek(0)
        self._file.truncate()
        return written


@pytest.fixture
def output(environment: dict[str, str]) -> Iterator[Output]:
    handlers, level = logging.root.handlers[:], logging.root.level
    with tempfile.TemporaryFile() as file:
        yield Output(file, environment)
        configure_logging(load_settings(environment, Path("/nonexistent")))
    logging.root.handlers[:], logging.root.level = handlers, level
    logger.remove()
    logger.add(sys.stderr)


def run(code: str, environment: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, with logging configured as the service does it."""
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=90, **options)


@pytest.fixture
def environment(environ: Environ) -> dict[str, str]:
    return environ("postgresql:///nowhere", log_level="INFO")


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT, st.binary(max_size=9), st.datetimes()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_leaves=8,
)
THRESHOLDS = ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LEVELS = [*THRESHOLDS, "SUCCESS"]


@pytest.mark.property("P5")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=ANY_TEXT,
    extra=st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=8), ANYTHING, max_size=3),
    level=st.sampled_from(LEVELS),
    threshold=st.sampled_from(THRESHOLDS),
    request_id=st.one_of(st.none(), st.text("abc123-", min_size=1, max_size=20)),
    raises=st.booleans(),
)
def test_any_record_is_one_json_line_with_the_required_fields_if_its_level_is_wanted(
    output: Output,
    message: str,
    extra: dict[str, Any],
    level: str,
    threshold: str,
    request_id: str | None,
    raises: bool,
) -> None:
    output.configure(threshold)
    token = current_request.set(RequestFields(request_id, "GET") if request_id else None)
    try:
        bound = logger.bind(**extra)
        if raises:
            try:
                raise ValueError(message)
            except ValueError:
                bound.opt(exception=True).log(level, "{}", message)
        else:
            bound.log(level, "{}", message)
    finally:
        current_request.reset(token)
    raw = output.read()
    if logger.level(level).no < logger.level(threshold).no:
        assert raw == b""
        return
    assert raw.endswith(b"\n") and raw.count(b"\n") == 1 and len(raw.decode().splitlines()) == 1
    line = json.loads(raw)
    assert set(line) >= FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["timestamp"])
    assert (line["level"], line["service"], line["request_id"]) == (level, "bookstore", request_id)
    assert isinstance(line["message"], str) and isinstance(line["line"], int)
    assert ("exception" in line) == raises


def test_the_standard_librarys_loggers_go_the_same_way(environment: dict[str, str]) -> None:
    done = run(
        """
        logging.getLogger("yoyo").warning("moved %s", "rows")
        logging.getLogger("gunicorn.error").info("booted")
        logging.getLogger("aiohttp.server").error("broken", exc_info=ValueError("here"))
        logging.getLogger("somebody").debug("unheard")
        logging.getLogger("somebody").log(25, "between levels %s")
        logging.getLogger("somebody").warning("%d arguments", "wrong")
        logger.info("ours")
        """,
        environment,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = [(line["logger"], line["level"], line["message"]) for line in lines]
    assert told[:3] == [
        ("yoyo", "WARNING", "moved rows"),
        ("gunicorn.error", "INFO", "booted"),
        ("aiohttp.server", "ERROR", "broken"),
    ]
    assert "ValueError: here" in lines[2]["exception"]
    assert [line["message"] for line in lines[3:]] == ["between levels %s", "%d arguments ('wrong',)", "ours"]
    assert all(set(line) >= FIELDS for line in lines)
    assert done.stderr == ""


def test_the_level_is_respected_by_access_lines_too(environment: dict[str, str]) -> None:
    code = """
        for status in (200, 404, 500):
            level = "ERROR" if status == 500 else "INFO"
            write_access_line({"level": level, "message": "x", "status_code": status, "timestamp": None})
        logger.info("unheard"); logger.warning("heard")
        flush_logs()
    """
    done = run(code, {**environment, "LOG_LEVEL": "WARNING"})
    assert [json.loads(line).get("status_code") for line in done.stdout.splitlines()] == [500, None]


def test_for_people_a_line_is_text_and_has_colour_on_a_terminal_only(environment: dict[str, str]) -> None:
    done = run("logger.bind(book=7).info('It came')", {**environment, "LOG_FORMAT": "text"})
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO     It came book=7\n", done.stdout)
    line = {
        "timestamp": datetime.now(UTC),
        "level": "ERROR",
        "message": "no",
        "request_id": "abcdefghij",
    }
    assert b"\x1b[31mERROR" in as_text_line({**line, "exception": "Traceback"}, colour=True)
    assert as_text_line({**line, "exception": "Traceback"}, colour=False).endswith(
        b" ERROR    no [abcdefghij]\n  Traceback\n"  # whole: what a worker makes differs at its end only
    )


def test_no_caller_writes_a_line_of_his_own_nor_speaks_to_the_terminal(environment: dict[str, str]) -> None:
    done = run(
        r"""
        forged = "GET /x\n00:00:00.000 INFO     all is well \x1b[2J\x00\x85\u2028\u202e"
        logger.bind(path=forged).warning("{}", forged)
        try:
            raise ValueError(forged)
        except ValueError:
            logger.exception("it failed")
        """,
        {**environment, "LOG_FORMAT": "text"},
    )
    assert not set(done.stdout) & set("\x1b\0\x85\u2028\u202e")
    first, second, *rest = done.stdout.splitlines()
    assert first.count(r"GET /x\n00:00:00.000 INFO     all is well \x1b[2J\x00\x85\u2028\u202e") == 2
    assert second.endswith("it failed") and all(line.startswith("  ") for line in rest)


def test_a_closed_pipe_and_a_closed_descriptor_raise_nothing(environment: dict[str, str]) -> None:
    code = """
        read_end, write_end = os.pipe()
        os.dup2(write_end, 1); os.close(read_end); os.close(write_end)
        logger.info("nobody reads"); logger.info("still nobody")
        os.close(1)
        logger.info("nowhere at all")
        print("alive", file=sys.stderr)
    """
    done = run(code, environment)
    assert (done.returncode, done.stderr.strip()) == (0, "alive")


def test_many_processes_write_and_rotate_the_files_and_lose_no_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Six processes, each 400 lines of ~1 KB into files that hold 50 KB: ~50 rotations with nothing thrown away."""
    code = f"""
        from bookstore import log_files
        log_files.RotatingFile.__init__.__kwdefaults__.update(limit=50_000, kept=200)
        configure_logging(load_settings())
        for number in range(400):
            logger.error("{{}} {{}}", f"{{os.getpid()}}-{{number}}", "x" * {900})
        write_access_line({{"level": "INFO", "message": "asked", "status_code": 200, "timestamp": None}})
        flush_logs()
    """
    directory = tmp_path / "logs"
    with_files = {**environment, "LOG_DIR": str(directory)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
            env=with_files,
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    assert [writer.communicate(timeout=120)[1] for writer in writers] == [""] * 6
    wanted = {f"{writer.pid}-{number}" for writer in writers for number in range(400)}
    for name in ("app.log", "error.log"):
        files = [path for path in directory.iterdir() if path.name.startswith(name) and path.suffix != ".lock"]
        assert len(files) > 20
        assert all(path.stat().st_size <= 50_000 + 6 * 2_000 for path in files)  # who looked before it was full
        lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        found = [line["message"].split()[0] for line in lines if line["message"] != "asked"]
        assert sorted(found) == sorted(wanted)
    assert len((directory / "access.log").read_text().splitlines()) == 6


def test_of_each_file_five_old_ones_are_kept(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "app.log", limit=100)
    for number in range(40):
        file.write(f"{number:<49}\n".encode())
    file.close()
    kept = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert kept == ["app.log", *(f"app.log.{number}" for number in range(1, 6))]
    assert (tmp_path / "app.log").read_text().split() == ["38", "39"]
    assert (tmp_path / "app.log.5").read_text().split() == ["28", "29"]


def test_a_file_somebody_removed_is_made_again(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "logs" / "app.log")
    file.write(b"one\n")
    (tmp_path / "logs" / "app.log").unlink()
    file.write(b"two\n")
    (tmp_path / "logs" / "app.log").rename(tmp_path / "moved")
    file.write(b"three\n")
    file.close()
    assert (tmp_path / "logs" / "app.log").read_bytes() == b"three\n"


def test_before_the_disk_is_full_the_files_stop_and_say_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_files, "ROOM_WANTED", 1 << 62)
    files = LogFiles(tmp_path)
    files.write(b"{}\n", is_error=False)
    files.write(b"{}\n", is_error=False)
    files.close()
    assert not (tmp_path / "app.log").exists()
    complaint = json.loads(capfd.readouterr().err)
    assert "disk has less than" in complaint["message"]


def test_a_directory_that_cannot_be_written_stops_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    files = LogFiles(tmp_path / "file" / "logs")
    files.write(b"{}\n", is_error=True)
    files.close()
    assert "cannot be written" in capfd.readouterr().err


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "value",
    [
        {"password": SECRET},
        {"user": {"credit_card": {"number": SECRET}}},
        {"a": [{"b": ({"X-Api-Key": SECRET},)}]},
        {"Authorization": f"Bearer {SECRET}"},
        {"e_mail": SECRET, "refresh_token": SECRET, "client_secret": SECRET},
        [f"Authorization: Bearer {SECRET}"],
        f"cannot connect to postgresql://bookstore:{SECRET}@db/bookstore",
        f"redis://:{SECRET}@cache:6379/0",
        f"password={SECRET}&x=1",
        f'{{"password": "{SECRET}"}}',
        f"{{'api_key': '{SECRET}'}}",
        f"basic {SECRET}",
        f"key bks_abc_{SECRET}",
        {"payload": f"token: {SECRET}".encode()},
        "eyJhbGciOiJIUzI1NiJ9.aHVudGVyMi1odW50ZXIy.c2lnbmF0dXJl",
        "paid with 4111 1111 1111 1111",
        "card_number: 4111 1111 1111 1111",
        f'{{"password": "abc\\"def-{SECRET}"}}',
        f'{{\\"password\\": \\"abc def-{SECRET}\\"}}',
        f"{{'password': b'abc {SECRET}'}}",
        f'password="never closed {SECRET}',
        f"postgresql://u:p/{SECRET}@h/db",
        f"redis://:p@{SECRET}@cache/0",
        f"pwd={SECRET}",
        f"passphrase={SECRET}",
        f"Set-Cookie: sid={SECRET}",
        f"cookie: a=b; session={SECRET}",
        f"password=[x, {SECRET}]",
        f"secret=({SECRET})",
        f'Authorization: Digest username="x", response="{SECRET}"',
        f"{{'Authorization': 'Digest username=x, response={SECRET}', 'x': 1}}",
        f"PIN: {SECRET}",
        f"one {SECRET}@shop.example of them",
        f"?who={SECRET}%40shop.example",
        "Amex 378282246310005",
        "Amex 3782 822463 10005",
        *({name: SECRET} for name in ("jwt", "auth", "session", "session_id", "otp", "pin", "otpCode")),
    ],
)
def test_secrets_are_hidden_at_any_depth_by_name_and_by_shape(value: Any) -> None:
    shown = str(redact(value))
    assert not any(secret in shown for secret in (SECRET, "aHVudGVyMi", "4111", "1111", "10005"))
    assert HIDDEN in shown


NAMES = st.sampled_from(
    [
        *("password", "new_password", "accessToken", "API-KEY", "credit_card_number", "Set-Cookie", "x_secret"),
        *("jwt", "auth", "session", "otp", "pin", "pwd", "passphrase", "e-mail"),
    ]
)


@settings(max_examples=300)
@given(NAMES, st.sampled_from(["=", ": ", '": "', "': '", "=[", "=("]), st.text(string.ascii_letters, max_size=5))
def test_a_name_that_tells_does_so_in_a_text_too(name: str, between: str, before: str) -> None:
    assert SECRET not in redact_text(f"{before} {name}{between}{SECRET}")


def test_looking_for_secrets_takes_no_time_to_speak_of_whatever_the_text() -> None:
    began = time.monotonic()
    for piece in ("a-", "password", "://a:", 'password="', "token=[", "1234 ", "a.b@", "a@b.", "authorization: ", "é@"):
        redact_text((piece * LONGEST_TEXT)[:LONGEST_TEXT])
    redact_text("token" + " " * LONGEST_TEXT)
    assert time.monotonic() - began < 5  # 50 ms


@settings(max_examples=200)
@given(NAMES, ANYTHING, st.integers(0, 6))
def test_nothing_below_a_telling_name_is_shown(name: str, value: Any, depth: int) -> None:
    whole: Any = {name: value}
    for level in range(depth):
        whole = {"deeper": whole} if level % 2 else [whole]
    shown = redact(whole)
    for level in reversed(range(depth)):
        shown = shown["deeper"] if level % 2 else shown[0]
    assert list(shown.values()) == [HIDDEN]


def test_what_is_no_secret_stays_readable() -> None:
    for text in (
        "GET /api/v1/books/9780306406157 200",
        "isbn 978-0-306-40615-7",
        "https://shop.example/path",
        "http://127.0.0.1:8000/api/v1/authors/7",
        "12:34:56",
        "by the author: Jane, in her opinion",
    ):
        assert redact_text(text) == text
    assert redact({"title": "The Secret Garden", "pages": 331}) == {"title": "The Secret Garden", "pages": 331}
