"""Where a node may set a floor of compaction, and when it acknowledges. Pure.

A floor stands where every live device has been, and only after a time; after a long time also where
somebody has not been. How old a position is, is told by *marks*: how far the journal went when this
node looked, by its own clock. Times that others claim play no part. Called by `node.sync.compactor`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class CompactionTimes:
    """How long what is deleted leaves traces, in seconds."""

    seen_by_all_s: float = 30 * _DAY_S
    """A floor that every live device has acknowledged is at least so old: as long as replaced
    contents are kept to merge with."""
    absent_s: float = 180 * _DAY_S
    """So old is one that not everybody has acknowledged."""
    mark_s: float = _DAY_S
    """Between marks, and between floors."""
    acknowledge_s: float = 3600
    """Between acknowledgements."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The journal reached to ``position`` when this node's clock showed ``time_s``."""

    position: int
    time_s: float


def floor_position(
    marks: Iterable[Mark],
    acknowledged: Mapping[bytes, int],
    live: Collection[bytes],
    now_s: float,
    times: CompactionTimes,
) -> int:
    """The highest position where a floor may be; 0 for none.

    Args:
        marks: of this journal epoch.
        acknowledged: by device, of this journal epoch.
        live: the devices that are not revoked.
    """
    by_all = min((acknowledged.get(device, 0) for device in live), default=0)
    return max(
        (
            mark.position
            for mark in marks
            if now_s - mark.time_s >= times.absent_s
            or (now_s - mark.time_s >= times.seen_by_all_s and mark.position <= by_all)
        ),
        default=0,
    )


def marks_kept(marks: Sequence[Mark], floor: int, now_s: float) -> list[Mark]:
    """The marks that still serve: above the floor, and not from a clock that was ahead."""
    return [mark for mark in marks if mark.position > floor and mark.time_s <= now_s]
