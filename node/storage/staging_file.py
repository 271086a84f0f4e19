"""One staged file: what was written to an inode since its base, sealed in a log of slots.

Owns the file's live segments, its size, and how they come to the disk and back. Refuses to read the
base and to know what the label means. Made by `node.storage.staging.StagingStore`; called by
``node.drive`` for a program's reads and writes and by ``node.sync.publisher`` through snapshots.

A slot that is live is never overwritten, so whatever was flushed survives the death of the process
at any instruction, and whatever was synced a loss of power. `node.storage.staging_slots` has the
rules, `node.storage.staging_format` the bytes, `node.storage.staging_recovery` the way back.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from node.errors import StorageError
from node.storage.staging_disk import SlotFile, sync_data
from node.storage.staging_extents import Range, joined
from node.storage.staging_format import (
    MAX_CUTS,
    NO_SEGMENT,
    SEGMENT_BYTES,
    WHOLE,
    Cut,
    FileState,
    SlotSeal,
    StoredSegment,
    encode_extents,
    encode_state,
)
from node.storage.staging_memory import DirtySegment, RecentSegments
from node.storage.staging_pieces import Clipped, Piece, assemble, clip_packed
from node.storage.staging_slots import SlotSpace
from node.storage.staging_snapshot import DAMAGED, StagingSnapshot, open_stored
from protocol.crypto.segments import NONCE_BYTES

Buffer = bytes | bytearray | memoryview

BATCH_SEGMENTS = 64
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
class _Write:
    """One slot to be written, and the size that the file has once it is."""

    segment: int
    data: Sequence[Buffer]
    extents: tuple[Range, ...]
    file_size: int


class StagingFile:
    """A file's size, and the bytes written since its base.

    What a write put in memory reaches the file when memory is short, and with `flush`.

    Concurrency: every method may be called from any thread; one lock per store is held while it
    runs, except while `sync` waits for the disk.

    Attributes:
        identity: 8 bytes; the file's name is their hexadecimal form.
        unreadable_slots: Slots that recovery could not verify: torn by a crash, or damaged.
    """

    def __init__(
        self,
        identity: bytes,
        disk: SlotFile,
        seal: SlotSeal,
        content: StagedContent,
        recent: RecentSegments[StagingFile],
        lock: threading.RLock,
    ) -> None:
        """Called by the store only."""
        self.identity = identity
        self.unreadable_slots = content.unreadable_slots
        self._disk = disk
        self._seal = seal
        self._recent = recent
        self._lock = lock
        self._size = content.state.size
        self._base_limit = content.state.base_limit
        self._floor = content.state.floor
        self._label = content.state.label
        self._cuts = list(content.state.cuts)
        self._sequence = content.sequence
        self._stored = content.segments
        self._state_slot = content.state_slot
        self._slots = content.slots
        self._damaged = content.damaged
        self._dirty: dict[int, DirtySegment] = {}
        self._snapshots: list[StagingSnapshot] = []
        # A file that holds nothing yet must still say so on the disk.
        self._is_state_dirty = content.sequence == 0
        self._version = 0
        self._is_entry_synced = False
        self._sync_failure: StorageError | None = None
        self._is_discarded = False

    @property
    def size(self) -> int:
        """Length of the file, in bytes."""
        return self._size

    @property
    def base_limit(self) -> int:
        """Up to here bytes that were not written are the base's, from here on zeros."""
        return self._base_limit

    @property
    def label(self) -> bytes:
        """What the caller wrote on the file when it was created or last rebased."""
        return self._label

    def touched(self) -> list[Range]:
        """The ranges whose bytes are staged, ascending, in bytes of the file."""
        with self._lock:
            segments = sorted(self._stored.keys() | self._dirty.keys())
            return joined(
                (segment * SEGMENT_BYTES + start, segment * SEGMENT_BYTES + end)
                for segment in segments
                for start, end in self._extents(segment)
            )

    def write(self, offset: int, data: Buffer) -> None:
        """Puts bytes into the file, which grows when they end behind it.

        Raises:
            StorageError: no room on the disk, or what lies around the bytes can not be read. A
                part of the bytes may have been written; the size then covers that part only.
        """
        view = memoryview(data)
        with self._lock:
            self._check_usable()
            if view:
                self._version += 1
            for start, piece in _at_segments(offset, view):
                if len(piece) % SEGMENT_BYTES == 0:
                    self._write_whole(start, piece)
                else:
                    self._write_part(*divmod(start, SEGMENT_BYTES), piece)
                    self._size = max(self._size, start + len(piece))

    def truncate(self, size: int) -> None:
        """Sets the size; what is cut off is gone, what is added is zero.

        Raises:
            StorageError: after very many truncations at growing sizes their bookkeeping has to be
                rewritten, and the disk had no room for that. Nothing has changed.
        """
        with self._lock:
            self._check_usable()
            if size == self._size:
                return
            if size < self._size:
                self._cut_off(size)
            self._version += 1
            self._size = size
            self._base_limit = min(self._base_limit, size)
            self._is_state_dirty = True
            for snapshot in self._snapshots:
                snapshot.unchanged_limit = min(snapshot.unchanged_limit, size)

    def read(self, offset: int, size: int) -> list[Piece]:
        """What the bytes ``offset .. offset + size - 1`` consist of, up to the end of the file.

        Returns:
            Pieces in order, without gaps or overlap; none behind the end of the file.

        Raises:
            StorageError: staged bytes can not be read, or do not verify (EIO).
        """
        with self._lock:
            self._check_usable()
            end = min(offset + size, self._size)
            return assemble(self._read_segment, offset, end, self._base_limit)

    def flush(self) -> None:
        """Puts everything into the file: it then survives the death of the process.

        Raises:
            StorageError: no room on the disk. What could not be written stays in memory.
        """
        with self._lock:
            self._check_usable()
            self._write_out(sorted(self._dirty))
            if self._is_state_dirty:
                self._store([_Write(NO_SEGMENT, (), (), self._size)])
            excess = self._slots.take_excess()
            if excess is not None:
                self._disk.shorten(excess)

    def sync(self) -> None:
        """Flushes and waits for the disk: everything then survives a loss of power.

        Blocks for as long as the disk takes, without the store's lock; call it in a thread.

        Raises:
            StorageError: as `flush`; or the disk refused, now or in an earlier `sync`: what it
                has is then unknown for good, and only publishing and discarding the file helps.
        """
        with self._lock:
            self.flush()
            if self._sync_failure is not None:
                raise self._sync_failure
            mark = self._slots.begin_sync()
            descriptor = self._disk.duplicate()
            is_entry_synced = self._is_entry_synced
        try:
            sync_data(descriptor)
            if not is_entry_synced:
                self._disk.directory.sync_entries()
        except StorageError as error:
            self._sync_failure = error
            raise
        finally:
            os.close(descriptor)
        with self._lock:
            self._is_entry_synced = True
            self._slots.end_sync(mark)

    def snapshot(self) -> StagingSnapshot:
        """Flushes, and returns the file as it is now; it must be closed.

        Raises:
            StorageError: as `flush`; or EIO when something that was synced is damaged: it must not
                be published as if it had never been written.
        """
        with self._lock:
            self.flush()
            self._check_intact(*self._damaged)
            descriptor = self._disk.duplicate()
            self._slots.pin(self._sequence)
            snapshot = StagingSnapshot(
                seal=self._seal,
                descriptor=descriptor,
                size=self._size,
                base_limit=self._base_limit,
                label=self._label,
                segments=dict(self._stored),
                sequence=self._sequence,
                version=self._version,
                on_close=self._close_snapshot,
            )
            self._snapshots.append(snapshot)
            return snapshot

    def is_unchanged_since(self, snapshot: StagingSnapshot) -> bool:
        """Whether nothing was written or truncated since the snapshot was taken."""
        return snapshot.version == self._version

    def rebase(self, snapshot: StagingSnapshot, label: bytes) -> None:
        """From now on the base is the snapshot's content; only later changes stay staged.

        For a file that was published while a program goes on writing to it. The base that the new
        label names must hold exactly the bytes of the snapshot. It reaches the disk with the next
        flush, before or after which a crash finds the file with the old or the new label: what the
        caller keeps of the new base must be as durable by then as what it had synced of the old.
        """
        with self._lock:
            self._check_usable()
            assert snapshot in self._snapshots
            assert snapshot.sequence >= self._floor
            self._sequence += 1
            for segment, stored in list(self._stored.items()):
                if stored.sequence <= snapshot.sequence:
                    del self._stored[segment]
                    self._slots.retire(stored.slot, stored.sequence, by=self._sequence)
            self._floor = snapshot.sequence
            self._cuts = [cut for cut in self._cuts if cut.sequence > self._floor]
            self._base_limit = snapshot.unchanged_limit
            self._label = label
            self._is_state_dirty = True

    def discard(self) -> None:
        """Removes the file; snapshots of it stay readable. The object can not be used any more.

        The removal is not synced: after a loss of power the file may be back. It may as well be
        gone while what the caller wrote just before is not there yet: what replaces the staged
        bytes must be durable first if they were.

        Raises:
            StorageError: the file could not be removed.
        """
        with self._lock:
            self._recent.forget(self, self._dirty)
            self._dirty.clear()
            self._is_discarded = True
            self._disk.remove()

    def spill(self, segments: Sequence[int]) -> None:
        """Writes segments out to free memory; called under the lock, by whichever file needs room.

        Raises:
            StorageError: no room on the disk. They stay in memory.
        """
        self._write_out(segments)

    def _check_usable(self) -> None:
        if self._is_discarded:
            raise StorageError(errno.EBADF, "the staged file was discarded")

    def _state(self) -> FileState:
        return FileState(self._size, self._base_limit, self._floor, self._label, tuple(self._cuts))

    def _extents(self, segment: int) -> tuple[Range, ...]:
        dirty = self._dirty.get(segment)
        return dirty.extents if dirty is not None else self._stored[segment].extents

    def _read_segment(self, segment: int, low: int, high: int) -> Clipped:
        dirty = self._dirty.get(segment)
        if dirty is not None:
            return dirty.clip(low, high)
        self._check_intact(segment)
        stored = self._stored.get(segment)
        if stored is None or not any(start < high and end > low for start, end in stored.extents):
            return ()
        return clip_packed(stored.extents, self._open_stored(stored), low, high)

    def _check_intact(self, *segments: int) -> None:
        if not self._damaged.isdisjoint(segments):
            raise StorageError(errno.EIO, DAMAGED)

    def _open_stored(self, stored: StoredSegment) -> memoryview:
        return open_stored(self._seal, self._disk.read_slot(stored.slot, stored.length), stored)

    def _write_part(self, segment: int, start: int, data: memoryview) -> None:
        dirty = self._dirty.get(segment)
        if dirty is None:
            if self._recent.is_full:
                owner, segments = self._recent.oldest()
                owner.spill(segments)
            dirty = self._load(segment)
        dirty.write(start, data)
        self._recent.touch(self, segment)

    def _load(self, segment: int) -> DirtySegment:
        """Brings a segment into memory, with what is stored of it."""
        self._check_intact(segment)
        dirty = DirtySegment()
        stored = self._stored.get(segment)
        if stored is not None:
            data = self._open_stored(stored)
            for start, piece in clip_packed(stored.extents, data, 0, SEGMENT_BYTES):
                dirty.write(start, piece)
        self._dirty[segment] = dirty
        self._recent.touch(self, segment)
        return dirty

    def _write_whole(self, offset: int, data: memoryview) -> None:
        writes: list[_Write] = []
        for start in range(0, len(data), SEGMENT_BYTES):
            end = start + SEGMENT_BYTES
            size = max(self._size, offset + end)
            segment = (offset + start) // SEGMENT_BYTES
            writes.append(_Write(segment, (data[start:end],), WHOLE, size))
        self._store(writes)

    def _write_out(self, segments: Sequence[int]) -> None:
        writes: list[_Write] = []
        for segment in segments:
            dirty = self._dirty[segment]
            writes.append(_Write(segment, dirty.packed(), dirty.extents, self._size))
        self._store(writes)

    def _store(self, writes: Sequence[_Write]) -> None:
        for start in range(0, len(writes), BATCH_SEGMENTS):
            self._store_batch(writes[start : start + BATCH_SEGMENTS])

    def _store_batch(self, writes: Sequence[_Write]) -> None:
        slots = sorted(self._slots.allocate() for _ in writes)
        done = 0
        try:
            sealed = [self._seal_next(write) for write in writes]
            for first, end in _neighbours(slots):
                done = first
                while done < end:
                    parts = [(header, body) for _, header, body in sealed[done:end]]
                    count = self._disk.write_slots(slots[done], parts)
                    for index in range(done, done + count):
                        sequence, header, body = sealed[index]
                        length = len(header) + len(body)
                        stored = StoredSegment(
                            slots[index], sequence, length, writes[index].extents
                        )
                        self._adopt(writes[index], stored)
                    done += count
        except StorageError:
            for slot in slots[done:]:
                self._slots.give_back(slot)
            raise
        self._is_state_dirty = False

    def _seal_next(self, write: _Write) -> tuple[int, bytes, bytes]:
        self._sequence += 1
        state = FileState(
            size=write.file_size,
            base_limit=self._base_limit,
            floor=self._floor,
            label=self._label,
            cuts=tuple(self._cuts),
            durable=self._slots.durable,
        )
        meta = encode_state(state) + encode_extents(write.extents)
        header, sealed = self._seal.seal(
            self._sequence, write.segment, write.data, meta, os.urandom(NONCE_BYTES)
        )
        return self._sequence, header, sealed

    def _adopt(self, write: _Write, stored: StoredSegment) -> None:
        """A slot is in the file: it is live from now on, and what it replaces no longer."""
        segment = write.segment
        self._size = write.file_size
        self._slots.written(stored.sequence)
        replaced = self._state_slot
        self._state_slot = None
        if replaced is not None:
            self._slots.retire(replaced.slot, replaced.sequence, by=stored.sequence)
        if segment == NO_SEGMENT:
            self._state_slot = stored
            return
        self._damaged.discard(segment)
        older = self._stored.get(segment)
        self._stored[segment] = stored
        if older is not None:
            self._slots.retire(older.slot, older.sequence, by=stored.sequence)
        if self._dirty.pop(segment, None) is not None:
            self._recent.forget(self, (segment,))

    def _cut_off(self, size: int) -> None:
        """Forgets what is staged from ``size`` on."""
        if len(self._cuts) == MAX_CUTS:
            self._merge_cuts()
        border, within = divmod(size, SEGMENT_BYTES)
        gone = [segment for segment in self._dirty if segment * SEGMENT_BYTES >= size]
        for segment in gone:
            del self._dirty[segment]
        self._recent.forget(self, gone)
        if border in self._dirty:
            self._dirty[border].cut(within)
        self._sequence += 1
        is_cut = False
        for segment in [key for key in self._stored if key * SEGMENT_BYTES >= size]:
            stored = self._stored.pop(segment)
            self._slots.retire(stored.slot, stored.sequence, by=self._sequence)
            is_cut = True
        self._damaged = {key for key in self._damaged if key * SEGMENT_BYTES < size}
        at_border = self._stored.get(border)
        if at_border is not None and at_border.ends_behind(within):
            self._stored[border] = at_border.cut(within)
            is_cut = True
        # Without it recovery would find the bytes again; when nothing stored was cut off, whatever
        # older slots hold there is dead already.
        if is_cut:
            self._cuts = [cut for cut in self._cuts if cut.size < size]
            self._cuts.append(Cut(self._sequence, size))

    def _merge_cuts(self) -> None:
        """Makes one cut of the two that are closest, by rewriting what lies between them.

        The earlier cut does not apply to what was written since, between the two sizes; moved to
        the later sequence it would. So that is written again, and must be on the disk before a
        state with the merged cut can be.
        """
        gaps = [
            (later.size - earlier.size, index)
            for index, (earlier, later) in enumerate(zip(self._cuts, self._cuts[1:], strict=False))
        ]
        _, index = min(gaps)
        earlier, later = self._cuts[index : index + 2]
        low, high = earlier.size // SEGMENT_BYTES, later.size // SEGMENT_BYTES
        between = [
            segment
            for segment, stored in self._stored.items()
            if low <= segment <= high and stored.sequence < later.sequence
        ]
        for segment in between:
            if segment not in self._dirty:
                self._load(segment)
            self._write_out([segment])
        self.sync()
        self._cuts[index : index + 2] = [Cut(later.sequence, earlier.size)]
        self._is_state_dirty = True

    def _close_snapshot(self, snapshot: StagingSnapshot) -> None:
        with self._lock:
            self._snapshots.remove(snapshot)
            self._slots.unpin(snapshot.sequence)


def _at_segments(offset: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Cuts a write into parts of segments and runs of whole segments, with their offsets."""
    start, end = 0, len(data)
    while start < end:
        to_border = SEGMENT_BYTES - (offset + start) % SEGMENT_BYTES
        length = min(to_border, end - start)
        if length == SEGMENT_BYTES:
            length = (end - start) // SEGMENT_BYTES * SEGMENT_BYTES
        yield offset + start, data[start : start + length]
        start += length


def _neighbours(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts ascending slots into runs of neighbours: first and last + 1 index."""
    first = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield first, index
            first = index
