"""`/health…` with a live supervisor, without one, and with one that is gone."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bookstore.database import DATABASE
from bookstore.runtime_directory import needed_migrations
from bookstore.worker_socket import WORKER
from tests.bookstore.conftest import Client, serving, wait_until
from tests.bookstore.wire import wire_to
from tests.conftest import MIGRATIONS, Environ

CHECK = {"criticality": "critical", "latency_ms": 1.5, "since": "2026-01-01T00:00:00Z", "as_of": "2026-01-01T00:00:01Z"}
TOKEN = "a-token-for-those-who-may-see-errors"


def supervisor_says(directory: Path, *, age: float = 0.0, **members: Any) -> None:
    state = {
        "sequence": 7,
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME) - age,
        "phase": "serving",
        "draining": False,
        "status": "healthy",
        "ready": True,
        "uptime_seconds": 12.0,
        "schema": {"applied": sorted(needed_migrations(MIGRATIONS))},
        "checks": {"database": {"status": "healthy", "error": None, **CHECK}},
        **members,
    }
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / ".supervisor.json.test"
    temporary.write_text(json.dumps(state))
    temporary.replace(directory / "supervisor.json")


async def health(client: Client, path: str = "/health", **headers: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path, headers=headers) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def test_without_a_supervisor_the_worker_tells_what_it_knows_itself(api: Client) -> None:
    status, told = await health(api)
    assert (status, told["status"], told["supervisor"]) == (200, "healthy", "none")
    assert told["checks"]["database"] == "healthy" and told["checks"]["redis"] == "disabled"
    status, told = await health(api, "/health/ready")
    assert (status, told["phase"]) == (200, "serving")
    assert told["checks"]["database"]["latency_ms"] > 0
    assert (await health(api, "/health/detailed"))[0] == 200
    assert await health(api, "/health/live") == (200, {"status": "alive"})
    assert (await health(api, "/health/startup"))[0] == 200


async def test_the_database_is_asked_at_most_once_a_second_however_many_call(api: Client) -> None:
    seen = {(await health(api, "/health/ready"))[1]["checks"]["database"]["as_of"] for _ in range(30)}
    assert len(seen) <= 2


async def test_a_database_that_is_gone_makes_it_unready_and_live_all_the_same(
    database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    environment = {"runtime_dir": runtime_dir, "supervisor_token": TOKEN}
    async with wire_to(database_url) as wire, serving(environ(wire.url, **environment)) as client:
        await wire.unplug()
        await wait_until(lambda: client.app[DATABASE].breaker != "closed")
        status, told = await health(client, "/health/ready")
        while status == 200:  # what was asked within the last second still holds
            status, told = await health(client, "/health/ready")
        assert (status, told["status"], told["checks"]["database"]["status"]) == (503, "unhealthy", "unhealthy")
        assert "error" not in told["checks"]["database"]
        for header in ({"Authorization": f"Bearer {TOKEN}"}, {"X-Supervisor-Token": TOKEN}):  # as on the supervisor's
            _, told = await health(client, "/health/ready", **header)
            assert "cannot be reached" in told["checks"]["database"]["error"]
        _, told = await health(client, "/health/ready", **{"X-Supervisor-Token": "another"})
        assert "error" not in told["checks"]["database"]
        assert (await health(client))[0] == 200
        assert (await health(client, "/health/live"))[0] == 200


@pytest.fixture
def supervised(database_url: str, environ: Environ, runtime_dir: Path) -> dict[str, str]:
    return environ(database_url, runtime_dir=runtime_dir, supervised=True, supervisor_token=TOKEN)


async def test_what_a_live_supervisor_found_is_told_as_it_is(supervised: dict[str, str], runtime_dir: Path) -> None:
    checks = {
        "database": {"status": "healthy", "error": None, **CHECK},
        "mail": {"status": "unhealthy", "error": "10.0.0.7 refused", **CHECK, "criticality": "info"},
    }
    supervisor_says(runtime_dir, status="degraded", checks=checks)
    async with serving(supervised) as client:
        status, told = await health(client)
        assert (status, told["status"], told["supervisor"]) == (200, "degraded", "alive")
        assert told["checks"] == {"database": "healthy", "mail": "unhealthy"}
        status, told = await health(client, "/health/ready")
        assert (status, told["uptime_seconds"], told["phase"]) == (200, 12.0, "serving")
        assert "10.0.0.7" not in str(told)
        for given, shown in ((TOKEN, True), ("wrong", False), (TOKEN[:-1], False)):
            _, told = await health(client, "/health/ready", Authorization=f"bearer {given}")
            assert ("10.0.0.7 refused" in str(told)) is shown
        supervisor_says(runtime_dir, ready=False, status="unhealthy")
        await wait_until(lambda: not client.app[WORKER].state["ready"])  # type: ignore[index]
        assert (await health(client, "/health/ready"))[0] == 503
        assert (await health(client))[0] == 200


async def test_a_supervisor_that_is_gone_is_said_to_be_missing_and_the_worker_answers_itself(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    supervisor_says(runtime_dir)
    async with serving(supervised) as client:
        supervisor_says(runtime_dir, age=6, ready=False, status="unhealthy", draining=True)
        await wait_until(lambda: client.app[WORKER].state["status"] == "unhealthy")  # type: ignore[index]
        status, told = await health(client, "/health/ready")
        assert (status, told["status"], told["supervisor"]) == (200, "degraded", "missing")
        assert not client.app[WORKER].draining
        async with client.get("/api/v1/books") as answer:
            assert answer.status == 200


async def test_from_another_life_of_the_machine_a_state_is_no_news(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    supervisor_says(runtime_dir, age=-1000)
    async with serving(supervised, ready=False) as client:
        assert (await health(client))[1]["supervisor"] == "missing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boottime": "x", "schema": 7}', b'{"boottime": null}'])
async def test_a_state_nobody_can_read_harms_nobody(
    supervised: dict[str, str], runtime_dir: Path, content: bytes
) -> None:
    (runtime_dir / "supervisor.json").write_bytes(content)
    async with serving(supervised, ready=False) as client:
        assert (await health(client))[0] == 200
        assert (await health(client, "/health/ready"))[1]["supervisor"] == "missing"
