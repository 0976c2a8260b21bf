"""Become another program that lives no longer than whoever asked for it.

Run as a file: `python -I -S launch.py PARENT SIGNAL IDENTITY program argument…`. A small process of its own, because
what happens here must happen between fork and exec, where a Python with threads must not run Python. The order
matters: the kernel forgets the parent-death signal whenever credentials change, so it is asked for last, and a parent
that died before that is noticed by looking who the parent is now.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def become(identity: str) -> None:
    """`same`; `become:uid:gid`, a real other user; `map:uid:gid`, ourselves under another number (a user namespace)."""
    kind, _, numbers = identity.partition(":")
    if kind == "same":
        return
    uid, gid = (int(number) for number in numbers.split(":"))
    if kind == "become":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        return
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{gid} {outer_gid} 1"),
        ("uid_map", f"{uid} {outer_uid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  # pathlib costs 15 ms of every start
            file.write(text)


def end_with(parent: int, number: int) -> None:
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit(1)


def forget_inherited_signals() -> None:
    """A shell starts background jobs with SIGINT ignored, and exec keeps that: PostgreSQL must not inherit it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


if __name__ == "__main__":
    parent, number, identity, *argv = sys.argv[1:]
    forget_inherited_signals()
    become(identity)
    end_with(int(parent), int(number))
    os.execvp(argv[0], argv)  # noqa: S606
