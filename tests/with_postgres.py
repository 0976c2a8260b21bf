"""Run a command beside a throw-away PostgreSQL, with DATABASE_URL naming an empty database on it.

    python -m tests.with_postgres make roundtrip

Exits with the command's own status.
"""

import os
import subprocess
import sys

from bookstore.embedded import Home, Postgres


def main(command: list[str]) -> int:
    if not command:
        print(__doc__)
        return 2
    with Home.temporary().held() as home:
        server = Postgres(home, durable=False)
        try:
            return subprocess.run(command, env={**os.environ, "DATABASE_URL": server.start()}).returncode
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
