"""Workers that have lost their mind: each is blamed alone, and costs a bounded part of what there is."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.drain import Drain
from supervisor.history import History
from supervisor.pod import Pod
from supervisor.probes.workers import WorkersTarget
from supervisor.probes.workers import open as opened
from supervisor.runtime_directory import RuntimeDirectory
from supervisor.worker_sockets import LONGEST_ANSWER, ask_live

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.asynccontextmanager
async def listening(path: Path, head: bytes, body: bytes, *, times: int = 1) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"\r\n")
            for _ in range(times):
                writer.write(body)
                await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


def sane(**more: Any) -> bytes:
    return str({"pid": 7, "in_flight": 0, **more}).replace("'", '"').encode()


INSANE = {
    "nested without end": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "no text": b"\xff\xfe",
    "a lone surrogate": b'{"pid": "\\ud800"}',
    "a word for a number": b'{"in_flight": "abc"}',
    "a number beyond bounds": b'{"in_flight": 1e999}',
    "a huge number": b'{"pid": ' + b"9" * 5000 + b"}",
    "a list for a word": b'{"gate": ["open"]}',
    "less than none": b'{"in_flight": -1}',
    "no object": b"[1]",
    "nothing": b"",
}


@pytest.mark.parametrize("body", INSANE.values(), ids=INSANE)
async def test_an_insane_worker_is_blamed_alone(tmp_path: Path, body: bytes) -> None:
    async with listening(tmp_path / "mad.sock", OK, body), listening(tmp_path / "sane.sock", OK, sane()):
        mad, other = await ask_live(tmp_path, timeout=5)
        async with opened(WorkersTarget(tmp_path, expected=2)) as ask:
            finding = await ask()
    assert (mad.answer, mad.gone) == (None, False)
    assert mad.error
    assert other.answer == {"pid": 7, "in_flight": 0}
    assert finding.error == "1 of 2 workers answer"


@pytest.mark.parametrize("head", [OK, OK + b"Content-Encoding: gzip\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
async def test_an_answer_without_end_is_cut(tmp_path: Path, head: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with listening(tmp_path / "mad.sock", head, b" " * (1 << 20), times=2000):
        (heard,) = await ask_live(tmp_path, timeout=30)
    assert heard.error == f"its answer is longer than {LONGEST_ANSWER:,} bytes"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, "kB"


async def test_a_drain_outlives_a_worker_that_makes_no_sense(tmp_path: Path) -> None:
    directory = RuntimeDirectory(tmp_path)
    directory.prepare()
    pod = Pod(History(directory.history), expected_workers=1)
    pod.enter("serving", "they answer")
    drain = Drain(pod, directory, delay=0)
    path = directory.workers / "mad.sock"
    async with listening(path, OK, INSANE["a word for a number"]):
        drain.begin("asked for")
        async with asyncio.timeout(20):
            while drain.step != "finishing_requests" or not drain.silent:
                await asyncio.sleep(0.02)
    path.unlink(missing_ok=True)
    await asyncio.wait_for(drain.wait_until_empty(), 20)
