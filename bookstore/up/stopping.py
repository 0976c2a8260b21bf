"""How `up` is told to stop: once by an exception out of whatever it waits for, then by hurrying what is under way."""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SAME_GESTURE = 1.0
"""Seconds within which further signals are the first one again: make, the shell and the kernel each pass one on."""
WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}


class Stop(BaseException):
    """Somebody wants this to end."""


class Stopping:
    """While entered, signals are ours. Raises `Stop` once, out of the main thread's current line."""

    def __init__(self) -> None:
        self.hurry: Callable[[], None] | None = None  # while there is a pod
        self._terminal: int | None = None
        self._began: float | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Stopping":
        for number in WORDS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the terminal may go, we stay
            self._before[number] = signal.signal(number, self._on_signal)
        if signal.SIGHUP in self._before:
            self._terminal = next((number for number in (0, 1, 2) if os.isatty(number)), None)
        _end_with_make()
        _adopt_orphans()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def begin(self) -> None:
        """From here on things are being taken down: no signal may interrupt that."""
        self._began = self._began or time.monotonic()

    def check(self) -> None:
        """To be called now and then while waiting. Of a closing terminal the kernel tells the session's leader alone:
        a shell passes it on to us, but where `make` is the leader (`ssh -t host make up`) it waits for us instead."""
        if self._terminal is None or self._began is not None:
            return
        poll = select.poll()
        poll.register(self._terminal, 0)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            self._stop(WORDS[signal.SIGHUP])

    def _stop(self, why: str) -> NoReturn:
        self.begin()
        raise Stop(why)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._began is None:
            self._stop(WORDS[signal.Signals(number)])
        elif number != signal.SIGHUP and self.hurry is not None and time.monotonic() - self._began > SAME_GESTURE:
            self.hurry()


def say(text: str) -> None:
    """A line for people; a terminal that was closed is no reason to die before the servers are stopped."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # for good: the terminal does not come back


def _end_with_make() -> None:
    """A `make` killed with kill -9 cannot tell us; from a shell, `nohup bookstore up &` may well outlive its parent."""
    if os.environ.get("MAKELEVEL"):
        parent = os.getppid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def _adopt_orphans() -> None:
    """Whatever a killed supervisor leaves becomes our child, so that it can be found and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
