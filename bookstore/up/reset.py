"""`make reset`: forget everything `make up` made, and nothing else, should BOOKSTORE_DATA name somebody's home."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

from bookstore.embedded import Home
from bookstore.up.plan import PROJECT

OURS = ("postgres*", "redis*", "run", "running.*", "processes.*", "secret_key*", "jwt_secret_key*", "lock")


def size(data: Path) -> int:
    """Bytes it takes. Raises for what cannot be looked into, and so not be forgotten either."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    return sum(
        os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  # as os.walk gives them
        for folder, _, names in os.walk(data, onerror=refuse)
        for name in names
    )


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
