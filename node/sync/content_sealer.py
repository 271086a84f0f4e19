"""Turns a staged file into sealed blocks and the manifest that lists them.

Owns the pipeline: staged bytes, and what is needed of the base, are read in windows, cut, sealed by
worker threads and put into the block cache, with a bound on what is in memory. Blocks of the base
that nothing touched keep their id and key. Refuses to send anything and to decide what becomes of
the result. Called by ``node.sync.publisher``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from node.core.chunking import (
    BaseEntry,
    Buffer,
    Hole,
    Keep,
    Range,
    Rechunk,
    Step,
    chunker_seed,
    plan_chunks,
    plan_rewrite,
)
from node.storage.block_cache import BlockCache
from node.storage.staging_extents import add_range
from node.storage.staging_pieces import BaseRange, Piece, StagedBytes, Zeros
from node.sync.byte_budget import ByteBudget
from node.sync.content_reader import ContentReader
from node.sync.work_nursery import open_work_nursery
from node.sync.workers import Workers
from protocol.crypto.blocks import BlockKind, SealedBlock, seal_block
from protocol.crypto.keys import EpochKeys
from protocol.ids import BlockId, NamespaceId
from protocol.limits import INLINE_BYTES
from protocol.manifests import Entry, Manifest, pack
from protocol.values import Content

OnBlock = Callable[[BlockId], Awaitable[None]]
"""Told of each block as soon as the cache has it. While it waits, sealing does not get far ahead."""


class StagedSource(Protocol):
    """A staged file at one moment; `StagingSnapshot` is one."""

    @property
    def size(self) -> int:
        """Of the file, in bytes."""

    @property
    def base_limit(self) -> int:
        """Up to here bytes that were not staged are the base's, in bytes."""

    def touched(self) -> list[Range]:
        """The staged ranges, ascending."""

    def read(self, offset: int, size: int) -> list[Piece]:
        """What a range consists of; is called from worker threads."""


@dataclass(frozen=True, slots=True)
class SealerLimits:
    """What the sealer may use.

    Attributes:
        threads: blocks sealed at one time, over all files. Two saturate the machine's two cores.
        blocks_in_flight: blocks that wait for a thread or are being sealed, over all files; at
            4 MiB each at most.
        blocks_ahead: blocks of one content that are sealed while `OnBlock` has not returned for
            any of them.
        window_bytes: staged bytes read at one time. At least the largest chunk, or none might end
            in it; longer ones cut fewer bytes twice.
        staged_bytes: staged bytes in memory, over all files. A content holds those of a window
            twice: as they are read, and joined to be cut.
        long_contents: contents longer than a window that are sealed at one time, so that shorter
            ones find memory beside them.
    """

    threads: int = 2
    blocks_in_flight: int = 8
    blocks_ahead: int = 16
    window_bytes: int = 8 * 1024 * 1024
    staged_bytes: int = 64 * 1024 * 1024
    long_contents: int = 2


@dataclass(frozen=True, slots=True)
class SealedContent:
    """What goes into the content register, and what the server may lack of it.

    Attributes:
        size: of the content, in bytes.
        inline: the bytes, when they are few.
        manifest: where the bytes are; None when they are inline.
        new_blocks: sealed for this content, pages included, each once, and not known to be of the
            base; all are in the cache.
    """

    size: int
    inline: bytes = field(default=b"", repr=False)
    manifest: Manifest | None = None
    new_blocks: tuple[BlockId, ...] = ()


