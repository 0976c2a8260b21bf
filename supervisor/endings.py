"""Which workers ended, and which of them without a word."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any


class Endings:
    """Compares one reading of the workers with the one before it."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def between(self, workers: Mapping[str, Mapping[str, Any]], in_order: Collection[str]) -> Iterator[tuple[str, int]]:
        """(boot id, pid) of each that answered once, is there no more, and is not of those that left in order.

        A worker writes its last words before it takes its socket away, so those of one that is gone are there.
        """
        for boot, answer in workers.items():
            if "error" not in answer:
                self._known[boot] = answer.get("pid", 0)
        for boot in self._known.keys() - workers.keys():
            pid = self._known.pop(boot)
            if boot not in in_order:
                yield boot, pid
