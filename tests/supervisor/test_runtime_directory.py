import asyncio
import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.collect import Collector
from supervisor.history import KEPT, History, Transition
from supervisor.lifecycle import Supervisor, run
from supervisor.runtime_directory import (
    DirectoryHeldError,
    PastState,
    RuntimeDirectory,
    age,
    boottime,
    read_json,
    write_whole,
)
from supervisor.settings import ConfigurationError, load_settings
from tests.supervisor.small_disk import small_disk


@pytest.fixture
def directory() -> Iterator[RuntimeDirectory]:
    """In a short place: pytest's own has the user's name in it, and a socket's path holds 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sup-", dir="/tmp") as short:
        yield RuntimeDirectory(Path(short) / "run")


def test_it_is_for_the_pods_own_user_only(directory: RuntimeDirectory) -> None:
    directory.prepare()
    directory.write_state({})
    assert stat.S_IMODE(directory.path.stat().st_mode) == stat.S_IMODE(directory.workers.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.state.stat().st_mode) == 0o600


def test_a_second_supervisor_is_kept_out_and_told_by_whom(directory: RuntimeDirectory) -> None:
    with directory.held(), pytest.raises(DirectoryHeldError, match=str(os.getpid())), directory.held(patience=0.1):
        pass
    with directory.held(patience=0):
        pass


def test_a_killed_supervisor_holds_nothing(directory: RuntimeDirectory) -> None:
    directory.prepare()
    code = (
        "import time; from pathlib import Path; from supervisor.runtime_directory import RuntimeDirectory as R\n"
        f"with R(Path({str(directory.path)!r})).held():\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DirectoryHeldError), directory.held(patience=0.1):
            pass
        holder.kill()
    with directory.held(patience=5):
        pass


def test_a_reader_never_sees_half_a_state(directory: RuntimeDirectory) -> None:
    directory.prepare()
    directory.write_state({"sequence": 0, "long": "x" * 100_000})
    ended = threading.Event()

    def write() -> None:
        for sequence in range(200):
            directory.write_state({"sequence": sequence, "long": "x" * (sequence * 1000)})
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert directory.read_state() is not None
    writer.join()
    assert [path.name for path in directory.path.iterdir() if "supervisor.json." in path.name] == []


def test_age_is_measured_by_the_clock_nobody_can_set() -> None:
    assert age(boottime() - 3) == pytest.approx(3, abs=1)
    assert age(boottime() + 100) == float("inf")  # of another life of the machine
    assert age(None) == float("inf")


def test_what_is_no_state_is_none(directory: RuntimeDirectory) -> None:
    assert directory.read_state() is None
    directory.prepare()
    for content in (b"", b"{", b"[]", b"\xff"):
        write_whole(directory.state, content)
        assert directory.read_state() is None


NONSENSE = [
    b'{"sequence": "abc", "schema": {"applied": [1, {}]}, "checks": {"database": 3}, "phase": []}',
    b'{"sequence": 1e999, "boottime": "yesterday", "schema": [], "checks": [1]}',
    b'{"pid": "abc"}',
    b'{"pid": 1e999, "start": [], "mark": 3, "machine_boot": {}}',
    b'{"boots": {"x": 5}, "folded": [[]]}',
    b'{"a":' * 200_000,
    b"9" * 5000,
]


@pytest.mark.parametrize("content", [*NONSENSE, None], ids=range(len(NONSENSE) + 1))
async def test_whatever_lies_under_our_names_a_supervisor_starts(
    directory: RuntimeDirectory, content: bytes | None
) -> None:
    directory.prepare()
    for path in (directory.state, directory.child, directory.totals, directory.history, directory.pidfile):
        if content is None:
            (path / "full").mkdir(parents=True)
        else:
            write_whole(path, content)
    (directory.workers / "aa.sock").mkdir()
    with directory.held():
        told = load_settings({"DATABASE_URL": "postgresql:///x", "RUNTIME_DIR": str(directory.path)}, env_file=None)
        supervisor = Supervisor(told, directory, ["true"])
        await supervisor._take_up_what_was()
        past = directory.read_state()
        assert past is None or (past.sequence, past.phase, past.applied) == (0, "", ())
        assert directory.read_pidfile() is None
        assert not directory.child.exists() and not directory.pidfile.exists()
        assert list(directory.workers.glob("*.sock")) == []
        directory.write_state({"sequence": 7})
        assert directory.read_state() == PastState(sequence=7)


async def test_figures_that_cannot_be_collected_do_not_keep_a_pod_from_ending(directory: RuntimeDirectory) -> None:
    class Broken(Collector):
        async def collect(self, *, patience: float = 2.0) -> None:
            raise RuntimeError("a fault of ours")

    directory.prepare()
    told = load_settings(
        {"DATABASE_URL": "postgresql:///x", "RUNTIME_DIR": str(directory.path), "DRAIN_DELAY": "0"}, env_file=None
    )
    supervisor = Supervisor(told, directory, [])
    supervisor._collector = Broken(directory, supervisor._pod)
    supervisor._pod.enter("serving", "they answer")
    await asyncio.wait_for(supervisor._go_down(), 20)
    past = directory.read_state()
    assert past is not None and past.phase == "stopped"


def test_a_directory_that_was_open_to_others_is_closed(directory: RuntimeDirectory) -> None:
    directory.workers.mkdir(parents=True)
    for folder in (directory.path, directory.workers):
        folder.chmod(0o777)
    directory.prepare()
    assert [stat.S_IMODE(one.stat().st_mode) for one in (directory.path, directory.workers)] == [0o700, 0o700]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_directory_of_another_user_is_a_fault_of_the_settings(directory: RuntimeDirectory) -> None:
    directory.path.mkdir()
    os.chown(directory.path, 12345, 12345)
    told = load_settings({"DATABASE_URL": "postgresql:///x", "RUNTIME_DIR": str(directory.path)}, env_file=None)
    with pytest.raises(ConfigurationError, match=r"RUNTIME_DIR: .* belongs to user 12345.*chown 0"):
        await run(told)


def test_no_write_follows_what_somebody_planted(directory: RuntimeDirectory, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory.prepare()
    for name in ("supervisor.json", f".supervisor.json.{os.getpid()}", "history.jsonl", "totals.json"):
        (directory.path / name).symlink_to(victim)
    directory.write_state({"sequence": 1})
    History(directory.history).keep(transition(1))
    assert directory.read_state() == PastState(sequence=1)
    assert read_json(directory.totals) is None
    (directory.path / "supervisor.lock").symlink_to(victim)
    with pytest.raises(OSError), directory.held():  # ELOOP has no class of its own
        pass
    assert victim.read_text() == "precious"


def test_a_pipe_where_a_file_should_be_keeps_nobody_waiting(directory: RuntimeDirectory) -> None:
    directory.prepare()
    os.mkfifo(directory.state)
    assert directory.read_state() is None


def test_on_a_full_disk_the_state_is_still_told(directory: RuntimeDirectory) -> None:
    directory.prepare()
    with small_disk(directory.path):
        directory.prepare()
        directory.write_state({"sequence": 1, "phase": "serving"})
        filler = directory.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            write_whole(directory.totals, b"x" * 10_000)
        for sequence in (2, 3):
            directory.write_state({"sequence": sequence, "phase": "draining", "reason": "x" * 500 * sequence})
            assert directory.read_state() == PastState(sequence=sequence, phase="draining")
        assert sorted(path.name for path in directory.path.iterdir()) == ["filler", "supervisor.json", "workers"]
        filler.unlink()
        before = directory.state.stat().st_ino
        directory.write_state({"sequence": 4})
        assert directory.state.stat().st_ino != before, "by a file of its own again"


def transition(number: int) -> Transition:
    return Transition("2026-11-20T00:00:00Z", "database", "healthy", "unhealthy", str(number))


def test_history_outlives_its_supervisor_and_keeps_the_last_thousand(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = History(path)
    for number in range(2 * KEPT + 500):
        first.keep(transition(number))
    second = History(path)
    assert [kept.reason for kept in second.latest()] == [str(number) for number in range(KEPT + 500, 2 * KEPT + 500)]
    assert second.latest() == first.latest()
    assert len(path.read_text().splitlines()) <= 2 * KEPT
    second.keep(transition(9999))
    assert History(path).latest(1) == [transition(9999)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_line_of_a_killed_supervisor_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path).keep(transition(1))
    with path.open("a") as file:
        file.write('[]\n{"time": "2026"}\n{"time": "2026-11-2')
    assert History(path).latest() == [transition(1)]


def test_a_history_that_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    history = History(tmp_path / "none" / "history.jsonl")
    history.keep(transition(1))
    assert [json.dumps(kept.as_json()) for kept in history.latest()]


def test_writing_is_quick_enough_for_every_second(directory: RuntimeDirectory) -> None:
    directory.prepare()
    started = time.monotonic()
    for _ in range(20):
        directory.write_state({"checks": {str(number): {"status": "healthy"} for number in range(20)}})
    assert time.monotonic() - started < 10
