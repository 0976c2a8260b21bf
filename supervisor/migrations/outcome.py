"""How a migration ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    applied: tuple[str, ...]
    """Newly run, in order."""
    known: tuple[str, ...]
    """Every id the database has marked."""
    newer: tuple[str, ...]
    """Of those, the ones this code has no file for: the database is ahead of it."""
    seconds: float
    waiting: tuple[str, ...] = ()
    """Files headed `-- phase: after` that `supervisor migrate --after` has yet to run."""

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "MigrationOutcome":
        return cls(
            tuple(told["applied"]), tuple(told["known"]), tuple(told["newer"]), told["seconds"], tuple(told["waiting"])
        )


class MigrationFailed(Exception):  # the phase it leads to is called migration_failed
    """The database is not at this code's schema. What failed left nothing behind.

    Except a file without a transaction, and one in Python that commits by itself: that is refused a mark, not undone.
    """

    def __init__(self, reason: str, migration: str | None = None) -> None:
        super().__init__(f"{migration}: {reason}" if migration else reason)
        self.reason = reason
        self.migration = migration
