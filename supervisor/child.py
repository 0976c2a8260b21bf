"""The duties of a parent: start the service, notice its end, leave nothing of it behind, start it again.

It runs in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone and the service is drained
first; and it is told when the supervisor dies, so that nobody is left serving unwatched.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from supervisor import processes
from supervisor.pod import Pod, timestamp
from supervisor.policy import Finding, quorum, restart_pause
from supervisor.runtime_directory import RuntimeDirectory, clear, write_whole
from supervisor.settings import EXIT_CONFIGURATION

STABLE_AFTER = 60.0
REAP_EVERY = 2.0


class ChildMisconfiguredError(Exception):
    """The service ended with 78: starting it again would change nothing."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a life of the service ended."""

    status: int

    def __str__(self) -> str:
        if self.status >= 0:
            return f"ended with status {self.status}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"was ended by signal {-self.status}"


class Child:
    """The service's master process, through all its lives."""

    def __init__(self, command: Sequence[str], directory: RuntimeDirectory, pod: Pod, *, boot_timeout: float) -> None:
        self._command = list(command)
        self._directory = directory
        self._pod = pod
        self._boot_timeout = boot_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._mark = ""
        self._stopping = asyncio.Event()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def keep_running(self) -> None:
        """Starts it, and again whenever it ends, until `stop`; not while the pod drains. Raises when that was 78."""
        short_lives = 0
        while not self._stopping.is_set():
            await self._not_while_draining()
            clear_leftovers(self._directory)
            began = time.monotonic()
            ending = await self._one_life()
            if self._stopping.is_set():
                return
            if ending.status == EXIT_CONFIGURATION:
                raise ChildMisconfiguredError(f"the service {ending} (configuration): see what it said above")
            short_lives = 0 if time.monotonic() - began > STABLE_AFTER else short_lives + 1
            pause = restart_pause(short_lives, spread=random.random())  # noqa: S311
            self._pod.restarts += 1
            reason = f"the service {ending}; it is started again in {pause:.1f} s"
            logger.bind(exit_status=ending.status, pause=round(pause, 1)).error("{}", reason)
            self._pod.child = {**self._pod.child, "pid": None, "ending": str(ending), "ended_at": timestamp()}
            self._pod.settle("workers", Finding("unhealthy", f"the service {ending}"))  # not to be found out by asking
            self._pod.enter("warming", reason)
            await asyncio.sleep(pause)

    def reload(self) -> str:
        """New workers from the code as it is now; the old ones finish what they have."""
        if not self.running or self._process is None:
            return "the service is not running"
        self._process.send_signal(signal.SIGHUP)
        return ""

    async def stop(self, *, kill_at: Callable[[], float]) -> None:
        """SIGTERM to the master, SIGKILL to all of its session once the loop's clock passes `kill_at`."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        while process.returncode is None and asyncio.get_running_loop().time() < kill_at():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.1)
        if process.returncode is None:
            logger.warning("the service has not ended in time: SIGKILL")
        await self._end_session(process)

    async def _one_life(self) -> Ending:
        self._mark = secrets.token_hex(16)
        environment = {
            "SUPERVISED": "true",
            **os.environ,
            "RUNTIME_DIR": str(self._directory.path),
            processes.MARK: self._mark,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                preexec_fn=processes.ends_with_parent(os.getpid()),
            )
        except OSError as error:
            logger.error("{} cannot be started: {}", self._command[0], error.strerror or error)
            return Ending(127)
        self._process = process
        remember_session(self._directory, process.pid, self._mark)
        self._pod.child = {"pid": process.pid, "command": self._command[0], "started_at": timestamp()}
        logger.bind(child=process.pid).info("the service is started")
        ending = asyncio.create_task(process.wait(), name="wait for the service")
        try:
            if not await self._booted(ending):
                reason = f"no {quorum(self._pod.expected_workers)} workers answered within {self._boot_timeout:g} s"
                self._pod.note("service", "starting", "hung", reason)
                logger.error("{}: the service is ended and started again", reason)
                await self._end_session(process)
            return Ending(await ending)
        finally:
            ending.cancel()
            await asyncio.shield(self._end_session(process))

    async def _booted(self, ending: "asyncio.Task[int]") -> bool:
        """gunicorn never ends a worker that hangs before its first heartbeat, so the deadline is kept here."""
        deadline = time.monotonic() + self._boot_timeout
        while not ending.done() and len(self._pod.answering()) < quorum(self._pod.expected_workers):
            if time.monotonic() > deadline:
                return self._stopping.is_set()
            await asyncio.wait({ending}, timeout=0.1)
        return True

    async def _not_while_draining(self) -> None:
        while self._pod.draining and not self._stopping.is_set():
            await self._pod.wait_for_change(1.0)

    async def _end_session(self, process: asyncio.subprocess.Process) -> None:
        """A worker that outlives its master would keep the port."""
        self._pod.killed |= kill_session(process.pid, self._mark, whole=True)
        await process.wait()
        clear(self._directory.child)


def remember_session(directory: RuntimeDirectory, pid: int, mark: str) -> None:
    """So that the next supervisor can tell what this one left, should it be killed."""
    leader = processes.look_at(pid)
    told = {
        "pid": pid,
        "start": leader.start if leader else 0,
        "mark": mark,
        "machine_boot": processes.machine_boot(),
    }
    with contextlib.suppress(OSError):
        write_whole(directory.child, json.dumps(told).encode())


def clear_leftovers(directory: RuntimeDirectory) -> None:
    """Kills what a killed supervisor left, and removes what would stop a new master. Never a stranger."""
    left = directory.read_child()
    if left and left.machine_boot == processes.machine_boot():
        leader = processes.look_at(left.pid)
        same = leader is not None and leader.start == left.start
        killed = kill_session(left.pid, left.mark, whole=same)
        if killed:
            logger.bind(pids=sorted(killed)).warning(
                "{} processes of a session before this one were ended", len(killed)
            )
    for path in (directory.child, directory.pidfile, *directory.workers.glob("*.sock")):
        clear(path)


def kill_session(leader: int, mark: str, *, whole: bool, patience: float = 2.0) -> set[int]:
    """SIGKILL for whoever carries the mark, until nobody is left. Returns who that was.

    `whole`: the leader is known to be ours, so all of its session is too, also who has written over its environment.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while mark and time.monotonic() < deadline:
        left = {
            process.pid
            for process in processes.everybody()
            if process.state not in "ZX"
            and process.pid != os.getpid()
            and (processes.carries(process.pid, mark) or (whole and process.session == leader))
        }
        if not left:
            break
        for member in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        killed |= left
        time.sleep(0.02)
    return killed


async def reap_orphans() -> None:
    """For ever. Two looks some seconds apart: what asyncio waits for by itself is gone by the second."""
    seen: set[int] = set()
    while True:
        found = processes.zombies()
        processes.reap(found & seen)
        seen = found
        await asyncio.sleep(REAP_EVERY)


def signal_master_by_pidfile(directory: RuntimeDirectory, number: signal.Signals) -> str:
    """For a sidecar. Returns what kept it from being done: /proc must confirm what the pid is."""
    pid = directory.read_pidfile()
    if pid is None:
        return "there is no gunicorn.pid to go by"
    if not processes.is_gunicorn(pid):
        return f"pid {pid} of gunicorn.pid is no gunicorn that can be seen from here, so nothing is signalled"
    os.kill(pid, number)
    return ""
