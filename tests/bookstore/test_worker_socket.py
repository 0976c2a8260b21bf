"""The gate, the drain, and what a worker says of itself on its own socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bookstore.background import running
from bookstore.metrics import METRICS
from bookstore.runtime_directory import needed_migrations
from bookstore.worker_socket import WORKER
from tests.bookstore.conftest import Client, serving, wait_until
from tests.bookstore.test_health import supervisor_says
from tests.conftest import MIGRATIONS, Environ, migrate_plainly


async def ask(directory: Path, path: str) -> dict[str, Any]:
    (socket,) = (directory / "workers").glob("*.sock")
    assert socket.stat().st_mode & 0o777 == 0o600
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://worker{path}") as answer:
        assert answer.status == 200
        return dict(await answer.json())


@pytest.fixture
def supervised(database_url: str, environ: Environ, runtime_dir: Path) -> dict[str, str]:
    return environ(database_url, runtime_dir=runtime_dir, supervised=True)


async def test_it_says_how_it_is(api: Client, runtime_dir: Path) -> None:
    said = await ask(runtime_dir, "/live")
    assert set(said) == {
        *("boot", "pid", "version", "uptime_seconds", "loop_lag_ms", "in_flight", "connections"),
        *("gate", "breaker", "pool", "sequence_seen", "draining"),
    }
    assert (said["gate"], said["breaker"], said["in_flight"], said["draining"]) == ("open", "closed", 0, False)
    assert set(said["pool"]) == {"size", "free", "max"} and said["pool"]["max"] == 100
    assert f"{said['boot']}.sock" in {path.name for path in (runtime_dir / "workers").iterdir()}


async def test_it_hands_its_numbers_over_as_structure(api: Client, runtime_dir: Path) -> None:
    for path in ("/api/v1/books", "/api/v1/books", "/nowhere/1", "/nowhere/2"):
        async with api.get(path):
            pass
    snapshot = await ask(runtime_dir, "/snapshot")
    metrics = {metric["name"]: metric for metric in snapshot["metrics"]}
    requests = {
        tuple(sample["labels"].values()): sample["value"] for sample in metrics["http_requests_total"]["samples"]
    }
    assert requests["GET", "/api/v1/books", "200"] >= 2
    assert requests["GET", "unmatched", "404"] >= 2
    assert not any("nowhere" in str(labels) for labels in requests)
    latency = metrics["http_request_duration_seconds"]
    for sample in latency["samples"]:
        assert len(sample["counts"]) == len(latency["buckets"]) + 1
        assert sum(sample["counts"]) == sample["count"]
    assert metrics["active_connections"]["type"] == "gauge" and metrics["active_connections"]["merge"] == "sum"
    assert metrics["database_query_seconds"]["samples"][0]["count"] > 0


async def test_its_last_words_are_its_whole_count_and_its_socket_goes_with_it(
    database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    async with serving(environ(database_url, runtime_dir=runtime_dir)) as client:
        boot = client.app[WORKER].boot
        async with client.get("/"):
            pass
    assert [path.name for path in (runtime_dir / "workers").iterdir()] == [f"{boot}.final.json"]
    final = json.loads((runtime_dir / "workers" / f"{boot}.final.json").read_text())
    assert final["boot"] == boot
    assert {metric["name"] for metric in final["metrics"]} >= {"http_requests_total"}


async def test_a_directory_that_cannot_be_written_costs_no_request(
    database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    (runtime_dir / "file").write_text("")
    environment = environ(database_url, runtime_dir=runtime_dir / "file" / "below")
    async with serving(environment) as client, client.get("/api/v1/books") as answer:
        assert answer.status == 200


async def test_the_gate_opens_when_the_supervisor_says_that_the_schema_is_there(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    needed = sorted(needed_migrations(MIGRATIONS))
    async with serving(supervised, ready=False) as client:
        worker = client.app[WORKER]
        supervisor_says(runtime_dir, phase="migrating", schema={"applied": needed[:-1]})
        await wait_until(lambda: worker.state)
        await asyncio.sleep(0.6)
        assert not worker.gate_open
        supervisor_says(runtime_dir, schema={"applied": [*needed, "9999.from-newer-code"]})
        await wait_until(lambda: worker.gate_open)
        supervisor_says(runtime_dir, age=60, schema={"applied": []})  # its supervisor died
        (runtime_dir / "supervisor.json").unlink()
        await asyncio.sleep(0.6)
        assert worker.gate_open
        async with client.get("/api/v1/books") as answer:
            assert answer.status == 200


async def test_a_worker_that_starts_when_its_supervisor_is_gone_looks_at_the_schema_itself(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    supervisor_says(runtime_dir, age=60)
    async with serving(supervised) as client, client.get("/api/v1/books") as answer:
        assert answer.status == 200


async def test_without_a_supervisor_it_waits_for_the_schema_by_itself(
    empty_database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    async with serving(environ(empty_database_url, runtime_dir=runtime_dir), ready=False) as client:
        await asyncio.sleep(0.7)
        assert not client.app[WORKER].gate_open
        await asyncio.to_thread(migrate_plainly, empty_database_url)
        await wait_until(lambda: client.app[WORKER].gate_open)


async def test_draining_is_seen_reported_and_reversible(supervised: dict[str, str], runtime_dir: Path) -> None:
    supervisor_says(runtime_dir)
    async with serving(supervised) as client:
        supervisor_says(runtime_dir, draining=True, sequence=8)
        await wait_until(lambda: client.app[WORKER].draining)
        said = await ask(runtime_dir, "/live")
        assert (said["draining"], said["sequence_seen"]) == (True, 8)
        async with client.get("/api/v1/books") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        supervisor_says(runtime_dir, draining=False, sequence=9)
        await wait_until(lambda: not client.app[WORKER].draining)


def test_migrations_of_the_phase_after_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "0001.one.sql").write_text("-- why\nSELECT 1")
    (tmp_path / "0001.one.rollback.sql").write_text("SELECT 1")
    (tmp_path / "0002.two.sql").write_text("-- why\n-- phase: after\nDROP TABLE x")
    assert needed_migrations(tmp_path) == {"0001.one"}
    assert needed_migrations(tmp_path / "nowhere") == set()


async def test_a_background_task_that_dies_is_noticed_and_started_again() -> None:
    lives: list[int] = []

    async def work() -> None:
        lives.append(1)
        if len(lives) == 1:
            raise LookupError("first life")
        await asyncio.Event().wait()

    before = METRICS.task_deaths.values.get(("mortal",), 0)
    async with running("mortal", work):
        await wait_until(lambda: len(lives) == 2)
    assert METRICS.task_deaths.values["mortal",] == before + 1
