"""One question per file, one function shape; the folder is the index.

Each file has a target and `open(target)`, an async context manager that yields `ask() -> Finding` and holds what lives
between two questions. Whoever asks owns interval, timeout, jitter and blame: an exception is a finding too.
"""

from collections.abc import Awaitable, Callable

from supervisor.policy import Finding

Ask = Callable[[], Awaitable[Finding]]
