"""Holds what deletes too much in one go, of this device or another, until somebody approves.

Owns the counting; the decision is `node.core.deletion_guard`'s. Called by the record intake and the
publisher, inside their transactions.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.core.deletion_guard import (
    GuardLimits,
    Window,
    count_deletions,
    deleted_items,
    must_hold,
)
from node.core.record_sealing import OpenedWrite
from node.storage.held_deletions import HeldDeletions, HeldRecord
from node.storage.tree import Tree
from protocol.ids import DeviceId, RecordId
from protocol.records import SignedRecord

_LOOKED_AT = 64  # held records that are looked at after each reading of the journal
_COUNT_AGAIN = 4
"""What waits may be a hundred thousand deletions: it is counted again when a quarter is decided on."""


class DeletionGuard:
    """Counts deletions by device.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, held: HeldDeletions, tree: Tree, limits: GuardLimits) -> None:
        self._held = held
        self._tree = tree
        self._limits = limits
        self._waiting = 0
        self._decided = 0  # since what waits was counted

    def holds(self, record: SignedRecord, writes: Sequence[OpenedWrite], position: int) -> bool:
        """Whether a received record is kept back; what it deletes is counted in any case."""
        missed = sum(1 for item in deleted_items(writes) if self._tree.link_count(item))
        deletions = min(missed, count_deletions(writes))
        if not deletions:
            return False
        device, time_us = record.record.device, record.record.hybrid_time_us
        gone, held = self._held.counted(device, time_us)
        window = Window(gone, held, self._tree.totals()[0])
        is_held = must_hold(deletions, window, self._limits)
        self._held.count(device, time_us, deletions, is_held=is_held)
        if is_held:
            self._held.hold_record(record, deletions, position)
        return is_held

    def has_held(self, record: RecordId, position: int) -> bool:
        """Whether a record waits for an approval that came again, at this position."""
        return self._held.has_moved(record, position)

    def held_records(self) -> list[HeldRecord]:
        """Records that wait for an approval, a bounded number of them."""
        return self._held.records(_LOOKED_AT)

    def drop(self, record: RecordId) -> None:
        """A held record was decided about."""
        self._held.drop(record)

    def may_seal(self, device: DeviceId, time_us: int, writes: Sequence[OpenedWrite]) -> bool:
        """Whether a group of this device may go without an approval. Its items are gone here.

        What waits behind it is counted with it: a script is mostly seen before its first deletion
        is published.
        """
        deletions = count_deletions(writes)
        if not deletions:
            return True
        gone, held = self._held.counted(device, time_us)
        waiting = max(deletions, self._count_waiting())
        shown = self._tree.totals()[0] + held + waiting
        return not must_hold(waiting, Window(gone, held, shown), self._limits)

    def _count_waiting(self) -> int:
        if self._decided >= self._waiting // _COUNT_AGAIN:
            self._waiting = self._held.count_waiting()
            self._decided = 0
        return self._waiting

    def _note_decided(self, deletions: int) -> None:
        self._waiting = max(0, self._waiting - deletions)
        self._decided += deletions

    def count_sealed(self, device: DeviceId, time_us: int, writes: Sequence[OpenedWrite]) -> None:
        """A group of this device was sealed."""
        deletions = count_deletions(writes)
        if deletions:
            self._note_decided(deletions)
            self._held.count(device, time_us, deletions, is_held=False)

    def hold_group(
        self, group: int, device: DeviceId, time_us: int, writes: Sequence[OpenedWrite]
    ) -> None:
        """Keep a group of this device back."""
        deletions = count_deletions(writes)
        self._note_decided(deletions)
        self._held.count(device, time_us, deletions, is_held=True)
        self._held.hold_group(group)
