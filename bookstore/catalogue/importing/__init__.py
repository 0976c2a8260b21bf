"""Books from files: read row by row, checked, planned against what is stored, merged in batches.

A route through it: `run.py` tells the story; `sources.py` reads rows, `columns.py` makes a `book.py` of each, `plan.py`
decides, `merge.py` writes, `jobs.py` remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .outcome import ImportInterrupted, ImportRefused, ImportSummary, Problem, Progress
    from .run import import_books

__all__ = ["ImportInterrupted", "ImportRefused", "ImportSummary", "Problem", "Progress", "import_books"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: `bookstore --help` lists the import command and must not pay for PostgreSQL's driver."""
    if name not in __all__:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(".run" if name == "import_books" else ".outcome", __name__), name)
