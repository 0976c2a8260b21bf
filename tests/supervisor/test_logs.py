import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from supervisor.logs import REDACTED, configure_logging, redact
from supervisor.settings import load_settings

FIELDS = {
    *("timestamp", "level", "service", "request_id", "user_id", "endpoint", "method", "status_code"),
    *("response_time_ms", "message", "logger", "module", "function", "line"),
}


class Output:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().out

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[Output]:
    before = logging.root.handlers[:], logging.root.level
    configure()
    yield Output(capsys)
    logger.remove()
    logging.root.handlers[:], level = before
    logging.root.setLevel(level)
    logging.captureWarnings(False)


def configure(**environ: str) -> None:
    configure_logging(load_settings({"DATABASE_URL": "postgresql:///x", **environ}, env_file=None))


def test_a_line_has_every_field_of_the_contract(output: Output) -> None:
    logger.bind(check="database").info("{} is {}", "database", "down")
    (line,) = output.lines()
    assert set(line) >= FIELDS
    assert (line["service"], line["level"], line["message"]) == ("supervisor", "INFO", "database is down")
    assert (line["module"], line["function"]) == ("test_logs", "test_a_line_has_every_field_of_the_contract")
    assert line["check"] == "database"
    assert line["timestamp"].endswith("Z")


def test_text_for_people_says_nothing_twice(output: Output) -> None:
    configure(LOG_FORMAT="text")
    logger.bind(check=None, before="waiting_for_database", after="serving", pid=7).info(
        "phase: waiting_for_database -> serving: it answers"
    )
    assert output.text().endswith("  phase: waiting_for_database -> serving: it answers pid=7\n")


def test_an_exception_comes_in_one_line_with_its_password_taken_out(output: Output) -> None:
    try:
        raise ConnectionError("cannot reach postgresql://shop:hunter2@db/shop")
    except ConnectionError:
        logger.exception("it failed")
    (line,) = output.lines()
    assert "ConnectionError" in line["exception"]
    assert "hunter2" not in json.dumps(line)


def test_what_libraries_say_to_the_standard_library_goes_the_same_way(output: Output) -> None:
    logging.getLogger("aiohttp.server").error("bad %s {not a field}", "request")
    logging.getLogger("yoyo.migrations").info("Applying 0001")
    logging.getLogger("asyncio").debug("chatter")
    first, second = output.lines()
    assert (first["logger"], first["message"]) == ("aiohttp.server", "bad request {not a field}")
    assert first["function"] == "test_what_libraries_say_to_the_standard_library_goes_the_same_way"
    assert second["message"] == "Applying 0001"


def test_the_level_is_respected(output: Output) -> None:
    configure(LOG_LEVEL="warning")
    logger.info("no")
    logger.warning("yes")
    assert [line["message"] for line in output.lines()] == ["yes"]


def test_people_get_text_and_no_secret_either(output: Output) -> None:
    configure(LOG_FORMAT="text")
    logger.bind(token="abc", check="redis").warning("password=hunter2")
    text = output.text()
    assert "WARNING" in text and "check=redis" in text
    assert "abc" not in text and "hunter2" not in text


class DeadTerminal(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_dead_terminal_stops_nobody(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", DeadTerminal())
    logger.info("into the void")
    logger.info("again")


def test_redaction_goes_by_name_at_any_depth_and_by_the_form_of_a_url() -> None:
    told = redact({"user": {"Password": "x", "list": [{"API-Key": "y", "apiKey": "z", "n": 1}]}, "refresh_token": "t"})
    assert told == {
        "user": {"Password": REDACTED, "list": [{"API-Key": REDACTED, "apiKey": REDACTED, "n": 1}]},
        "refresh_token": REDACTED,
    }
    assert redact("redis://:secret@cache:6379/0") == f"redis://:{REDACTED}@cache:6379/0"
    assert redact("host=db password='a b' user=x") == f"host=db password={REDACTED} user=x"


SECRET = "s3cr3t-v4lue"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"password": "abc\\"def-{SECRET}"}}',
        f'{{\\"password\\": \\"abc def-{SECRET}\\"}}',
        f"{{'password': b'abc {SECRET}'}}",
        f"postgresql://u:p/{SECRET}@h/db",
        f"pwd={SECRET}",
        f"passphrase={SECRET}",
        f"Set-Cookie: sid={SECRET}",
        f"cookie: a=b; session={SECRET}",
        f"password=[x, {SECRET}]",
        f"secret=({SECRET})",
        f'Authorization: Digest username="x", response="{SECRET}"',
        f"Authorization: Bearer {SECRET}",
        f"PIN: {SECRET}",
        f"one {SECRET}@shop.example of them",
        f"key bks_abc_{SECRET}",
        "Amex 378282246310005",
        "card_number: 4111 1111 1111 1111",
    ],
)
def test_no_text_tells_a_secret(text: str) -> None:
    shown = redact(text)
    assert not any(secret in shown for secret in (SECRET, "10005", "1111"))
    assert REDACTED in shown


def test_what_is_no_secret_stays_readable() -> None:
    for text in (
        "PostgreSQL answers at 10.0.0.7:5432, 3 of 4 workers",
        "http://127.0.0.1:8081/status",
        "0001.create-catalogue applied in 0.3 s",
        "by the author: Jane, in her opinion",
    ):
        assert redact(text) == text


def test_nobody_writes_a_line_of_his_own_nor_speaks_to_the_terminal(output: Output) -> None:
    configure(LOG_FORMAT="text")
    forged = "down\n00:00:00.000 INFO     all is well \x1b[2J\x00\x85\u2028\u202e"
    logger.bind(error=f"{forged}!").warning("{}", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logger.exception("it failed")
    text = output.text()
    assert not set(text) & set("\x1b\0\x85\u2028\u202e")
    first, second, *rest = text.splitlines()
    assert first.count(r"down\n00:00:00.000 INFO     all is well \x1b[2J\x00\x85\u2028\u202e") == 2
    assert second.endswith("it failed") and all(line.startswith("  ") for line in rest)


NAMES = st.sampled_from(
    [
        *("password", "access_token", "client_secret", "api_key", "Authorization", "credit_card"),
        *("jwt", "auth", "session", "otp", "pin", "pwd", "passphrase", "e-mail"),
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10))
NESTED = st.recursive(
    st.one_of(LEAVES, st.dictionaries(NAMES, st.just(SECRET), max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=12,
)


@pytest.mark.property("P5")
@settings(max_examples=200)
@given(message=st.text(max_size=60), extra=NESTED, request_id=st.text(max_size=20))
def test_any_record_is_one_valid_line_with_every_field_and_without_secrets(
    message: str, extra: Any, request_id: str
) -> None:
    output, before = io.StringIO(), sys.stdout
    sys.stdout = output
    try:
        configure()
        logger.bind(extra_fact=extra, request_id=request_id).info("{}", message)
        text = output.getvalue()
    finally:
        sys.stdout = before
        logger.remove()
    assert text.count("\n") == 1 and len(text.splitlines()) == 1
    line = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert set(line) >= FIELDS
    assert SECRET not in text
    if message.isascii() and message.replace(" ", "").isalpha():
        assert line["message"] == message
