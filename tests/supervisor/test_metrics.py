"""The merge against sums made by hand and against Prometheus' own parser."""

import itertools
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supervisor import metrics
from supervisor.metrics import Ledger, merged, number, render

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def counter(value: float, name: str = "http_requests_total", **labels: Any) -> dict[str, Any]:
    return {"name": name, "help": "Requests", "type": "counter", "samples": [{"labels": labels, "value": value}]}


def gauge(value: float, merge: str | None = None, name: str = "active_requests") -> dict[str, Any]:
    told = {"name": name, "help": "", "type": "gauge", "samples": [{"labels": {}, "value": value}]}
    return told | ({"merge": merge} if merge else {})


def histogram(counts: list[float], total: float, buckets: tuple[float, ...] = (0.1, 1.0)) -> dict[str, Any]:
    samples = [{"labels": {"path": "/"}, "counts": counts, "sum": total, "count": sum(counts)}]
    return {"name": "seconds", "help": "", "type": "histogram", "buckets": list(buckets), "samples": samples}


def snapshot(*told: dict[str, Any], at: float = 1.0) -> dict[str, Any]:
    return {"boot": "x", "pid": 1, "boottime": at, "metrics": list(told)}


def series(text: str) -> Series:
    """As Prometheus reads it."""
    families = list(text_string_to_metric_families(text))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def page(*snapshots: dict[str, Any], alive: tuple[int, ...] | None = None) -> Series:
    counting = range(len(snapshots)) if alive is None else alive
    return series(render(merged(snapshots, alive=counting)))


def test_counters_of_all_workers_add_up_also_of_those_that_are_gone() -> None:
    told = page(snapshot(counter(3, path="/a")), snapshot(counter(4, path="/a"), at=0), alive=(0,))
    assert told == {("http_requests_total", (("path", "/a"),)): 7}


@pytest.mark.parametrize(("rule", "value"), [(None, 8), ("sum", 8), ("max", 5), ("last", 3), ("nonsense", 8)])
def test_gauges_are_merged_by_the_rule_each_declares(rule: str | None, value: float) -> None:
    told = page(snapshot(gauge(5, rule), at=1.0), snapshot(gauge(3, rule), at=2.0))
    assert told == {("active_requests", ()): value}
    assert page(snapshot(gauge(3, rule), at=2.0), snapshot(gauge(5, rule), at=1.0)) == told


def test_a_gauge_of_a_worker_that_is_gone_counts_no_more() -> None:
    assert page(snapshot(gauge(5)), snapshot(gauge(3)), alive=(1,)) == {("active_requests", ()): 3}


def test_histograms_add_up_bucket_by_bucket() -> None:
    told = page(snapshot(histogram([1, 2, 3], 10.5)), snapshot(histogram([10, 0, 1], 2)))
    path = ("path", "/")
    assert told == {
        ("seconds_bucket", (("le", "0.1"), path)): 11,
        ("seconds_bucket", (("le", "1"), path)): 13,
        ("seconds_bucket", (("le", "+Inf"), path)): 17,
        ("seconds_sum", (path,)): 12.5,
        ("seconds_count", (path,)): 17,
    }


def test_after_a_reload_with_other_buckets_no_observation_is_lost_or_counted_too_early() -> None:
    told = page(snapshot(histogram([1, 1, 1], 3)), snapshot(histogram([5, 6, 7, 8], 1, (0.05, 0.5, 5.0))))
    path = ("path", "/")
    assert told["seconds_bucket", (("le", "0.1"), path)] == 1 + 5
    assert told["seconds_bucket", (("le", "1"), path)] == 2 + 5 + 6
    assert told["seconds_count", (path,)] == 3 + 26


def test_numbers_and_texts_are_one_series() -> None:
    assert page(snapshot(counter(1, n=1)), snapshot(counter(1, n="1"))) == {("http_requests_total", (("n", "1"),)): 2}


@pytest.mark.parametrize("value", ['a "quote"', "new\nline", "back\\slash", "both\\n", "ünïcode", "}", "\ud800", ""])
def test_a_label_of_one_worker_never_breaks_the_page(value: str) -> None:
    told = {"name": "x_total", "help": value, "type": "counter", "samples": [{"labels": {"v": value}, "value": 1}]}
    expected = value.encode("utf-8", "replace").decode()
    assert page(snapshot(told, counter(2))) == {
        ("x_total", (("v", expected),)): 1,
        ("http_requests_total", ()): 2,
    }


