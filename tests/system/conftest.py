import contextlib
from collections.abc import Callable, Iterator

import pytest

from bookstore.embedded import Home, Postgres
from tests.system.pod import Pod


@pytest.fixture
def pod() -> Iterator[Callable[..., Pod]]:
    """`pod(database_url, service=…, **settings)`: nothing runs yet, and nothing is left of it afterwards."""
    with contextlib.ExitStack() as cleaning:

        def build(*arguments: object, **settings: object) -> Pod:
            built = Pod(*arguments, **settings)  # type: ignore[arg-type]
            cleaning.callback(built.remove)
            return built

        yield build


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server to stop and start, which no other test looks at."""
    with Home.temporary().held() as home:
        server = Postgres(home, durable=False)
        server.start()
        try:
            yield server
        finally:
            server.stop()