class ContentSealer:
    """Seals contents.

    Concurrency: shared; contents are sealed side by side within common bounds. A cancelled or
    failed sealing leaves blocks in the cache that the next attempt finds there.
    """

    def __init__(
        self,
        reader: ContentReader,
        cache: BlockCache,
        limits: SealerLimits = SealerLimits(),
        *,
        workers: Workers | None = None,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._limits = limits
        self._workers = workers or Workers(limits.threads)
        self._in_flight = trio.Semaphore(limits.blocks_in_flight)
        self._staged = ByteBudget(limits.staged_bytes)
        self._long_contents = trio.CapacityLimiter(limits.long_contents)

    async def seal_content(
        self,
        source: StagedSource,
        base: Content | None,
        namespace: NamespaceId,
        keys: EpochKeys,
        *,
        on_block: OnBlock | None = None,
    ) -> SealedContent:
        """Seals what a staged file holds.

        The new blocks are in the cache, protected from eviction: whoever publishes them, or drops
        them, lifts that. They survive a loss of power after `BlockCache.sync_pending`; before that
        the staged file must not go.

        Args:
            source: must stay open until this returns.
            base: the version that the staged bytes were written over; None for a new file.
            namespace: of both.
            keys: of the epoch under which new blocks are sealed.
            on_block: is awaited for each new block; what it raises ends the sealing.

        Raises:
            StorageError: staged bytes can not be read, or the cache has no room.
            ServerError: a part of the base that is needed is not here and did not arrive.
        """
        ahead = trio.Semaphore(self._limits.blocks_ahead)
        sealing = _Sealing(source, base, namespace, keys, on_block, ahead)
        if source.size <= INLINE_BYTES:
            data = b"".join(await self._read(sealing, 0, source.size))
            return SealedContent(size=source.size, inline=data)
        window_bytes = min(source.size, self._limits.window_bytes)
        async with AsyncExitStack() as held:
            if source.size > window_bytes:
                await held.enter_async_context(self._long_contents)
            await held.enter_async_context(self._staged.take(2 * window_bytes))
            manifest = await self._seal_all(sealing)
        return SealedContent(source.size, manifest=manifest, new_blocks=tuple(sealing.new_blocks))

    async def _seal_all(self, sealing: _Sealing) -> Manifest:
        """The manifest of a content that is too long to be inline."""
        source, base = sealing.source, sealing.base
        kept: Sequence[Entry] = ()
        if base is not None and source.base_limit > 0:
            kept = await self._reader.entries(sealing.namespace, base)
            sealing.base_blocks.update(entry.block for entry in kept if entry.block is not None)
        async with open_work_nursery() as nursery:
            for step in await self._workers.call(source.size, partial(_plan, source, kept)):
                match step:
                    case Keep(first, count):
                        sealing.entries += kept[first : first + count]
                    case Hole(length):
                        sealing.entries.append(Entry.hole(length))
                    case Rechunk(start, end):
                        await self._rechunk(sealing, start, end, nursery)
        return await self._seal_manifest(sealing)

    async def _rechunk(
        self, sealing: _Sealing, start: int, end: int, nursery: trio.Nursery
    ) -> None:
        """Cuts a range of the new content into chunks, and has them sealed in the nursery."""
        rest = memoryview(b"")
        while start < end:
            size = min(end - start, self._limits.window_bytes - len(rest))
            chunks, rest = await self._cut_next(
                sealing, rest, start, size, is_last=start + size == end
            )
            start += size
            for chunk in chunks:
                await sealing.ahead.acquire()
                await self._in_flight.acquire()
                nursery.start_soon(self._seal_chunk, sealing, len(sealing.entries), chunk)
                sealing.entries.append(None)

    async def _cut_next(
        self, sealing: _Sealing, rest: memoryview, start: int, size: int, *, is_last: bool
    ) -> tuple[list[memoryview], memoryview]:
        """The chunks in what the window before left and the next bytes, and what they leave."""
        parts = await self._read(sealing, start, size)
        seed = chunker_seed(sealing.keys.chunker)
        return await self._workers.call(size, partial(_cut, (rest, *parts), seed, is_last=is_last))

    async def _seal_chunk(self, sealing: _Sealing, index: int, chunk: memoryview) -> None:
        try:
            seal = partial(self._seal_and_keep, sealing.keys, chunk)
            entry = await self._workers.call(len(chunk), seal)
        finally:
            self._in_flight.release()
        sealing.entries[index] = entry
        await sealing.announce(entry.block)
        sealing.ahead.release()

    def _seal_and_keep(self, keys: EpochKeys, chunk: memoryview) -> Entry:
        sealed = seal_block(keys.dedup, chunk)
        self._keep(sealed)
        return Entry.of_block(sealed)

    def _keep(self, sealed: SealedBlock) -> None:
        """Puts a block into the cache for certain: soon it may be the only copy of these bytes."""
        self._cache.protect([sealed.id])
        if self._cache.contains(sealed.id) and self._cache.get(sealed.id) != sealed.frame:
            self._cache.discard(sealed.id)
        self._cache.put_new(sealed.id, sealed.frame)

    async def _seal_manifest(self, sealing: _Sealing) -> Manifest:
        entries = [entry for entry in sealing.entries if entry is not None]

        def seal_page(plain: bytes, children: Sequence[BlockId]) -> SealedBlock:
            sealed = seal_block(sealing.keys.dedup, plain, BlockKind.PAGE, children)
            self._keep(sealed)
            return sealed

        manifest, pages = await self._workers.call(
            sealing.source.size, partial(pack, entries, seal_page)
        )
        assert manifest.size == sealing.source.size
        for page in pages:
            await sealing.announce(page.id)
        return manifest

    async def _read(self, sealing: _Sealing, offset: int, size: int) -> list[Buffer]:
        """The bytes of a range of the new content, in parts that follow each other."""
        parts: list[Buffer] = []
        for piece in await self._workers.call(size, partial(sealing.source.read, offset, size)):
            match piece:
                case StagedBytes():
                    parts.append(piece.data)
                case Zeros():
                    parts.append(bytes(piece.size))
                case BaseRange():
                    assert sealing.base is not None
                    read = self._reader.read(
                        sealing.namespace,
                        sealing.base,
                        piece.offset,
                        piece.size,
                        look_ahead=False,
                    )
                    parts.append(await read)
        assert sum(len(part) for part in parts) == size
        return parts


@dataclass(slots=True)
class _Sealing:
    """One content being sealed.

    Attributes:
        ahead: bounds the chunks that were cut and not yet announced.
        base_blocks: blocks that the base has.
        entries: of the manifest, in order; None where a chunk is still being sealed.
        new_blocks: in the order in which they were announced; the values are not used.
    """

    source: StagedSource
    base: Content | None
    namespace: NamespaceId
    keys: EpochKeys
    on_block: OnBlock | None
    ahead: trio.Semaphore
    base_blocks: set[BlockId] = field(default_factory=set)
    entries: list[Entry | None] = field(default_factory=list)
    new_blocks: dict[BlockId, None] = field(default_factory=dict)

    async def announce(self, block: BlockId | None) -> None:
        """A block is in the cache."""
        assert block is not None
        if block in self.base_blocks or block in self.new_blocks:
            return
        self.new_blocks[block] = None
        if self.on_block is not None:
            await self.on_block(block)


def _plan(source: StagedSource, kept: Sequence[Entry]) -> list[Step]:
    """What becomes of each stretch; ``kept`` are the base's entries, none when it is inline."""
    base = [BaseEntry(entry.length, entry.block is None) for entry in kept]
    touched = source.touched()
    if not base and source.base_limit:
        # The base is inline: no block of it can stay.
        base = [BaseEntry(source.base_limit)]
        add_range(touched, 0, source.base_limit)
    return plan_rewrite(base, source.base_limit, touched, source.size)


def _cut(
    parts: Sequence[Buffer], seed: int, *, is_last: bool
) -> tuple[list[memoryview], memoryview]:
    """The chunks at the beginning of a window, and what they leave of it."""
    # Immutable, or sealing would have to copy it once more.
    window = memoryview(b"".join(parts))
    chunks: list[memoryview] = []
    start = 0
    for length in plan_chunks(window, seed=seed, is_last=is_last):
        chunks.append(window[start : start + length])
        start += length
    return chunks, window[start:]
