"""What a parent may kill, what it must not, and what it waits for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import processes
from supervisor.child import Ending, clear_leftovers, kill_session, reap_orphans, signal_master_by_pidfile
from supervisor.runtime_directory import RuntimeDirectory
from tests.system.pod import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
FAMILY = [sys.executable, "-c", "import os, time; os.fork(); os.fork(); time.sleep(600)"]


@pytest.fixture
def directory(tmp_path: Path) -> RuntimeDirectory:
    directory = RuntimeDirectory(tmp_path)
    directory.prepare()
    return directory


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        for member in members(process.pid):
            os.kill(member, signal.SIGKILL)
        process.kill()
        process.wait()


def members(session: int) -> set[int]:
    return {one.pid for one in processes.everybody() if one.session == session and one.state not in "ZX"}


def start(started: list[subprocess.Popen[bytes]], command: list[str], mark: str = "") -> subprocess.Popen[bytes]:
    environment = {**os.environ, processes.MARK: mark} if mark else dict(os.environ)
    started.append(subprocess.Popen(command, env=environment, start_new_session=True))
    return started[-1]


def left_behind(directory: RuntimeDirectory, pid: int, start: int, mark: str, machine: str | None = None) -> None:
    boot = processes.machine_boot() if machine is None else machine
    directory.child.write_text(json.dumps({"pid": pid, "start": start, "mark": mark, "machine_boot": boot}))


def start_time(pid: int) -> int:
    process = processes.look_at(pid)
    assert process is not None
    return process.start


def test_all_who_carry_the_mark_are_ended_also_when_their_leader_is_dead(
    directory: RuntimeDirectory, started: list[subprocess.Popen[bytes]]
) -> None:
    leader = start(started, FAMILY, "mark-1")
    wait_until(lambda: len(members(leader.pid)) == 4, lambda: "the family is complete", 20)
    at = start_time(leader.pid)
    leader.kill()
    leader.wait()
    left_behind(directory, leader.pid, at, "mark-1")
    (directory.workers / "old.sock").touch()
    (directory.workers / "old.final.json").touch()
    directory.pidfile.write_text(f"{os.getpid()}\n")
    clear_leftovers(directory)
    assert members(leader.pid) == set()
    assert sorted(path.name for path in directory.workers.iterdir()) == ["old.final.json"]
    assert not directory.pidfile.exists() and not directory.child.exists()


@pytest.mark.parametrize("why", ["another start time", "another life of the machine", "no mark"])
def test_a_stranger_with_the_same_pid_is_left_alone(
    directory: RuntimeDirectory, started: list[subprocess.Popen[bytes]], why: str
) -> None:
    stranger = start(started, SLEEP)
    at = start_time(stranger.pid)
    if why == "another start time":
        left_behind(directory, stranger.pid, at - 1, "mark-2")
    elif why == "another life of the machine":
        left_behind(directory, stranger.pid, at, "mark-2", machine="of another time")
    else:
        left_behind(directory, stranger.pid, at, "")
    clear_leftovers(directory)
    assert stranger.poll() is None


def test_a_leader_that_wrote_over_its_environment_is_known_by_its_start_time(
    directory: RuntimeDirectory, started: list[subprocess.Popen[bytes]]
) -> None:
    leader = start(started, FAMILY)
    wait_until(lambda: len(members(leader.pid)) == 4, lambda: "the family is complete", 20)
    left_behind(directory, leader.pid, start_time(leader.pid), "mark-3")
    clear_leftovers(directory)
    assert members(leader.pid) == set()


def test_without_a_mark_nobody_is_killed(started: list[subprocess.Popen[bytes]]) -> None:
    stranger = start(started, SLEEP)
    assert kill_session(stranger.pid, "", whole=True) == set()
    assert stranger.poll() is None


def test_leftovers_that_make_no_sense_are_forgotten(directory: RuntimeDirectory) -> None:
    for content in ("", "[]", "{}", '{"pid": null, "mark": null}'):
        directory.child.write_text(content)
        clear_leftovers(directory)
        assert not directory.child.exists()


def test_a_pidfile_is_believed_only_when_it_names_a_gunicorn(directory: RuntimeDirectory) -> None:
    directory.pidfile.write_text("1\n")
    assert "nothing is signalled" in signal_master_by_pidfile(directory, signal.SIGHUP)
    for content in ("", "many\n"):
        directory.pidfile.write_text(content)
        assert "no gunicorn.pid" in signal_master_by_pidfile(directory, signal.SIGHUP)
    directory.pidfile.write_text("4194304\n")
    assert "nothing is signalled" in signal_master_by_pidfile(directory, signal.SIGHUP)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-9, "was ended by SIGKILL"),
        (-11, "was ended by SIGSEGV"),
        (-63, "was ended by signal 63"),
    ],
)
def test_how_it_ended_is_said_in_words(status: int, words: str) -> None:
    assert str(Ending(status)) == words


async def test_what_somebody_waits_for_is_not_taken_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.child.REAP_EVERY", 0.2)
    reaping = asyncio.create_task(reap_orphans())
    for status in range(20):
        process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", f"raise SystemExit({status})")
        assert await process.wait() == status
    forgotten = os.posix_spawn("/bin/true", ["true"], {})
    async with asyncio.timeout(20):
        while processes.look_at(forgotten):
            await asyncio.sleep(0.05)
    reaping.cancel()


def test_a_child_ends_with_its_parent_however_that_ends() -> None:
    code = (
        "import os, subprocess, sys, time; from supervisor import processes\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True,\n"
        "                         preexec_fn=processes.ends_with_parent(os.getpid()))\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: (seen := processes.look_at(child)) is None or seen.state == "Z", lambda: "it ends", 20)
