"""Fetching, persisting and showing the metrics of workers that come and go."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supervisor.collect import Collector, own_snapshot, remove_orphans
from supervisor.history import History
from supervisor.metrics import merged, render
from supervisor.pod import PHASES, Pod
from supervisor.policy import Finding, Reading, Rule
from supervisor.runtime_directory import RuntimeDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RuntimeDirectory:
    directory = RuntimeDirectory(tmp_path)
    directory.prepare()
    return directory


@pytest.fixture
def pod(directory: RuntimeDirectory) -> Pod:
    pod = Pod(History(directory.history), expected_workers=2)
    pod.watch_for(Rule("database"))
    pod.watch_for(Rule("redis"), "disabled")
    for _ in range(2):
        pod.observe("database", Reading(Finding("healthy"), pod.clock(), 3.0))
    return pod


def snapshot(count: float, at: float = 1.0) -> dict[str, Any]:
    told = {"name": "sold_total", "help": "", "type": "counter", "samples": [{"labels": {}, "value": count}]}
    busy = {"name": "busy", "help": "", "type": "gauge", "samples": [{"labels": {}, "value": count}]}
    return {"boot": "one", "pid": 1, "boottime": at, "metrics": [told, busy]}


@contextlib.asynccontextmanager
async def worker(directory: RuntimeDirectory, boot: str, answer: Any) -> AsyncIterator[None]:
    async def tell(request: web.Request) -> web.Response:
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/snapshot", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    path = directory.workers / f"{boot}.sock"
    await web.UnixSite(runner, str(path)).start()
    yield
    await runner.cleanup()
    path.unlink(missing_ok=True)


def shown(collector: Collector) -> dict[str, float]:
    families = text_string_to_metric_families(collector.page())
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_totals_are_persisted_before_they_are_shown_and_outlive_the_supervisor(
    directory: RuntimeDirectory, pod: Pod
) -> None:
    first = Collector(directory, pod)
    assert first.page() == "\n"
    async with worker(directory, "one", snapshot(5)):
        await first.collect()
        assert shown(first)["sold_total"] == shown(first)["busy"] == 5
        assert json.loads(directory.totals.read_bytes())["boots"]["one"] == snapshot(5)
    second = Collector(directory, pod)
    async with worker(directory, "two", snapshot(2)):
        await second.collect()
    assert shown(second)["sold_total"] == 7
    assert shown(second)["busy"] == 2


async def test_the_last_words_of_a_worker_are_taken_in_once(directory: RuntimeDirectory, pod: Pod) -> None:
    collector = Collector(directory, pod)
    async with worker(directory, "one", snapshot(5, at=1.0)):
        await collector.collect()
    final = directory.workers / "one.final.json"
    for _ in range(2):  # the second time as if the supervisor had died between persisting and removing
        final.write_text(json.dumps(snapshot(8, at=2.0)))
        await collector.collect()
        assert not final.exists()
        assert shown(collector)["sold_total"] == 8
        assert "busy" not in shown(collector)


async def test_a_worker_that_makes_no_sense_is_counted_and_never_breaks_the_page(
    directory: RuntimeDirectory, pod: Pod
) -> None:
    collector = Collector(directory, pod)
    (directory.workers / "half.final.json").write_text('{"metr')
    async with (
        worker(directory, "one", snapshot(5)),
        worker(directory, "two", 500),
        worker(directory, "three", [1, 2]),
        worker(directory, "four", {"metrics": "none"}),
    ):
        await collector.collect()
    assert shown(collector)["sold_total"] == 5
    assert shown(collector)["supervisor_scrape_failures_total"] == 4
    assert not (directory.workers / "half.final.json").exists()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NEARLY_A_SNAPSHOT = st.fixed_dictionaries(
    {
        "boottime": st.just(3.0) | ANYTHING,
        "metrics": ANYTHING
        | st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["sold_total", "busy", "other"]) | ANYTHING,
                    "type": st.sampled_from(["counter", "gauge", "histogram"]) | ANYTHING,
                    "buckets": st.just([1, 2]) | ANYTHING,
                    "samples": ANYTHING
                    | st.lists(
                        st.fixed_dictionaries(
                            {
                                "labels": st.just({}) | ANYTHING,
                                "value": ANYTHING,
                                "counts": st.just([1, 2, 3]) | ANYTHING,
                                "sum": ANYTHING,
                            }
                        ),
                        max_size=2,
                    ),
                }
            ),
            max_size=3,
        ),
    }
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(said=ANYTHING | NEARLY_A_SNAPSHOT)
@example(said={"boottime": 10**400, "metrics": []})
@example(said={"boottime": 1.0, "metrics": [{"name": "x", "type": "gauge", "samples": [{"value": 10**400}]}]})
@example(said={"boottime": 1.0, "metrics": [{"name": "x", "type": "gauge", "samples": [], "help": "\ud800"}]})
def test_whatever_json_a_worker_or_the_totals_hold_the_others_are_told_and_kept(
    directory: RuntimeDirectory, pod: Pod, said: Any
) -> None:
    told = json.dumps(said)
    (directory.workers / "mad.final.json").write_text(told)
    directory.totals.write_text(
        f'{{"boots": {{"past": {told}, "sane": {json.dumps(snapshot(2))}}}, "folded": [{told}]}}'
    )
    collector = Collector(directory, pod)
    (directory.workers / "sane.final.json").write_text(json.dumps(snapshot(5, at=2.0)))
    asyncio.run(collector.collect())
    assert list(directory.workers.iterdir()) == []
    assert shown(collector)["supervisor_ready"] == 0
    assert "sane" in json.loads(directory.totals.read_bytes())["boots"]
    again = Collector(directory, pod)
    asyncio.run(again.collect())
    assert shown(again).keys() >= shown(collector).keys() - {"busy", "other"}


@pytest.mark.parametrize("content", ["[" * 200_000, '{"metrics": ' * 200_000, "9" * 5000, ""])
async def test_totals_and_last_words_nested_without_end_are_begun_anew(
    directory: RuntimeDirectory, pod: Pod, content: str
) -> None:
    directory.totals.write_text(content)
    (directory.workers / "mad.final.json").write_text(content)
    (directory.workers / "folder.final.json").mkdir()
    collector = Collector(directory, pod)
    async with worker(directory, "one", snapshot(5)):
        await collector.collect()
    assert shown(collector)["sold_total"] == 5
    assert not (directory.workers / "mad.final.json").exists()


async def test_a_full_disk_does_not_hide_the_figures(
    directory: RuntimeDirectory, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.totals.mkdir()  # what root cannot replace by a file either
    collector = Collector(directory, pod)
    final = directory.workers / "one.final.json"
    final.write_text(json.dumps(snapshot(8)))
    for _ in range(2):
        await collector.collect()
        assert shown(collector)["sold_total"] == 8
        assert final.exists(), "it is kept until its figures are safe"
    directory.totals.rmdir()
    await collector.collect()
    assert not final.exists()
    assert shown(collector)["sold_total"] == 8


def test_the_supervisors_own_metrics_are_sound_in_every_phase(pod: Pod) -> None:
    pod.migration_seconds = 0.5
    for phase in PHASES:
        pod.enter(phase, "because")
        text = render(merged([own_snapshot(pod)], alive=[0]))
        told = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert [told["supervisor_phase", one] for one in PHASES] == [one == phase for one in PHASES]
        assert told["supervisor_check_up", "database"] == 1
        assert ("supervisor_check_up", "redis") not in told
        assert told["supervisor_check_duration_seconds_count", "database"] == 2
        assert told["supervisor_migration_seconds",] == 0.5


async def test_transitions_go_on_being_counted_after_a_restart(directory: RuntimeDirectory, pod: Pod) -> None:
    pod.enter("serving", "it does")
    await Collector(directory, pod).collect()
    again = Pod(History(directory.history), expected_workers=2)
    again.enter("serving", "it does")
    collector = Collector(directory, again)
    await collector.collect()
    assert shown(collector)["supervisor_transitions_total phase serving"] == 2


def test_orphaned_sockets_are_removed_and_missing_ones_are_no_matter(directory: RuntimeDirectory) -> None:
    path = directory.workers / "gone.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    remove_orphans([str(path), str(path)])
    assert not path.exists()
