"""Real servers for every test: one throw-away PostgreSQL and Redis per pytest process, one database per test.

    database_url         a fresh copy of the migrated template, for one test
    module_database_url  the same for one module
    empty_database_url   a database without a table
    redis_url            a Redis, emptied before each test
    environ(url, …)      a complete environment for a process or for `load_settings`

`TEST_DATABASE_URL` and `TEST_REDIS_URL` put other servers in the place of the embedded ones. What a machine lacks is
skipped with its reason; under `REQUIRE_ALL=1` it fails instead.
"""

import contextlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from bookstore.embedded import EmbeddedError, Home, Postgres, Redis

PROJECT = Path(__file__).parent.parent
MIGRATIONS = PROJECT / "migrations"
TEMPLATE = "template"

Environ = Callable[..., dict[str, str]]


def skip_or_fail(reason: str) -> NoReturn:
    """For what a machine may lack: a reason to skip, unless the run requires everything."""
    if os.environ.get("REQUIRE_ALL", "") not in ("", "0"):
        pytest.fail(f"REQUIRE_ALL is set, and {reason}", pytrace=False)
    pytest.skip(reason)


class Databases:
    """A PostgreSQL server to make databases on."""

    def __init__(self, url: str, server: Postgres | None = None) -> None:
        self.admin_url = url
        self.server = server  # None: somebody else's, which is not ours to stop
        self._prefix = f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
        self._numbers = itertools.count(1)
        self._made: list[str] = []

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def create(self, *, template: str = "template0", name: str | None = None) -> str:
        """A new database; its URL."""
        name = f"{self._prefix}_{name or next(self._numbers)}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        self._made.append(name)
        return self.url(name)

    def drop(self, url: str) -> None:
        name = urlsplit(url).path.lstrip("/")
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._made.remove(name)

    def drop_all(self) -> None:
        for name in list(self._made):
            self.drop(self.url(name))

    def _execute(self, sql: str) -> None:
        connection = psycopg2.connect(self.admin_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """A directory for throw-away servers, gone with the session."""
    with Home.temporary().held() as home:
        yield home


@pytest.fixture(scope="session")
def postgres(home: Home) -> Iterator[Databases]:
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        databases = Databases(given)
        yield databases
        databases.drop_all()
        return
    server = Postgres(home, durable=False)
    server.start()
    try:
        yield Databases(server.url("postgres"), server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(home: Home) -> Iterator[str]:
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    try:
        server = Redis(home, durable=False)
    except EmbeddedError as error:
        skip_or_fail(str(error))
    yield server.start()
    server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    import redis

    with contextlib.closing(redis.Redis.from_url(redis_server)) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def template(postgres: Databases) -> str:
    """The name of a database that every migration was applied to, once, as CI applies them: with plain yoyo."""
    url = postgres.create(name=TEMPLATE)
    migrate_plainly(url)
    return urlsplit(url).path.lstrip("/")


@pytest.fixture
def database_url(postgres: Databases, template: str) -> Iterator[str]:
    url = postgres.create(template=template)
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module")
def module_database_url(postgres: Databases, template: str) -> Iterator[str]:
    url = postgres.create(template=template)
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_database_url(postgres: Databases) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


def migrate_plainly(url: str, directory: Path = MIGRATIONS) -> None:
    from yoyo import get_backend, read_migrations

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = get_backend(url)
    try:
        with backend.lock():
            backend.apply_migrations(backend.to_apply(read_migrations(str(directory))))
    finally:
        backend.connection.close()


@pytest.fixture(scope="session")
def environ() -> Environ:
    return build_environ


def build_environ(database_url: str, **overrides: Any) -> dict[str, str]:
    """A complete, valid environment of the test profile, for `load_settings` and for processes.

    Overrides are named as the settings are, in either case; None takes a variable away.
    """
    built = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
        # What a measured process hands to its children, so that they are measured too.
        **{name: value for name, value in os.environ.items() if re.match(r"COV(ERAGE)?_", name)},
        "PYTHONPATH": str(PROJECT),
        "ENVIRONMENT": "test",
        "DATABASE_URL": database_url,
        "SECRET_KEY": "a-secret-of-the-tests-and-of-nobody-else-0001",
        "JWT_SECRET_KEY": "a-secret-of-the-tests-and-of-nobody-else-0002",
        "MIGRATIONS_DIR": str(MIGRATIONS),
    }
    for name, value in overrides.items():
        if value is None:
            built.pop(name.upper(), None)
        else:
            built[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    return built
