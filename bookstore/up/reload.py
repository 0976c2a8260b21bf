"""`make up RELOAD=1`: the supervisor and the API start anew when a source file changes; the servers go on."""

import contextlib
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from bookstore.embedded import EmbeddedError
from bookstore.up.plan import PROJECT
from bookstore.up.pod import Pod
from bookstore.up.stopping import say

WATCHED = ("bookstore", "supervisor", "migrations")
SUFFIXES = (".py", ".sql", ".json", ".jsonl", ".csv", ".html", ".css", ".js")
WHOLE = "import bookstore.server, bookstore.app, supervisor.lifecycle"
"""What imports every module of both programs that a pod runs."""
PLACE = re.compile(r'^ +File "([^"]+)", line (\d+)', re.MULTILINE)

Changes = Callable[[], list[str]]


def start_when_whole(pod: Pod, changes: Changes) -> None:
    """Ready when it returns, however many changes that takes."""
    while not _brought_up(pod, changes):
        while not (changed := changes()):
            pod.stopping.check()
            time.sleep(0.05)
        _announce(changed)


def restart_on_change(pod: Pod, changes: Changes) -> NoReturn:
    """For ever. What does not start is not the end here: the next change may mend it."""
    broken = False
    while True:
        if changed := changes():
            _announce(changed)
            began = time.monotonic()
            broken = not _brought_up(pod, changes)
            if not broken:
                say(f"Ready again after {time.monotonic() - began:.1f} s.")
        elif broken:
            pod.stopping.check()
        elif (status := pod.ended()) is not None:
            broken = True
            say(f"The supervisor ended with status {status}: waiting for a change that mends it.")
        time.sleep(0.05)


@contextlib.contextmanager
def watching() -> Iterator[Changes]:
    """Watches also while something else is waited for. A thread, because the signals are the main thread's."""
    from watchfiles import watch

    seen: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    done = threading.Event()

    def look() -> None:
        for changes in watch(*[PROJECT / name for name in WATCHED], stop_event=done, rust_timeout=500):
            seen.put([path for _, path in changes if path.endswith(SUFFIXES)])

    def changes() -> list[str]:
        """What changed since it was last asked, in the checkout."""
        found: set[str] = set()
        while not seen.empty():
            found.update(str(Path(path).relative_to(PROJECT)) for path in seen.get())
        return sorted(found)

    thread = threading.Thread(target=look, name="watch the sources", daemon=True)
    thread.start()
    try:
        yield changes
    finally:
        done.set()
        thread.join(2)


def _announce(changed: list[str]) -> None:
    say(f"{changed[0]}{f' and {len(changed) - 1} more' if len(changed) > 1 else ''} changed: restarting …")


def _brought_up(pod: Pod, changes: Changes) -> bool:
    """Anew; false when nothing more is to be tried before the next change. A change meanwhile begins it once more."""

    def look(reason: str) -> None:
        if changed := changes():
            raise _ChangedMeanwhile(changed)
        if reason.startswith("the service "):  # ended: started again as it is, it would end again
            raise EmbeddedError(f"It does not stay up, its log above says why: {reason.split(';')[0]}.")

    while True:
        pod.stop()
        if fault := _fault(pod):
            say(f"It does not start: {fault}. Waiting for the next change.")
            return False
        pod.start()
        try:
            pod.wait_until_ready(look=look)
        except _ChangedMeanwhile as meanwhile:
            _announce(meanwhile.changed)
        except EmbeddedError as error:
            pod.stop()
            say(f"{error} Waiting for the next change.")
            return False
        else:
            return True


class _ChangedMeanwhile(Exception):
    def __init__(self, changed: list[str]) -> None:
        self.changed = changed


def _fault(pod: Pod) -> str:
    """What keeps the sources from being imported, in one line; every worker would say it at length, again and again."""
    asked = subprocess.run(
        [sys.executable, "-c", WHOLE],
        cwd=PROJECT,
        env=pod.plan.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        return ""
    said = asked.stderr.strip()
    ours = [(path, line) for path, line in PLACE.findall(said) if Path(path).is_relative_to(PROJECT)]
    where = f" ({Path(ours[-1][0]).relative_to(PROJECT)}, line {ours[-1][1]})" if ours else ""
    return (said.splitlines() or ["no reason given"])[-1].rstrip(".") + where
