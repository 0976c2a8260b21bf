"""What is told over HTTP: truly, from memory, to each no more than is theirs to know, with every security header."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.history import History
from supervisor.pod import PHASES, Phase, Pod
from supervisor.policy import Criticality, Finding, Outcome, Reading, Rule
from supervisor.runtime_directory import RuntimeDirectory
from supervisor.settings import ConfigurationError, load_settings
from supervisor.status import HEADERS, Commands, Runner, View, create_app, served
from tests.system.pod import free_ports

TOKEN = "a-token-of-the-tests"
ERROR = "could not connect to db.internal:5432"
Client = TestClient[web.Request, web.Application]
Build = Callable[..., Awaitable[Client]]


class Doors(TestServer):
    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **options)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def build_pod(path: Path = Path("/nonexistent"), **criticalities: Criticality) -> Pod:
    pod = Pod(History(path / "history.jsonl"), expected_workers=2, clock=Clock())
    for name, criticality in (criticalities or {"database": "critical", "redis": "degrading"}).items():
        pod.watch_for(Rule(name, criticality))  # type: ignore[arg-type]
    return pod


def tell(pod: Pod, name: str, status: Outcome, times: int = 3) -> None:
    for _ in range(times):
        pod.observe(name, Reading(Finding(status, None if status == "healthy" else ERROR), pod.clock(), 1.5))


def serving() -> Pod:
    pod = build_pod()
    tell(pod, "database", "healthy")
    tell(pod, "redis", "healthy")
    pod.migrated = True
    pod.enter("serving", "2 workers answer")
    return pod


def view(pod: Pod) -> View:
    return View(pod, lambda: "# nothing yet\n", lambda: {"step": "none"})


@pytest.fixture
async def client() -> AsyncIterator[Build]:
    clients: list[Client] = []

    async def build(pod: Pod, **options: Any) -> Client:
        client = TestClient(Doors(create_app(view(pod), **options)))
        clients.append(client)
        await client.start_server()
        return client

    yield build
    for client in clients:
        await client.close()


async def test_a_serving_pod_is_ready_and_says_how_each_check_is(client: Build) -> None:
    asking = await client(serving())
    answer = await asking.get("/health/ready")
    told = await answer.json()
    assert (answer.status, told["status"], told["phase"]) == (200, "healthy", "serving")
    assert set(told) >= {"status", "phase", "timestamp", "version", "uptime_seconds", "checks"}
    assert told["checks"]["database"]["latency_ms"] == 1.5
    assert set(told["checks"]["database"]) == {"status", "criticality", "latency_ms", "since", "as_of"}
    detailed = await (await asking.get("/health/detailed")).json()
    assert detailed | {"timestamp": ""} == told | {"timestamp": ""}
    health = await (await asking.get("/health")).json()
    assert health["checks"] == {"database": "healthy", "redis": "healthy"}
    assert (await asking.get("/health/startup")).status == 200


async def test_a_dead_database_is_503_with_a_time_to_come_back_and_a_dead_cache_is_200(client: Build) -> None:
    pod = serving()
    asking = await client(pod)
    tell(pod, "redis", "unhealthy")
    degraded = await asking.get("/health/ready")
    assert (degraded.status, (await degraded.json())["status"]) == (200, "degraded")
    tell(pod, "database", "unhealthy")
    down = await asking.get("/health/ready")
    assert (down.status, (await down.json())["status"]) == (503, "unhealthy")
    assert int(down.headers["Retry-After"]) >= 1
    assert (await asking.get("/health")).status == (await asking.get("/health/live")).status == 200


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "serving"])
async def test_in_every_other_phase_it_is_not_ready_and_names_the_phase(client: Build, phase: Phase) -> None:
    pod = serving()
    pod.migrated = phase in ("warming", "draining", "stopped")
    if phase == "draining":
        pod.set_draining(True, "asked for")
    else:
        pod.enter(phase, "because")
    asking = await client(pod)
    for path in ("/health/ready", "/health/startup"):
        answer = await asking.get(path)
        assert (await answer.json())["phase"] == phase
        assert answer.status == (200 if path == "/health/startup" and pod.migrated else 503)
    assert (await (await asking.get("/health/live")).json()) == {"status": "alive"}


async def test_others_get_words_and_who_holds_the_token_gets_the_texts(client: Build) -> None:
    pod = serving()
    tell(pod, "database", "unhealthy")
    asking = await client(pod, token=TOKEN)
    for path in ("/health/ready", "/status", "/", "/health"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"X-Supervisor-Token": "wrong"},
            {"Authorization": TOKEN},
        ):
            text = await (await asking.get(path, headers=headers)).text()
            assert "db.internal" not in text, (path, headers)
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"X-Supervisor-Token": TOKEN}):
        for path in ("/health/ready", "/status"):
            assert ERROR in await (await asking.get(path, headers=headers)).text()
    trusted = await client(pod, trusted=True)
    assert ERROR in await (await trusted.get("/health/ready")).text()
    tokenless = await client(pod)
    assert ERROR not in await (await tokenless.get("/status", headers={"Authorization": "Bearer "})).text()


async def test_on_tcp_there_is_nothing_that_changes_anything(client: Build) -> None:
    asking = await client(serving(), token=TOKEN)
    for path in ("/drain", "/undrain", "/reload", "/status", "/"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = await asking.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status in (404, 405), (method, path)


@pytest.mark.property("P7")
@settings(max_examples=100, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]),
    path=st.one_of(
        st.sampled_from(["/", "/health", "/health/ready", "/health/live", "/status", "/metrics", "/drain"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20).map(lambda text: "/" + text),
    ),
)
def test_every_answer_carries_the_security_headers_the_routers_404_included(method: str, path: str) -> None:
    async def ask() -> bytes:
        async with Doors(create_app(view(serving()))) as doors:
            reader, writer = await asyncio.open_connection("127.0.0.1", doors.port)
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            writer.close()
            return head

    status, *lines = asyncio.run(ask()).decode().rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(status.split()[1]) < 500
    assert {name: headers.get(name) for name in HEADERS} == dict(HEADERS)


LEVEL = st.sampled_from(["healthy", "degraded", "unhealthy"])


@pytest.mark.property("P4")
@settings(max_examples=100, deadline=None)
@given(
    criticalities=st.lists(st.sampled_from(["critical", "degrading", "info"]), min_size=1, max_size=5),
    readings=st.lists(st.tuples(st.integers(0, 4), LEVEL, st.floats(0, 20)), max_size=40),
    phase=st.sampled_from([phase for phase in PHASES if phase != "draining"]),
    draining=st.booleans(),
)
def test_live_always_and_ready_if_and_only_if_serving_with_every_critical_check_up(
    criticalities: list[Criticality], readings: list[tuple[int, Outcome, float]], phase: Phase, draining: bool
) -> None:
    pod = build_pod(**{f"check{number}": criticality for number, criticality in enumerate(criticalities)})
    assert isinstance(pod.clock, Clock)
    for number, outcome, waited in readings:
        pod.clock.now += waited
        tell(pod, f"check{number % len(criticalities)}", outcome, times=1)
    pod.enter(phase, "because")
    pod.set_draining(draining, "because")

    async def ask() -> tuple[int, int, dict[str, Any]]:
        async with TestClient(Doors(create_app(view(pod)))) as asking:
            ready = await asking.get("/health/ready")
            return (await asking.get("/health/live")).status, ready.status, await ready.json()

    live, ready, told = asyncio.run(ask())
    critical = [check["status"] for check in told["checks"].values() if check["criticality"] == "critical"]
    up = all(status in ("healthy", "degraded") for status in critical)
    assert live == 200
    assert (ready == 200) == (up and phase == "serving" and not draining)
    assert all("latency_ms" in check for check in told["checks"].values())


async def test_the_page_is_a_page_and_loads_nothing(client: Build) -> None:
    answer = await (await client(serving())).get("/")
    text = await answer.text()
    assert answer.content_type == "text/html"
    assert "serving, ready" in text and "/metrics" in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in text and "style=" not in text


async def test_a_thousand_askers_cost_the_dependencies_nothing(client: Build) -> None:
    pod = serving()
    before = dict(pod.standings)
    asking = await client(pod)
    for _ in range(200):
        assert (await asking.get("/health/ready")).status == 200
    assert pod.standings == before


async def _nothing() -> str:
    return ""


async def _refuse() -> str:
    return "not now"


@pytest.fixture
def directory(tmp_path: Path) -> RuntimeDirectory:
    directory = RuntimeDirectory(tmp_path)
    directory.prepare()
    return directory


async def test_the_socket_is_for_its_own_user_and_hears_commands(directory: RuntimeDirectory) -> None:
    (port,) = free_ports(1)
    given_ = load_settings(
        {"DATABASE_URL": "postgresql:///x", "ENVIRONMENT": "test", "SUPERVISOR_PORT": str(port)}, env_file=None
    )
    commands = Commands(_nothing, _refuse, _nothing)
    async with served(given_, directory, view(serving()), commands):
        assert stat.S_IMODE(directory.socket.stat().st_mode) == 0o600
        with pytest.raises(ConfigurationError, match="Address already in use"):
            async with served(given_, directory, view(serving()), commands):
                pass
        connector = aiohttp.UnixConnector(str(directory.socket))
        async with aiohttp.ClientSession("http://supervisor", connector=connector) as session:
            drained = await session.post("/drain")
            assert (drained.status, await drained.json()) == (200, {"done": True, "message": "done"})
            refused = await session.post("/undrain")
            assert (refused.status, (await refused.json())["message"]) == (409, "not now")
            assert (await session.get("/status")).status == 200
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"http://127.0.0.1:{port}/health/live")).status == 200
    assert not directory.socket.exists()


async def test_an_address_that_is_not_ours_is_a_fault_of_the_settings(directory: RuntimeDirectory) -> None:
    for host in ("192.0.2.1", "no.such.host.invalid"):
        told = load_settings({"DATABASE_URL": "postgresql:///x", "SUPERVISOR_HOST": host}, env_file=None)
        with pytest.raises(ConfigurationError):
            async with served(told, directory, view(serving()), Commands(_nothing, _nothing, _nothing)):
                pass


def test_what_is_carried_over_goes_stale_as_its_own_news_would(directory: RuntimeDirectory) -> None:
    before, after = serving(), build_pod()
    directory.write_state(before.document(1))
    past = directory.read_state()
    assert past is not None
    after.carry_over(past)
    after.enter("serving", "they were serving already")
    assert after.ready
    assert isinstance(after.clock, Clock)
    after.clock.now += 60
    assert not after.ready
    assert after.verdict().checks["database"].status == "unknown"


def test_workers_nobody_has_started_yet_are_not_known_to_be_bad(tmp_path: Path) -> None:
    pod = build_pod(tmp_path, workers="critical")
    tell(pod, "workers", "unhealthy", times=10)
    assert pod.standings["workers"].status == "unknown"
    tell(pod, "workers", "healthy", times=2)
    pod.enter("serving", "they answer")
    tell(pod, "workers", "unhealthy", times=3)
    assert pod.standings["workers"].status == "unhealthy"
    assert [(kept.check, kept.after) for kept in pod.history.latest()] == [
        *(("workers", "healthy"), ("", "serving"), ("workers", "unhealthy"))
    ]


def test_what_answers_for_the_first_time_does_not_answer_again(tmp_path: Path) -> None:
    pod = build_pod(tmp_path)
    tell(pod, "redis", "healthy")
    tell(pod, "redis", "unhealthy")
    tell(pod, "redis", "healthy")
    assert [kept.reason for kept in pod.history.latest()] == ["answers", ERROR, "answers again"]
