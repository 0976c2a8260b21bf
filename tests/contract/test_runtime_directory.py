"""Each program spells the runtime directory itself. Here a real worker and the supervisor's own code meet in one."""

import json
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import bookstore.runtime_directory as ours
import bookstore.settings
import supervisor.runtime_directory as theirs
import supervisor.settings
from bookstore.worker_socket import WORKER
from supervisor.collect import Collector
from supervisor.history import History
from supervisor.metrics import is_snapshot
from supervisor.migrations.folder import read_folder
from supervisor.pod import PHASES, Pod
from supervisor.policy import Finding
from supervisor.probes import workers as workers_probe
from tests.bookstore.conftest import Client, serving, wait_until
from tests.conftest import MIGRATIONS, Environ


@pytest.fixture
def supervised(database_url: str, environ: Environ, runtime_dir: Path) -> dict[str, str]:
    return environ(database_url, runtime_dir=runtime_dir, supervised=True)


def pod_in(directory: Path) -> Pod:
    return Pod(History(directory / "history.jsonl"), expected_workers=1)


def say(pod: Pod, directory: Path, sequence: int) -> None:
    theirs.RuntimeDirectory(directory).write_state(pod.document(sequence))


def test_both_spell_the_same_names() -> None:
    here, there = ours.RuntimeDirectory(Path("/run/x")), theirs.RuntimeDirectory(Path("/run/x"))
    assert (here.supervisor_state, here.workers, here.pidfile) == (there.state, there.workers, there.pidfile)
    assert ours.STALE_AFTER == theirs.STALE_AFTER
    assert len(ours.new_boot_id()) <= theirs.LONGEST_BOOT_ID
    longest = bookstore.settings.LONGEST_SOCKET_NAME
    assert longest == f"/workers/{'0123456789abcdef'[: theirs.LONGEST_BOOT_ID]}.sock"
    assert bookstore.settings.SOCKET_PATH_LIMIT == theirs.LONGEST_SOCKET_PATH


def test_both_call_the_same_age_old() -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    for written in (now - 4, now - 6, now + 1000, None, "x"):
        state = {"boottime": written}
        assert ours.is_live(state) == (theirs.age(theirs.seconds(written)) <= theirs.STALE_AFTER)


