"""A directory with servers' data: who holds it, what ran in it, and where its sockets are."""

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bookstore.embedded.processes import LAUNCH, end, mark

LONGEST_SOCKET_PATH = 107
THROWAWAY = "bookstore-throwaway-"
DAY = 86_400


class EmbeddedError(RuntimeError):
    """One sentence that says what is wrong and the way out."""

    exit_status = 1


class AlreadyHeld(EmbeddedError):
    """Another launcher holds this directory."""


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.throwaway = False
        self._held: int | None = None

    @classmethod
    def temporary(cls) -> "Home":
        """A directory that is deleted when let go; those that a kill -9 left behind are deleted here."""
        with _alone(Path(tempfile.gettempdir())):  # or another one's sweep takes ours before we hold it
            _sweep(Path(tempfile.gettempdir()))
            _sweep_sockets(Path(tempfile.gettempdir()))
            home = cls(Path(tempfile.mkdtemp(prefix=THROWAWAY)))
            home.throwaway = True
            home.hold()
        return home

    @contextlib.contextmanager
    def held(self) -> Iterator["Home"]:
        self.hold()
        try:
            yield self
        finally:
            self.let_go()

    def hold(self) -> None:
        """Take the lock, then end what an earlier holder left running."""
        if self._held is not None:
            return
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "lock").exists():
            raise EmbeddedError(f"{self.path} holds other things: name an empty directory, or one of ours.")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if isinstance(error, PermissionError) and self.path.is_dir():
                raise  # somebody else's, which whoever asked explains
            raise EmbeddedError(
                f"Cannot write to {self.path} ({error.strerror}): make it writable, or name another"
                " directory in BOOKSTORE_DATA."
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(held, 32).decode().strip() or "unknown"
            os.close(held)
            raise AlreadyHeld(
                f"A bookstore is already running on {self.path} (process {holder}): use that one, or stop it with"
                f" Ctrl-C in its terminal or `kill {holder}`."
            ) from None
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
        self._held = held
        self.end_leftovers()

    def let_go(self) -> None:
        if self._held is None:
            return
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self.throwaway:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self._processes.unlink(missing_ok=True)
        os.close(self._held)
        self._held = None

    # -- what runs here ------------------------------------------------------------------------------------------

    def remember(self, name: str, pid: int) -> None:
        """So that the next holder can end it, should we be unable to."""
        known = {**self._remembered(), name: (pid, mark(pid))}
        fresh = self._processes.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({name: {"pid": pid, "mark": mark} for name, (pid, mark) in known.items()}))
        fresh.replace(self._processes)

    def end_leftovers(self) -> list[str]:
        ended = []
        for name, (pid, known) in reversed(self._remembered().items()):  # the supervisor before its servers
            if known is not None and mark(pid) == known:
                # The supervisor passes a stop on to gunicorn, PostgreSQL writes its checkpoint: some patience is right.
                if not end(pid, ((signal.SIGINT, 4), (signal.SIGKILL, 5))):
                    raise EmbeddedError(f"{name} (process {pid}), left by a crash, does not end: try `kill -9 {pid}`.")
                ended.append(name)
        self._processes.unlink(missing_ok=True)
        return ended

    @property
    def _processes(self) -> Path:
        return self.path / "processes.json"

    def _remembered(self) -> dict[str, tuple[int, str | None]]:
        """Pid and mark by name. What is no such thing is nothing: a file may be cut short, or somebody's edit."""
        try:
            known = json.loads(self._processes.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        remembered: dict[str, tuple[int, str | None]] = {}
        for name, process in known.items() if isinstance(known, dict) else ():
            match process:
                case {"pid": int(pid), "mark": str(marked)} if pid > 1:
                    remembered[name] = (pid, marked)
        return remembered

    # -- where sockets are ---------------------------------------------------------------------------------------

    @property
    def sockets(self) -> Path:
        """Short whatever the data directory's path, the same at every start, and without a character to be quoted."""
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:10]
        candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/dev/shm")]  # noqa: S108  # made private below
        for parent in candidates:
            plain = str(parent).replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
            if plain and len(str(parent)) < 60 and os.access(parent, os.W_OK | os.X_OK):
                return parent / f"bookstore-{os.geteuid()}-{name}"
        raise EmbeddedError(
            "No short directory for sockets is writable: make /tmp writable, or set TMPDIR to a short path."
        )

    def socket_directory(self, name: str, identity: str) -> Path:
        """A private directory for one server's socket, owned by whom it runs as."""
        owner = _owner(identity)
        _private(self.sockets, os.geteuid(), 0o700 if owner == os.geteuid() else 0o711)
        (self.sockets / "of").write_bytes(os.fsencode(self.path))
        directory = self.sockets / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        if owner != os.geteuid():
            os.chown(directory, owner, -1)
        return directory

    def own_directory(self, name: str, identity: str) -> Path:
        """A directory for one server's data, owned by whom it runs as (also when that was another the last time)."""
        owner = _owner(identity)
        directory = self.path / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if owner not in (os.geteuid(), self.path.stat().st_uid):
            self.path.chmod(0o711)  # it may pass through, and see nothing
        if directory.stat().st_uid != owner and os.geteuid() == 0:
            for entry in [directory, *directory.rglob("*")]:
                os.chown(entry, owner, -1, follow_symlinks=False)
        return directory


