"""Each probe against the real thing: answering, refusing, hanging, coming back."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis.exceptions
from aiohttp import web

from bookstore.embedded import Home, Redis
from supervisor.probes import disk, postgres, workers
from supervisor.probes import redis as redis_probe
from supervisor.threads import OneAtATime, in_thread
from tests.conftest import Databases, skip_or_fail
from tests.supervisor.migration_folders import ask as ask_database
from tests.supervisor.small_disk import small_disk

PATIENCE = 20.0


@contextlib.contextmanager
def hanging(pid: int) -> Iterator[None]:
    """SIGSTOP to a server and all its children: connections are accepted by the kernel, and nobody answers."""
    stopped = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    try:
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port where connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class TestPostgres:
    async def test_it_tells_role_version_and_how_full_the_server_is(self, empty_database_url: str) -> None:
        async with postgres.open(postgres.PostgresTarget(empty_database_url)) as ask:
            finding = await ask()
        assert (finding.status, finding.error) == ("healthy", None)
        assert finding.facts["role"] == "primary"
        assert 1 <= finding.facts["connections"] <= finding.facts["max_connections"]
        assert finding.facts["version"].startswith("PostgreSQL 1")

    async def test_one_connection_serves_all_questions(self, empty_database_url: str) -> None:
        async with postgres.open(postgres.PostgresTarget(empty_database_url)) as ask:
            for _ in range(3):
                await ask()
            mine = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%recovery%'"
            )
            assert ask_database(empty_database_url, mine + " AND pid <> pg_backend_pid()") == [(1,)]

    async def test_a_connection_cut_by_the_server_is_a_failure_once_and_then_made_anew(
        self, empty_database_url: str
    ) -> None:
        async with postgres.open(postgres.PostgresTarget(empty_database_url)) as ask:
            await ask()
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            ask_database(empty_database_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            with pytest.raises(psycopg2.Error):
                await ask()
            assert (await ask()).status == "healthy"

    async def test_a_refused_connection_says_so(self) -> None:
        async with postgres.open(postgres.PostgresTarget(f"postgresql://b@127.0.0.1:{free_port()}/b")) as ask:
            with pytest.raises(psycopg2.OperationalError, match="refused"):
                await ask()

    async def test_a_host_that_accepts_and_never_answers_takes_no_longer_than_the_timeout(
        self, black_hole: int
    ) -> None:
        target = postgres.PostgresTarget(f"postgresql://b@localhost:{black_hole}/b", connect_timeout=0.2)
        async with postgres.open(target) as ask:
            with pytest.raises(TimeoutError, match=r"no connection within 0\.2 s"):
                await asyncio.wait_for(ask(), PATIENCE)

    async def test_a_hung_server_can_be_given_up_on_and_is_found_well_when_it_goes_on(
        self, postgres: Databases, empty_database_url: str
    ) -> None:
        from supervisor.probes import postgres as probe

        if postgres.server is None or postgres.server.process is None:
            skip_or_fail("this server is not ours to stop")
        async with probe.open(probe.PostgresTarget(empty_database_url, connect_timeout=0.3)) as ask:
            await ask()
            with hanging(postgres.server.process.pid):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ask(), 0.3)
                with pytest.raises(TimeoutError, match="no connection"):
                    await asyncio.wait_for(ask(), PATIENCE)
            assert (await asyncio.wait_for(ask(), PATIENCE)).status == "healthy"

    async def test_the_loop_goes_on_while_a_name_is_looked_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """libpq would look it up itself, with the whole loop waiting."""
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.5) or [])
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        async with postgres.open(postgres.PostgresTarget("postgresql://b@somewhere.invalid/b")) as ask:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(), 0.4)
        ticking.cancel()
        assert ticks > 8

    @pytest.mark.parametrize(
        ("url", "host", "port"),
        [
            ("postgresql://b@localhost:5433/b", "localhost", "5433"),
            ("postgresql://b@127.0.0.1:1,localhost:2/b", "127.0.0.1,localhost", "1,2"),
            ("postgresql://b@/b?host=/tmp/somewhere", "/tmp/somewhere", None),
        ],
    )
    def test_names_are_handed_on_as_addresses_with_the_names_kept_for_tls(
        self, monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: str | None
    ) -> None:
        found = [(2, 1, 6, "", ("127.0.0.1", 0))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        parameters = postgres._with_addresses(url)
        assert parameters["host"] == host
        assert parameters.get("port") == port
        if port:
            assert parameters["hostaddr"] == ",".join(["127.0.0.1"] * len(host.split(",")))

    async def test_a_server_in_recovery_is_degraded(self, postgres: Databases, standby_url: str) -> None:
        from supervisor.probes import postgres as probe

        async with probe.open(probe.PostgresTarget(standby_url)) as ask:
            finding = await ask()
        assert (finding.status, finding.facts["role"]) == ("degraded", "standby")
        assert "read, not written" in str(finding.error)

    @pytest.fixture
    def standby_url(self, postgres: Databases, empty_database_url: str) -> str:
        """What a standby answers, told by a function found before the real one: a second server takes seconds."""
        lie = "FUNCTION standby.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'"
        ask_database(empty_database_url, f"CREATE SCHEMA standby; CREATE {lie}")
        return f"{empty_database_url}&options=-c%20search_path%3Dstandby,pg_catalog"


class TestRedis:
    async def test_it_tells_memory_and_evictions(self, redis_url: str) -> None:
        async with redis_probe.open(redis_probe.RedisTarget(redis_url)) as ask:
            finding = await ask()
        assert finding.status == "healthy"
        assert finding.facts["role"] == "master"
        assert finding.facts["used_memory"] > 0

    async def test_a_closed_port_is_told_at_once(self) -> None:
        async with redis_probe.open(redis_probe.RedisTarget(f"redis://127.0.0.1:{free_port()}/0")) as ask:
            with pytest.raises(redis.exceptions.ConnectionError):
                await asyncio.wait_for(ask(), 2)  # redis-py's own defaults take 3.7 s

    async def test_a_host_that_never_answers_takes_no_longer_than_the_timeout(self, black_hole: int) -> None:
        target = redis_probe.RedisTarget(f"redis://127.0.0.1:{black_hole}/0", timeout=0.2)
        async with redis_probe.open(target) as ask:
            with pytest.raises(redis.exceptions.TimeoutError):
                await asyncio.wait_for(ask(), PATIENCE)  # by default 59 s

    @pytest.fixture
    def server(self) -> Iterator[Redis]:
        from bookstore.embedded import EmbeddedError

        with Home.temporary().held() as home:
            try:
                server = Redis(home, durable=False)
            except EmbeddedError as error:
                skip_or_fail(str(error))
            server.start()
            yield server
            server.stop()

    async def test_killed_hung_full_and_back_again(self, server: Redis) -> None:
        async with redis_probe.open(redis_probe.RedisTarget(server.url, timeout=0.3)) as ask:
            assert (await ask()).status == "healthy"
            assert server.process is not None
            with hanging(server.process.pid), pytest.raises(redis.exceptions.TimeoutError):
                await asyncio.wait_for(ask(), PATIENCE)
            assert (await ask()).status == "healthy"

            path = server.url.removeprefix("unix://").split("?")[0]
            with contextlib.closing(redis.Redis(unix_socket_path=path)) as client:
                client.config_set("maxmemory", "1")
                finding = await ask()
                assert finding.status == "degraded"
                assert "memory is full" in str(finding.error)
                client.config_set("maxmemory", "0")

            server.stop()
            with pytest.raises(redis.exceptions.ConnectionError):
                await ask()
            server.start()
            assert (await ask()).status == "healthy"

    async def test_a_server_that_forbids_info_is_healthy_when_it_answers(self, server: Redis) -> None:
        path = server.url.removeprefix("unix://").split("?")[0]
        with contextlib.closing(redis.Redis(unix_socket_path=path)) as client:
            client.acl_setuser("narrow", enabled=True, nopass=True, commands=["+ping", "+client", "+select", "+hello"])
        async with redis_probe.open(redis_probe.RedisTarget(server.url + "&username=narrow&password=x")) as ask:
            finding = await ask()
        assert (finding.status, dict(finding.facts)) == ("healthy", {})


class TestDisk:
    @pytest.mark.parametrize(
        ("warn", "fail", "status"),
        [(0, 0, "healthy"), (1 << 60, 0, "degraded"), (1 << 60, 1 << 60, "unhealthy")],
    )
    async def test_two_thresholds(self, tmp_path: Path, warn: int, fail: int, status: str) -> None:
        async with disk.open(disk.DiskTarget(tmp_path, warn, fail)) as ask:
            finding = await ask()
        assert finding.status == status
        assert (finding.error is None) == (status == "healthy")
        assert finding.facts["total"] >= finding.facts["free"] > 0

    async def test_the_worse_of_two_file_systems_counts(self, tmp_path: Path) -> None:
        with small_disk(tmp_path):
            target = disk.DiskTarget(Path("/proc/self"), 0, 0, runtime_dir=tmp_path)
            async with disk.open(target) as ask:
                assert (await ask()).status == "healthy"
                for size, status in ((50 << 10, "degraded"), (63 << 10, "unhealthy")):
                    (tmp_path / "filler").write_bytes(b"x" * size)
                    finding = await ask()
                    assert (finding.status, finding.facts["path"]) == (status, str(tmp_path))
                    assert (finding.error or "").startswith("RUNTIME_DIR: ")

    async def test_a_path_that_is_gone_raises_what_is_wrong(self, tmp_path: Path) -> None:
        async with disk.open(disk.DiskTarget(tmp_path / "gone", 0, 0)) as ask:
            with pytest.raises(FileNotFoundError):
                await ask()


class TestThreads:
    async def test_a_question_that_hangs_is_not_put_twice(self) -> None:
        asked = 0

        def hang() -> str:
            nonlocal asked
            asked += 1
            time.sleep(0.3)
            return "at last"

        question = OneAtATime(hang)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(question.ask(), 0.02)
        assert await question.ask() == "at last"
        assert asked == 1
        await question.ask()
        assert asked == 2

    async def test_an_error_comes_back_as_it_was(self) -> None:
        def fail() -> None:
            raise PermissionError("not for you")

        with pytest.raises(PermissionError, match="not for you"):
            await in_thread(fail)

    def test_a_hung_thread_does_not_hold_up_the_end_of_the_program(self) -> None:
        """As those of asyncio.to_thread do."""
        program = """
