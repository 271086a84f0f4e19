"""The block port: sealed blocks by their ids, streamed in and read in pieces.

Owns the words of the port. A block store verifies that bytes are the block they are said to be and
makes them durable; it does not know whose they are.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from protocol.crypto.block_header import BlockHeader
from protocol.ids import BlockId


class IncomingBlock(Protocol):
    """A block while it streams in. Nothing of it is visible before `keep` has returned."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes of the frame.

        Raises:
            BlockError: not the frame of a block, or longer than its header says.
            StorageFullError: no space left.
        """
        ...

    def header(self) -> BlockHeader:
        """The frame is complete: what its header says. It is not verified yet.

        Raises:
            BlockError: the bytes ended early.
        """
        ...

    async def keep(self) -> int:
        """Check the frame against its id and make it readable, durably; its size in bytes.

        Raises:
            BlockError: the bytes are not those of the id.
            StorageFullError: no space left.
        """
        ...


class StoredBlock(Protocol):
    """A block that is open for reading."""

    @property
    def size_bytes(self) -> int:
        """Length of the frame."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on: ``size``, or fewer at the end of the frame."""
        ...


class BlockStore(Protocol):
    """Sealed blocks at rest."""

    def receive(self, block: BlockId) -> AbstractAsyncContextManager[IncomingBlock]:
        """Take a block in. Leaving the context without `keep` leaves nothing behind."""
        ...

    def open(self, block: BlockId) -> AbstractAsyncContextManager[StoredBlock]:
        """Read a block.

        Raises:
            BlockNotFoundError: it is not here.
        """
        ...

    async def remove(self, block: BlockId) -> None:
        """Remove a block; nothing happens when it is not here. Whoever has it open reads on."""
        ...

    def stored(self) -> AsyncIterator[BlockId]:
        """Every block that is here, in no order; what comes or goes meanwhile may be missed."""
        ...

    async def is_ready(self) -> bool:
        """Whether blocks can be written now."""
        ...
