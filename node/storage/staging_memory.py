"""Written bytes that are not in a staging file yet, and the bound on them.

Owns segments in memory and the order in which they were last written. Refuses to write files: it
names the file that must make room. Called by `StagingFile`, which several share one `RecentSegments`
through their store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from node.storage.staging_extents import Range, add_range, cut_ranges
from node.storage.staging_format import SEGMENT_BYTES
from node.storage.staging_pieces import Clipped

SPILL_SEGMENTS = 16
"""Segments written in one go to make room: 1 MiB, which hides the cost of a system call."""


class DirtySegment:
    """The staged bytes of one segment, in memory: all of them, not only the unwritten ones."""

    __slots__ = ("_buffer", "_extents")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._extents: list[Range] = []

    @property
    def extents(self) -> tuple[Range, ...]:
        """Which bytes of the segment are there."""
        return tuple(self._extents)

    def write(self, start: int, data: memoryview) -> None:
        """Puts bytes at ``start`` of the segment."""
        end = start + len(data)
        assert end <= SEGMENT_BYTES
        if len(self._buffer) < start:
            self._buffer.extend(bytes(start - len(self._buffer)))
        self._buffer[start:end] = data
        add_range(self._extents, start, end)

    def cut(self, limit: int) -> None:
        """Forgets the bytes from ``limit`` on."""
        self._extents = cut_ranges(self._extents, limit)
        del self._buffer[limit:]

    def clip(self, low: int, high: int) -> Clipped:
        """Copies of what is there of ``low .. high - 1``."""
        for start, end in self._extents:
            first, last = max(start, low), min(end, high)
            if first < last:
                yield first, memoryview(bytes(self._buffer[first:last]))

    def packed(self) -> list[bytes]:
        """The bytes of the extents."""
        view = memoryview(self._buffer)
        return [bytes(view[start:end]) for start, end in self._extents]


Owner = TypeVar("Owner")


class RecentSegments(Generic[Owner]):
    """Which segments of which files are in memory, the longest unwritten first.

    Concurrency: used under the store's lock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order: OrderedDict[tuple[Owner, int], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def is_full(self) -> bool:
        """Whether another segment needs room made first."""
        return len(self._order) >= self._limit

    def touch(self, owner: Owner, segment: int) -> None:
        """The segment was written to just now."""
        self._order[owner, segment] = None
        self._order.move_to_end((owner, segment))

    def forget(self, owner: Owner, segments: Iterable[int]) -> None:
        """The segments are in memory no longer."""
        for segment in segments:
            self._order.pop((owner, segment), None)

    def oldest(self) -> tuple[Owner, list[int]]:
        """The file that is to write segments out, and which."""
        owner = next(iter(self._order))[0]
        oldest = islice(self._order, SPILL_SEGMENTS)
        return owner, [segment for holder, segment in oldest if holder is owner]
