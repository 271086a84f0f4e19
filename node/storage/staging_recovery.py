"""What a staging file holds, found from its slots alone after a crash.

Owns the scan: verify every slot, take the newest state, and of each segment the newest slot that no
truncation or rebase killed. A slot that does not verify is what a crash left of a write, unless it
had been synced: then its segment is damaged, and never taken for unwritten. Refuses to change the file. Called by `StagingStore.open_all`.
"""

from __future__ import annotations

from node.storage.staging_disk import SlotFile
from node.storage.staging_format import (
    NO_SEGMENT,
    SEGMENT_BYTES,
    SLOT_STRIDE,
    FileState,
    Slot,
    SlotSeal,
    StoredSegment,
    claimed_bytes,
    claimed_write,
)
from node.storage.staging_log import StagedContent
from node.storage.staging_slots import SlotSpace
from protocol.errors import RemoteProtocolError


def recover(disk: SlotFile, seal: SlotSeal) -> StagedContent | None:
    """Reads and verifies the whole file.

    Returns:
        What it holds; None when no slot verifies.

    Raises:
        StorageError: the file can not be read.
    """
    count = -(-disk.size_bytes() // SLOT_STRIDE)
    found: dict[int, tuple[StoredSegment, int]] = {}
    newest: Slot | None = None
    blank: list[int] = []
    claims: list[tuple[int, int]] = []
    for number in range(count):
        raw = disk.read_slot(number, SLOT_STRIDE)
        if not any(raw):
            blank.append(number)
            continue
        try:
            slot = seal.open(raw)
        except RemoteProtocolError:
            claim = claimed_write(raw)
            if claim is not None:
                claims.append(claim)
            continue
        stored = StoredSegment(number, slot.sequence, slot.length, slot.extents)
        found[number] = (stored, slot.segment)
        if newest is None or slot.sequence > newest.sequence:
            newest = slot
    if newest is None:
        return None
    content = _to_content(newest, count, found, blank)
    for segment in _damaged(claims, content):
        content.segments.pop(segment, None)
        content.damaged.add(segment)
    return content


def was_never_flushed(disk: SlotFile) -> bool:
    """Whether a file without a verified slot is what a crash in its very first write leaves.

    Raises:
        StorageError: the file can not be read.
    """
    size = disk.size_bytes()
    start = disk.read_slot(0, SLOT_STRIDE)
    claimed = claimed_bytes(start)
    is_torn = claimed is not None and size < claimed
    return is_torn or (size <= SLOT_STRIDE and not any(start))


def _to_content(
    newest: Slot, count: int, found: dict[int, tuple[StoredSegment, int]], blank: list[int]
) -> StagedContent:
    state = newest.state
    live: dict[int, StoredSegment] = {}
    for stored, segment in found.values():
        other = live.get(segment)
        if other is None or stored.sequence > other.sequence:
            live[segment] = stored
    state_slot = live.pop(NO_SEGMENT, None)
    if state_slot is not None and state_slot.sequence < newest.sequence:
        state_slot = None
    segments = _without_dead(live, state)

    # What is found may have been promised to survive a loss of power: nothing of it is reused
    # before the next sync. A slot that does not verify gets the lowest sequence, which waits too.
    slots = SlotSpace(count, blank, promised=newest.sequence)
    used = {stored.slot for stored in segments.values()}
    if state_slot is not None:
        used.add(state_slot.slot)
    for number in sorted(set(range(count)) - used - set(blank)):
        sequence = found[number][0].sequence if number in found else 0
        slots.retire(number, sequence, by=newest.sequence)
    unreadable = count - len(found) - len(blank)
    return StagedContent(state, newest.sequence, segments, slots, state_slot, unreadable)


def _damaged(claims: list[tuple[int, int]], content: StagedContent) -> set[int]:
    """Segments whose newest slot was synced and does not verify."""
    damaged: set[int] = set()
    for sequence, segment in claims:
        stored = content.segments.get(segment)
        is_newest = stored is None or stored.sequence < sequence
        limit = content.state.limit_of(sequence)
        if sequence <= content.state.durable and is_newest and segment * SEGMENT_BYTES < limit:
            damaged.add(segment)
    return damaged


def _without_dead(live: dict[int, StoredSegment], state: FileState) -> dict[int, StoredSegment]:
    """The segments with what truncations left of them."""
    segments: dict[int, StoredSegment] = {}
    for segment, stored in live.items():
        limit = state.limit_of(stored.sequence) - segment * SEGMENT_BYTES
        if limit > 0:
            segments[segment] = stored.cut(limit) if limit < SEGMENT_BYTES else stored
    return segments
