import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from supervisor.history import KEPT, History, Transition
from supervisor.runtime_directory import DirectoryHeldError, RuntimeDirectory, age, boottime, write_whole


@pytest.fixture
def directory(tmp_path: Path) -> RuntimeDirectory:
    return RuntimeDirectory(tmp_path / "run")


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
    assert age({"boottime": boottime() - 3}) == pytest.approx(3, abs=1)
    assert age({"boottime": boottime() + 100}) == float("inf")  # of another life of the machine
    assert age({}) == float("inf")


def test_what_is_no_state_is_none(directory: RuntimeDirectory) -> None:
    assert directory.read_state() is None
    directory.prepare()
    for content in (b"", b"{", b"[]", b"\xff"):
        write_whole(directory.state, content)
        assert directory.read_state() is None


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
