"""Which bytes of a stretch are there: ascending ranges without overlap and without touching.

Owns the operations on such lists of ranges. Refuses to know where the bytes themselves are. Called
by the other staging modules, for the written parts of a segment and of a file.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

Range = tuple[int, int]
"""First byte, and the byte after the last one; never empty."""


def add_range(ranges: list[Range], start: int, end: int) -> None:
    """Adds a range in place, joined with what it overlaps or touches."""
    if not ranges or ranges[-1][1] < start:
        ranges.append((start, end))
        return
    first = bisect.bisect_left(ranges, start, key=_end)
    last = bisect.bisect_right(ranges, end, key=_start)
    if first < last:
        start = min(start, ranges[first][0])
        end = max(end, ranges[last - 1][1])
    ranges[first:last] = [(start, end)]


def cut_ranges(ranges: Sequence[Range], limit: int) -> list[Range]:
    """The parts below a limit."""
    return [(start, min(end, limit)) for start, end in ranges if start < limit]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes with touching neighbours joined; the input ascends without overlap."""
    result: list[Range] = []
    for start, end in ranges:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def total_bytes(ranges: Iterable[Range]) -> int:
    """How many bytes the ranges hold."""
    return sum(end - start for start, end in ranges)


def _start(item: Range) -> int:
    return item[0]


def _end(item: Range) -> int:
    return item[1]
