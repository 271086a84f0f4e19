"""Keeps the bytes of a block and what is known of it in step, within this process.

A block that nobody needs loses its row first and its bytes a moment later; an upload writes the bytes
first and the row a moment later. Both hold the block's lock meanwhile, so that neither takes away
what the other has just written. Used by `blocks` and `collector`.
"""

from typing import Final

import anyio

from protocol.ids import BlockId

_LOCKS: Final = 64
"""More than uploads under way: two blocks that share a lock wait for each other for a sync."""


class BlockLocks:
    """A lock for every block; blocks may share one.

    Concurrency: for the tasks of one loop.
    """

    def __init__(self) -> None:
        self._locks = tuple(anyio.Lock() for _ in range(_LOCKS))

    def of(self, block: BlockId) -> anyio.Lock:
        """The lock of a block."""
        return self._locks[block[0] % _LOCKS]
