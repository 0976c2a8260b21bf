"""Measure everything in one run, side by side, and say it as one table, as JSON and as a picture.

    make bench                  about three minutes
    make bench QUICK=1          shorter rounds, to see that it still runs: its numbers are noise

Every contender is one process pinned to one core; the client has the other one. Contenders take turns in short rounds
and the median round counts, so that a noisy minute hurts all of them alike.
"""

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bookstore.embedded import EmbeddedError, Home, Postgres, Redis
from tests.benchmarks import catalogue, chart, servers, starting
from tests.benchmarks.load import client, press
from tests.conftest import migrate_plainly

QUICK = bool(os.environ.get("QUICK"))
ROUNDS, SECONDS = (1, 1) if QUICK else (5, 3)
RESULTS = servers.ROOT / "docs" / "benchmarks"

API = "/api/v1"
SEARCH = "/books?q=harry+potter"


@dataclass(frozen=True)
class Row:
    """One line of the table: `ratio` is ours divided by the contender in `against`, `floor` what it must reach."""

    what: str
    ours: float
    unit: str
    p99_ms: float | None = None
    against: str = ""
    other: float | None = None
    ratio: float | None = None
    floor: str = ""
    holds: bool | None = None


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, tempfile.TemporaryDirectory() as scratch:
        task = progress.add_task("")
        rows = list(_measure(Path(scratch), lambda text: progress.update(task, description=text)))
    machine = f"{os.cpu_count()} × {_cpu_model()}, Python {platform.python_version()}, {client()}"
    console.print(_table(rows, machine))
    if not QUICK:
        _keep(rows, machine)
        console.print(f"kept in {RESULTS.relative_to(servers.ROOT)}/latest.json and chart.svg")
    return 0 if all(row.holds is not False for row in rows) or QUICK else 1


def _measure(scratch: Path, say: Callable[[str], None]) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(Home.temporary().held())
        server = Postgres(home, durable=False)
        stack.callback(server.stop)
        say("starting PostgreSQL and Redis, importing 10,000 books")
        database_url = server.start()
        migrate_plainly(database_url)
        yield from _import_rows(catalogue.bring(database_url), catalogue.copy_raw(database_url))
        redis_url = _redis(home, stack)
        yield from _requests(database_url, redis_url, scratch, stack, say)
    say("starting `bookstore up` twice")
    first, second = starting.seconds_to_ready(scratch / "data")
    yield Row("first start to ready (packages installed)", first, "s")
    yield Row("second start to ready", second, "s", floor="≤ 5 s", holds=second <= 5)


def _import_rows(ours: float, raw: float) -> Iterator[Row]:
    yield Row("import", ours, "rows/s", None, "raw COPY of the same rows", raw, ours / raw)


