"""Merging the workers' metrics. Pure: snapshots come in, families and text go out; no clock, no socket.

What is merged is structured, never text: a label's value may hold a quote or a newline, and one worker's must not
corrupt everybody's page. The last snapshot of every worker that ever lived is kept by its boot id, so that a total
never falls, whoever dies.
"""

import bisect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REMEMBERED = 256
"""Gone workers kept one by one, should one come back. Older ones are added up."""
OLDER = "older"

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
Labels = tuple[tuple[str, str], ...]
Snapshot = Mapping[str, Any]


@dataclass(slots=True)
class Histogram:
    counts: list[float]
    sum: float = 0.0


@dataclass(slots=True)
class Family:
    """One metric, merged."""

    name: str
    help: str
    type: str
    merge: str = "sum"
    buckets: tuple[float, ...] = ()
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)
    newest: dict[Labels, float] = field(default_factory=dict)


class Ledger:
    """The last snapshot of every boot id. What it holds is persisted before it is shown to anybody."""

    def __init__(self, persisted: Mapping[str, Any] | None = None) -> None:
        boots, folded = (persisted or {}).get("boots"), (persisted or {}).get("folded")
        known = boots.items() if isinstance(boots, dict) else ()
        self._boots: dict[str, Snapshot] = {boot: kept for boot, told in known if (kept := as_kept(told))}
        self._folded = [boot for boot in folded if isinstance(boot, str)] if isinstance(folded, list) else []
        self._alive: set[str] = set()

    def learn(self, boot: str, snapshot: object) -> bool:
        """False when it is nothing to keep: malformed, older than what is known, or added up long ago."""
        known, kept = self._boots.get(boot), as_kept(snapshot)
        if kept is None or boot == OLDER or boot in self._folded:
            return False
        if known is not None and float(kept["boottime"]) < float(known["boottime"]):
            return False
        self._boots[boot] = kept
        return True

    def set_alive(self, boots: Iterable[str]) -> None:
        """Whose gauges count. The counters of all others stay."""
        self._alive = set(boots)
        gone = [boot for boot in self._boots if boot not in self._alive and boot != OLDER]
        for boot in gone[: max(0, len(gone) - REMEMBERED)]:
            older = merged([self._boots.get(OLDER, _empty()), self._boots.pop(boot)], alive=())
            self._boots[OLDER] = as_snapshot(older)
            self._folded = [*self._folded, boot][-16 * REMEMBERED :]

    def as_json(self) -> dict[str, Any]:
        return {"boots": self._boots, "folded": self._folded}

    def families(self) -> list[Family]:
        pairs = list(self._boots.items())
        alive = [index for index, (boot, _) in enumerate(pairs) if boot in self._alive]
        return merged([snapshot for _, snapshot in pairs], alive=alive)


def is_snapshot(snapshot: object) -> bool:
    return (
        isinstance(snapshot, Mapping)
        and isinstance(snapshot.get("metrics"), list)
        and isinstance(snapshot.get("boottime"), int | float)
    )


def as_kept(snapshot: object) -> Snapshot | None:
    """The one way in: what can be written to totals.json, read back, merged and shown; else None, whatever it is.

    What got past here unfit would stop everybody's metrics at each round from then on, and be there after a restart.
    """
    try:
        again = orjson.loads(orjson.dumps(snapshot))
        if not is_snapshot(again):
            return None
        render(merged([again], alive=[0])).encode()
    except Exception:  # deep nesting, numbers beyond bounds, lone surrogates: there is no list of what may be wrong
        return None
    kept: Snapshot = again
    return kept


def merged(snapshots: Iterable[Snapshot], *, alive: Iterable[int]) -> list[Family]:
    """Counters and histograms of all add up; gauges, of those alive, by the rule each declares.

    What is malformed is left out: one worker never breaks the page of the others.
    """
    counting = set(alive)
    families: dict[str, Family] = {}
    for index, snapshot in enumerate(snapshots):
        at = float(snapshot["boottime"])
        for metric in snapshot["metrics"]:
            try:
                if metric["type"] != "gauge" or index in counting:
                    _add(families, metric, at)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue
    return [families[name] for name in sorted(families)]