async def test_what_the_supervisor_writes_opens_the_gate_drains_and_is_told_as_health(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    pod = pod_in(runtime_dir)
    async with serving(supervised, ready=False) as client:
        worker = client.app[WORKER]
        pod.enter("migrating", "the database is there")
        say(pod, runtime_dir, 1)
        await wait_until(lambda: worker.state is not None)
        assert await phase_and_status(client) == ("migrating", 503)
        assert not worker.gate_open

        pod.applied = tuple(sorted(ours.needed_migrations(MIGRATIONS)))
        pod.enter("serving", "everything answers")
        say(pod, runtime_dir, 2)
        await wait_until(lambda: worker.gate_open)
        assert (await phase_and_status(client))[0] == "serving"

        pod.set_draining(True, "somebody asked for it")
        say(pod, runtime_dir, 3)
        await wait_until(lambda: worker.draining)
        assert await phase_and_status(client) == ("draining", 503)
        async with client.get("/api/v1/books") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")

        pod.set_draining(False, "it was a mistake")
        say(pod, runtime_dir, 4)
        await wait_until(lambda: not worker.draining)


async def test_every_phase_of_the_supervisor_is_told_and_none_breaks_a_worker(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    pod = pod_in(runtime_dir)
    async with serving(supervised, ready=False) as client:
        for sequence, phase in enumerate(PHASES, start=1):
            pod.enter(phase, "a test says so")
            say(pod, runtime_dir, sequence)
            await wait_until(lambda: (client.app[WORKER].state or {}).get("sequence") == sequence)  # noqa: B023
            assert (await phase_and_status(client))[0] == phase


async def test_the_supervisors_probe_understands_what_a_worker_says(
    supervised: dict[str, str], runtime_dir: Path
) -> None:
    async with serving(supervised, ready=False) as client:
        target = workers_probe.WorkersTarget(theirs.RuntimeDirectory(runtime_dir).workers, expected=1)
        async with workers_probe.open(target) as ask:
            finding = await ask()
        assert finding.status == Finding("healthy").status
        (said,) = finding.facts["workers"].values()
        assert set(said) == {
            *("boot", "pid", "version", "uptime_seconds", "loop_lag_ms", "in_flight", "connections"),
            *("gate", "breaker", "pool", "sequence_seen", "draining"),
        }
        assert (said["gate"], said["boot"]) == ("closed", client.app[WORKER].boot)


async def test_what_workers_counted_is_on_the_supervisors_page_while_they_live_and_after(
    database_url: str, environ: Environ, runtime_dir: Path
) -> None:
    pod = pod_in(runtime_dir)
    collector = Collector(theirs.RuntimeDirectory(runtime_dir), pod)
    async with serving(environ(database_url, runtime_dir=runtime_dir)) as client:
        for _ in range(3):
            async with client.get("/api/v1/suggest?q=contract"):
                pass
        assert is_snapshot(client.app[WORKER].snapshot())
        await collector.collect()
        alive = counted(collector.page())
        assert alive >= 3
        assert "database_pool_max" in collector.page()
    (final,) = (runtime_dir / "workers").glob("*.final.json")
    assert is_snapshot(json.loads(final.read_bytes()))
    await collector.collect()
    assert counted(collector.page()) >= alive
    assert not final.exists()
    again = Collector(theirs.RuntimeDirectory(runtime_dir), pod)
    await again.collect()
    assert counted(again.page()) >= alive


def counted(page: str) -> float:
    families = {family.name: family for family in text_string_to_metric_families(page)}
    return sum(
        sample.value
        for sample in families["http_requests"].samples
        if sample.labels.get("endpoint") == "/api/v1/suggest" and sample.labels["status"] == "200"
    )


def test_both_read_the_phase_of_a_migration_by_one_rule(tmp_path: Path) -> None:
    texts = {
        "0001.none": "SELECT 1;",
        "0002.head": "-- why\n\n-- Phase: AFTER\nSELECT 1;",
        "0003.below": "SELECT 1;\n-- phase: after\n",
        "0004.far": "-- why\n" * 500 + "-- phase: after\nSELECT 1;",
        "0005.before": "-- phase: before\nSELECT 1;",
        "0006.first-counts": "-- phase: before\n-- phase: after\nSELECT 1;",
        "0007.in-a-text": "SELECT '\n-- phase: after\n';",
    }
    for id_, text in texts.items():
        (tmp_path / f"{id_}.sql").write_text(text)
    theirs_say = {file.id for file in read_folder(tmp_path).files if not file.after}
    assert ours.needed_migrations(tmp_path) == theirs_say == texts.keys() - {"0002.head", "0004.far"}


async def phase_and_status(client: Client) -> tuple[str, int]:
    async with client.get("/health/ready") as answer:
        return (await answer.json())["phase"], answer.status


def test_a_setting_that_both_know_is_refused_by_both() -> None:
    wrong = {"DATABASE_URL": "mysql://x/y", "PORT": "0", "REDIS_URL": "http://x", "LOG_LEVEL": "loud", "WORKERS": "0"}
    with pytest.raises(bookstore.settings.ConfigurationError) as ours_says:
        bookstore.settings.load_settings(wrong, Path("/nonexistent"))
    with pytest.raises(supervisor.settings.ConfigurationError) as theirs_says:
        supervisor.settings.load_settings(wrong, Path("/nonexistent"))
    for name in wrong:
        assert name in str(ours_says.value) and name in str(theirs_says.value)
    assert supervisor.settings.EXIT_CONFIGURATION == bookstore.settings.EXIT_STATUS
