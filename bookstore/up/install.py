"""Make `.venv` and fill it from the locked requirements: what `make` does first, and nothing when it is done already.

Run as a file by the Python that make found, before anything is installed: nothing but the standard library.
`install.py runtime embedded` installs requirements/runtime.txt and requirements/embedded.txt with their hashes, then
this project itself.

`.venv/.installed-<layer>` holds what was installed, written last; `.venv/.installing` exists while pip works, so that
an interrupted installation is known and done again from the start.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

ROOM = {"runtime": 500, "embedded": 200, "dev": 500, "bench": 300}  # MB, measured and rounded up
PROJECT = Path(__file__).resolve().parent.parent.parent


class Refused(Exception):
    """One sentence: what is missing, and the way out."""


def main(layers: Sequence[str], project: Path = PROJECT) -> int:
    try:
        venv = project / ".venv"
        act_as_owner(venv if venv.exists() else project)
        with _alone(project):
            install(layers, project)
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    except PermissionError as error:
        sys.stderr.write(f"{whose(error, instead='remove it: `sudo rm -r .venv`')}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted: the next `make` starts the installation again.\n")
        return 130
    return 0


def act_as_owner(path: Path) -> None:
    """As root on somebody's files: go on as that somebody, so that nothing of theirs becomes root's.

    By an exec, because a process that merely changed its user may no longer look into its own /proc.
    """
    owner = path.stat().st_uid
    if os.geteuid() != 0 or owner == 0:
        return
    try:
        user = pwd.getpwuid(owner)
        reach = ["/bin/sh", "-c", 'test -x "$1" && test -x "$2"', "sh", sys.executable, str(path)]
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        tried = subprocess.run(reach, cwd="/", check=False, user=owner, group=user.pw_gid, extra_groups=groups)
        if tried.returncode != 0:
            return
    except (KeyError, OSError, subprocess.SubprocessError):  # a number without a name, or a root without the right
        return
    _say(f"{path} belongs to {user.pw_name}: going on as {user.pw_name}.")
    os.setgroups(groups)
    os.setgid(user.pw_gid)
    os.setuid(owner)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def whose(error: PermissionError, *, instead: str = "`sudo make reset`") -> str:
    """What somebody may not touch, as one sentence with the way out."""
    named = Path(os.path.abspath(os.fsdecode(error.filename or "")))  # noqa: PTH100  # resolving may be forbidden too
    for path in (named, *named.parents):
        try:
            owner = path.lstat().st_uid
        except OSError:
            continue
        if owner == os.geteuid():
            return f"{path}: {error.strerror or 'permission denied'}: look at its permissions."
        try:
            user = pwd.getpwuid(owner).pw_name
        except KeyError:
            user = f"user {owner}"
        return f"{path} belongs to {user}: run as {user}, or {instead}."
    return str(error)


def install(layers: Sequence[str], project: Path) -> None:
    venv = project / ".venv"
    python = venv / "bin" / "python"
    missing = [layer for layer in layers if not _is_installed(venv, layer, project)]
    if not missing:
        return
    _check_room(project, missing)
    started = time.monotonic()
    marker = venv / ".installing"
    if marker.exists():
        _say("The last installation did not come to its end: starting again with an empty .venv.")
        shutil.rmtree(venv)
    elif venv.is_dir():
        marker.touch()  # or it is somebody else's, and nothing is begun
    if not python.exists() or _was_moved(venv):
        _make_venv(venv)
    marker.touch()
    _say(f"Installing {' and '.join(missing)} requirements into .venv (once; a minute or two) …")
    files = [project / "requirements" / f"{layer}.txt" for layer in layers]
    locked = ["install", "--require-hashes", "--only-binary", ":all:"]  # nothing here needs a compiler
    _pip(python, [*locked, *_each("-r", files)], _count(files))
    _pip(python, ["install", "--no-deps", "--no-build-isolation", "-e", str(project)], 0)
    for layer in layers:
        (venv / f".installed-{layer}").write_text(_fingerprint(venv, layer, project))
    marker.unlink()
    _say(f"Installed in {time.monotonic() - started:.0f} s.")


def _is_installed(venv: Path, layer: str, project: Path) -> bool:
    if (venv / ".installing").exists() or not (venv / "bin" / "python").exists():
        return False
    try:
        return (venv / f".installed-{layer}").read_text() == _fingerprint(venv, layer, project)
    except OSError:
        return False


def _was_moved(venv: Path) -> bool:
    """Its scripts then name a Python that is elsewhere or no more. pip's is the first that there is."""
    try:
        head = (venv / "bin" / "pip").read_bytes()[:1000]
    except FileNotFoundError:
        return True
    return os.fsencode(venv / "bin") not in head


