"""The one place where both programs are imported: what one writes is what the other reads."""

from tests.bookstore.conftest import runtime_dir

__all__ = ["runtime_dir"]
