"""Under gunicorn, as in production."""

import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from bookstore import __version__
from tests.bookstore.gunicorn_server import COMMAND, PROJECT, free_port, gunicorn, wait_until
from tests.conftest import Environ


@pytest.fixture
def environment(database_url: str, environ: Environ, runtime_dir: Path) -> dict[str, str]:
    return environ(database_url, runtime_dir=runtime_dir, log_level="INFO", graceful_timeout=5)


def test_it_serves_and_every_line_it_logs_is_json(environment: dict[str, str], tmp_path: Path) -> None:
    with gunicorn(environment, tmp_path / "log") as server:
        status, headers, _ = server.get("/api/v1/books", **{"X-Request-ID": "my-own"})
        assert (status, headers["x-request-id"], headers["server"]) == (200, "my-own", "BookStore")
        assert (Path(environment["RUNTIME_DIR"]) / "gunicorn.pid").read_text().strip() == str(server.process.pid)
    lines = server.lines()
    assert {"gunicorn.error", "bookstore.access", "bookstore.worker_socket"} <= {line["logger"] for line in lines}
    mine = [line for line in lines if line["request_id"] == "my-own"]
    assert [(line["endpoint"], line["status_code"]) for line in mine] == [("/api/v1/books", 200)]


def test_wrong_settings_end_it_with_78_and_name_every_fault(environment: dict[str, str]) -> None:
    wrong = {**environment, "PORT": "hunter2", "SECRET_KEY": "hunter3"}
    ended = subprocess.run(COMMAND, env=wrong, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 78
    assert "PORT" in ended.stderr and "SECRET_KEY" in ended.stderr
    assert "hunter" not in ended.stdout + ended.stderr


def test_a_database_that_is_down_stops_nobody_from_starting(environment: dict[str, str], tmp_path: Path) -> None:
    down = {**environment, "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"}
    with gunicorn(down, tmp_path / "log", ready=False) as server:
        wait_until(lambda: server.answers("/health/live"))
        assert server.get("/health/ready")[0] == 503
        status, headers, body = server.get("/api/v1/books")
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"not_ready" in body
        assert server.process.poll() is None


def test_hup_starts_workers_on_the_code_that_is_on_the_disk_now(environment: dict[str, str], tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(PROJECT / "bookstore", checkout / "bookstore", ignore=shutil.ignore_patterns("__pycache__"))
    there = {**environment, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    with gunicorn(there, tmp_path / "log", checkout=checkout) as server:
        package = checkout / "bookstore" / "__init__.py"
        package.write_text(package.read_text().replace(__version__, "of-now"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.version() == "of-now", seconds=40)


def test_settings_that_broke_since_the_start_end_it_at_the_next_reload_instead_of_for_ever(
    environment: dict[str, str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(environment.pop("SECRET_KEY"))
    with gunicorn({**environment, "SECRET_KEY_FILE": str(key)}, tmp_path / "log") as server:
        key.write_text("short")
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(timeout=40) == 3
    assert "SECRET_KEY: must have at least 32 characters" in server.log.read_text()  # gunicorn prints it plainly too


def test_a_reader_that_closes_the_log_does_not_end_the_server(environment: dict[str, str]) -> None:
    read_end, write_end = os.pipe()
    environment["PORT"] = str(free_port())
    process = subprocess.Popen(COMMAND, env=environment, cwd=PROJECT, stdout=write_end, stderr=write_end)
    os.close(write_end)
    try:
        wait_until(lambda: answers(int(environment["PORT"])), seconds=40)
        os.close(read_end)
        assert all(answers(int(environment["PORT"])) for _ in range(20))
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(timeout=40) == 0


def test_two_workers_answer_and_end_with_the_master(environment: dict[str, str], tmp_path: Path) -> None:
    with gunicorn({**environment, "WORKERS": "2"}, tmp_path / "log") as server:
        wait_until(lambda: len(list(Path(environment["RUNTIME_DIR"], "workers").glob("*.sock"))) == 2)
        workers = server.worker_pids()
        assert len(workers) == 2
    assert server.process.returncode == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    left = sorted(path.suffix for path in Path(environment["RUNTIME_DIR"], "workers").iterdir())
    assert left == [".json", ".json"]  # their last words, and no socket


def test_what_is_no_http_gets_our_headers_and_form(environment: dict[str, str], tmp_path: Path) -> None:
    with gunicorn(environment, tmp_path / "log") as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"NONSENSE\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"X-Content-Type-Options: nosniff" in head and b"application/problem+json" in head
    assert b'"error":"bad_request"' in body


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
