"""What programs were told is written, and what became of it.

Every write leaves a mark in the file that no other write leaves: a line, or a name's worth of bytes.
A mark must be there in the end, unless a later change that had seen it took it out, or a fault took
it of which the program was never told that it would survive. Called by programs and oracles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_MARK = re.compile(rb"<[a-z0-9.]+>")


def marks_in(data: bytes) -> set[bytes]:
    """The marks in the bytes of a file."""
    return set(_MARK.findall(data))


@dataclass
class _Entry:
    device: int
    is_synced: bool = False
    is_sent: bool = False
    is_removed: bool = False
    is_excused: bool = False


class Ledger:
    """All marks of a run."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self._entries: dict[bytes, _Entry] = {}

    def written(self, device: int, mark: bytes, *, is_synced: bool) -> None:
        """A program was told that its write survives the death of the node, or loss of power."""
        entry = self._entries.setdefault(mark, _Entry(device))
        entry.is_synced |= is_synced

    def removed(self, marks: Iterable[bytes]) -> None:
        """A program is about to take out what it has seen."""
        for mark in marks:
            self._entries.setdefault(mark, _Entry(-1)).is_removed = True

    def sent(self, device: int) -> None:
        """Nothing waits on a device: the server has all that was written there."""
        for entry in self._entries.values():
            entry.is_sent |= entry.device == device

    def power_lost(self, device: int) -> None:
        """What was neither synced nor sent may be gone."""
        for entry in self._entries.values():
            entry.is_excused |= entry.device == device and not (entry.is_synced or entry.is_sent)

    def disk_lost(self, device: int) -> None:
        """What was not sent is gone."""
        for entry in self._entries.values():
            entry.is_excused |= entry.device == device and not entry.is_sent

    @property
    def count(self) -> int:
        """Marks that were written."""
        return len(self._entries)

    def owed(self) -> set[bytes]:
        """Marks that must be in a file that is shown, or in a conflict version."""
        return {
            mark
            for mark, entry in self._entries.items()
            if entry.device >= 0 and not (entry.is_removed or entry.is_excused)
        }
