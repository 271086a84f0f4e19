"""The log of slots behind one staged file: what is stored, what is dead, and what is written next.

Owns the live segments on the disk, the file's state and how both reach a slot. A live slot is never
overwritten, so whatever was appended survives the death of the process at any instruction, and
whatever was synced a loss of power: `node.storage.staging_slots` has the rules,
`node.storage.staging_format` the bytes, `node.storage.staging_recovery` the way back. Refuses to
know memory, snapshots and locks. Called by `StagingFile`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from node.errors import StorageError
from node.storage.staging_disk import SlotFile, StagingDirectory, sync_data
from node.storage.staging_extents import Range, total_bytes
from node.storage.staging_format import (
    MAX_CUTS,
    NO_SEGMENT,
    SEGMENT_BYTES,
    Cut,
    FileState,
    SlotSeal,
    StoredSegment,
    encode_extents,
    encode_state,
)
from node.storage.staging_pieces import Clipped, clip_packed
from node.storage.staging_slots import SlotSpace
from node.storage.staging_snapshot import DAMAGED, open_stored
from protocol.crypto.segments import NONCE_BYTES, Buffer

BATCH_SEGMENTS: Final = 64
"""Segments sealed before they are written in one call: 4 MiB, well below IOV_MAX buffers."""


@dataclass(slots=True)
class StagedContent:
    """What a staging file holds: as created, or as recovery found it."""

    state: FileState
    sequence: int = 0
    segments: dict[int, StoredSegment] = field(default_factory=dict)
    slots: SlotSpace = field(default_factory=SlotSpace)
    state_slot: StoredSegment | None = None
    unreadable_slots: int = 0
    damaged: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class SegmentWrite:
    """One slot to be written: bytes of the segment's extents, and the file's size after it."""

    segment: int
    data: Sequence[Buffer]
    extents: tuple[Range, ...]
    file_size: int


@dataclass(slots=True)
class PendingSync:
    """A sync that is under way."""

    mark: int
    descriptor: int
    directory: StagingDirectory | None
    failure: StorageError | None = None

    def wait(self) -> None:
        """Waits for the disk, without any lock; whether it refused is told by `end_sync`."""
        try:
            sync_data(self.descriptor)
            if self.directory is not None:
                self.directory.sync_entries()
        except StorageError as error:
            self.failure = error
        finally:
            os.close(self.descriptor)


class SegmentLog:
    """The stored segments and the state of one staged file.

    Concurrency: owned by its `StagingFile`, under the store's lock.

    Attributes:
        disk: the staging file itself.
        seal: opens and seals its slots.
        slots: which of its slots may be written.
        segments: what is stored and not dead, by number of the segment.
        size: of the staged file, in bytes.
        base_limit: from here on nothing of the base shows, in bytes.
        label: the caller's words.
        sequence: of the newest write, truncation or rebase.
    """

    def __init__(self, disk: SlotFile, seal: SlotSeal, content: StagedContent) -> None:
        self.disk = disk
        self.seal = seal
        self.slots = content.slots
        self.segments = content.segments
        self.size = content.state.size
        self.base_limit = content.state.base_limit
        self.label = content.state.label
        self.sequence = content.sequence
        self._floor = content.state.floor
        self._cuts = list(content.state.cuts)
        self._state_slot = content.state_slot
        self._damaged = content.damaged
        # A file that holds nothing yet must still say so on the disk.
        self._is_state_dirty = content.sequence == 0
        self._is_entry_synced = False
        self._sync_failure: StorageError | None = None

    def append(
        self, writes: Sequence[SegmentWrite], stored: Callable[[int], None] | None = None
    ) -> None:
        """Writes segments to slots, in order; each is live as soon as it is in the file.

        Args:
            writes: what to write.
            stored: is told each segment that is live.

        Raises:
            StorageError: no room on the disk; what was written before that is live.
        """
        for start in range(0, len(writes), BATCH_SEGMENTS):
            self._append_batch(writes[start : start + BATCH_SEGMENTS], stored)

    def append_state(self) -> None:
        """Writes the state, if no slot carries it as it is now; gives free room back.

        Raises:
            StorageError: no room on the disk.
        """
        if self._is_state_dirty:
            self.append([SegmentWrite(NO_SEGMENT, (), (), self.size)])
        excess = self.slots.take_excess()
        if excess is not None:
            self.disk.shorten(excess)

    def begin_sync(self) -> PendingSync:
        """Promises that all that is in the file survives a loss of power.

        Raises:
            StorageError: the file can not be opened once more, or a former sync failed: what the
                disk has is then unknown for good.
        """
        if self._sync_failure is not None:
            raise self._sync_failure
        descriptor = self.disk.duplicate()
        directory = None if self._is_entry_synced else self.disk.directory
        return PendingSync(self.slots.begin_sync(), descriptor, directory)

    def end_sync(self, pending: PendingSync) -> None:
        """Keeps the promise, once `PendingSync.wait` has returned.

        Raises:
            StorageError: the disk refused.
        """
        if pending.failure is not None:
            self._sync_failure = pending.failure
            raise pending.failure
        self._is_entry_synced = True
        self.slots.end_sync(pending.mark)

    def clip(self, segment: int, low: int, high: int) -> Clipped:
        """The stored bytes of ``low .. high - 1`` of a segment.

        Raises:
            StorageError: they can not be read, or do not verify (EIO).
        """
        self.check_intact(segment)
        stored = self.segments.get(segment)
        if stored is None or not any(start < high and end > low for start, end in stored.extents):
            return ()
        return clip_packed(stored.extents, self._open(stored), low, high)

    def check_intact(self, *segments: int) -> None:
        """Raises EIO if one of the segments, or with none given any, is known to be damaged."""
        if not self._damaged.isdisjoint(segments or self._damaged):
            raise StorageError(errno.EIO, DAMAGED)

    def change_size(self, size: int) -> None:
        """Cuts off what is stored from ``size`` on, or lets the file grow by zeros.

        Raises:
            StorageError: after very many truncations at growing sizes they have to be merged, and
                the disk had no room for that. Nothing has changed.
        """
        if size < self.size:
            self._cut_off(size)
        self.size = size
        self.base_limit = min(self.base_limit, size)
        self._is_state_dirty = True

    def rebase(self, sequence: int, base_limit: int, label: bytes) -> None:
        """Forgets all that was stored up to a sequence: the base has it now."""
        assert sequence >= self._floor
        self.sequence += 1
        for segment, stored in list(self.segments.items()):
            if stored.sequence <= sequence:
                self._drop(segment)
        self._floor = sequence
        self._cuts = [cut for cut in self._cuts if cut.sequence > sequence]
        self.base_limit = base_limit
        self.label = label
        self._is_state_dirty = True

    def _open(self, stored: StoredSegment) -> memoryview:
        return open_stored(self.seal, self.disk.read_slot(stored.slot, stored.length), stored)

    def _append_batch(
        self, writes: Sequence[SegmentWrite], stored: Callable[[int], None] | None
    ) -> None:
        slots = sorted(self.slots.allocate() for _ in writes)
        done = 0
        try:
            sealed = [self._seal_next(write) for write in writes]
            for first, end in _neighbours(slots):
                done = first
                while done < end:
                    parts = [(header, body) for _, header, body in sealed[done:end]]
                    written_end = done + self.disk.write_slots(slots[done], parts)
                    for index in range(done, written_end):
                        sequence, header, body = sealed[index]
                        self._adopt(writes[index], slots[index], sequence, len(header) + len(body))
                        if stored is not None:
                            stored(writes[index].segment)
                    done = written_end
        except StorageError:
            for slot in slots[done:]:
                self.slots.give_back(slot)
            raise
        self._is_state_dirty = False

    def _seal_next(self, write: SegmentWrite) -> tuple[int, bytes, bytes]:
        self.sequence += 1
        state = FileState(
            size=write.file_size,
            base_limit=self.base_limit,
            floor=self._floor,
            label=self.label,
            cuts=tuple(self._cuts),
            durable=self.slots.durable,
        )
        meta = encode_state(state) + encode_extents(write.extents)
        header, sealed = self.seal.seal(
            self.sequence, write.segment, write.data, meta, os.urandom(NONCE_BYTES)
        )
        return self.sequence, header, sealed

    def _adopt(self, write: SegmentWrite, slot: int, sequence: int, length: int) -> None:
        """A slot is in the file: it is live from now on, and what it replaces no longer."""
        self.size = write.file_size
        self.slots.written(sequence)
        replaced, self._state_slot = [self._state_slot], None
        new = StoredSegment(slot, sequence, length, write.extents)
        if write.segment == NO_SEGMENT:
            self._state_slot = new
        else:
            self._damaged.discard(write.segment)
            replaced.append(self.segments.get(write.segment))
            self.segments[write.segment] = new
        for old in replaced:
            if old is not None:
                self.slots.retire(old.slot, old.sequence, by=sequence)

    def _drop(self, segment: int) -> None:
        stored = self.segments.pop(segment)
        self.slots.retire(stored.slot, stored.sequence, by=self.sequence)

    def _cut_off(self, size: int) -> None:
        if len(self._cuts) == MAX_CUTS:
            self._merge_cuts()
        self.sequence += 1
        border, within = divmod(size, SEGMENT_BYTES)
        gone = [segment for segment in self.segments if segment * SEGMENT_BYTES >= size]
        damaged = {segment for segment in self._damaged if segment * SEGMENT_BYTES >= size}
        for segment in gone:
            self._drop(segment)
        self._damaged -= damaged
        is_cut = bool(gone or damaged)
        at_border = self.segments.get(border)
        if at_border is not None and at_border.ends_behind(within):
            self.segments[border] = at_border.cut(within)
            is_cut = True
        # Without it recovery would find the bytes again; when nothing stored was cut off, whatever
        # older slots hold there is dead already.
        if is_cut:
            self._cuts = [cut for cut in self._cuts if cut.size < size]
            self._cuts.append(Cut(self.sequence, size))

    def _merge_cuts(self) -> None:
        """Makes one cut of the two that are closest, by rewriting what lies between them.

        The earlier cut does not apply to what was written since, between the two sizes; moved to
        the later sequence it would. So that is written again, and must be on the disk before a
        state with the merged cut can be.
        """
        pairs = list(pairwise(self._cuts))
        index = min(range(len(pairs)), key=lambda at: pairs[at][1].size - pairs[at][0].size)
        earlier, later = pairs[index]
        low, high = earlier.size // SEGMENT_BYTES, later.size // SEGMENT_BYTES
        for segment, stored in list(self.segments.items()):
            if low <= segment <= high and stored.sequence < later.sequence:
                data = self._open(stored)[: total_bytes(stored.extents)]
                self.append([SegmentWrite(segment, (data,), stored.extents, self.size)])
        pending = self.begin_sync()
        pending.wait()
        self.end_sync(pending)
        self._cuts[index : index + 2] = [Cut(later.sequence, earlier.size)]
        self._is_state_dirty = True


def _neighbours(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts ascending slots into runs of neighbours: first and last + 1 index."""
    first = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield first, index
            first = index
