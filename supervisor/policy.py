"""What the findings mean. Pure: findings and time come in, a verdict goes out; no clock, no socket, nothing of ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from types import MappingProxyType
from typing import Any, Literal

Outcome = Literal["healthy", "degraded", "unhealthy"]
Status = Literal["healthy", "degraded", "unhealthy", "unknown", "disabled"]
Criticality = Literal["critical", "degrading", "info"]

LEVELS: Mapping[Outcome, int] = MappingProxyType({"unhealthy": 0, "degraded": 1, "healthy": 2})
OUTCOMES: tuple[Outcome, Outcome, Outcome] = ("unhealthy", "degraded", "healthy")
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Finding:
    """What one question to one dependency brought back. `error` says why it is not healthy; `facts` are for people."""

    status: Outcome
    error: str | None = None
    facts: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @classmethod
    def from_thresholds(cls, free: float, *, warn: float, fail: float, facts: Mapping[str, Any] = NOTHING) -> "Finding":
        """The less is free the worse: below `fail` unhealthy, below `warn` degraded."""
        facts = {"free": free, "warn": warn, "fail": fail, **facts}
        if free < fail:
            return cls("unhealthy", f"{free:,.0f} bytes free, less than the {fail:,.0f} needed", facts)
        if free < warn:
            return cls("degraded", f"{free:,.0f} bytes free, less than {warn:,.0f}", facts)
        return cls("healthy", None, facts)

    @classmethod
    def from_quorum(cls, answering: int, expected: int, *, facts: Mapping[str, Any] = NOTHING) -> "Finding":
        """All of them is healthy, `quorum` of them degraded, fewer unhealthy."""
        facts = {"answering": answering, "expected": expected, **facts}
        if answering >= expected:
            return cls("healthy", None, facts)
        status: Outcome = "degraded" if answering >= quorum(expected) else "unhealthy"
        return cls(status, f"{answering} of {expected} workers answer", facts)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one check is asked and what it weighs."""

    name: str
    criticality: Criticality = "critical"
    interval: float = 5.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    max_age: float | None = None

    @property
    def stale_after(self) -> float:
        """Longer than the slowest pause between two answers, so that only silence makes a check unknown."""
        return 3 * self.interval + self.timeout + 1 if self.max_age is None else self.max_age


