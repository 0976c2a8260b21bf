from collections.abc import Iterator
from contextlib import closing

import pytest

from .shop import Shop


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    with closing(Shop(database_url)) as shop:
        yield shop