def as_snapshot(families: Iterable[Family]) -> dict[str, Any]:
    """The way back: a sum of snapshots is a snapshot too."""
    metrics: list[dict[str, Any]] = []
    for family in families:
        told: dict[str, Any] = {"name": family.name, "help": family.help, "type": family.type}
        if family.type == "histogram":
            told["buckets"] = list(family.buckets)
            told["samples"] = [
                {"labels": dict(labels), "counts": list(found.counts), "sum": found.sum, "count": sum(found.counts)}
                for labels, found in family.histograms.items()
            ]
        else:
            told["samples"] = [{"labels": dict(labels), "value": value} for labels, value in family.values.items()]
            if family.type == "gauge":
                told["merge"] = family.merge
        metrics.append(told)
    return {**_empty(), "metrics": metrics}


def render(families: Iterable[Family]) -> str:
    """Prometheus' text format, escaped."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.type}")
        for labels, value in sorted(family.values.items()):
            lines.append(f"{family.name}{_braces(labels)} {number(value)}")
        for labels, found in sorted(family.histograms.items(), key=lambda pair: pair[0]):
            running = 0.0
            for bound, count in zip((*family.buckets, math.inf), found.counts, strict=True):
                running += count
                lines.append(f"{family.name}_bucket{_braces((*labels, ('le', number(bound))))} {number(running)}")
            lines.append(f"{family.name}_sum{_braces(labels)} {number(found.sum)}")
            lines.append(f"{family.name}_count{_braces(labels)} {number(running)}")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _empty() -> dict[str, Any]:
    return {"boottime": 0.0, "metrics": []}


def _add(families: dict[str, Family], metric: Mapping[str, Any], at: float) -> None:
    name, kind = str(metric["name"]), str(metric["type"])
    if not NAME.fullmatch(name) or kind not in ("counter", "gauge", "histogram"):
        return
    bounds = {float(bound) for bound in metric["buckets"]} if kind == "histogram" else set()
    buckets = tuple(sorted(bound for bound in bounds if math.isfinite(bound)))
    family = families.get(name)
    if family is None:
        rule = str(metric.get("merge", "sum"))
        family = Family(name, str(metric.get("help", "")), kind, rule if rule in ("max", "last") else "sum", buckets)
        families[name] = family
    if family.type != kind:
        return
    for sample in metric["samples"]:
        labels = _labels(sample.get("labels") or {})
        if labels is None:
            continue
        if kind == "histogram":
            _add_histogram(family, labels, sample, buckets)
        else:
            _add_value(family, labels, float(sample["value"]), at)


def _add_value(family: Family, labels: Labels, value: float, at: float) -> None:
    if family.type == "counter" and not (math.isfinite(value) and value >= 0):
        return
    known = family.values.get(labels)
    if known is None:
        family.values[labels], family.newest[labels] = value, at
    elif family.merge == "max" and family.type == "gauge":
        family.values[labels] = max(known, value)
    elif family.merge == "last" and family.type == "gauge":
        if at >= family.newest[labels]:
            family.values[labels], family.newest[labels] = value, at
    else:
        family.values[labels] = known + value


def _add_histogram(family: Family, labels: Labels, sample: Mapping[str, Any], buckets: tuple[float, ...]) -> None:
    counts = [float(count) for count in sample["counts"]]
    total = float(sample["sum"])
    if len(counts) != len(buckets) + 1 or not all(math.isfinite(count) and count >= 0 for count in counts):
        return
    if not math.isfinite(total):
        return
    found = family.histograms.get(labels)
    if found is None:
        found = family.histograms[labels] = Histogram([0.0] * (len(family.buckets) + 1))
    found.sum += total
    if buckets == family.buckets:
        found.counts = [known + count for known, count in zip(found.counts, counts, strict=True)]
        return
    # a reload brought other bounds: each count goes under the next bound that surely holds it
    for bound, count in zip((*buckets, math.inf), counts, strict=True):
        found.counts[bisect.bisect_left(family.buckets, bound)] += count


def _labels(labels: Mapping[str, Any]) -> Labels | None:
    """Sorted, and as text: 1 and "1" are one series."""
    if not all(LABEL.fullmatch(str(name)) and str(name) != "le" for name in labels):
        return None
    return tuple(sorted((str(name), str(value)) for name, value in labels.items()))


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return _encodable(value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))


def _escape_help(text: str) -> str:
    return _encodable(text.replace("\\", r"\\").replace("\n", r"\n"))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
