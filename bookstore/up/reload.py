"""`make up RELOAD=1`: the supervisor and the API start anew when a source file changes; the servers go on."""

import time
from collections.abc import Iterable
from pathlib import Path

from bookstore.embedded import EmbeddedError
from bookstore.up.plan import PROJECT
from bookstore.up.pod import Pod
from bookstore.up.stopping import say

WATCHED = ("bookstore", "supervisor", "migrations")
SUFFIXES = (".py", ".sql", ".json", ".jsonl", ".csv", ".html", ".css", ".js")


def restart_on_change(pod: Pod) -> int:
    """For ever. What does not start is not the end here: the next change may mend it."""
    from watchfiles import watch

    broken = False
    folders = [PROJECT / name for name in WATCHED]
    # Waking four times a second is how a supervisor that ended by itself is noticed.
    for changes in watch(*folders, rust_timeout=250, yield_on_timeout=True, raise_interrupt=False):
        changed = sorted({path for _, path in changes if path.endswith(SUFFIXES)})
        if changed:
            broken = not _restart(pod, changed)
        elif not broken and (status := pod.ended()) is not None:
            broken = True
            say(f"The supervisor ended with status {status}: waiting for a change that mends it.")
    pod.stopping.again()  # watchfiles takes whatever a signal handler raises for an end of watching
    return 0


def _restart(pod: Pod, changed: Iterable[str]) -> bool:
    names = [str(Path(path).relative_to(PROJECT)) for path in changed]
    say(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} changed: restarting …")
    began = time.monotonic()
    pod.stop()
    pod.start()
    try:
        pod.wait_until_ready()
    except EmbeddedError as error:
        say(f"{error} Waiting for the next change.")
        return False
    say(f"Ready again after {time.monotonic() - began:.1f} s.")
    return True
