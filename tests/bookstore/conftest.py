"""The API through its front door: `api` is a client of the whole application on a database of its own."""

import asyncio
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from loguru import logger

from bookstore.app import create_app, mount
from bookstore.front_door import Runner
from bookstore.logs import configure_logging, flush_logs
from bookstore.openapi import Operation
from bookstore.settings import load_settings
from bookstore.worker_socket import WORKER
from tests.conftest import Environ

Client = TestClient[web.Request, web.Application]


class FrontDoorServer(TestServer):
    """aiohttp's test server, with the application behind the same door as under gunicorn."""

    async def _make_runner(self, **options: Any) -> Runner:
        return Runner(self.app, **{**options, "handler_cancellation": False})  # what gunicorn's worker leaves it at


async def wait_until(holds: Callable[[], object], *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    environment: dict[str, str], *, ready: bool = True, more: Iterable[Operation] = ()
) -> AsyncIterator[Client]:
    """A client of the application in this environment; `ready` waits for its gate to open; `more` is mounted too."""
    app = create_app(load_settings(environment, Path("/nonexistent")))
    mount(app, more)
    async with TestClient(FrontDoorServer(app)) as client:
        if ready:
            await wait_until(lambda: app[WORKER].gate_open)
        yield client


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Short: a unix socket's path may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="bks-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def api(database_url: str, environ: Environ, runtime_dir: Path) -> AsyncIterator[Client]:
    async with serving(environ(database_url, runtime_dir=runtime_dir)) as client:
        yield client


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def access_lines(environ: Environ, tmp_path: Path) -> Iterator[Lines]:
    """What stands in the access log, as the service itself writes it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    settings = environ("postgresql:///nowhere", log_level="INFO", runtime_dir=tmp_path)
    configure_logging(load_settings({**settings, "LOG_DIR": str(tmp_path / "logs")}, Path("/nonexistent")))

    def read() -> list[dict[str, Any]]:
        flush_logs()
        file = tmp_path / "logs" / "access.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    yield read
    configure_logging(load_settings(settings, Path("/nonexistent")))
    logging.root.handlers[:], logging.root.level = handlers, level
    logger.remove()
    logger.add(sys.stderr)
