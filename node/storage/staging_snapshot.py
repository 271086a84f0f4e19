"""A staged file as it was at one moment, for the publisher, while programs go on writing to it.

Owns a descriptor and the list of slots that were live; the staging file does not write to them
while the snapshot is open. Refuses to change anything. Made by `StagingFile.snapshot`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from node.errors import StorageError
from node.storage.staging_disk import read_slot
from node.storage.staging_extents import Range, joined
from node.storage.staging_format import SEGMENT_BYTES, SlotSeal, StoredSegment
from node.storage.staging_pieces import Clipped, Piece, assemble, clip_packed
from protocol.errors import RemoteProtocolError

DAMAGED: Final = "staged bytes on this disk are damaged: they do not verify"


class StagingSnapshot:
    """The size and the staged bytes of a file at one moment.

    Concurrency: reads come from any thread, several at once, and take no lock; `close` only when
    none is under way. It outlives `StagingFile.discard`.

    Attributes:
        size: Length of the file, in bytes.
        base_limit: Up to here bytes that were not staged are the base's, from here on zeros.
        label: What the file was labelled with.
        sequence: Of the newest slot; told to `StagingFile.rebase`.
        version: Counts the changes of the file up to now.
        unchanged_limit: How much of the file no truncation has cut off since, in bytes; the
            staging file lowers it.
    """

    def __init__(
        self,
        *,
        seal: SlotSeal,
        descriptor: int,
        size: int,
        base_limit: int,
        label: bytes,
        segments: Mapping[int, StoredSegment],
        sequence: int,
        version: int,
        on_close: Callable[[StagingSnapshot], None],
    ) -> None:
        """Called by `StagingFile.snapshot` only; takes over the descriptor."""
        self.size = size
        self.base_limit = base_limit
        self.label = label
        self.sequence = sequence
        self.version = version
        self.unchanged_limit = size
        self._seal = seal
        self._descriptor = descriptor
        self._segments = segments
        self._on_close = on_close
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def touched(self) -> list[Range]:
        """The ranges whose bytes are staged, ascending, in bytes of the file."""
        return joined(
            (segment * SEGMENT_BYTES + start, segment * SEGMENT_BYTES + end)
            for segment in sorted(self._segments)
            for start, end in self._segments[segment].extents
        )

    def read(self, offset: int, size: int) -> list[Piece]:
        """As `StagingFile.read`, of the file as it was.

        Raises:
            StorageError: staged bytes can not be read, or do not verify (EIO).
        """
        assert not self._is_closed
        return assemble(self._read_segment, offset, min(offset + size, self.size), self.base_limit)

    def close(self) -> None:
        """Lets the staging file use the slots again; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        os.close(self._descriptor)
        self._on_close(self)

    def _read_segment(self, segment: int, low: int, high: int) -> Clipped:
        stored = self._segments.get(segment)
        if stored is None or not any(start < high and end > low for start, end in stored.extents):
            return ()
        raw = read_slot(self._descriptor, stored.slot, stored.length)
        return clip_packed(stored.extents, open_stored(self._seal, raw, stored), low, high)


def open_stored(seal: SlotSeal, raw: bytes, stored: StoredSegment) -> memoryview:
    """The data of a live slot.

    Raises:
        StorageError: EIO, when the bytes are not what was written.
    """
    try:
        return seal.open_data(raw, stored.sequence)
    except RemoteProtocolError as error:
        raise StorageError(errno.EIO, DAMAGED) from error