@pytest.mark.parametrize(
    "malformed",
    [
        {},
        {"name": "x"},
        {"name": "bad name", "type": "counter", "samples": []},
        {"name": "http_requests_total", "type": "gauge", "samples": [{"labels": {}, "value": 9}]},
        {"name": "x", "type": "summary", "samples": []},
        {"name": "x", "type": "counter", "samples": [{"labels": {}, "value": "many"}]},
        {"name": "x", "type": "counter", "samples": [{"labels": {"bad label": 1}, "value": 1}]},
        {"name": "x", "type": "counter", "samples": [{"labels": {}, "value": -1}]},
        {"name": "x", "type": "counter", "samples": [{"labels": {}, "value": math.inf}]},
        {"name": "x", "type": "counter", "samples": [None]},
        {"name": "x", "type": "histogram", "buckets": [1], "samples": [{"labels": {}, "counts": [1], "sum": 0}]},
        {"name": "x", "type": "histogram", "buckets": [1], "samples": [{"labels": {}, "counts": [1, -1], "sum": 0}]},
        None,
    ],
)
def test_what_is_malformed_is_left_out_and_the_rest_is_told(malformed: Any) -> None:
    told = page(snapshot(counter(2)), snapshot(malformed, counter(3)))
    assert told["http_requests_total", ()] == 5


def test_numbers_are_written_as_prometheus_reads_them() -> None:
    assert [number(value) for value in (1, 1.0, 0.1, math.inf, -math.inf, math.nan, True, 1e300)] == [
        *("1", "1", "0.1", "+Inf", "-Inf", "NaN", "1", "1e+300")
    ]


def test_an_older_snapshot_does_not_take_back_what_a_newer_one_said() -> None:
    ledger = Ledger()
    assert ledger.learn("a", snapshot(counter(5), at=2.0))
    assert not ledger.learn("a", snapshot(counter(4), at=1.0))
    assert not ledger.learn("a", {"boottime": 3.0})
    assert series(render(ledger.families())) == {("http_requests_total", ()): 5}


def test_a_thousand_lives_are_added_up_once_each() -> None:
    ledger = Ledger()
    for life in range(3 * metrics.REMEMBERED):
        ledger.learn(f"boot{life}", snapshot(counter(1), histogram([1, 0, 0], 0.5), at=float(life)))
        ledger.set_alive([f"boot{life}"])
    ledger = Ledger(ledger.as_json())
    ledger.set_alive([])
    assert not ledger.learn("boot0", snapshot(counter(1), at=1e9)), "it was added up long ago"
    told = series(render(ledger.families()))
    assert told["http_requests_total", ()] == 3 * metrics.REMEMBERED
    assert told["seconds_count", (("path", "/"),)] == 3 * metrics.REMEMBERED
    assert len(ledger.as_json()["boots"]) <= metrics.REMEMBERED + 2


def test_totals_that_make_no_sense_are_begun_anew() -> None:
    for persisted in (None, {}, {"boots": []}, {"boots": None, "folded": 3}):
        assert Ledger(persisted).families() == []


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["born", "works", "works", "asked", "asked late", "dies", "killed", "supervisor restarts"]),
        st.integers(0, 5),
        st.integers(1, 9),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(EVENTS)
def test_any_order_of_births_deaths_and_restarts_gives_the_exact_sum_and_never_falls(
    events: list[tuple[str, int, int]],
) -> None:
    remembered, metrics.REMEMBERED = metrics.REMEMBERED, 2  # so that short histories reach the folding too
    try:
        _tell_the_story(events)
    finally:
        metrics.REMEMBERED = remembered


def _tell_the_story(events: list[tuple[str, int, int]]) -> None:
    clock = itertools.count(1)
    ledger, alive, told = Ledger(), dict[str, float](), dict[str, float]()
    stale: dict[str, dict[str, Any]] = {}
    shown = 0.0
    for act, who, amount in events:
        boot = sorted(alive)[who % len(alive)] if alive else ""
        if act == "born":
            alive[f"boot{next(clock)}"] = 0.0
        elif act == "supervisor restarts":
            ledger = Ledger(ledger.as_json())
        elif not boot:
            continue
        elif act == "works":
            stale[boot] = snapshot(counter(alive[boot]), at=float(next(clock)))
            alive[boot] += amount
        elif act == "asked late" and boot in stale:
            ledger.learn(boot, stale[boot])
            told[boot] = max(told.get(boot, 0.0), stale[boot]["metrics"][0]["samples"][0]["value"])
        elif act in ("asked", "dies"):
            ledger.learn(boot, snapshot(counter(alive[boot]), at=float(next(clock))))
            told[boot] = alive[boot]
        if act in ("dies", "killed"):
            alive.pop(boot, None)
        ledger.set_alive(alive)
        total = series(render(ledger.families())).get(("http_requests_total", ()), 0.0)
        assert total == sum(told.values())
        assert total >= shown
        shown = total


def test_sixteen_workers_with_a_thousand_series_each_are_merged_quickly() -> None:
    told = [
        snapshot(*(counter(1, name=f"c{family}_total", path=str(path)) for family in range(10) for path in range(100)))
        for _ in range(16)
    ]
    started = time.perf_counter()
    assert len(page(*told)) == 1000
    assert time.perf_counter() - started < 10