def _requests(
    database_url: str, redis_url: str | None, scratch: Path, stack: contextlib.ExitStack, say: Callable[[str], None]
) -> Iterator[Row]:
    cpus = sorted(os.sched_getaffinity(0))
    serve, load = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)

    def start(name: str, ready: str, command: list[str], environ: dict[str, str], port: int) -> str:
        say(f"starting {name}")
        log = scratch / f"{name}.log"
        return stack.enter_context(servers.server(command, port=port, ready=ready, environ=environ, log=log, cpu=serve))

    def start_ours(name: str, **extra: str) -> str:
        port, directory = servers.free_port(), scratch / name
        directory.mkdir(mode=0o700)
        return start(name, "/health/startup", *servers.ours(port, database_url, redis_url, directory, **extra), port)

    hot = start_ours("hot")
    cold = start_ours("cold", **servers.CACHES_OFF)
    book = f"/books/{catalogue.a_book(hot + API)}"
    bodies = {path: _get(hot + API + path) for path in (book, "/books?limit=20")}
    by_path = scratch / "bodies.json"
    by_path.write_text(json.dumps({urllib.parse.urlsplit(path).path: body for path, body in bodies.items()}))
    port = servers.free_port()
    bare = start("bare", book, *servers.bare(port, by_path), port)
    port = servers.free_port()
    peer = start("peer", "/ready", *servers.peer(port, database_url), port)
    if json.loads(_get(peer + book)) != json.loads(bodies[book]):
        raise RuntimeError("the peer answers another book")
    deep = catalogue.page(cold + API, 400)

    pairs: dict[str, dict[str, str]] = {
        "book by id, hot": {"ours": hot + API + book, "bare aiohttp": bare + book, "FastAPI peer": peer + book},
        "book by id, caches off": {"ours": cold + API + book, "FastAPI peer": peer + book},
        "list of 20, hot": {
            "ours": hot + API + "/books?limit=20",
            "bare aiohttp": bare + "/books",
            "FastAPI peer": peer + "/books?limit=20",
        },
        "list of 20, caches off": {"ours": cold + API + "/books?limit=20", "FastAPI peer": peer + "/books?limit=20"},
        "search, hot": {"ours": hot + API + SEARCH},
        "search, caches off": {"ours": cold + API + SEARCH},
        "page 400 of 10,000, caches off": {"ours": cold + deep, "page 1": cold + API + "/books?limit=20"},
    }
    floors = {
        ("book by id, hot", "bare aiohttp"): 0.45,
        ("book by id, hot", "FastAPI peer"): 1.5,
        ("list of 20, hot", "FastAPI peer"): 1.5,
        ("page 400 of 10,000, caches off", "page 1"): 1 / 1.5,
    }
    for what, contenders in pairs.items():
        say(f"{what}: {' against '.join(contenders)}")
        rounds: dict[str, list[Any]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, url in contenders.items():
                rounds[name].append(press(url, seconds=SECONDS, cpu=load))
        for name, loads in rounds.items():
            if any(each.failed for each in loads):
                raise RuntimeError(f"{what}: {name} failed {sum(each.failed for each in loads)} requests")
        rate = {name: statistics.median(each.per_second for each in loads) for name, loads in rounds.items()}
        p99 = statistics.median(each.p99_ms for each in rounds["ours"])
        others = [name for name in contenders if name != "ours"]
        if not others:
            yield Row(what, rate["ours"], "requests/s", p99)
        for name in others:
            floor, ratio = floors.get((what, name)), rate["ours"] / rate[name]
            yield Row(
                what, rate["ours"], "requests/s", p99, name, rate[name], ratio,
                f"≥ {floor:.2f}" if floor else "", None if floor is None else ratio >= floor,
            )  # fmt: skip


def _redis(home: Home, stack: contextlib.ExitStack) -> str | None:
    try:
        server = Redis(home, durable=False)
    except EmbeddedError:
        return None
    stack.callback(server.stop)
    return server.start()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _table(rows: list[Row], machine: str) -> Table:
    table = Table(title="make bench", caption=machine + (" · QUICK: numbers are noise" if QUICK else ""))
    for name in ("what", "ours", "p99 ms", "against", "theirs", "floor", "ratio"):
        table.add_column(name, justify="left" if name in ("what", "against") else "right")
    for row in rows:
        style = {True: "green", False: "bold red", None: ""}[row.holds]
        digits = 1 if row.unit == "s" else 0
        table.add_row(
            row.what,
            f"{row.ours:,.{digits}f} {row.unit}",
            "" if row.p99_ms is None else f"{row.p99_ms:.1f}",
            row.against,
            "" if row.other is None else f"{row.other:,.{digits}f}",
            row.floor,
            "" if row.ratio is None else f"{row.ratio:.2f} ×" if row.ratio >= 0.1 else f"1/{1 / row.ratio:.0f} ×",
            style=style,
        )
    return table


def _keep(rows: list[Row], machine: str) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {"at": time.strftime("%Y-%m-%d"), "machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / "latest.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    chart.draw(kept, RESULTS / "chart.svg")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
