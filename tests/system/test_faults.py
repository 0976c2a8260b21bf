"""What a running pod does when something it stands on goes away, and when it is told to go itself."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import termios
import time
from collections.abc import Callable

import pytest

from bookstore.embedded import Postgres
from tests.system.pod import SUPERVISOR, Load, Pod

pytestmark = pytest.mark.system

PodBuilder = Callable[..., Pod]


@pytest.mark.parametrize("again", ["at once", "once it is missed"])
async def test_a_supervisor_killed_and_started_again_beside_a_serving_api_never_closes_it(
    pod: PodBuilder, database_url: str, again: str
) -> None:
    one = pod(database_url)
    one.start_service()
    supervisor = one.start_supervisor()
    await asyncio.to_thread(one.wait_until_ready)
    await asyncio.to_thread(one.wait_until, lambda: one.api("/health/ready").status == 200, "the API says so too")
    loads = [Load(one, connections=4), Load(one, connections=1, path="/health/ready")]
    requests = [asyncio.create_task(load.run(by_readiness=False)) for load in loads]

    supervisor.kill()
    supervisor.wait()
    missing = '"supervisor":"missing"'
    if again == "once it is missed":
        await asyncio.to_thread(one.wait_until, lambda: missing in one.api("/health").text, "the API says it is alone")
    one.start_supervisor()
    await asyncio.to_thread(one.wait_until_ready)
    await asyncio.to_thread(one.wait_until, lambda: missing not in one.api("/health").text, "the API heard of it")
    before = [load.answered for load in loads]
    await asyncio.to_thread(
        one.wait_until,
        lambda: all(load.answered > seen + 50 for load, seen in zip(loads, before, strict=True)),
        "requests go on being answered",
    )
    for load in loads:
        load.give_up()
    await asyncio.gather(*requests)

    assert [load.failures for load in loads] == [[], []]


def everybody_read(pod: Pod, sequence: int) -> bool:
    workers = pod.supervisor("/status").json["workers"].values()
    return len(workers) == 2 and all(worker["sequence_seen"] >= sequence for worker in workers)


@pytest.mark.parametrize("asks", ["supervisor", "api"])
@pytest.mark.parametrize("round_", range(5))
async def test_sigterm_under_load_loses_no_request(pod: PodBuilder, database_url: str, round_: int, asks: str) -> None:
    """Whichever of the two answers on readiness a balancer goes by."""
    one = pod(database_url, workers=2, drain_delay=0.5)
    supervisor = one.start()
    await asyncio.to_thread(one.wait_until_ready)
    told = (
        json.loads((one.directory / "supervisor.json").read_text())["sequence"] + 1
    )  # ready by then, whoever wrote it
    await asyncio.to_thread(one.wait_until, lambda: everybody_read(one, told), "each worker of the API knows it too")
    load = Load(one, connections=32, asks=asks)
    requests = asyncio.create_task(load.run())
    await asyncio.to_thread(one.wait_until, lambda: load.answered > 300, "the load is on")
    supervisor.send_signal(signal.SIGTERM)
    await asyncio.wait_for(requests, 60)

    assert await asyncio.to_thread(supervisor.wait, 60) == 0
    assert load.failures == []
    assert one.processes() == set()


async def test_beside_its_supervisor_a_service_is_drained_by_command_and_then_ended_without_a_lost_request(
    pod: PodBuilder, database_url: str
) -> None:
    """What Kubernetes does: `preStop`, then SIGTERM to the service."""
    one = pod(database_url, drain_delay=0.5)
    service, _ = one.start_service(), one.start_supervisor()
    await asyncio.to_thread(one.wait_until_ready)
    load = Load(one, connections=16)
    requests = asyncio.create_task(load.run())
    await asyncio.to_thread(one.wait_until, lambda: load.answered > 100, "the load is on")

    drained = one.run([*SUPERVISOR[:-1], "drain", "--wait"])
    assert await asyncio.to_thread(drained.wait, 60) == 0
    assert one.api().status == 200  # out of service, and still serving
    service.terminate()
    await asyncio.wait_for(requests, 60)

    assert await asyncio.to_thread(service.wait, 60) == 0
    assert load.failures == []
    assert one.supervisor("/health/live").status == 200


def test_a_killed_parent_takes_its_service_with_it(pod: PodBuilder, database_url: str) -> None:
    one = pod(database_url, workers=2)
    supervisor = one.start()
    one.wait_until_ready()
    supervisor.kill()
    supervisor.wait()
    one.wait_until(lambda: not one.processes(), "nothing is left of the pod")
    assert one.api("/health/live").status is None

    one.start()  # on what the killed one left in the runtime directory
    one.wait_until_ready()
    assert one.api().status == 200


async def test_ctrl_c_in_a_terminal_drains_too(pod: PodBuilder, database_url: str) -> None:
    one = pod(database_url, drain_delay=0.5)
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    supervisor = one.run([*SUPERVISOR, "--", *one.service], stdin=theirs, preexec_fn=take_terminal)
    os.close(theirs)
    await asyncio.to_thread(one.wait_until_ready)
    load = Load(one, connections=8)
    requests = asyncio.create_task(load.run())
    await asyncio.to_thread(one.wait_until, lambda: load.answered > 50, "the load is on")
    os.write(ours, b"\x03")
    await asyncio.wait_for(requests, 60)

    assert await asyncio.to_thread(supervisor.wait, 60) == 0
    os.close(ours)
    assert load.failures == []
    assert one.processes() == set()


def test_postgresql_stopped_and_started_again_is_503_and_then_200_without_a_restart(
    pod: PodBuilder, own_postgres: Postgres
) -> None:
    one = pod(own_postgres.url())
    supervisor = one.start()
    one.wait_until_ready()
    (worker,) = (one.directory / "workers").glob("*.sock")

    own_postgres.stop()
    one.wait_until(lambda: one.supervisor().status == 503, "readiness is 503")
    started = time.monotonic()
    refused = one.api("/api/v1/books?limit=7")
    assert (refused.status, refused.json["error"]) == (503, "database_unavailable")
    assert time.monotonic() - started < 10  # 1 s, on a machine that does nothing else
    assert one.supervisor("/health/live").status == one.api("/health/live").status == 200

    own_postgres.start()
    one.wait_until_ready()
    one.wait_until(lambda: one.api("/api/v1/books?limit=7").status == 200, "books are answered again")
    assert worker.exists()
    assert supervisor.poll() is None
