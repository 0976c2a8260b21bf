"""One gesture, one stop: what make, the shell and the kernel each pass on counts once; later ones hurry."""

import os
import signal
import time

import pytest

from bookstore.up import stopping
from bookstore.up.stopping import Stop, Stopping


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAKELEVEL", raising=False)  # or the tests would end with the make that runs them


def test_the_first_signal_interrupts_and_its_echoes_are_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried: list[int] = []
    with Stopping() as heard:
        heard.hurry = lambda: hurried.append(1)
        with pytest.raises(Stop, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert hurried == []
        monkeypatch.setattr(stopping, "SAME_GESTURE", 0.0)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)  # a closing terminal is in no hurry
        assert hurried == []
        os.kill(os.getpid(), signal.SIGINT)
        assert hurried == [1]


def test_no_signal_interrupts_what_is_being_taken_down() -> None:
    with Stopping() as heard:
        heard.begin()
        os.kill(os.getpid(), signal.SIGINT)
        heard.check()


def test_nohup_is_respected_and_everything_is_as_it_was_afterwards() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with Stopping():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) == interrupt
    finally:
        signal.signal(signal.SIGHUP, before)