def identity_for(home: Path, program: Path) -> str:
    """As whom a server runs that refuses to run as root (see launch.become)."""
    if os.geteuid() != 0:
        return "same" if _has_name(os.geteuid()) else _mapped()
    candidates: list[pwd.struct_passwd] = []
    with contextlib.suppress(KeyError, OSError):
        candidates.append(pwd.getpwuid((home if home.exists() else home.parent).stat().st_uid))  # it stays theirs
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            candidates.append(pwd.getpwnam(name))
    for user in candidates:
        if user.pw_uid != 0 and _reaches(user, (home.parent, program)):
            return f"become:{user.pw_uid}:{user.pw_gid}"
    return _mapped()


def _mapped() -> str:
    """A user namespace: our own files, under a number that has a name and is not 0."""
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam("nobody")
        identity = f"map:{user.pw_uid}:{user.pw_gid}"
        python = [sys.executable, "-I", "-S"]
        attempt = [*python, LAUNCH, str(os.getpid()), "15", identity, *python, "-c", ""]
        if subprocess.run(attempt, capture_output=True, check=False).returncode == 0:
            return identity
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, no other user can reach this directory, and user namespaces are off:"
        " run as an ordinary user, move the checkout out of /root, or set DATABASE_URL."
    )


def _reaches(user: pwd.struct_passwd, paths: Sequence[Path]) -> bool:
    tests = " && ".join(f'test -x "${number}"' for number in range(1, len(paths) + 1))
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", tests, "sh", *map(str, paths)],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            check=False,
            capture_output=True,
        )
    except (OSError, subprocess.SubprocessError):  # a container's root without the right to change its user
        return False
    return done.returncode == 0


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _owner(identity: str) -> int:
    kind, _, numbers = identity.partition(":")
    return int(numbers.split(":")[0]) if kind == "become" else os.geteuid()


def _private(directory: Path, owner: int, mode: int) -> None:
    """In a shared /tmp somebody else may have been there first, on purpose."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise EmbeddedError(f"{directory} belongs to somebody else: have it removed, or set TMPDIR to another.")
    directory.chmod(mode)


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """One process of ours at a time."""
    lock = os.open(parent / f"{THROWAWAY}{os.geteuid()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Throw-away directories whose holder was killed: nobody holds their lock any more."""
    for path in parent.glob(f"{THROWAWAY}*"):
        home = Home(path)
        home.throwaway = True
        try:
            if path.stat().st_uid != os.geteuid() or not (path / "lock").exists():
                continue
            home.hold()
        except (EmbeddedError, OSError):
            continue
        home.let_go()


def _sweep_sockets(parent: Path) -> None:
    """Socket directories of data directories that are no more, as a test leaves them that kills its launcher."""
    for path in parent.glob(f"bookstore-{os.geteuid()}-*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and _is_dead(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_dead(sockets: Path) -> bool:
    """A directory that does not say whose it is (another program's version made it) may go after a day unheard."""
    try:
        return not Path(os.fsdecode((sockets / "of").read_bytes())).exists()
    except FileNotFoundError:
        unheard = f"{sockets}/" not in Path("/proc/net/unix").read_text(errors="replace")
        return unheard and time.time() - sockets.stat().st_mtime > DAY
