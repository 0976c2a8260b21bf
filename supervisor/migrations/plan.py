"""What is to be done. Pure: the files and the database's rows in, a plan out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from supervisor.migrations.folder import File, Folder
from supervisor.migrations.outcome import MigrationFailed


@dataclass(frozen=True)
class Recorded:
    """A checksum, and the mark it belongs to: a file rolled back and applied anew by yoyo itself has another mark."""

    checksum: str
    applied_at: datetime


@dataclass(frozen=True)
class State:
    marks: Mapping[str, datetime]
    """id → when yoyo's table says it was applied."""
    checksums: Mapping[str, Recorded]


@dataclass(frozen=True)
class Plan:
    apply: tuple[File, ...]
    adopt: tuple[File, ...]
    """Marked by plain yoyo: their checksums are to be recorded."""
    newer: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.apply and not self.adopt


def decide(folder: Folder, state: State, *, after: bool) -> Plan:
    applied = [file for file in folder.files if file.id in state.marks]
    adopt = []
    for file in applied:
        recorded = state.checksums.get(file.id)
        if recorded is None or recorded.applied_at != state.marks[file.id]:
            adopt.append(file)
        elif recorded.checksum != file.checksum:
            raise MigrationFailed(
                f"{file.path.name} was changed after it was applied: restore it, and put the change in a new file",
                file.id,
            )
    missing = [file for file in folder.files if file.id not in state.marks]
    apply = tuple(file for file in missing if after or not file.after)
    _refuse_what_comes_too_early(apply, {file.id for file in applied})
    return Plan(
        apply=apply,
        adopt=tuple(adopt),
        newer=tuple(sorted(state.marks.keys() - {file.id for file in folder.files})),
        waiting=tuple(file.id for file in missing if file not in apply),
    )


def _refuse_what_comes_too_early(apply: tuple[File, ...], there: set[str]) -> None:
    for file in apply:
        if lacking := sorted(file.depends - there):
            raise MigrationFailed(
                f"depends on {', '.join(lacking)}, which waits for supervisor migrate --after", file.id
            )
        there.add(file.id)
