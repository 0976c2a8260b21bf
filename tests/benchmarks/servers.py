"""The servers under comparison, each one process of work on one core, each really started and really ended."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHES_OFF = {"CACHE_SECONDS": "0"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: list[str], *, port: int, ready: str, environ: Mapping[str, str], log: Path, cpu: int | None
) -> Iterator[str]:
    """Start `command` pinned to `cpu`, wait until `ready` answers 200, yield its base URL, end it with SIGTERM."""
    pin = {cpu} if cpu is not None else os.sched_getaffinity(0)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, pin),
            start_new_session=True,
        )
        try:
            _wait_until_answering(f"http://127.0.0.1:{port}{ready}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def ours(
    port: int, database_url: str, redis_url: str | None, directory: Path, **extra: str
) -> tuple[list[str], dict[str, str]]:
    """One gunicorn worker with every feature on: production profile, JSON log lines to a file, metrics, all headers."""
    environ = {
        "ENVIRONMENT": "production",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
        "DATABASE_URL": database_url,
        "SECRET_KEY": "for-this-benchmark-run-and-nothing-else-0",
        "JWT_SECRET_KEY": "for-this-benchmark-run-and-nothing-else-1",
        "SUPERVISED": "false",
        "RUNTIME_DIR": str(directory),
        **({"REDIS_URL": redis_url} if redis_url else {}),
        **extra,
    }
    return [sys.executable, "-m", "gunicorn", "-c", "python:bookstore.server", "bookstore.server:application"], environ


def bare(port: int, bodies: Path) -> tuple[list[str], dict[str, str]]:
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-k",
        "aiohttp.GunicornUVLoopWebWorker",
        "-w",
        "1",
        "--no-control-socket",
    ]
    command += ["--keep-alive", "75", "-b", f"127.0.0.1:{port}", "tests.benchmarks.bare:application"]
    return command, {"BARE_BODIES": str(bodies)}


def peer(port: int, database_url: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "uvicorn", "tests.benchmarks.peer:app", "--port", str(port), "--loop", "uvloop"]
    return [*command, "--http", "httptools", "--no-access-log", "--log-level", "warning"], {
        "PEER_DATABASE_URL": database_url
    }


def _wait_until_answering(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not answer; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
