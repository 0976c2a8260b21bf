"""Fetches the workers' snapshots, takes in what gone ones left, and persists the totals before anybody sees them."""

import contextlib
import math
import secrets
from collections import deque
from pathlib import Path
from typing import Any

import orjson
from loguru import logger

from supervisor.metrics import REMEMBERED, Family, Ledger, as_kept, render
from supervisor.pod import LATENCY_BUCKETS, PHASES, Pod
from supervisor.runtime_directory import RuntimeDirectory, read_json, write_whole
from supervisor.worker_sockets import ask_all

COLLECT_EVERY = 5.0
SNAPSHOT_TIMEOUT = 2.0


class Collector:
    def __init__(self, directory: RuntimeDirectory, pod: Pod) -> None:
        self._directory = directory
        self._pod = pod
        self._boot = f"supervisor-{secrets.token_hex(6)}"
        self._ledger = Ledger(read_json(directory.totals))
        self._last_words: deque[str] = deque(maxlen=REMEMBERED)
        self._failures = 0
        self._families: list[Family] = []
        self._page: str | None = None
        self._wrote = True

    def page(self) -> str:
        """The last totals that were persisted, as text. Made once, however many ask."""
        if self._page is None:
            self._page = render(self._families)
        return self._page

    def left_in_order(self) -> set[str]:
        """Boot ids of the workers whose last words are here, or were taken in."""
        there = self._directory.workers.glob("*.final.json")
        return {*self._last_words, *(path.name.removesuffix(".final.json") for path in there)}

    async def collect(self, *, patience: float = SNAPSHOT_TIMEOUT) -> None:
        heard = await ask_all(self._directory.workers, "/snapshot", timeout=patience)
        for one in heard:
            if one.answer is not None:
                self._failures += not self._ledger.learn(one.boot, one.answer)
            elif not one.gone:
                self._failures += 1
        finals = sorted(path for path in self._directory.workers.glob("*.final.json") if path.is_file())  # a few names
        for final in finals:
            self._take_in(final)
        self._ledger.learn(self._boot, own_snapshot(self._pod, self._failures))
        left = {final.name.removesuffix(".final.json") for final in finals}
        self._ledger.set_alive([self._boot, *(one.boot for one in heard if not one.gone and one.boot not in left)])
        if self._persist():
            remove_orphans([str(final) for final in finals])
        self._families, self._page = self._ledger.families(), None

    def _take_in(self, final: Path) -> None:
        snapshot = read_json(final)
        boot = final.name.removesuffix(".final.json")
        self._last_words.append(boot)
        if not self._ledger.learn(boot, snapshot):
            self._failures += as_kept(snapshot) is None  # else it was known, or a newer one is

    def _persist(self) -> bool:
        """A full disk must not hide the figures of those who look for why it is full."""
        try:
            write_whole(self._directory.totals, orjson.dumps(self._ledger.as_json()))
        except OSError as error:
            if self._wrote:
                logger.error(
                    "totals.json cannot be written: {}; totals may fall when the supervisor restarts", error.strerror
                )
            self._wrote = False
            return False
        self._wrote = True
        return True


def own_snapshot(pod: Pod, scrape_failures: int = 0) -> dict[str, Any]:
    """The supervisor's own metrics, in the form the workers tell theirs: so its totals outlive it as theirs do."""
    verdict = pod.verdict()
    checks = verdict.checks.values()

    def one(
        name: str, help: str, type: str, samples: list[tuple[dict[str, str], float]], **more: Any
    ) -> dict[str, Any]:
        told = [{"labels": labels, "value": value} for labels, value in samples]
        return {"name": name, "help": help, "type": type, "samples": told, **more}

    metrics = [
        one("supervisor_info", "The supervisor that runs", "gauge", [({"version": pod.version, "mode": pod.mode}, 1)]),
        one("supervisor_uptime_seconds", "Since the supervisor started", "gauge", [({}, round(pod.uptime, 3))]),
        one("supervisor_ready", "1 while readiness is 200", "gauge", [({}, pod.ready)]),
        one(
            "supervisor_phase",
            "1 for the phase the pod is in",
            "gauge",
            [({"phase": p}, p == pod.phase) for p in PHASES],
        ),
        one(
            "supervisor_check_up",
            "1 while a check is healthy or degraded",
            "gauge",
            [({"check": c.rule.name}, c.status in ("healthy", "degraded")) for c in checks if c.status != "disabled"],
        ),
        one(
            "supervisor_check_status",
            "1 for the status a check has",
            "gauge",
            [({"check": c.rule.name, "status": c.status}, 1) for c in checks],
        ),
        one(
            "supervisor_transitions_total",
            "Changes of phase and of the checks' status",
            "counter",
            [({"check": check, "to": to}, times) for (check, to), times in pod.transitions.items()],
        ),
        one(
            "supervisor_service_restarts_total", "Starts of the service after it ended", "counter", [({}, pod.restarts)]
        ),
        one(
            "supervisor_worker_endings_total",
            "Workers that ended without last words",
            "counter",
            [({"cause": cause}, times) for cause, times in {"unknown": 0, **pod.endings}.items()],
        ),
        one("supervisor_drains_total", "Drains begun", "counter", [({}, pod.drains)]),
        one("supervisor_reloads_total", "Reloads asked for", "counter", [({}, pod.reloads)]),
        one("supervisor_migration_failures_total", "Migrations that failed", "counter", [({}, pod.migration_failures)]),
        one(
            "supervisor_scrape_failures_total",
            "Snapshots that did not come or made no sense",
            "counter",
            [({}, scrape_failures)],
        ),
        one("supervisor_workers_expected", "WORKERS", "gauge", [({}, pod.expected_workers)]),
        one(
            "supervisor_workers_answering",
            "Workers that answer on their own socket",
            "gauge",
            [({}, len(pod.answering()))],
        ),
        {
            "name": "supervisor_check_duration_seconds",
            "help": "How long the checks' answers took",
            "type": "histogram",
            "buckets": list(LATENCY_BUCKETS),
            "samples": [
                {"labels": {"check": check}, "counts": counted[:-1], "sum": counted[-1], "count": sum(counted[:-1])}
                for check, counted in pod.latencies.items()
            ],
        },
    ]
    if pod.migration_seconds is not None and math.isfinite(pod.migration_seconds):
        metrics.append(
            one("supervisor_migration_seconds", "What the last migration took", "gauge", [({}, pod.migration_seconds)])
        )
    return {"boot": "supervisor", "pid": pod.pid, "boottime": pod.clock(), "metrics": metrics}


def remove_orphans(paths: list[str]) -> None:
    """Sockets nobody listens on, whose workers died without a word; and last words that were taken in."""
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()
