"""`make reset`: forget everything `make up` made, and nothing else, should BOOKSTORE_DATA name somebody's home."""

import shutil
from pathlib import Path

from bookstore.embedded import Home
from bookstore.up.plan import PROJECT

OURS = ("postgres*", "redis*", "run", "running.*", "processes.*", "secret_key*", "jwt_secret_key*", "lock")


def size(data: Path) -> int:
    """Bytes it takes."""
    return sum(path.lstat().st_size for path in data.rglob("*") if path.is_file())


def forget(data: Path) -> None:
    """Refuses (AlreadyHeld) while something runs there."""
    with Home(data).held():
        for pattern in OURS:
            for path in data.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    if not any(data.iterdir()):
        data.rmdir()
    if data == PROJECT / ".data":
        shutil.rmtree(PROJECT / ".run", ignore_errors=True)
