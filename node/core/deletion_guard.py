"""Which deletions are held until somebody approves. Pure.

A script gone wrong, an emptied folder, software that encrypts and removes: what deletes most of a
namespace in one go is asked about before it goes through. Called by `node.sync.deletion_guard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.core.record_sealing import OpenedWrite
from protocol.ids import ItemId
from protocol.records import Register
from protocol.values import Placement

WINDOW_US = 600_000_000
"""What a device deletes within ten minutes counts as one go."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What may be deleted in one go without a question.

    Attributes:
        share: of the items shown when it began, above 0; 1 turns the guard off.
        minimum: fewer items may go whatever their share is.
    """

    share: float = 0.5
    minimum: int = 200


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of a device's deletions when more come.

    Attributes:
        gone: items that it deleted within the window, as shown here.
        held: items whose deletion waits for an approval.
        shown: items shown now, with those that are about to be deleted.
    """

    gone: int
    held: int
    shown: int


def must_hold(deletions: int, window: Window, limits: GuardLimits) -> bool:
    """Whether deleting so many more items needs an approval."""
    if not deletions:
        return False
    together = window.gone + window.held + deletions
    return together >= limits.minimum and together > limits.share * (window.shown + window.gone)


def deleted_items(writes: Iterable[OpenedWrite]) -> list[ItemId]:
    """The items that the writes leave without a name."""
    return [
        write.item
        for write in writes
        if write.register is Register.PLACEMENT
        and isinstance(write.version.value, Placement)
        and not write.version.value.links
    ]


def count_deletions(writes: Sequence[OpenedWrite]) -> int:
    """How many items are missed after the writes: those deleted, less those put in their place.

    A rename over a file, and a save that removes the file it was written to, delete one item for
    each one that they place or fill.
    """
    deleted = set(deleted_items(writes))
    put = {
        write.item
        for write in writes
        if write.register is not Register.ATTRIBUTES and write.item not in deleted
    }
    return max(0, len(_former_names(writes)) - len(put))


def _former_names(writes: Iterable[OpenedWrite]) -> set[object]:
    """Where deleted items hung: twins and merged folders were shown as one, under one name."""
    names: set[object] = set()
    for write in writes:
        value = write.version.value
        if write.register is Register.PLACEMENT and not value.links:
            last = value.former[0] if value.former else None
            names.add(write.item if last is None else (last.parent, last.name))
    return names
