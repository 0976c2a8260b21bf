"""Databases whose rows nobody but the import touches: autovacuum freezes rows, which looks like a write."""

import pytest

from .catalogue import TABLES, query


@pytest.fixture
def database_url(database_url: str) -> str:
    return _without_autovacuum(database_url)


@pytest.fixture(scope="module")
def module_database_url(module_database_url: str) -> str:
    return _without_autovacuum(module_database_url)


def _without_autovacuum(url: str) -> str:
    query(url, "; ".join(f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in TABLES))
    return url
