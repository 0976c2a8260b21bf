"""The `supervisor` command, as people, hooks and health checks type it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROJECT, build_environ
from tests.system.pod import Pod

Build = Callable[..., Pod]
NOWHERE = "postgresql://shop:correct-horse@127.0.0.1:1/shop"


def supervisor(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**build_environ(NOWHERE), "NO_COLOR": "1", "COLUMNS": "120", **environ}
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_pod_is_looked_at_drained_and_put_back_by_hand(pod: Build) -> None:
    one = pod()
    one.start()
    one.wait_until_ready()
    at = {"RUNTIME_DIR": str(one.directory)}

    check = supervisor("status", "--check", **at)
    assert (check.returncode, check.stdout) == (0, "healthy: every check that counts is healthy\n")
    shown = supervisor("status", **at).stdout
    assert "serving, ready" in shown and "database" in shown and "warming" in shown
    narrow = supervisor("status", COLUMNS="80", **at).stdout
    assert "…" not in narrow and re.search(r"database +healthy +critical +[\d.]+ +\d\d:\d\d:\d\d", narrow), narrow
    assert json.loads(supervisor("status", "--json", **at).stdout)["phase"] == "serving"

    watching = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "status", "--watch"],
        env={**build_environ(NOWHERE), "COLUMNS": "120", **at},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
    )
    assert watching.stdout is not None
    for _ in range(2):
        while b"serving, ready" not in watching.stdout.readline():
            assert watching.poll() is None
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)
    assert watching.returncode == 0

    drained = supervisor("drain", "--wait", "--timeout", "30", **at)
    assert (drained.returncode, drained.stdout) == (0, "drained: no request is in flight\n")
    assert one.phase() == "draining"
    assert supervisor("undrain", "--runtime-dir", str(one.directory)).returncode == 0
    one.wait_until_ready()
    assert supervisor("reload", **at).returncode == 0


def test_a_drain_that_takes_too_long_fails_and_says_what_it_waited_for(pod: Build) -> None:
    one = pod()
    one.start()
    one.wait_until_ready()
    one.run([sys.executable, "-c", f"import urllib.request as u; u.urlopen('http://127.0.0.1:{one.port}/?seconds=60')"])
    one.wait_until(
        lambda: '"in_flight": 1' in supervisor("status", "--json", RUNTIME_DIR=str(one.directory)).stdout, "in flight"
    )
    late = supervisor("drain", "--wait", "--timeout", "1", RUNTIME_DIR=str(one.directory))
    assert late.returncode == 1
    assert "not drained in 1 s: 1 requests in flight" in late.stderr


def test_a_drain_names_the_worker_that_holds_it_up_by_saying_nothing(pod: Build) -> None:
    one = pod()
    one.start()
    one.wait_until_ready()
    (worker,) = json.loads(supervisor("status", "--json", RUNTIME_DIR=str(one.directory)).stdout)["workers"].values()
    os.kill(worker["pid"], signal.SIGSTOP)
    late = supervisor("drain", "--wait", "--timeout", "1", RUNTIME_DIR=str(one.directory))
    os.kill(worker["pid"], signal.SIGCONT)
    assert late.returncode == 1
    assert f"worker {worker['boot']}" in late.stderr and "does not answer and may hold requests" in late.stderr
    assert "0 requests" not in late.stderr


def test_no_time_is_no_time_to_wait(tmp_path: Path) -> None:
    refused = supervisor("drain", "--wait", "--timeout", "-1", RUNTIME_DIR=str(tmp_path))
    assert refused.returncode == 2
    assert "--timeout" in refused.stderr


@pytest.mark.parametrize("arguments", [("status",), ("status", "--check"), ("drain",), ("undrain",), ("reload",)])
def test_where_no_supervisor_lives_every_command_fails_with_one_sentence(tmp_path: Path, arguments: tuple[str]) -> None:
    answer = supervisor(*arguments, RUNTIME_DIR=str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr == f"no supervisor answers on {tmp_path}/supervisor.sock: No such file or directory\n"


def test_an_unready_pod_is_unhealthy_to_a_check(pod: Build) -> None:
    one = pod()
    one.environment["DATABASE_URL"] = NOWHERE
    one.start_supervisor()
    one.wait_for_phase("waiting_for_database")
    check = supervisor("status", "--check", RUNTIME_DIR=str(one.directory))
    assert check.returncode == 1
    assert check.stdout.startswith("unhealthy: ")


def test_migrating_by_hand_says_what_was_done(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001.first.sql").write_text("CREATE TABLE shelf (id int);")
    at = {"DATABASE_URL": empty_database_url, "MIGRATIONS_DIR": str(tmp_path)}
    done = supervisor("migrate", **at)
    assert done.returncode == 0, done.stderr
    assert "applied 0001.first" in done.stdout + done.stderr
    assert "1 migrations in the database, 0 of them new" in supervisor("migrate", **at).stdout
    (tmp_path / "0002.bad.sql").write_text("CREATE TABLE shelf (id int);")
    failed = supervisor("migrate", **at)
    assert failed.returncode == 1
    assert "migration failed: " in failed.stderr and "0002.bad" in failed.stderr


def test_settings_are_shown_masked_with_where_they_came_from() -> None:
    shown = supervisor("settings", WORKERS="3")
    assert shown.returncode == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert lines["WORKERS"].split() == ["WORKERS", "3", "(environment)"]
    assert "(default)" in lines["PROBE_INTERVAL"]
    assert "correct-horse" not in shown.stdout
    assert json.loads(supervisor("settings", "--json").stdout)["DRAIN_DELAY"] == {
        "value": "0.0",
        "origin": "profile test",
    }


@pytest.mark.parametrize("arguments", [("settings",), ("run",), ("migrate",)])
def test_faults_end_with_78_all_of_them_named(arguments: tuple[str]) -> None:
    answer = supervisor(*arguments, WORKERS="none", LOG_LEVEL="loud")
    assert answer.returncode == 78
    assert "WORKERS" in answer.stderr and "LOG_LEVEL" in answer.stderr


@pytest.mark.parametrize("command", ["run", "drain", "undrain", "reload", "status", "migrate", "settings"])
def test_help_of_every_command_shows_an_example(command: str) -> None:
    told = supervisor(command, "--help")
    assert told.returncode == 0
    assert "Example" in told.stdout and "supervisor " in told.stdout


def test_it_says_its_version() -> None:
    assert supervisor("version").stdout.strip().count(".") == 2
