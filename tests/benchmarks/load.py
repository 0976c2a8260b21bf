"""One question: how many requests a second does this URL answer? Asked with wrk where there is one."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

CONNECTIONS = 32


@dataclass(frozen=True)
class Load:
    """Requests answered a second, the 99th percentile in milliseconds, and how many answers were not 2xx."""

    per_second: float
    p99_ms: float
    failed: int


def client() -> str:
    return "wrk" if shutil.which("wrk") else "bundled client"


def press(url: str, *, seconds: int, cpu: int | None) -> Load:
    """Keep 32 keep-alive connections busy for `seconds`, from a process pinned to `cpu` where one is given."""
    if shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.load", url, str(seconds)]
    if cpu is not None and shutil.which("taskset"):
        command = ["taskset", "-c", str(cpu), *command]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    return _read_wrk(said)


_SECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def _read_wrk(said: str) -> Load:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", said)
    if rate is None or p99 is None:
        raise RuntimeError(f"the load client said something else:\n{said}")
    failed = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    failed += sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    return Load(float(rate[1]), float(p99[1]) * _SECONDS[p99[2]], failed)


class _Connection(asyncio.Protocol):
    """Sends the same request again as soon as an answer is whole (Content-Length only: every answer here has one)."""

    def __init__(self, request: bytes, tally: "_Tally") -> None:
        self._request, self._tally, self._buffer = request, tally, b""
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        if length is None or len(body) < int(length[1]):
            return
        self._buffer = body[int(length[1]) :]
        self._tally.latencies.append(time.perf_counter() - self._started)
        self._tally.failed += head[9:10] != b"2"
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.failed += not self._tally.over


class _Tally:
    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.over = False


async def _press_bundled(url: str, seconds: int) -> None:
    address, _, path = url.removeprefix("http://").partition("/")
    host, _, port = address.partition(":")
    request = f"GET /{path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    tally = _Tally()
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(request, tally), host, int(port))
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, tally.over = time.perf_counter() - started, True
    ordered = sorted(tally.latencies)
    # wrk's words, so that one reader reads both
    print(f"99% {ordered[int(len(ordered) * 0.99)] * 1000:.3f}ms\nNon-2xx or 3xx responses: {tally.failed}")
    print(f"Requests/sec: {len(ordered) / elapsed:.2f}")


if __name__ == "__main__":
    import uvloop

    uvloop.run(_press_bundled(sys.argv[1], int(sys.argv[2])))