@dataclass(frozen=True, slots=True)
class Reading:
    """A finding, when it was made and how long it took."""

    finding: Finding
    at: float
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held to be true of one check after the readings so far."""

    rule: Rule
    status: Status = "unknown"
    since: float = 0.0
    reading: Reading | None = None
    recent: tuple[Outcome, ...] = ()

    @property
    def contested(self) -> bool:
        """The last reading says otherwise than what is held to be true."""
        return self.reading is not None and self.reading.finding.status != self.status


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    ready: bool
    reason: str
    """With the texts of errors, for those who may see them."""
    words: str
    """The same for everybody."""
    checks: Mapping[str, Standing]


def weigh(standing: Standing, reading: Reading) -> Standing:
    """One more reading. The status moves only after `rise` better ones in a row, or `fall` worse ones."""
    if standing.status == "disabled":
        return standing
    standing = expire(standing, reading.at)
    rule = standing.rule
    recent = (*standing.recent, reading.finding.status)[-max(rule.rise, rule.fall) :]
    status = _moved(standing.status, recent, rule)
    since = standing.since if status == standing.status else reading.at
    return replace(standing, status=status, since=since, reading=reading, recent=recent)


def expire(standing: Standing, now: float) -> Standing:
    """A check that has not answered for too long is unknown, and must rise again."""
    if standing.reading is None or standing.status == "disabled":
        return standing
    stale_at = standing.reading.at + standing.rule.stale_after
    if now <= stale_at:
        return standing
    since = standing.since if standing.status == "unknown" else stale_at
    return replace(standing, status="unknown", since=since, recent=())


def decide(findings: Iterable[Standing], now: float) -> Verdict:
    """A critical check down or unknown: unhealthy, not ready. A degrading one, or one that is degraded: still ready."""
    checks = {standing.rule.name: expire(standing, now) for standing in findings}
    down = [check for check in checks.values() if check.status in ("unhealthy", "unknown")]
    stopping = [check for check in down if check.rule.criticality == "critical"]
    if stopping:
        return Verdict("unhealthy", False, *_reason(stopping, now), checks)
    worse = [check for check in down if check.rule.criticality == "degrading"]
    worse += [check for check in checks.values() if check.status == "degraded" and check.rule.criticality != "info"]
    if worse:
        return Verdict("degraded", True, *_reason(worse, now), checks)
    said = "every check that counts is healthy" if checks else "there is nothing to check"
    return Verdict("healthy", True, said, said, checks)


def next_pause(standing: Standing, *, hurry: bool, spread: float) -> float:
    """Seconds until the question is asked again. `spread` is a random number from 0 to 1: pods must not ask in step.

    `hurry` is for a pod that is coming up: somebody waits for it.
    """
    interval = standing.rule.interval
    settled = len(standing.recent) >= max(standing.rule.rise, standing.rule.fall)
    if standing.status == "unknown" and not settled:
        return min(interval, 0.25)
    if hurry:
        return min(interval, 0.25 + 0.5 * spread)
    if standing.contested:
        return min(1.0, interval / 4)
    if standing.status == "unhealthy":
        return interval * (1.25 + 0.5 * spread)
    return interval * (0.9 + 0.2 * spread)


def quorum(expected: int) -> int:
    """How many of the workers must answer for the pod to serve: half of them, rounded up."""
    return ceil(expected / 2)


def warmed(answers: Iterable[Mapping[str, Any]], expected: int) -> bool:
    """Whether enough workers could serve a request now. One that knows no gate or breaker has none to open."""
    serving = [
        answer
        for answer in answers
        if answer.get("gate", "open") == "open" and answer.get("breaker", "closed") == "closed"
    ]
    return len(serving) >= quorum(expected)


def restart_pause(failures: int, *, spread: float) -> float:
    """Seconds before a child is started again after so many short lives in a row: 1 … 60, jittered."""
    return max(1.0, min(60.0, 2.0 ** max(0, failures - 1)) * (0.5 + 0.5 * spread))


def _moved(status: Status, recent: tuple[Outcome, ...], rule: Rule) -> Status:
    better = [LEVELS[outcome] for outcome in recent[-rule.rise :]] if len(recent) >= rule.rise else []
    worse = [LEVELS[outcome] for outcome in recent[-rule.fall :]] if len(recent) >= rule.fall else []
    if status == "unknown" or status == "disabled":
        if better and min(better) > 0:
            return OUTCOMES[min(better)]
        return "unhealthy" if worse and max(worse) == 0 else status
    if better and min(better) > LEVELS[status]:
        return OUTCOMES[min(better)]
    if worse and max(worse) < LEVELS[status]:
        return OUTCOMES[max(worse)]
    return status


def _reason(blamed: list[Standing], now: float) -> tuple[str, str]:
    """(with texts of errors, without)."""
    return "; ".join(_explain(check, now) for check in blamed), "; ".join(_name(check) for check in blamed)


def _name(check: Standing) -> str:
    return f"{check.rule.name} is {check.status}"


def _explain(check: Standing, now: float) -> str:
    if check.reading is None:
        return f"{_name(check)}: it has not answered yet"
    if check.status == "unknown" and now - check.reading.at > check.rule.stale_after:
        return f"{_name(check)}: no answer for {now - check.reading.at:.0f} s"
    if check.status == "unknown":
        return f"{_name(check)}: too few answers to tell"
    error = check.reading.finding.error
    return f"{_name(check)}: {error}" if error else _name(check)
