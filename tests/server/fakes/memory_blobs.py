"""The block port in memory: passes the same contract suite as the block store of the product."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.crypto.block_header import (
    FIXED_HEADER_BYTES,
    BlockHeader,
    header_length,
    parse_header,
)
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId
from server.errors import BlockError, BlockNotFoundError, StorageFullError


class MemoryBlockStore:
    """`BlockStore` in a dictionary."""

    def __init__(self, capacity_bytes: int = 2**40) -> None:
        self.blocks: dict[BlockId, bytes] = {}
        self.capacity_bytes = capacity_bytes

    @asynccontextmanager
    async def receive(self, block: BlockId) -> AsyncIterator[MemoryIncoming]:
        yield MemoryIncoming(self, block)

    @asynccontextmanager
    async def open(self, block: BlockId) -> AsyncIterator[MemoryStored]:
        if block not in self.blocks:
            raise BlockNotFoundError("the block is not here")
        yield MemoryStored(self.blocks[block])

    async def remove(self, block: BlockId) -> None:
        self.blocks.pop(block, None)

    async def stored(self) -> AsyncIterator[BlockId]:
        for block in list(self.blocks):
            yield block

    async def is_ready(self) -> bool:
        return True


class MemoryIncoming:
    def __init__(self, store: MemoryBlockStore, block: BlockId) -> None:
        self._store = store
        self._block = block
        self._data = b""
        self._header: BlockHeader | None = None

    async def write(self, data: bytes) -> None:
        self._data += data
        try:
            if (
                self._header is None
                and len(self._data) >= FIXED_HEADER_BYTES
                and len(self._data) >= header_length(self._data)
            ):
                self._header = parse_header(self._data)
        except RemoteProtocolError as error:
            raise BlockError(str(error)) from error
        if self._header is not None and len(self._data) > self._header.frame_length:
            raise BlockError("the block is too long")

    def header(self) -> BlockHeader:
        if self._header is None or len(self._data) != self._header.frame_length:
            raise BlockError("the block ends early")
        return self._header

    async def keep(self) -> int:
        self.header()
        if hashlib.sha256(self._data).digest() != self._block:
            raise BlockError("the bytes are not those of the block's id")
        used = sum(map(len, self._store.blocks.values()))
        if used + len(self._data) > self._store.capacity_bytes:
            raise StorageFullError("full")
        self._store.blocks[self._block] = self._data
        return len(self._data)


class MemoryStored:
    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    async def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]
