"""How `make` fills .venv: once, with what is locked, and in one sentence when it cannot.

Without a network: the packages here are empty wheels, the project a small one with a build backend of its own.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import PROJECT, skip_or_fail
from tests.up.pods import measured, once_for_all

NOBODY = 65534

BACKEND = """
import pathlib, zipfile
def build_editable(directory, settings=None, metadata=None):
    name = "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        wheel.writestr("shop.pth", str(pathlib.Path.cwd()))
        wheel.writestr("shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: shop\\nVersion: 1.0\\n")
        wheel.writestr("shop-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("shop-1.0.dist-info/RECORD", "")
    return name
build_wheel = build_editable
"""


class Checkout:
    """As much of one as make and install.py look at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            return
        (path / "bookstore" / "up").mkdir(parents=True)
        (path / "requirements").mkdir()
        (path / "wheels").mkdir()
        shutil.copy(PROJECT / "Makefile", path)
        shutil.copy(PROJECT / "bookstore" / "up" / "install.py", path / "bookstore" / "up")
        (path / "backend.py").write_text(BACKEND)
        (path / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "shop"\nversion = "1.0"\n'
        )
        (path / "bookstore" / "__main__.py").write_text("print('installed and started')\n")
        self.require("runtime", self.wheel("apple"))
        self.require("embedded", self.wheel("setuptools"))

    def wheel(self, name: str, version: str = "1.0") -> str:
        """The line that locks it."""
        path = self.path / "wheels" / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}_installed.py", f"version = {version!r}\n")
            info = f"{name}-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"

    def require(self, layer: str, *lines: str) -> None:
        (self.path / "requirements" / f"{layer}.txt").write_text("".join(lines))

    def install(self, *, user: int | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        python = sys.executable if user is None else "/usr/bin/python3"  # ours may be in root's home
        return self._run([python, "-P", "bookstore/up/install.py", "runtime", "embedded"], user, **environ)

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._run(["make", *arguments], **environ)

    def installed(self, name: str) -> str | None:
        for path in (self.path / ".venv" / "lib").glob(f"python3.*/site-packages/{name}_installed.py"):
            return path.read_text().split("'")[1]
        return None

    def _run(self, command: list[str], user: int | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        wheels = (self.path / "wheels").as_uri()
        local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_COMPILE": "1"}
        environ = {**kept, **measured(self.path), **local, **environ}
        if user is not None:
            environ = {name: value for name, value in environ.items() if not name.startswith("COV")}
        return subprocess.run(
            command, cwd=self.path, env=environ, capture_output=True, text=True, timeout=120, user=user
        )


@pytest.fixture
def empty(tmp_path: Path) -> Checkout:
    """As it was cloned."""
    return Checkout(tmp_path / "a copy of the checkout")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """One in which `make up` ran, and what it said."""
    with once_for_all(tmp_path_factory, "installed") as shared:
        checkout = Checkout(shared / "a copy of the checkout")
        if not (shared / "said").exists():
            ran = checkout.make("up", PYTHON=sys.executable)
            (shared / "said").write_text(f"{ran.stdout}{ran.stderr}")
        return checkout, (shared / "said").read_text()


@pytest.fixture
def moved(first: tuple[Checkout, str], tmp_path: Path) -> Checkout:
    """That one at another place."""
    shutil.copytree(first[0].path, tmp_path / "copied" / "a copy of the checkout", symlinks=True)
    return Checkout(tmp_path / "copied" / "a copy of the checkout")


@pytest.fixture
def checkout(first: tuple[Checkout, str], moved: Checkout) -> Checkout:
    """As if it had been made there: making a .venv takes longer than everything else here."""
    pip = moved.path / ".venv" / "bin" / "pip"
    pip.write_text(pip.read_text().replace(str(first[0].path), str(moved.path)))
    return moved


def test_the_first_time_everything_locked_is_installed_and_the_second_time_nothing_is_touched(
    first: tuple[Checkout, str],
) -> None:
    checkout, said = first
    assert "Making .venv with Python 3." in said
    assert "Installed in" in said
    assert said.rstrip().endswith("installed and started")
    assert checkout.installed("apple") == "1.0"

    began = time.monotonic()
    assert checkout.make("up", PYTHON=sys.executable).stdout == "installed and started\n"
    assert time.monotonic() - began < 10


def test_a_changed_lock_is_installed_over_what_is_there(checkout: Checkout) -> None:
    checkout.require("runtime", checkout.wheel("apple", "2.0"))
    again = checkout.install()
    assert again.returncode == 0, again.stderr
    assert "Making .venv" not in again.stdout
    assert checkout.installed("apple") == "2.0"


def test_an_interrupted_installation_is_done_again_from_the_start(checkout: Checkout) -> None:
    (checkout.path / ".venv" / ".installing").touch()
    (checkout.path / ".venv" / "half a package").touch()
    again = checkout.install()
    assert again.returncode == 0, again.stderr
    assert "did not come to its end: starting again" in again.stdout
    assert checkout.installed("apple") == "1.0"
    assert not (checkout.path / ".venv" / "half a package").exists()
    assert not (checkout.path / ".venv" / ".installing").exists()


def test_a_checkout_that_was_moved_is_installed_anew_with_scripts_that_run(
    first: tuple[Checkout, str], moved: Checkout
) -> None:
    again = moved.install()
    assert again.returncode == 0, again.stderr
    assert "Installed in" in again.stdout
    told = subprocess.run([moved.path / ".venv" / "bin" / "pip", "--version"], capture_output=True, text=True)
    assert f"from {moved.path}/.venv" in told.stdout
    for script in (moved.path / ".venv" / "bin").iterdir():
        assert script.is_symlink() or os.fsencode(first[0].path) not in script.read_bytes()
    assert "Installed in" not in moved.install().stdout


def test_root_acts_as_the_one_whose_files_they_are() -> None:
    """In a script of its own, by a Python that others may run too."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become another user")
    script = f"import sys; sys.path.insert(0, {str(PROJECT / 'bookstore' / 'up')!r})\n"
    script += "import os; from pathlib import Path; from install import act_as_owner\n"
    script += "act_as_owner(Path(sys.argv[1])); print(os.getuid(), os.environ['HOME'], sys.argv)"
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        skip_or_fail("there is no Python that every user may run")
    with tempfile.TemporaryDirectory(prefix="bookstore-test-") as name:
        Path(name).chmod(0o755)
        theirs, nowhere = Path(name) / "theirs", Path(name) / "ours" / "theirs"
        for path in (theirs, nowhere):
            path.mkdir(parents=True)
            os.chown(path, NOBODY, -1)
        nowhere.parent.chmod(0o700)
        for path, uid in ((theirs, NOBODY), (nowhere, 0), (Path(name), 0)):
            ran = subprocess.run([python, "-P", "-c", script, path], capture_output=True, text=True, cwd="/")
            assert ran.stdout.splitlines()[-1].split(" ", 1)[0] == str(uid), ran.stderr
            assert ran.stdout.endswith(f"['-c', '{path}']\n")
            assert ("going on as nobody" in ran.stdout) == (uid == NOBODY)


def test_a_venv_of_another_user_is_named_with_the_way_out(empty: Checkout) -> None:
    """Before anything was installed by root in a checkout of ours, and ever after."""
    if os.geteuid() != 0:
        skip_or_fail("only root can be another user")
    with tempfile.TemporaryDirectory(prefix="bookstore-test-") as name:  # pytest's own are for their owner alone
        Path(name).chmod(0o755)
        theirs = Checkout(Path(name) / "a copy of the checkout")
        (theirs.path / ".venv" / "bin").mkdir(parents=True, mode=0o755)
        (theirs.path / ".venv" / "bin" / "python").touch()
        for path in [theirs.path, *theirs.path.rglob("*")]:
            if ".venv" not in path.parts:
                os.chown(path, NOBODY, -1)
        refused = theirs.install(user=NOBODY)
    assert refused.returncode == 1
    assert refused.stderr == f"{theirs.path}/.venv belongs to root: run as root, or remove it: `sudo rm -r .venv`.\n"


def test_a_package_that_is_not_the_locked_one_is_refused(checkout: Checkout) -> None:
    wrong = base64.b16encode(os.urandom(32)).decode().lower()
    checkout.wheel("pear")
    checkout.require("runtime", f"pear==1.0 \\\n    --hash=sha256:{wrong}\n")
    refused = checkout.install()
    assert refused.returncode == 1
    assert refused.stderr.startswith("A package is not the one that was locked: ")
    assert checkout.installed("pear") is None


def test_a_package_that_cannot_be_had_is_said_in_one_sentence_with_the_details_below(checkout: Checkout) -> None:
    checkout.require("runtime", f"pear==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    refused = checkout.install()
    assert refused.returncode == 1
    sentence, empty, *details = refused.stderr.splitlines()
    assert sentence.startswith("A package cannot be had for this Python and machine: ")
    assert empty == ""
    assert "pear" in "".join(details)


def test_a_python_without_its_venv_module_is_told_which_package_has_it(empty: Checkout, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('as Debian without python3-venv')\n")
    refused = empty.make("up", PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2
    major, minor = sys.version_info[:2]
    assert f"apt install python{major}.{minor}-venv" in refused.stderr
    assert not (empty.path / ".venv").exists()


def test_a_disk_without_room_is_refused_before_anything_is_made(empty: Checkout) -> None:
    script = empty.path / "bookstore" / "up" / "install.py"
    script.write_text(script.read_text().replace("ROOM = {", 'ROOM = {**dict.fromkeys(("runtime",), 10**12)} or {'))
    refused = empty.install()
    assert refused.returncode == 1
    assert "MB free: make room there, or move the checkout." in refused.stderr
    assert not (empty.path / ".venv").exists()


def test_make_passes_over_pythons_that_are_too_old_or_dead_shims(empty: Checkout, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, script in (
        ("python3", "exit 1"),  # says that it is older than 3.11
        ("python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127"),
        ("python3.12", f'exec "{sys.executable}" "$@"'),
    ):
        (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / name).chmod(0o755)
    (empty.path / "bookstore" / "up" / "install.py").write_text("import sys\nprint(sys.executable, sys.argv[1:])\n")
    done = empty.make("up", PATH=f"{bin_}:/usr/bin:/bin")
    assert done.stdout == f"{sys.executable} ['runtime', 'embedded']\n"


def test_without_any_python_new_enough_make_says_which_it_needs(empty: Checkout, tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    for arguments, environ in (((), {"PATH": f"{tmp_path}:/usr/bin:/bin"}), ((f"PYTHON={tmp_path / 'python3'}",), {})):
        refused = empty.make("up", *arguments, **environ)
        assert refused.returncode == 2
        assert refused.stderr.startswith("BookStore needs Python 3.11 or newer, and ")
        assert "make up PYTHON=/path/to/python3.12" in refused.stderr
        assert not (empty.path / ".venv").exists()


def test_help_is_the_default_and_lists_every_target_with_its_sentence(empty: Checkout) -> None:
    told = empty.make()
    assert told.returncode == 0
    targets = {line.split()[1]: line.split(maxsplit=2)[2] for line in told.stdout.splitlines()}
    phony = next(line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert set(targets) == set(phony.split()[1:])
    assert all(len(sentence) > 15 for sentence in targets.values())


def test_a_new_migration_gets_the_next_number_and_a_rollback(empty: Checkout) -> None:
    (empty.path / "migrations").mkdir()
    (empty.path / "migrations" / "0001.first.sql").touch()
    (empty.path / "migrations" / "0001.first.rollback.sql").touch()
    made = empty.make("migration", "NAME=add-reviews")
    assert made.stdout.split() == [f"migrations/0002.add-reviews{kind}.sql" for kind in ("", ".rollback")]
    assert empty.make("migration", "NAME=Add Reviews").returncode == 2
    assert empty.make("migration").returncode == 2
