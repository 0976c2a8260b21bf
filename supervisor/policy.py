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
    facts: Mapping[str, Any] = field(default=NOTHING)

    @classmethod
    def from_thresholds(cls, free: float, *, warn: float, fail: float, facts: Mapping[str, Any] = NOTHING) -> "Finding":
        """The less is free the worse: below `fail` unhealthy, below `warn` degraded."""
        facts = {"free": free, "warn": warn, "fail": fail, **facts}
        if free < fail:
            return cls("unhealthy", f"{free:,.0f} free, less than the {fail:,.0f} needed", facts)
        if free < warn:
            return cls("degraded", f"{free:,.0f} free, less than {warn:,.0f}", facts)
        return cls("healthy", None, facts)

    @classmethod
    def from_quorum(cls, answering: int, expected: int, *, facts: Mapping[str, Any] = NOTHING) -> "Finding":
        """All of them is healthy, `quorum` of them degraded, fewer unhealthy."""
        facts = {"answering": answering, "expected": expected, **facts}
        if answering >= expected:
            return cls("healthy", None, facts)
        status: Outcome = "degraded" if answering >= quorum(expected) else "unhealthy"
        return cls(status, f"{answering} of {expected} workers answer", facts)


def quorum(expected: int) -> int:
    """How many of the workers must answer for the pod to serve: half of them, rounded up."""
    return ceil(expected / 2)
