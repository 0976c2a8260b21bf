"""Asks one probe for ever. Owns interval, timeout, jitter and blame: a probe that hangs or raises is a finding."""

import asyncio
import dataclasses
import importlib
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from supervisor.logs import redact_text
from supervisor.policy import Finding, Reading, Rule, Standing, next_pause
from supervisor.probes import Ask
from supervisor.probes.disk import DiskTarget
from supervisor.probes.postgres import PostgresTarget
from supervisor.probes.redis import RedisTarget
from supervisor.probes.workers import WorkersTarget
from supervisor.runtime_directory import RuntimeDirectory, boottime
from supervisor.settings import ConfigurationError, NamedProbe, Settings

Opener = Callable[[Any], AbstractAsyncContextManager[Ask]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A question to put, and how. No target: the check is not configured, and says so."""

    rule: Rule
    kind: str
    target: Any

    def open(self) -> AbstractAsyncContextManager[Ask]:
        opener: Opener = importlib.import_module(f"supervisor.probes.{self.kind}").open
        return opener(self.target)


def plan(settings: Settings, directory: RuntimeDirectory) -> list[Planned]:
    """The built-in checks and those of PROBES."""
    s = settings

    def rule(name: str, criticality: Any, interval: float | None = None, timeout: float | None = None) -> Rule:
        every = interval or s.probe_interval
        return Rule(name, criticality, every, min(timeout or s.probe_timeout, every), s.probe_rise, s.probe_fall)

    database = PostgresTarget(s.database_url.get_secret_value(), connect_timeout=s.probe_timeout)
    cache = RedisTarget(s.redis_url.get_secret_value(), timeout=s.probe_timeout) if s.redis_url else None
    workers = rule("workers", s.probe_workers_criticality, s.probe_workers_interval)
    return [
        Planned(rule("database", s.probe_postgres_criticality), "postgres", database),
        Planned(rule("redis", s.probe_redis_criticality), "redis", cache),
        Planned(
            rule("disk_space", s.probe_disk_criticality),
            "disk",
            DiskTarget(s.disk_path, s.disk_warn_bytes, s.disk_fail_bytes, runtime_dir=directory.path),
        ),
        Planned(workers, "workers", WorkersTarget(directory.workers, s.workers, timeout=0.8 * workers.timeout)),
        *(
            Planned(rule(named.name, named.criticality, named.interval, named.timeout), named.kind, _target(named))
            for named in s.probes
        ),
    ]


async def watch(
    planned: Planned,
    standing: Callable[[], Standing],
    observe: Callable[[Reading], Standing],
    *,
    hurry: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = boottime,
) -> None:
    """Never returns. Opens the probe again when opening it failed, and keeps one question under way at most."""
    while True:
        try:
            async with asyncio.timeout(planned.rule.timeout) as opening, planned.open() as ask:
                opening.reschedule(None)
                await _ask_for_ever(planned.rule, ask, observe, hurry, clock)
        except Exception as error:
            observe(Reading(_blame(error, planned.rule), clock()))
        await asyncio.sleep(next_pause(standing(), hurry=hurry(), spread=_spread()))


async def _ask_for_ever(
    rule: Rule,
    ask: Ask,
    observe: Callable[[Reading], Standing],
    hurry: Callable[[], bool],
    clock: Callable[[], float],
) -> None:
    name = f"ask {rule.name}"
    while True:
        started = time.perf_counter()
        question = asyncio.create_task(_put(ask), name=name)
        try:
            done, _ = await asyncio.wait({question}, timeout=rule.timeout)
        finally:
            question.cancel()
        took = (time.perf_counter() - started) * 1000
        finding = _found(question, rule) if done else Finding("unhealthy", f"no answer within {rule.timeout:g} s")
        standing = observe(Reading(finding, clock(), took if done else None))
        await asyncio.sleep(next_pause(standing, hurry=hurry(), spread=_spread()))
        while not question.done():  # it swallows its cancellation: not asked a second time while the first hangs
            await asyncio.wait({question}, timeout=rule.interval)
            if not question.done():
                observe(Reading(Finding("unhealthy", "the question before still hangs"), clock()))


async def _put(ask: Ask) -> Finding:
    return await ask()


def _found(question: "asyncio.Task[Finding]", rule: Rule) -> Finding:
    if question.cancelled():
        return Finding("unhealthy", "the question was given up from within")
    error = question.exception()
    return question.result() if error is None else _blame(error, rule)


def _blame(error: BaseException, rule: Rule) -> Finding:
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        text = f"no answer within {rule.timeout:g} s"
    return Finding("unhealthy", redact_text(text[:400]) or type(error).__name__)


def _spread() -> float:
    return random.random()  # noqa: S311  # so that pods do not ask in step


def _target(named: NamedProbe) -> Any:
    """The probe's own target: its first field is what PROBES calls `target`, the others are named as they are."""
    module = importlib.import_module(f"supervisor.probes.{named.kind}")
    kind = next(
        value
        for name, value in vars(module).items()
        if name.endswith("Target") and dataclasses.is_dataclass(value) and isinstance(value, type)
    )
    first, *_ = dataclasses.fields(kind)
    try:
        return kind(**{first.name: named.target, **(named.model_extra or {})})
    except TypeError as error:
        raise ConfigurationError([f"PROBES: {named.name}: {str(error).split('() ')[-1]}"]) from None
