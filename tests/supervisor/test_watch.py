"""The runner with probes that behave as badly as they can."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from supervisor.policy import Finding, Reading, Rule, Standing, weigh
from supervisor.probes import Ask
from supervisor.runtime_directory import RuntimeDirectory
from supervisor.settings import ConfigurationError, load_settings
from supervisor.watch import Planned, plan, watch

RULE = Rule("thing", interval=0.05, timeout=0.05)


@dataclass(frozen=True, slots=True)
class Homemade(Planned):
    opened: Callable[[], contextlib.AbstractAsyncContextManager[Ask]]

    def open(self) -> contextlib.AbstractAsyncContextManager[Ask]:
        return self.opened()


@dataclass
class Seen:
    standing: Standing = field(default_factory=lambda: Standing(RULE))
    readings: list[Reading] = field(default_factory=list)

    def observe(self, reading: Reading) -> Standing:
        self.readings.append(reading)
        self.standing = weigh(self.standing, reading)
        return self.standing


@asynccontextmanager
async def watched(opened: Callable[[], contextlib.AbstractAsyncContextManager[Ask]]) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(watch(Homemade(RULE, "thing", object(), opened), lambda: seen.standing, seen.observe))
    yield seen
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def asking(ask: Ask) -> Callable[[], contextlib.AbstractAsyncContextManager[Ask]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Ask]:
        yield ask

    return opened


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_an_answer_is_a_reading_with_its_latency() -> None:
    async def ask() -> Finding:
        return Finding("healthy", facts={"role": "primary"})

    async with watched(asking(ask)) as seen:
        await until(lambda: seen.standing.status == "healthy")
    assert seen.readings[0].latency_ms is not None
    assert seen.readings[0].finding.facts == {"role": "primary"}


async def test_a_probe_that_raises_is_a_finding_with_its_password_taken_out() -> None:
    async def ask() -> Finding:
        raise ConnectionError("no route to postgresql://shop:hunter2@db\nreally")

    async with watched(asking(ask)) as seen:
        await until(lambda: seen.standing.status == "unhealthy")
    assert seen.readings[0].finding.error == "no route to postgresql://shop:[redacted]@db really"


async def test_a_probe_that_says_nothing_as_it_raises_is_named_by_what_it_raised() -> None:
    async def ask() -> Finding:
        raise KeyboardBroken

    async with watched(asking(ask)) as seen:
        await until(lambda: seen.readings)
    assert seen.readings[0].finding.error == "KeyboardBroken"


class KeyboardBroken(Exception):
    pass


async def test_a_probe_that_hangs_is_a_finding_and_is_asked_again() -> None:
    asked = 0

    async def ask() -> Finding:
        nonlocal asked
        asked += 1
        if asked <= 3:
            await asyncio.Event().wait()
        return Finding("healthy")

    async with watched(asking(ask)) as seen:
        await until(lambda: seen.standing.status == "healthy")
    assert [reading.finding.error for reading in seen.readings[:3]] == ["no answer within 0.05 s"] * 3
    assert seen.readings[0].latency_ms is None


async def test_a_probe_that_swallows_its_cancellation_is_not_asked_twice_at_once() -> None:
    under_way = most = 0
    freed = asyncio.Event()

    async def ask() -> Finding:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        while not freed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await freed.wait()
        under_way -= 1
        return Finding("healthy")

    async with watched(asking(ask)) as seen:
        await until(lambda: len(seen.readings) > 5)
        assert seen.standing.status == "unhealthy"
        assert seen.readings[-1].finding.error == "the question before still hangs"
        freed.set()
        await until(lambda: seen.standing.status == "healthy")
    assert most == 1


async def test_a_probe_that_cannot_be_opened_or_hangs_as_it_opens_is_opened_again() -> None:
    opened = 0

    @asynccontextmanager
    async def opening() -> AsyncIterator[Ask]:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise OSError("not yet")
        if opened == 2:
            await asyncio.Event().wait()

        async def ask() -> Finding:
            return Finding("healthy")

        yield ask

    async with watched(opening) as seen:
        await until(lambda: seen.standing.status == "healthy")
    assert [reading.finding.error for reading in seen.readings[:2]] == ["not yet", "no answer within 0.05 s"]
    assert opened == 3


async def test_what_a_probe_holds_is_closed_when_the_watch_ends() -> None:
    closed = asyncio.Event()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Ask]:
        async def ask() -> Finding:
            return Finding("healthy")

        try:
            yield ask
        finally:
            closed.set()

    async with watched(opening) as seen:
        await until(lambda: seen.readings)
    assert closed.is_set()


async def test_one_that_hangs_costs_the_others_nothing() -> None:
    async def hang() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def answer() -> Finding:
        return Finding("healthy")

    async with watched(asking(hang)), watched(asking(answer)) as seen:
        await until(lambda: len(seen.readings) > 10)
    assert seen.standing.status == "healthy"


def planned(tmp_path: Path, **environ: str) -> dict[str, Planned]:
    settings = load_settings({"DATABASE_URL": "postgresql:///x", **environ}, env_file=None)
    return {one.rule.name: one for one in plan(settings, RuntimeDirectory(tmp_path))}


def test_what_is_watched_comes_from_the_settings(tmp_path: Path) -> None:
    told = planned(
        tmp_path,
        PROBE_POSTGRES_CRITICALITY="degrading",
        PROBES='[{"name": "sessions", "kind": "redis", "target": "redis://x", "interval": 9, "criticality": "info"}]',
    )
    assert set(told) == {"database", "redis", "disk_space", "workers", "sessions"}
    assert told["database"].rule.criticality == "degrading"
    assert told["redis"].target is None
    assert (told["sessions"].rule.criticality, told["sessions"].rule.interval) == ("info", 9)
    assert told["sessions"].target.url == "redis://x"
    assert told["workers"].rule.interval == 1
    assert all(one.rule.timeout <= one.rule.interval for one in told.values())


def test_a_named_probe_that_lacks_something_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PROBES: logs: missing"):
        planned(tmp_path, PROBES='[{"name": "logs", "kind": "disk", "target": "/"}]')
    told = planned(
        tmp_path,
        PROBES='[{"name": "logs", "kind": "disk", "target": "/", "warn_bytes": 2, "fail_bytes": 1}]',
    )
    assert told["logs"].target.fail_bytes == 1
