"""Taking the pod out of service without losing a request, and back. Signals nobody.

Readiness turns 503 at once; every worker says that it saw it, and from then on closes each connection with its answer;
balancers get DRAIN_DELAY to notice; then what is in flight is waited for.
"""

import asyncio
import contextlib
from typing import Any, Literal

from loguru import logger

from supervisor.pod import Pod
from supervisor.runtime_directory import RuntimeDirectory
from supervisor.worker_sockets import ask_live

Step = Literal["none", "announcing", "waiting_for_balancers", "finishing_requests", "empty"]
SEEN_WITHIN = 2.0
"""Workers look four times a second; one that has not seen it by now hangs."""
ASK_EVERY = 0.1


class Drain:
    def __init__(self, pod: Pod, directory: RuntimeDirectory, *, delay: float) -> None:
        self._pod = pod
        self._directory = directory
        self._delay = delay
        self._task: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self.step: Step = "none"
        self.in_flight: int | None = None
        self.silent: list[str] = []

    def begin(self, reason: str) -> None:
        """Once is enough: a second request joins the first."""
        if self._task is not None:
            return
        self._empty.clear()
        had_clients = self._pod.stage == "serving"
        self._pod.set_draining(True, reason)
        self._task = asyncio.create_task(self._keep_taking_out(had_clients), name="drain")

    async def undo(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task, self.step, self.in_flight, self.silent = None, "none", None, []
        if self._pod.draining:
            self._pod.set_draining(False, reason)

    async def wait_until_empty(self) -> None:
        await self._empty.wait()

    def as_json(self) -> dict[str, Any]:
        return {"step": self.step, "in_flight": self.in_flight, "silent_workers": self.silent}

    async def _keep_taking_out(self, had_clients: bool) -> None:
        """Somebody waits for its end, so a mistake of ours must not be its silent end."""
        while not self._empty.is_set():
            try:
                await self._take_out(had_clients)
            except Exception:
                logger.exception("the drain failed, begun again")
                await asyncio.sleep(1.0)

    async def _take_out(self, had_clients: bool) -> None:
        self._at("announcing")
        await self._until_all_saw_it()
        if had_clients:
            self._at("waiting_for_balancers")
            await asyncio.sleep(self._delay)
        self._at("finishing_requests")
        await self._until_nothing_is_in_flight()
        self._at("empty")
        self._empty.set()

    async def _until_all_saw_it(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEEN_WITHIN):
                while not all(answer.get("draining", True) for answer in await self._ask()) or self.silent:  # noqa: ASYNC110
                    await asyncio.sleep(ASK_EVERY)

    async def _until_nothing_is_in_flight(self) -> None:
        """Twice in a row: a request may be between two questions. A worker that does not answer may hold one."""
        quiet = 0
        while quiet < 2:
            answers = await self._ask()
            self.in_flight = sum(answer.get("in_flight", 0) for answer in answers)
            quiet = quiet + 1 if self.in_flight == 0 and not self.silent else 0
            await asyncio.sleep(ASK_EVERY)

    async def _ask(self) -> list[dict[str, Any]]:
        heard = await ask_live(self._directory.workers, timeout=0.5)
        self.silent = [one.boot for one in heard if one.answer is None and not one.gone]
        return [one.answer for one in heard if one.answer is not None]

    def _at(self, step: Step) -> None:
        self.step = step
        logger.bind(step=step).info("drain: {}", step.replace("_", " "))
        self._pod.changed()
