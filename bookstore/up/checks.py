"""What can be known to fail before anything is started: each one sentence with the way out."""

import contextlib
import errno
import shutil
import socket

from bookstore.embedded import EmbeddedError, Home
from bookstore.up.plan import Plan

ROOM = (
    300 * 1_000_000
)  # a fresh PostgreSQL with its first log segments takes 60 MB; below 256 MB the probe calls it full


def check_ports(plan: Plan) -> None:
    host = plan.settings.host
    _check_port("PORT", host, plan.settings.port)
    supervisor_host = plan.environ.get("SUPERVISOR_HOST", "127.0.0.1")
    _check_port("SUPERVISOR_PORT", supervisor_host, plan.settings.supervisor_port)


def check_room(home: Home) -> None:
    free = shutil.disk_usage(home.path).free
    if free < ROOM:
        raise EmbeddedError(
            f"{home.path} is on a disk with {free // 1_000_000} MB free, and {ROOM // 1_000_000} MB are needed:"
            " make room there, or name a directory elsewhere in BOOKSTORE_DATA."
        )


def _check_port(name: str, host: str, port: int) -> None:
    way_out = f"choose another, as in `make up {name}={port + 10 if port < 65_000 else port - 10}`."
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise EmbeddedError(f"Port {port} is taken{_by_whom(port)}: stop that, or {way_out}") from None
            raise EmbeddedError(f"Port {port} on {host} cannot be used ({error.strerror}): {way_out}") from None


def _by_whom(port: int) -> str:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
