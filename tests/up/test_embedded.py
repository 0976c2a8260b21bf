"""The servers from wheels: private, kept or thrown away as asked, and never outliving whoever started them."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from bookstore.embedded import AlreadyHeld, EmbeddedError, ForeignData, Home, Postgres, Redis
from bookstore.embedded.home import identity_for
from bookstore.embedded.processes import end, launch, mark, running_in, wait_until
from bookstore.up.running import discover
from tests.conftest import skip_or_fail

LAUNCHER = """
import sys, time
from pathlib import Path
from bookstore.embedded import Home, Postgres, Redis
home = Home(Path(sys.argv[1])) if len(sys.argv) > 1 else Home.temporary()
home.hold()
postgres, redis = Postgres(home, durable=len(sys.argv) > 1), Redis(home, durable=False)
postgres.start(), redis.start()
print(postgres.process.pid, redis.process.pid, home.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's own: another user must be able to reach it, as it can most checkouts."""
    with tempfile.TemporaryDirectory(prefix="bookstore-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def launcher() -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int], Path]]]:
    """A process that starts both servers and says their pids; for tests that kill it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> tuple[subprocess.Popen[str], list[int], Path]:
        command = [sys.executable, "-c", LAUNCHER, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        postgres, redis, home = process.stdout.readline().strip().split(" ", 2)
        return process, [int(postgres), int(redis)], Path(home)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def gone(pids: list[int]) -> bool:
    return all(mark(pid) is None for pid in pids)


def test_what_was_written_is_there_after_a_stop_and_a_start_at_the_same_address(directory: Path) -> None:
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=True)
        first = postgres.start()
        rows(first, "CREATE TABLE kept AS SELECT 1 AS one")
        assert rows(first, "SHOW fsync") == [("on",)]
        postgres.stop()
        assert not postgres.is_running()
        assert postgres.start() == first
        assert rows(first, "SELECT one FROM kept") == [(1,)]
        assert rows(first, "SHOW server_version")[0][0] == postgres.version
        postgres.stop()


def test_redis_keeps_what_it_was_told_in_a_directory_of_its_major_version(directory: Path) -> None:
    import redis

    with Home(directory / "data").held() as home:
        server = Redis(home, durable=True)
        for expected in (None, b"1"):
            with contextlib.closing(redis.Redis.from_url(server.start())) as client:
                assert client.get("kept") == expected
                client.set("kept", 1)
            server.stop()
        assert server.data.name == f"redis-{server.version.split('.')[0]}"
        assert not server.is_running()


@pytest.mark.parametrize("name", ["a path with a space & an ümlaut's", "long" * 55], ids=["spaces", "long"])
def test_any_path_will_do_though_a_socket_has_room_for_107_bytes(directory: Path, name: str) -> None:
    with Home(directory / name / "data").held() as home:
        postgres, redis = Postgres(home, durable=False), Redis(home, durable=False)
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        redis.start()
        for socket in (home.sockets / "postgres" / ".s.PGSQL.5432", home.sockets / "redis" / "redis.sock"):
            assert stat.S_ISSOCK(socket.stat().st_mode)
            assert len(os.fsencode(socket)) <= 107
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        redis.stop()
        postgres.stop()


def test_neither_server_listens_on_the_network(directory: Path) -> None:
    import psutil

    with Home(directory / "data").held() as home:
        postgres, redis = Postgres(home, durable=False), Redis(home, durable=False)
        postgres.start()
        redis.start()
        for server in (postgres, redis):
            assert server.process is not None
            assert psutil.Process(server.process.pid).net_connections("inet") == []
        redis.stop()
        postgres.stop()


def test_no_mode_outside_the_data_directory_is_changed(directory: Path) -> None:
    directory.chmod(0o750)
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=False)
        postgres.start()
        postgres.stop()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750


def test_both_servers_end_when_their_launcher_is_killed_with_kill_9(directory: Path, launcher) -> None:
    process, pids, home = launcher(directory / "data")
    assert not gone(pids)
    process.kill()
    assert wait_until(lambda: gone(pids), 20)
    assert wait_until(lambda: not running_in(home / "postgres", "postgres"), 20)


def test_a_launcher_that_died_before_its_program_ran_is_noticed(tmp_path: Path) -> None:
    """The kernel sends no parent-death signal for a parent that is dead when the signal is asked for."""
    script = str(Path(sys.modules["bookstore.embedded.processes"].LAUNCH))
    stranger = 1 if os.getpid() != 1 else 2
    ran = subprocess.run(
        [sys.executable, "-I", "-S", script, str(stranger), "15", "same", "touch", str(tmp_path / "ran")]
    )
    assert ran.returncode == 1
    assert not (tmp_path / "ran").exists()


def test_the_next_start_ends_what_a_crash_left_behind(directory: Path) -> None:
    crashed = Home(directory / "data")
    crashed.hold()
    postgres, redis = Postgres(crashed, durable=True), Redis(crashed, durable=True)
    rows(postgres.start(), "CREATE TABLE kept AS SELECT 1 AS one")
    redis.start()
    assert postgres.process is not None and redis.process is not None
    assert crashed._held is not None
    os.close(crashed._held)  # as the kernel does for a process that was killed, except that the servers live on

    with Home(directory / "data").held() as home:
        assert postgres.process.wait(1) is not None
        assert redis.process.wait(1) is not None
        again = Postgres(home, durable=True)
        assert rows(again.start(), "SELECT one FROM kept") == [(1,)]
        again.stop()


def test_a_process_that_merely_has_the_number_of_a_leftover_is_left_alone(directory: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with Home(directory / "data").held() as home:
            home.remember("postgres", bystander.pid)
            remembered = (home.path / "processes.json").read_text().replace(str(mark(bystander.pid)), "another start")
            (home.path / "processes.json").write_text(remembered)
            assert home.end_leftovers() == []
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(
    "nonsense", ['{"postgres":5}', "[1]", '{"postgres":{"pid":"x"}}', '{"postgres":{"pid":0}}', "{"]
)
def test_nonsense_about_what_ran_here_is_no_memory_at_all(directory: Path, nonsense: str) -> None:
    (directory / "data").mkdir()
    (directory / "data" / "lock").touch()
    (directory / "data" / "processes.json").write_text(nonsense)
    (directory / "data" / "running.json").write_text(nonsense)
    assert discover(directory / "data") == {}
    with Home(directory / "data").held() as home:
        home.remember("myself", os.getpid())
        assert [*json.loads((home.path / "processes.json").read_text())] == ["myself"]


def test_a_postmaster_killed_with_kill_9_and_a_stale_pidfile_do_not_stop_the_next_start(directory: Path) -> None:
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=True)
        postgres.start()
        assert postgres.process is not None
        pidfile = postgres.data / "postmaster.pid"
        postgres.process.kill()
        postgres.process.wait()
        postgres.stop()
        lines = pidfile.read_text().splitlines()
        pidfile.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")  # a living stranger's number
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        postgres.stop()


def test_only_one_launcher_at_a_time_holds_a_directory_and_the_other_is_told_which(directory: Path) -> None:
    said = rf"already running on .*data \(process {os.getpid()}\)"
    with Home(directory / "data").held(), pytest.raises(AlreadyHeld, match=said):
        Home(directory / "data").hold()
    with Home(directory / "data").held():
        pass


def test_data_of_another_postgresql_version_is_refused_with_the_way_out(directory: Path) -> None:
    with Home(directory / "data").held() as home:
        (home.path / "postgres").mkdir()
        (home.path / "postgres" / "PG_VERSION").write_text("16\n")
        with pytest.raises(ForeignData, match=r"written by PostgreSQL 16, this is PostgreSQL 18: .*make reset"):
            Postgres(home, durable=True).start()
        (home.path / "postgres" / "PG_VERSION").write_text("")
        with pytest.raises(ForeignData, match=r"is not a PostgreSQL data directory, this is PostgreSQL 18"):
            Postgres(home, durable=True).start()


def test_a_directory_with_other_things_in_it_is_refused(directory: Path) -> None:
    (directory / "letters.txt").write_text("dear")
    with pytest.raises(EmbeddedError, match="holds other things"):
        Home(directory).hold()
    assert [path.name for path in directory.iterdir()] == ["letters.txt"]


def test_an_interrupted_initdb_leaves_nothing_that_looks_like_data(directory: Path) -> None:
    with Home(directory / "data").held() as home:
        (home.path / "postgres.new" / "base").mkdir(parents=True)
        postgres = Postgres(home, durable=False)
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        postgres.stop()
        assert not (home.path / "postgres.new").exists()


def test_a_server_that_cannot_start_says_why_in_its_own_words(directory: Path) -> None:
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=True)
        postgres.start()
        postgres.stop()
        with (postgres.data / "postgresql.conf").open("a") as configuration:
            configuration.write("\nwork_mem = many\n")
        with pytest.raises(
            EmbeddedError, match=r"PostgreSQL did not start: .*postgresql\.conf.* The rest is in .*\.log"
        ):
            postgres.start()
        assert not postgres.is_running()


def test_a_throw_away_directory_is_gone_afterwards_and_swept_when_its_holder_was_killed(launcher) -> None:
    with Home.temporary().held() as home:
        (home.path / "postgres").mkdir()
    assert not home.path.exists()

    process, pids, abandoned = launcher()
    process.kill()
    process.wait()
    assert wait_until(lambda: gone(pids), 20)
    assert abandoned.exists()
    with Home.temporary().held():
        assert not abandoned.exists()
        assert not Home(abandoned).sockets.exists()


def test_sockets_of_data_that_is_no_more_are_swept_too(directory: Path) -> None:
    home = Home(directory / "data")
    home.hold()
    home.socket_directory("redis", "same")
    assert home._held is not None
    os.close(home._held)
    shutil.rmtree(home.path)
    with Home.temporary().held():
        assert not home.sockets.exists()


def test_a_socket_directory_that_says_not_whose_it_is_is_swept_after_a_day_without_a_listener() -> None:
    def made(name: str, age: float) -> Path:
        path = Path(tempfile.gettempdir()) / f"bookstore-{os.geteuid()}-{name}{os.getpid()}"
        path.mkdir()
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    dead, young, held = made("dead", 90_000), made("young", 0), made("held", 0)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(held / "sock"))
            listener.listen()
            os.utime(held, (1, 1))
            with Home.temporary().held():
                assert [path.exists() for path in (dead, young, held)] == [False, True, True]
    finally:
        for path in (dead, young, held):
            shutil.rmtree(path, ignore_errors=True)


def test_as_root_postgresql_runs_as_the_one_whose_the_directory_is(directory: Path) -> None:
    if os.geteuid() != 0:
        skip_or_fail("only root has another user to become")
    owner = pwd.getpwnam("daemon")
    (directory / "data").mkdir(mode=0o700)
    os.chown(directory / "data", owner.pw_uid, owner.pw_gid)
    binary = Postgres(Home(directory / "data"), durable=False)._binaries / "postgres"
    identity = identity_for(directory / "data", binary)
    if identity.startswith("map:"):
        skip_or_fail("no other user can reach this checkout")
    assert identity == f"become:{owner.pw_uid}:{owner.pw_gid}"


def test_as_root_postgresql_runs_as_somebody_else_who_can_reach_its_data(directory: Path) -> None:
    if os.geteuid() != 0:
        skip_or_fail("only root has another user to become")
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=False)
        postgres.start()
        assert postgres.process is not None
        assert Path(f"/proc/{postgres.process.pid}").stat().st_uid != 0
        postgres.stop()


def test_as_root_in_a_place_that_others_cannot_reach_it_runs_under_another_number(directory: Path) -> None:
    if os.geteuid() != 0:
        skip_or_fail("only root has another user to become")
    directory.chmod(0o700)
    try:
        identity = identity_for(directory / "data", Postgres(Home(directory), durable=False)._binaries / "postgres")
    except EmbeddedError as error:
        skip_or_fail(str(error))
    assert identity.startswith("map:")
    with Home(directory / "data").held() as home:
        postgres = Postgres(home, durable=True)
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        postgres.stop()
    directory.chmod(0o755)
    with Home(directory / "data").held() as home:  # and from now on as the other user, on the same data
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        postgres.stop()


def test_a_launched_program_is_its_own_session_and_forgets_ignored_signals(tmp_path: Path) -> None:
    """A shell's background job ignores SIGINT, and so does what it starts, unless somebody says otherwise."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = launch(["sleep", "60"], cwd=tmp_path, death_signal=signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", 10)
    assert os.getsid(process.pid) == process.pid
    assert end(process.pid, ((signal.SIGINT, 10),), gone=lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGINT


def test_ending_goes_on_to_the_next_signal_when_one_is_not_heeded(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()
    assert end(process.pid, ((signal.SIGTERM, 0.2), (signal.SIGKILL, 10)), gone=lambda: process.poll() is not None)
    assert time.monotonic() - began >= 0.2
    process.stdout.close()
