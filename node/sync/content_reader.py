"""Reads the content of files: finds the blocks of a range, has them fetched, opens and joins them.

Owns the way from a manifest to plaintext, the few blocks that stay open because the next read needs
them again, and reading ahead. Refuses to know where blocks come from (the fetcher does), which
version of a file is read, and what was written since. Called by ``node.drive`` and by
`node.sync.content_sealer`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import trio

from node.core.read_pattern import ReadPattern
from node.sync.block_fetcher import BlockFetcher
from node.sync.block_opener import BlockOpener
from node.sync.block_parts import BlockParts
from node.sync.manifest_reader import ManifestReader, Stretch
from node.sync.open_blocks import OpenBlocks
from node.sync.workers import Workers
from protocol.crypto.blocks import read_range
from protocol.ids import BlockId, NamespaceId
from protocol.manifests import Entry, Manifest
from protocol.values import Content


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What the reader may use.

    Attributes:
        open_bytes: plaintext of blocks kept open, for the next read of the same block.
        blocks_ahead: blocks fetched ahead of a sequential reader.
        threads: that open blocks and pages.
    """

    open_bytes: int = 16 * 1024 * 1024
    blocks_ahead: int = 8
    threads: int = 2


class ContentReader:
    """Reads published content.

    Concurrency: shared by all readers. A cancelled read leaves nothing but what it has cached.
    """

    def __init__(
        self,
        fetcher: BlockFetcher,
        limits: ReaderLimits = ReaderLimits(),
        *,
        workers: Workers | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._limits = limits
        self._opener = BlockOpener(fetcher, workers or Workers(limits.threads))
        self._manifests = ManifestReader(fetcher, self._opener)
        self._blocks = OpenBlocks(self._opener, limits.open_bytes)
        self._parts = BlockParts(fetcher)
        self._pattern = ReadPattern()

    async def read(
        self,
        namespace: NamespaceId,
        content: Content,
        offset: int,
        size: int,
        *,
        look_ahead: bool = True,
    ) -> bytes:
        """The bytes ``offset .. offset + size - 1``, fewer at the end of the content.

        Args:
            namespace: of the content.
            content: what is read.
            offset: of the first byte.
            size: bytes wanted.
            look_ahead: whether reads that follow each other may fetch what comes next.

        Raises:
            ServerError: a block that is not here did not arrive.
            StorageError: a block can not be read or opened.
        """
        await trio.lowlevel.checkpoint()
        end = min(offset + size, content.size)
        manifest = content.manifest
        if manifest is None or offset >= end:
            return content.inline[offset:end]
        is_run = look_ahead and self._pattern.is_sequential(
            (manifest.pieces[0], content.size), offset, size
        )
        stretches = await self._manifests.locate(namespace, manifest, offset, end)
        self._fetch_ahead(namespace, manifest, stretches, is_run=is_run)
        parts = [
            await self._part(namespace, stretch, offset, end, is_run=is_run)
            for stretch in stretches
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def entries(self, namespace: NamespaceId, content: Content) -> list[Entry]:
        """All entries of the manifest; none when the content is inline.

        Raises:
            ServerError: a page of the manifest did not arrive.
            StorageError: a page can not be read or opened.
        """
        await trio.lowlevel.checkpoint()
        if content.manifest is None:
            return []
        stretches = await self._manifests.locate(namespace, content.manifest, 0, content.size)
        return [stretch.entry for stretch in stretches]

    async def blocks(self, namespace: NamespaceId, content: Content) -> list[BlockId]:
        """Every block that a content needs; the errors of `entries`."""
        await trio.lowlevel.checkpoint()
        if content.manifest is None:
            return []
        return await self._manifests.blocks(namespace, content.manifest)

    def cached_share(self, content: Content) -> int:
        """Per cent of the content's blocks that are on this device.

        Never waits: of a very long content a part is judged (see `ManifestReader.known_entries`).
        """
        if content.manifest is None:
            return 100
        cached = total = 0
        for entry in self._manifests.known_entries(content.manifest):
            if entry is None:
                total += 1
            elif entry.block is not None:
                total += 1
                cached += self._fetcher.is_cached(entry.block)
        return 100 * cached // total if total else 100

    def _fetch_ahead(
        self, namespace: NamespaceId, manifest: Manifest, stretches: list[Stretch], *, is_run: bool
    ) -> None:
        """What this read needs behind its first block, and what the reads after it will need."""
        wanted = [stretch.entry.block for stretch in stretches[1:] if stretch.entry.block]
        if is_run:
            following = self._manifests.following(manifest, stretches[-1].end)
            wanted += itertools.islice(following, self._limits.blocks_ahead)
        if wanted:
            self._fetcher.prefetch(namespace, wanted)

    async def _part(
        self, namespace: NamespaceId, stretch: Stretch, offset: int, end: int, *, is_run: bool
    ) -> bytes:
        """What a read of ``offset .. end - 1`` takes from one entry."""
        entry = stretch.entry
        first, last = max(offset - stretch.start, 0), min(end, stretch.end) - stretch.start
        if entry.block is None:
            return bytes(last - first)
        plain = self._blocks.kept(namespace, entry)
        if plain is None and (is_run or last - first > entry.length // 2):
            plain = await self._blocks.open(namespace, entry)
        if plain is not None:
            return plain if last - first == len(plain) else plain[first:last]
        part = self._parts.read(entry, first, last - first)
        if part is not None:
            return part

        def opening(frame: bytes) -> bytes:
            return read_range(frame, entry.key, entry.length, first, last - first)

        return await self._opener.open(
            namespace, entry.block, opening, length=entry.length, work_bytes=last - first
        )
