"""Finds the entries of a manifest that hold a range, through as many pages as there are.

Owns the few decoded pages that stay in memory. Refuses to read content. Called by
`node.sync.content_reader`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from node.core.recently_used import RecentlyUsed
from node.sync.block_fetcher import BlockFetcher
from node.sync.block_opener import BlockOpener
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId, NamespaceId
from protocol.manifests import Entry, Manifest, PageRef, Piece, open_page

PAGES_KEPT: Final = 16
"""Decoded pages in memory, some 0.5 MiB each: content of 16 GiB at 1 MiB per block."""

_WORTH: Final = 16
"""Decoding a byte of a page takes about as long as opening so many bytes of content."""

PAGES_DECODED_AT_ONCE: Final = 4
"""Without waiting: one takes some 4 ms, during which nothing else happens."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """An entry and where its content begins in the file, in bytes."""

    start: int
    entry: Entry

    @property
    def end(self) -> int:
        """The offset in the file just behind its content."""
        return self.start + self.entry.length


class _Level:
    """Neighbouring pieces of a manifest, found by their offset from the first one's beginning."""

    __slots__ = ("_ends", "pieces")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._ends = list(itertools.accumulate(piece.length for piece in pieces))

    def from_offset(self, offset: int, start: int) -> Iterator[tuple[int, Piece]]:
        """The piece at an offset of the file and all behind it, each with where it begins.

        Args:
            offset: in the file.
            start: in the file, of the first piece of this level.
        """
        first = bisect.bisect_right(self._ends, offset - start)
        for index in range(first, len(self.pieces)):
            piece = self.pieces[index]
            yield start + self._ends[index] - piece.length, piece


class ManifestReader:
    """Looks up entries.

    Concurrency: shared by all readers; two that need the same page may both decode it.
    """

    def __init__(
        self, fetcher: BlockFetcher, opener: BlockOpener, pages_kept: int = PAGES_KEPT
    ) -> None:
        self._fetcher = fetcher
        self._opener = opener
        self._pages = RecentlyUsed[PageRef, _Level](pages_kept, lambda _: 1)
        self._top: tuple[Manifest, _Level] | None = None

    async def locate(
        self, namespace: NamespaceId, manifest: Manifest, offset: int, end: int
    ) -> list[Stretch]:
        """The entries that hold the bytes ``offset .. end - 1``, in order.

        Raises:
            ServerError: a page did not arrive.
            StorageError: a page can not be read or opened.
        """
        return await self._locate(namespace, self._top_level(manifest), 0, offset, end)

    async def blocks(self, namespace: NamespaceId, manifest: Manifest) -> list[BlockId]:
        """Every block that a content needs, also the pages that list them.

        Raises:
            ServerError: a page did not arrive.
            StorageError: a page can not be read or opened.
        """
        found: list[BlockId] = []
        unread = [*manifest.pieces]
        while unread:
            piece = unread.pop()
            if piece.block is not None:
                found.append(piece.block)
            if not isinstance(piece, Entry):
                unread += (await self._page(namespace, piece)).pieces
        return found

    def following(self, manifest: Manifest, offset: int) -> Iterator[BlockId]:
        """The blocks that a reader of the bytes from ``offset`` on will need next, in order.

        Ends with the first page that is not in memory: what lies below it is not known yet.
        """
        return self._following(self._top_level(manifest), 0, offset)

    def known_entries(self, manifest: Manifest) -> Iterator[Entry | None]:
        """The entries that can be told without waiting; None stands for those of a missing page.

        Decodes at most `PAGES_DECODED_AT_ONCE` cached pages that are not in memory, and leaves out
        what the others list.
        """
        return self._known_entries(manifest.pieces, itertools.count())

    def _top_level(self, manifest: Manifest) -> _Level:
        """A manifest's own pieces; those of the one that was read last are kept."""
        if self._top is None or self._top[0] is not manifest:
            self._top = manifest, _Level(manifest.pieces)
        return self._top[1]

    async def _locate(
        self, namespace: NamespaceId, level: _Level, start: int, offset: int, end: int
    ) -> list[Stretch]:
        found: list[Stretch] = []
        for piece_start, piece in level.from_offset(offset, start):
            if piece_start >= end:
                break
            if isinstance(piece, Entry):
                found.append(Stretch(piece_start, piece))
            else:
                page = await self._page(namespace, piece)
                found += await self._locate(namespace, page, piece_start, offset, end)
        return found

    def _known_entries(
        self, pieces: Sequence[Piece], decoded: Iterator[int]
    ) -> Iterator[Entry | None]:
        for piece in pieces:
            if isinstance(piece, Entry):
                yield piece
                continue
            page = self._pages.get(piece)
            if page is None and self._fetcher.is_cached(piece.block):
                if next(decoded) >= PAGES_DECODED_AT_ONCE:
                    continue
                page = self._decode_cached(piece)
            if page is None:
                yield None
            else:
                yield from self._known_entries(page.pieces, decoded)

    def _decode_cached(self, ref: PageRef) -> _Level | None:
        """A page in the cache; None when it is damaged."""
        frame = self._fetcher.cached(ref.block)
        if frame is None:
            return None
        try:
            page = _decode(ref, frame)
        except RemoteProtocolError:
            return None
        self._pages.put(ref, page)
        return page

    def _following(self, level: _Level, start: int, offset: int) -> Generator[BlockId, None, bool]:
        """As `following`; returns whether it came to the end of the level."""
        for piece_start, piece in level.from_offset(offset, start):
            if isinstance(piece, Entry):
                if piece.block is not None:
                    yield piece.block
                continue
            page = self._pages.get(piece)
            if page is None:
                yield piece.block
                return False
            if not (yield from self._following(page, piece_start, offset)):
                return False
        return True

    async def _page(self, namespace: NamespaceId, ref: PageRef) -> _Level:
        level = self._pages.get(ref)
        if level is not None:
            return level
        level = await self._opener.open(
            namespace,
            ref.block,
            partial(_decode, ref),
            length=ref.page_length,
            work_bytes=_WORTH * ref.page_length,
        )
        self._pages.put(ref, level)
        return level


def _decode(ref: PageRef, frame: bytes) -> _Level:
    return _Level(open_page(ref, frame))
