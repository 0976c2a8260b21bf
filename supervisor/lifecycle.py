"""The life of a pod, as a sentence: `Supervisor.run`."""

import asyncio
import contextlib
import math
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from loguru import logger

from supervisor import migrations, processes, status
from supervisor.child import Child, ChildMisconfiguredError, clear_leftovers, reap_orphans, signal_master_by_pidfile
from supervisor.collect import COLLECT_EVERY, Collector, remove_orphans
from supervisor.drain import Drain
from supervisor.endings import Endings
from supervisor.history import History
from supervisor.pod import BEFORE_SERVING, Phase, Pod
from supervisor.policy import Finding, Reading, Rule, Standing, restart_pause
from supervisor.runtime_directory import DirectoryNotOursError, PastState, RuntimeDirectory, age
from supervisor.settings import EXIT_CONFIGURATION, ConfigurationError, Settings
from supervisor.watch import Planned, plan, watch
from supervisor.worker_sockets import ask_live

WRITE_EVERY = 1.0
FASTEST_WRITES = 0.05
QUICK_STOP = 1.2
"""Before it served anything a pod has nothing to finish: SIGKILL follows SIGTERM after this many seconds."""
HURRIED_STOP = 2.0
LAST_LOOK = 1.5
LOOKED_WITHIN = 3.0
"""Seconds that a supervisor, started beside a serving pod, may take to see for itself before it speaks."""


async def run(settings: Settings, command: Sequence[str] = ()) -> int:
    """Looks after the pod until told to stop. Returns the exit status."""
    directory = RuntimeDirectory(settings.runtime_dir)
    try:
        directory.prepare()
    except DirectoryNotOursError as error:
        raise ConfigurationError([f"RUNTIME_DIR: {error}"]) from None
    with directory.held():
        return await Supervisor(settings, directory, command).run()


