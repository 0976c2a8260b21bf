"""PostgreSQL and Redis from wheels, for `bookstore up` and the tests: nobody has to install a server first.

    home = Home(Path(".data"))          # kept; Home.temporary() for a test
    with home.held():                   # one holder at a time; what a crash left behind is ended here
        postgres = Postgres(home, durable=True)
        url = postgres.start()          # postgresql://bookstore@/bookstore?host=…
        postgres.stop()

Both listen on a unix socket in a private directory only, run in a session of their own (a terminal's Ctrl-C is not
theirs) and end with their launcher, even when it is killed with kill -9. Start them from the main thread: the kernel
ties their end to the thread that started them.
"""

from bookstore.embedded.home import AlreadyHeld, EmbeddedError, Home
from bookstore.embedded.postgres import ForeignData, Postgres
from bookstore.embedded.redis import Redis

__all__ = ["AlreadyHeld", "EmbeddedError", "ForeignData", "Home", "Postgres", "Redis"]
