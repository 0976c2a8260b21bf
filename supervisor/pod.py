"""What is known of the pod now, and how it came to be. Changed on the event loop only; told by whoever reads it."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from loguru import logger

from supervisor import __version__, policy
from supervisor.history import History, Transition
from supervisor.policy import Finding, Reading, Rule, Standing, Verdict
from supervisor.runtime_directory import PastState, boottime

Phase = Literal[
    "starting",
    "waiting_for_database",
    "migrating",
    "migration_failed",
    "warming",
    "serving",
    "draining",
    "stopped",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
IN_WORDS: Mapping[Phase, str] = {
    "starting": "the pod is starting",
    "waiting_for_database": "the pod is waiting for its database",
    "migrating": "the database is being migrated",
    "migration_failed": "the migration failed",
    "warming": "the pod is waiting for its workers",
    "serving": "the pod is serving",
    "draining": "the pod is being taken out of service",
    "stopped": "the pod has stopped",
}
BEFORE_SERVING = ("starting", "waiting_for_database", "migrating", "migration_failed", "warming")


class Pod:
    def __init__(
        self, history: History, *, expected_workers: int, clock: Callable[[], float] = boottime, mode: str = "sidecar"
    ) -> None:
        self.clock = clock
        self.mode = mode
        self.version = __version__
        self.pid = os.getpid()
        self.history = history
        self.expected_workers = expected_workers
        self.started_at = clock()
        self.stage: Phase = "starting"
        self.stage_reason = "the supervisor has just started"
        self.stage_since = self.started_at
        self.draining = False
        self.stopping = False
        """The service is being ended: it will not answer, and that is as it should be."""
        self.migrated = False
        self.applied: tuple[str, ...] = ()
        self.newer: tuple[str, ...] = ()
        self.migration_seconds: float | None = None
        self.migration_failures = 0
        self.standings: dict[str, Standing] = {}
        self.child: dict[str, Any] = {}
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.restarts = 0
        self.drains = 0
        self.reloads = 0
        self.endings: Counter[str] = Counter()
        self.killed: set[int] = set()
        """Processes of the service that the supervisor itself ended."""
        self.latencies: dict[str, list[float]] = {}
        self._changes = asyncio.Event()
        self._offset = time.time() - self.started_at

    # --- what is true -------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """A drain hides the stage under it, which goes on: `undrain` shows it again."""
        return "draining" if self.draining and self.stage != "stopped" else self.stage

    @property
    def ready(self) -> bool:
        return self.phase == "serving" and self.verdict().ready

    @property
    def uptime(self) -> float:
        return self.clock() - self.started_at

    def verdict(self) -> Verdict:
        return policy.decide(self.standings.values(), self.clock())

    def has_looked(self) -> bool:
        """Nothing that decides readiness is unknown."""
        checks = self.verdict().checks.values()
        return all(check.status != "unknown" for check in checks if check.rule.criticality == "critical")

    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """boot id → what it said on /live, or its error; as of the last time all were asked."""
        standing = self.standings.get("workers")
        facts = standing.reading.finding.facts if standing and standing.reading else {}
        workers: Mapping[str, Mapping[str, Any]] = facts.get("workers", {})
        return workers

    def answering(self) -> list[Mapping[str, Any]]:
        return [answer for answer in self.workers().values() if "error" not in answer]

    def warmed(self) -> bool:
        return policy.warmed(self.answering(), self.expected_workers)

    # --- what changes it ----------------------------------------------------------------------------------------

    def enter(self, stage: Phase, reason: str) -> None:
        before = self.phase
        self.stage_since = self.clock() if stage != self.stage else self.stage_since
        self.stage, self.stage_reason = stage, reason
        self._moved("", before, self.phase, reason)

    def set_draining(self, draining: bool, reason: str) -> None:
        before, self.draining = self.phase, draining
        self.drains += draining
        self._moved("", before, self.phase, reason)

    def watch_for(self, rule: Rule, status: policy.Status = "unknown") -> None:
        self.standings[rule.name] = Standing(rule, status, since=self.clock())

    def observe(self, name: str, reading: Reading) -> Standing:
        before = self.standings[name]
        if name == "workers" and self._awaits_workers(before, reading):
            after = replace(before, reading=reading)
        else:
            after = policy.weigh(before, reading)
        self.standings[name] = after
        if reading.latency_ms is not None:
            count(self.latencies.setdefault(name, [0] * (len(LATENCY_BUCKETS) + 2)), reading.latency_ms / 1000)
        if after.status != before.status:
            answers = "answers" if before.status in ("unknown", "disabled") else "answers again"
            self._moved(name, before.status, after.status, reading.finding.error or answers)
        self.changed()
        return after

    def _awaits_workers(self, standing: Standing, reading: Reading) -> bool:
        """None of them ever answered, and none could: that is not known to be bad, it is not known yet.

        Nor is it news that they end when they are told to.
        """
        if self.stopping:
            return True
        never = standing.status == "unknown" and not standing.recent
        return never and self.stage in BEFORE_SERVING and reading.finding.status == "unhealthy"

    def settle(self, name: str, finding: Finding) -> None:
        """For what is known at once and needs no second look, such as how a migration ended."""
        before, now = self.standings[name], self.clock()
        self.standings[name] = replace(
            before, status=finding.status, since=now, reading=Reading(finding, now), recent=()
        )
        if finding.status != before.status:
            self._moved(name, before.status, finding.status, finding.error or "at this code's schema")
        self.changed()

    def carry_over(self, past: PastState) -> None:
        """Takes up what the supervisor before this one held to be true. Its age still counts: old news goes stale."""
        self.applied = past.applied
        for name, (status, error) in past.checks.items():
            known = self.standings.get(name)
            held = next((outcome for outcome in policy.OUTCOMES if outcome == status), None)
            if known and held and known.status == "unknown" and past.boottime is not None:
                reading = Reading(Finding(held, error), past.boottime)
                self.standings[name] = replace(known, status=held, reading=reading)

    def worker_ended(self, pid: int, boot: str, cause: str) -> None:
        """One that left no last words. Its figures are those it told last."""
        self.endings[cause] += 1
        told = f"worker {pid} ({boot})" if pid else f"worker {boot}"
        self._moved("worker", "answering", "ended", f"{told} ended without last words, cause: {cause}", "WARNING")

    def note(self, check: str, before: str, after: str, reason: str) -> None:
        """Something worth remembering that is not a phase nor a check's status."""
        self._moved(check, before, after, reason)

    def changed(self) -> None:
        self._changes.set()
        self._changes = asyncio.Event()

    async def wait_for_change(self, timeout: float) -> None:
        """Returns at the next change, or after `timeout` seconds: ages change with nobody saying so."""
        try:
            async with asyncio.timeout(timeout):
                await self._changes.wait()
        except TimeoutError:
            pass

    def _moved(self, check: str, before: str, after: str, reason: str, level: str = "INFO") -> None:
        if before != after:
            self.transitions[check or "phase", after] += 1
            self.history.keep(Transition(timestamp(), check, before, after, reason))
            if after in ("unhealthy", "unknown", "migration_failed"):
                level = "WARNING"
            logger.bind(check=check or None, before=before, after=after).log(
                level, "{}: {} -> {}: {}", check or "phase", before, after, reason
            )
        self.changed()

    # --- what is told -------------------------------------------------------------------------------------------

    def document(self, sequence: int) -> dict[str, Any]:
        """supervisor.json. Read by the pod's own user only, so it holds the texts of errors."""
        verdict = self.verdict()
        return {
            "sequence": sequence,
            "boottime": self.clock(),
            "as_of": timestamp(),
            "pid": self.pid,
            "version": self.version,
            "phase": self.phase,
            "draining": self.draining,
            "status": verdict.status,
            "ready": self.phase == "serving" and verdict.ready,
            "reason": self.reason(verdict),
            "uptime_seconds": round(self.uptime, 1),
            "schema": {"applied": list(self.applied)},
            "checks": self.checks(verdict.checks.values(), texts=True),
        }

    def reason(self, verdict: Verdict, *, texts: bool = True) -> str:
        if self.phase == "serving":
            return verdict.reason if texts else verdict.words
        if self.phase == "draining":
            return "the pod is being taken out of service"
        return self.stage_reason if texts else IN_WORDS[self.phase]

    def checks(self, standings: Iterable[Standing], *, texts: bool) -> dict[str, dict[str, Any]]:
        return {standing.rule.name: self._check(standing, texts=texts) for standing in standings}

    def _check(self, standing: Standing, *, texts: bool) -> dict[str, Any]:
        reading = standing.reading
        error = reading.finding.error if reading else None
        if standing.status == "healthy":
            error = None
        told: dict[str, Any] = {
            "status": standing.status,
            "criticality": standing.rule.criticality,
            "latency_ms": round(reading.latency_ms, 2) if reading and reading.latency_ms is not None else None,
            "error": error if texts or error is None else _in_words(standing.status),
            "since": self.wall_time(standing.since),
            "as_of": self.wall_time(reading.at) if reading else None,
        }
        return told

    def wall_time(self, at: float) -> str:
        """A moment of our clock, for people. The same each time it is told, until somebody sets the machine's clock."""
        offset = time.time() - self.clock()
        if abs(offset - self._offset) > 0.5:
            self._offset = offset
        return timestamp(at + self._offset)


LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


def count(histogram: list[float], seconds: float) -> None:
    """Into [a count per bucket, the rest, sum]."""
    for position, bound in enumerate((*LATENCY_BUCKETS, float("inf"))):
        if seconds <= bound:
            histogram[position] += 1
            break
    histogram[-1] += seconds


def timestamp(moment: float | None = None) -> str:
    """RFC 3339, of now unless told otherwise."""
    told = datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)
    return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_words(status: str) -> str:
    return {"unknown": "it has not answered lately", "degraded": "it works, but not as it should"}.get(
        status, "it does not answer as it should"
    )