import asyncio, time
from supervisor.threads import in_thread
async def main():
    try:
        await asyncio.wait_for(in_thread(time.sleep, 60), 0.1)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        assert (ended.returncode, ended.stdout) == (0, "gave up\n")


def answering(response: web.Response) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def live(request: web.Request) -> web.Response:
        return response

    return live


class TestWorkers:
    @pytest.fixture
    async def worker(self, tmp_path: Path) -> AsyncIterator[Any]:
        """Starts a worker's socket with the given /live; all are ended with the test."""
        runners: list[web.AppRunner] = []

        async def start(boot: str, live: Callable[[web.Request], Any]) -> web.AppRunner:
            app = web.Application()
            app.router.add_get("/live", live)
            runner = web.AppRunner(app, shutdown_timeout=0)
            await runner.setup()
            await web.UnixSite(runner, str(tmp_path / f"{boot}.sock")).start()
            runners.append(runner)
            return runner

        yield start
        for runner in runners:
            await runner.cleanup()

    async def test_each_is_asked_and_its_answer_kept(self, tmp_path: Path, worker: Any) -> None:
        await worker("a", answering(web.json_response({"boot": "a", "in_flight": 2})))
        await worker("b", answering(web.json_response({"boot": "b", "in_flight": 0})))
        async with workers.open(workers.WorkersTarget(tmp_path, expected=2)) as ask:
            finding = await ask()
        assert finding.status == "healthy"
        assert finding.facts["workers"]["a"] == {"boot": "a", "in_flight": 2}

    async def test_one_that_hangs_is_told_from_those_that_answer(self, tmp_path: Path, worker: Any) -> None:
        over = asyncio.Event()

        async def hang(request: web.Request) -> web.Response:
            await over.wait()
            return web.Response()

        await worker("a", answering(web.json_response({"boot": "a"})))
        await worker("b", hang)
        async with workers.open(workers.WorkersTarget(tmp_path, expected=2, timeout=0.2)) as ask:
            finding = await asyncio.wait_for(ask(), PATIENCE)
        over.set()
        assert (finding.status, finding.error) == ("degraded", "1 of 2 workers answer")
        assert "no answer within 0.2 s" in finding.facts["workers"]["b"]["error"]

    async def test_a_wrong_answer_is_no_answer(self, tmp_path: Path, worker: Any) -> None:
        await worker("a", answering(web.Response(status=500)))
        await worker("b", answering(web.Response(text="{", content_type="application/json")))
        await worker("c", answering(web.json_response([1])))
        async with workers.open(workers.WorkersTarget(tmp_path, expected=3)) as ask:
            finding = await ask()
        assert finding.status == "unhealthy"
        assert all("error" in answer for answer in finding.facts["workers"].values())

    async def test_no_worker_yet_is_unhealthy(self, tmp_path: Path) -> None:
        async with workers.open(workers.WorkersTarget(tmp_path / "not-there-yet", expected=2)) as ask:
            finding = await ask()
        assert (finding.status, finding.error) == ("unhealthy", "0 of 2 workers answer")

    async def test_a_socket_left_by_a_dead_worker_is_reported_on_second_sight(self, tmp_path: Path) -> None:
        """On first sight it could be one between bind and listen."""
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(tmp_path / "a.sock"))
        left.close()
        async with workers.open(workers.WorkersTarget(tmp_path, expected=1)) as ask:
            assert (await ask()).facts["orphaned"] == []
            assert (await ask()).facts["orphaned"] == [str(tmp_path / "a.sock")]
            (tmp_path / "a.sock").unlink()
            assert (await ask()).facts["orphaned"] == []
