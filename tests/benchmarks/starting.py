"""How long does a person wait for `make up`? Measured on a data directory of its own and free ports."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.servers import ROOT, free_port


def seconds_to_ready(data: Path) -> tuple[float, float]:
    """Of the first start (databases laid out, sample loaded) and of the second, until the banner is there."""
    return _start(data), _start(data)


def _start(data: Path) -> float:
    environ = {**os.environ, "BOOKSTORE_DATA": str(data), "PORT": str(free_port()), "SUPERVISOR_PORT": str(free_port())}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bookstore", "up"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if re.search(r"BookStore is ready", line):
                return time.perf_counter() - began
        raise RuntimeError("`bookstore up` ended without its banner")
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        process.wait(60)
