import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.supervisor.migration_folders import write
from tests.system.pod import Pod

SERVICE = [
    *(sys.executable, "-m", "gunicorn", "-c", "python:tests.supervisor.service"),
    "tests.supervisor.service:application",
]


@pytest.fixture(autouse=True, scope="session")
def quiet() -> Iterator[None]:
    """What the supervisor logs within this process: a property would say it a thousand times."""
    logger.disable("supervisor")
    yield
    logger.enable("supervisor")


@pytest.fixture
def pod(empty_database_url: str, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """`pod(**settings)`: a supervisor and a service that is no bookshop, with one migration. Nothing runs yet."""
    folder = write(tmp_path / "migrations", _0001_first="CREATE TABLE shelf (id int);")
    with contextlib.ExitStack() as cleaning:

        def build(**settings: Any) -> Pod:
            given: dict[str, Any] = {"service": SERVICE, "migrations_dir": folder, "workers": 1, "graceful_timeout": 10}
            built = Pod(empty_database_url, **(given | settings))
            cleaning.callback(built.remove)
            cleaning.callback(_end, built)
            return built

        yield build


def _end(pod: Pod) -> None:
    """Twice: in a hurry. It is looked at how they end, and what they did is measured."""
    for process in pod._started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(0.3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(10)