class Supervisor:
    def __init__(self, settings: Settings, directory: RuntimeDirectory, command: Sequence[str]) -> None:
        self._settings = settings
        self._directory = directory
        self._probes = plan(settings, directory)
        mode = "parent" if command else "sidecar"
        self._pod = Pod(History(directory.history), expected_workers=settings.workers, mode=mode)
        for planned in self._probes:
            self._pod.watch_for(planned.rule, "unknown" if planned.target is not None else "disabled")
        self._pod.watch_for(Rule("migrations", max_age=float("inf")))
        self._drain = Drain(self._pod, directory, delay=settings.drain_delay)
        self._collector = Collector(directory, self._pod)
        self._child = Child(command, directory, self._pod, boot_timeout=settings.boot_timeout) if command else None
        self._endings = Endings()
        self._keeping_child: asyncio.Task[None] | None = None
        self._before = directory.read_state() or PastState()
        self._sequence = self._before.sequence
        self._state_written = True
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._misconfigured = ""
        self._migrating = asyncio.Lock()
        self._had_terminal = _has_terminal()
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        await self._take_up_what_was()
        view = status.View(self._pod, self._collector.page, self._drain.as_json)
        commands = status.Commands(self._drain_asked, self._undrain_asked, self._reload_asked)
        async with status.served(self._settings, self._directory, view, commands):
            logger.bind(mode=self._pod.mode).info("status on port {}", self._settings.supervisor_port)
            with self._signals_heard():
                async with _beside(self._always()):
                    async with _beside({"come up": self._come_up}):
                        await self._stop.wait()
                    await self._go_down()
        return EXIT_CONFIGURATION if self._misconfigured else 0

    def _always(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What goes on from the first moment to the last."""
        return {
            "write the state": self._write_for_ever,
            "collect metrics": self._collect_for_ever,
            "reap orphans": reap_orphans,
            **{f"watch {planned.rule.name}": self._watch(planned) for planned in self._probes if planned.target},
        }

    # --- up -----------------------------------------------------------------------------------------------------

    async def _take_up_what_was(self) -> None:
        """A supervisor that starts beside serving workers adopts them, or goes on with a drain, without a gap."""
        processes.become_reaper()
        if self._child is not None:
            clear_leftovers(self._directory)
            return
        heard = await ask_live(self._directory.workers, timeout=1.0)
        serving = [one.boot for one in heard if one.answer and one.answer.get("gate", "open") == "open"]
        if not serving:
            return
        if math.isfinite(age(self._before.boottime)):  # else it is of another life of the machine
            self._pod.carry_over(self._before)
        self._pod.migrated = bool(self._pod.applied)
        self._pod.enter("serving", f"{len(serving)} workers were serving already")
        if self._before.phase == "draining":
            self._drain.begin("the drain of the supervisor before this one goes on")

    async def _come_up(self) -> None:
        """Never returns: once up, it sees the pod back to `serving` after each restart of the service."""
        await self._wait_for_database()
        await self._migrate_until_done()
        self._enter_unless_serving("warming", "the workers are awaited")
        if self._child is not None and self._keeping_child is None:
            self._keeping_child = asyncio.create_task(self._keep_child_running(self._child), name="the service")
        while True:
            if self._pod.stage == "warming" and self._pod.warmed() and self._pod.verdict().ready:
                answering = len(self._pod.answering())
                self._pod.enter("serving", f"{answering} workers answer and every critical check is up")
            await self._pod.wait_for_change(1.0)

    async def _wait_for_database(self) -> None:
        self._enter_unless_serving("waiting_for_database", "PostgreSQL is awaited")
        url = self._settings.migration_database_url or self._settings.database_url
        await migrations.wait_for_database(url.get_secret_value(), say=_say)

    async def _migrate_until_done(self) -> None:
        failures = 0
        while failed := await self._migrate():
            failures += 1
            pause = restart_pause(failures, spread=random.random())  # noqa: S311
            self._enter_unless_serving("migration_failed", failed)
            logger.error("migration failed: {}; tried again in {:.1f} s", failed, pause)
            await asyncio.sleep(pause)

    async def _migrate(self) -> str:
        """Returns why it failed. A pod that serves already goes on: what is new in the database is for later."""
        pod = self._pod
        async with self._migrating:
            self._enter_unless_serving("migrating", "the database is being brought to this code's schema")
            try:
                outcome = await migrations.migrate(self._settings, say=_say)
            except migrations.MigrationFailed as failure:
                pod.migration_failures += 1
                pod.settle("migrations", Finding("degraded" if pod.stage == "serving" else "unhealthy", str(failure)))
                return str(failure)
        pod.migrated, pod.applied, pod.newer = True, outcome.known, outcome.newer
        pod.migration_seconds = outcome.seconds
        pod.settle("migrations", Finding("healthy", facts={"newer_than_the_code": list(outcome.newer)}))
        if outcome.newer:
            logger.warning("the database is newer than this code: {}; it is served", ", ".join(outcome.newer))
        return ""

    def _enter_unless_serving(self, stage: Phase, reason: str) -> None:
        if self._pod.stage != "serving":
            self._pod.enter(stage, reason)

    async def _keep_child_running(self, child: Child) -> None:
        try:
            await child.keep_running()
        except ChildMisconfiguredError as error:
            self._misconfigured = str(error)
            logger.critical("{}", error)
            self._stop.set()
        except Exception as error:  # a bug of ours must not leave the pod half alive: the platform starts it anew
            self._misconfigured = f"the service cannot be looked after: {error}"
            logger.exception("the service cannot be looked after")
            self._stop.set()

    # --- down ---------------------------------------------------------------------------------------------------

    async def _go_down(self) -> None:
        pod, loop = self._pod, asyncio.get_running_loop()
        if pod.stage in BEFORE_SERVING:
            deadline = loop.time() + QUICK_STOP
        else:
            deadline = loop.time() + self._settings.drain_delay + self._settings.graceful_timeout
            with _observing("the drain"):
                self._drain.begin("told to stop")
                await self._until_drained(deadline - self._settings.graceful_timeout / 2)
            await self._collect_once_more()
        hurried_at: float | None = None

        def kill_at() -> float:
            nonlocal hurried_at
            if self._hurry.is_set() and hurried_at is None:
                hurried_at = loop.time() + HURRIED_STOP
            return deadline if hurried_at is None else min(deadline, hurried_at)

        pod.stopping = True
        if self._child is not None:
            await self._child.stop(kill_at=kill_at)
        if self._keeping_child is not None:
            self._keeping_child.cancel()
            await asyncio.wait([self._keeping_child])
        pod.enter("stopped", self._misconfigured or "told to stop")
        with _observing("the last state"):
            self._write_state()
        await self._collect_once_more()

    async def _collect_once_more(self) -> None:
        """Bounded: whoever waits for the service to end does not wait for its figures."""
        with _observing("the last figures"):
            async with asyncio.timeout(LAST_LOOK):
                await self._collector.collect(patience=0.5)

    async def _until_drained(self, deadline: float) -> None:
        """Long enough for the requests in flight, and short enough to leave the master time to end by itself."""
        waiting = [
            asyncio.create_task(self._drain.wait_until_empty(), name="drained"),
            asyncio.create_task(self._hurry.wait(), name="hurried"),
        ]
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    # --- asked --------------------------------------------------------------------------------------------------

    async def _drain_asked(self) -> str:
        self._drain.begin("asked for by `supervisor drain`")
        return ""

    async def _undrain_asked(self) -> str:
        if self._stop.is_set():
            return "the supervisor is stopping"
        await self._drain.undo("asked for by `supervisor undrain`")
        return ""

    async def _reload_asked(self) -> str:
        """The new code may bring migrations, and its workers wait for them: they come first."""
        if self._stop.is_set() or self._pod.stage != "serving":
            return f"the pod is {self._pod.phase.replace('_', ' ')}, there is nothing to reload"
        if failed := await self._migrate():
            return f"not reloaded: {failed}"
        old = set(self._pod.workers())
        if self._child is not None:
            refused = self._child.reload()
        else:
            refused = signal_master_by_pidfile(self._directory, signal.SIGHUP)
        if not refused:
            self._pod.reloads += 1
            self._pod.note("service", "serving", "reloading", "asked for")
            self._run_errand(self._until_reloaded(old))
        return refused

    async def _until_reloaded(self, old: set[str]) -> None:
        pod = self._pod
        reason = "every worker is a new one"
        try:
            async with asyncio.timeout(self._settings.boot_timeout + self._settings.graceful_timeout):
                while old & set(pod.workers()) or not pod.warmed():
                    await pod.wait_for_change(1.0)
        except TimeoutError:
            reason = f"given up on: {len(old & set(pod.workers()))} workers of before still answer"
        pod.note("service", "reloading", "serving", reason)

    @contextlib.contextmanager
    def _signals_heard(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        heard: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop_or_hurry,
            signal.SIGINT: self._stop_or_hurry,
            signal.SIGHUP: lambda: self._run_errand(self._hung_up()),
        }
        for number, act in heard.items():
            loop.add_signal_handler(number, act)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # all is done: nothing is left to stop

    def _stop_or_hurry(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def _hung_up(self) -> None:
        """A closing terminal wants everything to end; whoever sends SIGHUP on purpose wants a reload."""
        await asyncio.sleep(0.2)  # the kernel may take the terminal away after the signal
        if self._had_terminal and not _has_terminal():
            logger.info("the terminal was closed")
            self._stop.set()
        elif refused := await self._reload_asked():
            logger.warning("SIGHUP: {}", refused)

    def _run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand, name="errand")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # --- always -------------------------------------------------------------------------------------------------

    def _watch(self, planned: Planned) -> Callable[[], Awaitable[None]]:
        name = planned.rule.name

        def observe(reading: Reading) -> Standing:
            standing = self._pod.observe(name, reading)
            facts = reading.finding.facts
            if name == "workers" and "workers" in facts:  # else the question itself failed
                remove_orphans(facts.get("orphaned", []))
                for boot, pid in self._endings.between(facts["workers"], self._collector.left_in_order()):
                    if pid in self._pod.killed:
                        self._pod.worker_ended(pid, boot, "ended_by_supervisor")
                    elif not self._pod.stopping:
                        self._pod.worker_ended(pid, boot, "unknown")
            return standing

        def hurry() -> bool:
            return self._pod.stage in BEFORE_SERVING

        return lambda: watch(planned, lambda: self._pod.standings[name], observe, hurry=hurry)

    async def _write_for_ever(self) -> None:
        await self._look_before_telling()
        while True:
            self._write_state()
            await asyncio.sleep(FASTEST_WRITES)
            await self._pod.wait_for_change(WRITE_EVERY - FASTEST_WRITES)

    async def _look_before_telling(self) -> None:
        """Workers that were adopted go by themselves for so long: `unknown` would close a pod that serves."""
        until = asyncio.get_running_loop().time() + LOOKED_WITHIN
        pod = self._pod
        while pod.phase == "serving" and not pod.has_looked() and asyncio.get_running_loop().time() < until:
            await pod.wait_for_change(0.25)

    def _write_state(self) -> None:
        self._sequence += 1
        try:
            self._directory.prepare()
            self._directory.write_state(self._pod.document(self._sequence))
        except OSError as error:
            if self._state_written:
                logger.error("{} cannot be written: {}", self._directory.state, error.strerror or error)
            self._state_written = False
        else:
            self._state_written = True

    async def _collect_for_ever(self) -> None:
        while True:
            await self._collector.collect()
            await asyncio.sleep(COLLECT_EVERY)


@contextlib.asynccontextmanager
async def _beside(tasks: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Runs them while the block runs, each under its name."""
    running = {asyncio.create_task(_again_and_again(name, task), name=name) for name, task in tasks.items()}
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=2.0)


async def _again_and_again(name: str, task: Callable[[], Awaitable[None]]) -> None:
    """An error of ours is said and the task begun again: who looks after others does not die of its own mistakes."""
    while True:
        try:
            await task()
        except Exception:
            logger.exception("{}: failed, begun again", name)
        await asyncio.sleep(1.0)


@contextlib.contextmanager
def _observing(what: str) -> Iterator[None]:
    """At the end nothing that only looks may keep the service from being ended, or its end from being told."""
    try:
        yield
    except Exception:
        logger.exception("{} failed", what)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _say(said: str) -> None:
    logger.info("{}", said)
