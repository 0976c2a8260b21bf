"""The steps of a drain, with workers that see it late, hang, or hold a request."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supervisor.drain import Drain
from supervisor.history import History
from supervisor.pod import Pod
from supervisor.runtime_directory import RuntimeDirectory


class Worker:
    """As the supervisor sees one: a socket that answers, or does not."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {"in_flight": 0, "draining": False}
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def live(self, request: web.Request) -> web.Response:
        await self.hangs.wait()
        return web.json_response(self.answer)

    @contextlib.asynccontextmanager
    async def at(self, path: Path) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/live", self.live)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        yield
        self.hangs.set()
        await runner.cleanup()
        path.unlink(missing_ok=True)


@pytest.fixture
def directory(tmp_path: Path) -> RuntimeDirectory:
    directory = RuntimeDirectory(tmp_path)
    directory.prepare()
    return directory


@pytest.fixture
def pod(directory: RuntimeDirectory) -> Pod:
    pod = Pod(History(directory.history), expected_workers=1)
    pod.enter("serving", "they answer")
    return pod


@pytest.fixture
async def worker(directory: RuntimeDirectory) -> AsyncIterator[Worker]:
    worker = Worker()
    async with worker.at(directory.workers / "one.sock"):
        yield worker


async def until_step(drain: Drain, step: str) -> None:
    async with asyncio.timeout(20):
        while drain.step != step:
            await asyncio.sleep(0.01)


async def test_readiness_is_gone_at_once_and_the_rest_follows_in_order(
    pod: Pod, directory: RuntimeDirectory, worker: Worker
) -> None:
    drain = Drain(pod, directory, delay=0.3)
    worker.answer["in_flight"] = 1
    drain.begin("asked for")
    assert (pod.phase, pod.ready) == ("draining", False)
    await until_step(drain, "announcing")
    worker.answer["draining"] = True
    await until_step(drain, "waiting_for_balancers")
    await until_step(drain, "finishing_requests")
    await asyncio.sleep(0.3)
    assert drain.as_json() == {"step": "finishing_requests", "in_flight": 1, "silent_workers": []}
    worker.answer["in_flight"] = 0
    await asyncio.wait_for(drain.wait_until_empty(), 20)
    assert drain.step == "empty"
    drain.begin("asked again")
    assert pod.drains == 1
    await drain.undo("asked for")
    assert (pod.phase, drain.step) == ("serving", "none")


async def test_a_worker_that_hangs_is_waited_for_no_longer_than_it_takes_to_know(
    pod: Pod, directory: RuntimeDirectory, worker: Worker
) -> None:
    worker.hangs.clear()
    drain = Drain(pod, directory, delay=0)
    drain.begin("asked for")
    await until_step(drain, "finishing_requests")
    await asyncio.sleep(1)
    assert drain.as_json()["silent_workers"] == ["one"]
    assert drain.step == "finishing_requests"  # it may hold a request
    await drain.undo("enough")
    await drain.undo("twice is once")


async def test_a_worker_that_is_gone_holds_nothing_up(pod: Pod, directory: RuntimeDirectory) -> None:
    orphan = directory.workers / "gone.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(orphan))
    drain = Drain(pod, directory, delay=0)
    drain.begin("asked for")
    await asyncio.wait_for(drain.wait_until_empty(), 20)


async def test_a_pod_that_served_nobody_gives_balancers_no_time(pod: Pod, directory: RuntimeDirectory) -> None:
    pod.enter("warming", "not yet")
    drain = Drain(pod, directory, delay=3600)
    drain.begin("asked for")
    await asyncio.wait_for(drain.wait_until_empty(), 20)
    await drain.undo("asked for")
    assert pod.phase == "warming"
