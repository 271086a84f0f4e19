"""What a read of a staged file consists of: staged bytes, ranges of the base, zeros.

Owns the pieces and how they are put together from segments. Refuses to read the base: the caller
fills those ranges, which may need a peer or the server. Called by `StagingFile` and its snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from node.storage.staging_extents import Range
from node.storage.staging_format import SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class StagedBytes:
    """Bytes that were written here, from ``offset`` of the file on."""

    offset: int
    data: memoryview

    @property
    def size(self) -> int:
        """How many bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class BaseRange:
    """So many bytes at ``offset`` are those of the base at the same offset."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many bytes at ``offset`` are zero."""

    offset: int
    size: int


Piece = StagedBytes | BaseRange | Zeros

Clipped = Iterable[tuple[int, memoryview]]
"""Staged bytes of one segment: offset in the segment, and the bytes; ascending."""

ReadSegment = Callable[[int, int, int], Clipped]
"""(segment, low, high) -> what of the segment's bytes ``low .. high - 1`` is staged."""


def assemble(read_segment: ReadSegment, offset: int, end: int, base_limit: int) -> list[Piece]:
    """The pieces that make up ``offset .. end - 1``: in order, without gaps or overlap."""
    pieces: list[Piece] = []
    position = offset
    for segment, low, high in split_at_segments(offset, end):
        segment_start = segment * SEGMENT_BYTES
        for start, data in read_segment(segment, low, high):
            _append_gap(pieces, position, segment_start + start, base_limit)
            pieces.append(StagedBytes(segment_start + start, data))
            position = segment_start + start + len(data)
    _append_gap(pieces, position, end, base_limit)
    return pieces


def split_at_segments(offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The segments of ``offset .. end - 1``: number, and first and last + 1 byte in it."""
    while offset < end:
        segment, low = divmod(offset, SEGMENT_BYTES)
        high = min(SEGMENT_BYTES, low + end - offset)
        yield segment, low, high
        offset += high - low


def clip_packed(extents: Sequence[Range], data: memoryview, low: int, high: int) -> Clipped:
    """The part ``low .. high - 1`` of extents whose bytes lie one after the other in ``data``."""
    position = 0
    for start, end in extents:
        if start >= high:
            return
        if end > low:
            first, last = max(start, low), min(end, high)
            yield first, data[position + first - start : position + last - start]
        position += end - start


def _append_gap(pieces: list[Piece], start: int, end: int, base_limit: int) -> None:
    border = min(max(start, base_limit), end)
    if start < border:
        pieces.append(BaseRange(start, border - start))
    if border < end:
        pieces.append(Zeros(border, end - border))