def _fingerprint(venv: Path, layer: str, project: Path) -> str:
    """What was installed where, for which Python: a checkout that was moved has scripts that point to the old place."""
    digest = hashlib.sha256(str(project).encode())
    for path in (venv / "pyvenv.cfg", project / "requirements" / f"{layer}.txt", project / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _check_room(project: Path, layers: Sequence[str]) -> None:
    wanted = sum(ROOM.get(layer, 200) for layer in layers)
    free = shutil.disk_usage(project).free // 1_000_000
    if free < wanted:
        raise Refused(
            f"The installation needs about {wanted} MB and {project} has {free} MB free:"
            " make room there, or move the checkout."
        )


def _make_venv(venv: Path) -> None:
    try:
        import ensurepip  # noqa: F401  # Debian ships venv without it, and says so only in the middle of the work
        import venv as _  # noqa: F401
    except ImportError:
        major, minor = sys.version_info[:2]
        raise Refused(
            f"This Python ({sys.executable}) cannot make virtual environments: install its venv module"
            f" (Debian and Ubuntu: `apt install python{major}.{minor}-venv`), or name another Python, as in"
            " `make up PYTHON=/usr/bin/python3.12`."
        ) from None
    _say(f"Making .venv with Python {sys.version.split()[0]} …")
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(venv, ignore_errors=True)
        raise Refused(_explained(made.stdout + made.stderr, "Making .venv failed."))


def _pip(python: Path, arguments: Sequence[str], total: int) -> None:
    """pip, with one line that moves on a terminal and a few lines elsewhere; what it said, when it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ)
    assert process.stdout is not None
    said: list[str] = []
    progress = _Progress(total)
    try:
        for line in _lines(process.stdout, progress.tick):
            said.append(line)
            progress.read(line)
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        progress.clear()
    if status != 0:
        raise Refused(_explained("\n".join(said[-15:]), "pip could not install the requirements."))


class _Progress:
    def __init__(self, total: int) -> None:
        self.total, self.seen, self.text, self.shown = total, 0, "", 0
        self.started = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def read(self, line: str) -> None:
        if line.startswith("Collecting "):
            self.seen += 1
            self.text = f"{self.seen}/{max(self.total, self.seen)}  {line.split()[1].split('==')[0]}"
            if not self.terminal and self.seen - self.shown >= 20:
                self.shown = self.seen
                _say(f"  {self.text}")
        elif line.startswith("Installing collected packages"):
            self.text = f"unpacking {self.seen} packages"
            if not self.terminal and self.total:
                _say(f"  {self.text}")

    def tick(self) -> None:
        if self.terminal and self.text:
            sys.stdout.write(f"\r\033[K  {time.monotonic() - self.started:3.0f} s  {self.text}")
            sys.stdout.flush()

    def clear(self) -> None:
        if self.terminal:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()


def _lines(stream: IO[bytes], tick: Callable[[], None]) -> Iterator[str]:
    """Lines as they come, with a tick five times a second: unpacking is a long time without one."""
    rest = b""
    while True:
        tick()
        if not select.select([stream], [], [], 0.2)[0]:
            continue
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _explained(said: str, otherwise: str) -> str:
    """What pip and venv say at length, as one sentence with the way out; the length follows."""
    if "No space left on device" in said:
        return "The disk is full: make room, then run the same command again."
    if "do not match the hashes" in said or "THESE PACKAGES DO NOT MATCH" in said:
        sentence = "A package is not the one that was locked: check what serves your packages; none was installed."
    elif "No matching distribution" in said or "Could not find a version" in said:
        sentence = "A package cannot be had for this Python and machine: check the network, or try PYTHON=python3.11."
    elif "Connection" in said or "Temporary failure in name resolution" in said or "timed out" in said.lower():
        sentence = "The packages cannot be downloaded: check the network (PIP_INDEX_URL, HTTPS_PROXY), then try again."
    elif "Permission denied" in said:
        sentence = "The checkout cannot be written to: make it yours, or clone it to where you may write."
    else:
        sentence = otherwise
    return f"{sentence}\n\n{said.strip()}"


@contextlib.contextmanager
def _alone(project: Path) -> Iterator[None]:
    """Two at once would install over each other; the directory itself is the lock, there is no file to leave behind."""
    directory = os.open(project, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say("Another `make` is installing here: waiting for it …")
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _count(files: Sequence[Path]) -> int:
    return sum(line[0].isalnum() for file in files for line in file.read_text().splitlines() if line)


def _each(option: str, values: Sequence[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
