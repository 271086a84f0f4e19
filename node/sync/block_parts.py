"""Small parts of blocks that are on this device, read without the rest of the block.

Owns the way from a range to the few segments of the cached frame that hold it, and the headers that
were parsed last: a program that reads a database at random places would otherwise have a megabyte
read from the disk for each page. Refuses to fetch, and leaves damaged blocks to whoever can. Called
by `node.sync.content_reader`.
"""

from __future__ import annotations

from typing import Final

from node.core.recently_used import RecentlyUsed
from node.sync.block_fetcher import BlockFetcher
from protocol.crypto.blocks import (
    FIXED_HEADER_BYTES,
    MAX_SEGMENTS,
    SEGMENT_BYTES,
    BlockHeader,
    frame_range,
    open_range,
    parse_header,
)
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId
from protocol.manifests import Entry

_HEADER_BYTES: Final = FIXED_HEADER_BYTES + 4 * MAX_SEGMENTS
"""Longest header of a block that holds content."""

_KEPT_SEGMENTS: Final = 32_768
"""Of all headers kept, for 2 GiB of content: about 5 MiB."""


class BlockParts:
    """Reads parts of cached blocks, on the loop: two segments take less than a thread's turn.

    Concurrency: owned by the node's loop; nothing here awaits.
    """

    def __init__(self, fetcher: BlockFetcher) -> None:
        self._fetcher = fetcher
        self._headers = RecentlyUsed[BlockId, BlockHeader](_KEPT_SEGMENTS, _segments)

    def read(self, entry: Entry, offset: int, size: int) -> bytes | None:
        """A part of an entry's content, verified as always.

        Args:
            entry: not a hole.
            offset: of the first byte within the entry.
            size: bytes wanted, all within the entry.

        Returns:
            None when it is too long for the loop, or the block is not here or does not open: who
            opens the whole block learns which.
        """
        assert entry.block is not None
        if size > SEGMENT_BYTES:
            return None
        try:
            header = self._headers.get(entry.block) or self._read_header(entry.block)
            if header is None:
                return None
            start, stop = frame_range(header, entry.length, offset, size)
            sealed = self._fetcher.cached_part(entry.block, start, stop - start)
            if sealed is None:
                return None
            return open_range(header, entry.key, entry.length, offset, size, sealed)
        except RemoteProtocolError:
            return None

    def _read_header(self, block: BlockId) -> BlockHeader | None:
        prefix = self._fetcher.cached_part(block, 0, _HEADER_BYTES)
        if prefix is None:
            return None
        header = parse_header(prefix)
        self._headers.put(block, header)
        return header


def _segments(header: BlockHeader) -> int:
    return len(header.segments)
