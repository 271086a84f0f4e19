"""One staged file: what was written to an inode since its base.

Owns what programs and the publisher see of it: writes, truncations, reads, snapshots, and the
segments that are in memory only. Refuses to read the base and to know what the label means; how
segments come to the disk and back is `SegmentLog`'s. Made by `node.storage.staging.StagingStore`;
called by ``node.filesystem`` for a program's reads and writes and by ``node.sync.publisher`` through
snapshots.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence

from node.errors import StorageError
from node.storage.staging_disk import start_write_out
from node.storage.staging_extents import Range, joined
from node.storage.staging_format import SEGMENT_BYTES, WHOLE
from node.storage.staging_log import SegmentLog, SegmentWrite
from node.storage.staging_memory import DirtySegment, RecentSegments
from node.storage.staging_pieces import Clipped, Piece, assemble
from node.storage.staging_snapshot import StagingSnapshot
from protocol.crypto.segments import Buffer


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
        log: SegmentLog,
        recent: RecentSegments[StagingFile],
        lock: threading.RLock,
        unreadable_slots: int = 0,
    ) -> None:
        """Called by the store only."""
        self.identity = identity
        self.unreadable_slots = unreadable_slots
        self._log = log
        self._recent = recent
        self._lock = lock
        self._dirty: dict[int, DirtySegment] = {}
        self._snapshots: list[StagingSnapshot] = []
        self._version = 0
        self._is_discarded = False

    @property
    def size(self) -> int:
        """Length of the file, in bytes."""
        return self._log.size

    @property
    def base_limit(self) -> int:
        """Up to here bytes that were not written are the base's, from here on zeros."""
        return self._log.base_limit

    @property
    def label(self) -> bytes:
        """What the caller wrote on the file when it was created or last rebased."""
        return self._log.label

    def touched(self) -> list[Range]:
        """The ranges whose bytes are staged, ascending, in bytes of the file."""
        with self._lock:
            segments = sorted(self._log.segments.keys() | self._dirty.keys())
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
                    self._log.size = max(self._log.size, start + len(piece))

    def truncate(self, size: int) -> None:
        """Sets the size; what is cut off is gone, what is added is zero.

        Raises:
            StorageError: after very many truncations at growing sizes their bookkeeping has to be
                rewritten, and the disk had no room for that. Nothing has changed.
        """
        with self._lock:
            self._check_usable()
            if size == self._log.size:
                return
            self._log.change_size(size)
            self._cut_dirty(size)
            self._version += 1
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
            end = min(offset + size, self._log.size)
            return assemble(self._read_segment, offset, end, self._log.base_limit)

    def flush(self) -> None:
        """Puts everything into the file: it then survives the death of the process.

        Raises:
            StorageError: no room on the disk. What could not be written stays in memory.
        """
        with self._lock:
            self._check_usable()
            self._write_out(sorted(self._dirty))
            self._log.append_state()

    def sync(self) -> None:
        """Flushes and waits for the disk: everything then survives a loss of power.

        Blocks for as long as the disk takes, without the store's lock; call it in a thread.

        Raises:
            StorageError: as `flush`; or the disk refused, now or in an earlier `sync`: what it
                has is then unknown for good, and only publishing and discarding the file helps.
        """
        with self._lock:
            self.flush()
            pending = self._log.begin_sync()
        pending.wait()
        with self._lock:
            self._log.end_sync(pending)

    def start_write_out(self) -> None:
        """Lets the disk begin with what is in the file; returns before it has it.

        Blocks while the disk's queue is full, without the store's lock; call it in a thread.

        Raises:
            StorageError: the file was discarded, or can not be opened once more.
        """
        with self._lock:
            self._check_usable()
            descriptor = self._log.disk.duplicate()
        try:
            start_write_out(descriptor)
        finally:
            os.close(descriptor)

    def snapshot(self) -> StagingSnapshot:
        """Flushes, and returns the file as it is now; it must be closed.

        Raises:
            StorageError: as `flush`; or EIO when something that was synced is damaged: it must not
                be published as if it had never been written.
        """
        with self._lock:
            self.flush()
            log = self._log
            log.check_intact()
            descriptor = log.disk.duplicate()
            log.slots.pin(log.sequence)
            snapshot = StagingSnapshot(
                seal=log.seal,
                descriptor=descriptor,
                size=log.size,
                base_limit=log.base_limit,
                label=log.label,
                segments=dict(log.segments),
                sequence=log.sequence,
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
            self._log.rebase(snapshot.sequence, snapshot.unchanged_limit, label)

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
            self._log.disk.remove()

    def spill(self, segments: Sequence[int]) -> None:
        """Writes segments out to free memory; called under the lock, by whichever file needs room.

        Raises:
            StorageError: no room on the disk. They stay in memory.
        """
        self._write_out(segments)

    def _check_usable(self) -> None:
        if self._is_discarded:
            raise StorageError(errno.EBADF, "the staged file was discarded")

    def _extents(self, segment: int) -> tuple[Range, ...]:
        dirty = self._dirty.get(segment)
        return dirty.extents if dirty is not None else self._log.segments[segment].extents

    def _read_segment(self, segment: int, low: int, high: int) -> Clipped:
        dirty = self._dirty.get(segment)
        if dirty is not None:
            return dirty.clip(low, high)
        return self._log.clip(segment, low, high)

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
        dirty = DirtySegment()
        for start, piece in self._log.clip(segment, 0, SEGMENT_BYTES):
            dirty.write(start, piece)
        self._dirty[segment] = dirty
        self._recent.touch(self, segment)
        return dirty

    def _write_whole(self, offset: int, data: memoryview) -> None:
        writes: list[SegmentWrite] = []
        for start in range(0, len(data), SEGMENT_BYTES):
            end = start + SEGMENT_BYTES
            size = max(self._log.size, offset + end)
            segment = (offset + start) // SEGMENT_BYTES
            writes.append(SegmentWrite(segment, (data[start:end],), WHOLE, size))
        self._log.append(writes, self._forget_dirty)

    def _write_out(self, segments: Sequence[int]) -> None:
        writes: list[SegmentWrite] = []
        for segment in segments:
            dirty = self._dirty[segment]
            writes.append(SegmentWrite(segment, dirty.packed(), dirty.extents, self._log.size))
        self._log.append(writes, self._forget_dirty)

    def _forget_dirty(self, segment: int) -> None:
        if self._dirty.pop(segment, None) is not None:
            self._recent.forget(self, (segment,))

    def _cut_dirty(self, size: int) -> None:
        border, within = divmod(size, SEGMENT_BYTES)
        for segment in [segment for segment in self._dirty if segment * SEGMENT_BYTES >= size]:
            self._forget_dirty(segment)
        if border in self._dirty:
            self._dirty[border].cut(within)

    def _close_snapshot(self, snapshot: StagingSnapshot) -> None:
        with self._lock:
            self._snapshots.remove(snapshot)
            self._log.slots.unpin(snapshot.sequence)


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
