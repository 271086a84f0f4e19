"""Which slots of a staging file may be written: the rules that make a crash harmless.

A slot that a later write replaces is written again only when
- the later write is in the file, so that the death of the process loses neither,
- no snapshot reads it,
- and, if it was promised to survive a loss of power, the later write survives one too.

Owns these rules as plain bookkeeping. Refuses to touch files. Called by `StagingFile`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

EXCESS_SLOTS: Final = 64
"""Free slots at the end that are worth giving back to the file system (4.5 MiB)."""


@dataclass(frozen=True, slots=True)
class _Retired:
    """A slot replaced by the write ``by``; its own write was ``sequence``."""

    slot: int
    sequence: int
    by: int


class SlotSpace:
    """The slots of one staging file: live, retired or free.

    Concurrency: owned by its `StagingFile`, under the store's lock.

    Attributes:
        count: Slots that the file has room for; the next new one has this number.
    """

    def __init__(self, count: int = 0, free: Iterable[int] = (), promised: int = 0) -> None:
        """Starts with a file as found.

        Args:
            count: slots in the file.
            free: those that hold nothing.
            promised: up to this sequence writes may have been promised to survive a loss of power.
        """
        self.count = count
        self._free = set(free)
        self._heap = sorted(self._free)
        self._retired: list[_Retired] = []
        self._pins: list[int] = []
        self._written = promised
        self._promised = promised
        self._durable = 0

    @property
    def durable(self) -> int:
        """Up to this sequence all writes are known to be on the disk."""
        return self._durable

    def allocate(self) -> int:
        """A slot to write to: the first free one, else a new one at the end."""
        while self._heap:
            slot = heapq.heappop(self._heap)
            if slot in self._free:
                self._free.remove(slot)
                return slot
        self.count += 1
        return self.count - 1

    def give_back(self, slot: int) -> None:
        """Frees an allocated slot whose write failed."""
        self._free.add(slot)
        heapq.heappush(self._heap, slot)

    def retire(self, slot: int, sequence: int, by: int) -> None:
        """The slot's write was replaced by the write, truncation or rebase ``by``."""
        retired = _Retired(slot, sequence, by)
        if self._is_needed(retired):
            self._retired.append(retired)
        else:
            self.give_back(slot)

    def written(self, sequence: int) -> None:
        """Everything up to this sequence is in the file: it survives the process."""
        # Only truncations and rebases retire slots ahead of what is written.
        had_ahead = self._retired and self._retired[-1].by > self._written
        self._written = sequence
        if had_ahead:
            self._reclaim()

    def begin_sync(self) -> int:
        """Promises that what is in the file now survives a loss of power."""
        self._promised = max(self._promised, self._written)
        return self._written

    def end_sync(self, mark: int) -> None:
        """What `begin_sync` promised is on the disk."""
        self._durable = max(self._durable, mark)
        self._reclaim()

    def pin(self, sequence: int) -> None:
        """A snapshot reads what was live after this sequence."""
        self._pins.append(sequence)

    def unpin(self, sequence: int) -> None:
        """The snapshot is closed."""
        self._pins.remove(sequence)
        self._reclaim()

    def take_excess(self) -> int | None:
        """Drops free slots at the end if they are many.

        Returns:
            The number of slots to which the file is to be shortened; None for no change.
        """
        end = self.count
        while end - 1 in self._free:
            end -= 1
        if self.count - end < EXCESS_SLOTS:
            return None
        self._free.difference_update(range(end, self.count))
        self.count = end
        return end

    def _is_needed(self, retired: _Retired) -> bool:
        if retired.by > self._written:
            return True
        if retired.sequence <= self._promised and retired.by > self._durable:
            return True
        return any(retired.sequence <= pin < retired.by for pin in self._pins)

    def _reclaim(self) -> None:
        waiting = self._retired
        self._retired = []
        for retired in waiting:
            self.retire(retired.slot, retired.sequence, retired.by)
