"""Manifests: which blocks, in which order, are the content of a file.

Owns the lists of entries, the tree of pages that a long list becomes, and the checks that make a
page from elsewhere trustworthy. Fetches and stores nothing: `pack` is given what seals a page,
`open_page` is given the page's frame. Called by the publisher, and by whoever reads content.

Layouts stand in docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from protocol import codec
from protocol.crypto.blocks import (
    MAX_CHILDREN,
    MAX_PLAIN_BYTES,
    BlockKind,
    SealedBlock,
    open_block,
    parse_header,
)
from protocol.crypto.keys import KEY_BYTES
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import BlockId
from protocol.limits import MAX_FILE_BYTES

MAX_INLINE_ENTRIES: Final = 64
"""Entries that travel in the record itself: files up to some 64 MiB need no page."""

MAX_PAGE_ENTRIES: Final = MAX_CHILDREN

MAX_DEPTH: Final = 4
"""Levels of pages: far more than the largest file needs, and a bound on what a reader follows."""

MAX_PAGE_BYTES: Final = 128 * 1024
"""The plaintext of a page; a full one has some 80 KiB."""

_INLINE: Final = 0
_PAGED: Final = 1

SealPage = Callable[[bytes, Sequence[BlockId]], SealedBlock]
"""Seals the plaintext of a page with its children, as `protocol.crypto.blocks.seal_block` does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stretch of content.

    Attributes:
        block: that holds it; None for a hole, which reads as zeros.
        key: opens the block; empty for a hole.
        length: bytes of content, at least one.
    """

    block: BlockId | None
    key: bytes = field(repr=False)
    length: int

    @classmethod
    def hole(cls, length: int) -> Entry:
        """A stretch of zeros that no block stores."""
        return cls(None, b"", length)

    @classmethod
    def of_block(cls, sealed: SealedBlock) -> Entry:
        """The content of a block that was just sealed."""
        return cls(sealed.id, sealed.key, sealed.plain_length)


@dataclass(frozen=True, slots=True)
class PageRef:
    """A stretch of content that a page describes.

    Attributes:
        level: 0 when the page's entries are of content, else they are pages of one level less.
        block: that holds the page.
        key: opens the block.
        length: bytes of content that the page describes.
        page_length: bytes of the page itself before sealing.
    """

    level: int
    block: BlockId
    key: bytes = field(repr=False)
    length: int
    page_length: int


Piece = Entry | PageRef
_AnyPiece = TypeVar("_AnyPiece", Entry, PageRef, Piece)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of one file: a few entries, or the page at the root of a tree.

    Attributes:
        entries: all of them, when ``root`` is None.
        root: of the tree of pages.
    """

    entries: tuple[Entry, ...] = ()
    root: PageRef | None = None

    @property
    def size(self) -> int:
        """Bytes of content."""
        if self.root is not None:
            return self.root.length
        return sum(entry.length for entry in self.entries)

    @property
    def blocks(self) -> tuple[BlockId, ...]:
        """What a record with this manifest lists: its data blocks or its root page, ascending."""
        if self.root is not None:
            return (self.root.block,)
        return _ids(self.entries)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What a reader starts from: the entries, or the root page alone."""
        return self.entries if self.root is None else (self.root,)

    def to_value(self) -> codec.Value:
        """The canonical value, part of a content register's."""
        if self.root is None:
            return [_INLINE, [_entry_to_value(entry) for entry in self.entries]]
        return [_PAGED, [self.root.level, *_page_ref_to_value(self.root)]]

    @classmethod
    def from_value(cls, value: codec.Value) -> Manifest:
        """Read `to_value`.

        Raises:
            RemoteProtocolError: not a manifest, or a number in it is out of bounds.
        """
        form, content = codec.as_tuple(value, "manifest", 2)
        if codec.as_int(form, _INLINE, _PAGED, "form of a manifest") == _INLINE:
            values = codec.as_list(content, "manifest", MAX_INLINE_ENTRIES)
            manifest = cls(entries=tuple(map(_entry, values)))
        else:
            level, *rest = codec.as_tuple(content, "root page", 5)
            codec.as_int(level, 0, MAX_DEPTH - 1, "level of a page")
            manifest = cls(root=_page_ref(rest, level))
        codec.as_int(manifest.size, 0, MAX_FILE_BYTES, "size of a manifest")
        return manifest


def pack(entries: Iterable[Entry], seal_page: SealPage) -> tuple[Manifest, list[SealedBlock]]:
    """The manifest of a list of entries, and the pages that it needs.

    The same entries give the same manifest as long as ``seal_page`` is deterministic.

    Args:
        entries: in order of content.
        seal_page: is called once per page, children first.

    Returns:
        The manifest, and its pages, children first, equal ones once. None for a short list.

    Raises:
        LocalProtocolError: an entry breaks a rule, or the content is longer than a file can be.
    """
    checked = tuple(_checked(entries))
    if sum(entry.length for entry in checked) > MAX_FILE_BYTES:
        raise LocalProtocolError(f"a file has at most {MAX_FILE_BYTES} bytes")
    if len(checked) <= MAX_INLINE_ENTRIES:
        return Manifest(entries=checked), []
    pieces: Sequence[Piece] = checked
    pages: dict[BlockId, SealedBlock] = {}
    for level in range(MAX_DEPTH):
        refs: list[PageRef] = []
        for start in range(0, len(pieces), MAX_PAGE_ENTRIES):
            ref, sealed = _seal(level, pieces[start : start + MAX_PAGE_ENTRIES], seal_page)
            pages.setdefault(sealed.id, sealed)
            refs.append(ref)
        if len(refs) == 1:
            return Manifest(root=refs[0]), list(pages.values())
        pieces = refs
    raise LocalProtocolError(f"a manifest has at most {MAX_DEPTH} levels of pages")


def open_page(ref: PageRef, frame: bytes | memoryview) -> tuple[Entry, ...] | tuple[PageRef, ...]:
    """What a page lists: entries of content at level 0, pages of one level less above.

    Args:
        ref: from a manifest or from the page above.
        frame: the block that it names.

    Raises:
        RemoteProtocolError: the frame is another block, is no page, was sealed for another level,
            lists other children in clear than under seal, or its lengths do not sum up.
    """
    plain = open_block(frame, ref.key, ref.page_length, ref.block)
    header = parse_header(frame)
    if header.kind is not BlockKind.PAGE:
        raise RemoteProtocolError(f"block {ref.block} is not a page")
    level, values = codec.as_tuple(codec.decode(plain, MAX_PAGE_BYTES), "page", 2)
    codec.as_int(level, ref.level, ref.level, "level of a page")
    codec.as_list(values, "page", MAX_PAGE_ENTRIES)
    pieces: tuple[Entry, ...] | tuple[PageRef, ...]
    if ref.level == 0:
        pieces = tuple(map(_entry, values))
    else:
        pieces = tuple(_page_ref(value, ref.level - 1) for value in values)
    if header.children != _ids(pieces):
        raise RemoteProtocolError(f"page {ref.block} lists other children in clear")
    if sum(piece.length for piece in pieces) != ref.length:
        raise RemoteProtocolError(f"page {ref.block} does not describe {ref.length} bytes")
    return pieces


def overlapping(
    pieces: Iterable[_AnyPiece], offset: int, size: int, start: int = 0
) -> Iterator[tuple[int, _AnyPiece]]:
    """The pieces that hold some byte of a range, each with the offset in the file where it begins.

    Args:
        pieces: in order of content.
        offset: in the file, of the first byte of the range.
        size: of the range.
        start: offset in the file of the first piece.
    """
    for piece in pieces:
        if size <= 0 or start >= offset + size:
            return
        if start + piece.length > offset:
            yield start, piece
        start += piece.length


def _seal(level: int, pieces: Sequence[Piece], seal_page: SealPage) -> tuple[PageRef, SealedBlock]:
    values = [
        _entry_to_value(piece) if isinstance(piece, Entry) else _page_ref_to_value(piece)
        for piece in pieces
    ]
    plain = codec.encode([level, values])
    sealed = seal_page(plain, _ids(pieces))
    length = sum(piece.length for piece in pieces)
    return PageRef(level, sealed.id, sealed.key, length, len(plain)), sealed


def _ids(pieces: Iterable[Piece]) -> tuple[BlockId, ...]:
    """Distinct and ascending: neither order nor repetitions show."""
    return tuple(sorted({piece.block for piece in pieces if piece.block is not None}))


def _checked(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        try:
            yield _entry(_entry_to_value(entry))
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"not an entry of a manifest: {error}") from error


def _entry_to_value(entry: Entry) -> codec.Value:
    block = None if entry.block is None else bytes(entry.block)
    return [block, entry.key, entry.length]


def _entry(value: codec.Value) -> Entry:
    block, key, length = codec.as_tuple(value, "entry", 3)
    if block is None:
        codec.as_bytes(key, "key of a hole", 0, 0)
        return Entry.hole(codec.as_int(length, 1, MAX_FILE_BYTES, "length of a hole"))
    return Entry(
        BlockId(codec.as_bytes(block, "block id", BlockId.size_bytes, BlockId.size_bytes)),
        codec.as_bytes(key, "block key", KEY_BYTES, KEY_BYTES),
        codec.as_int(length, 1, MAX_PLAIN_BYTES, "length of an entry"),
    )


def _page_ref_to_value(ref: PageRef) -> list[codec.Value]:
    return [bytes(ref.block), ref.key, ref.length, ref.page_length]


def _page_ref(value: codec.Value, level: int) -> PageRef:
    block, key, length, page_length = codec.as_tuple(value, "entry of a page", 4)
    return PageRef(
        level,
        BlockId(codec.as_bytes(block, "block id", BlockId.size_bytes, BlockId.size_bytes)),
        codec.as_bytes(key, "block key", KEY_BYTES, KEY_BYTES),
        codec.as_int(length, 1, MAX_FILE_BYTES, "length of a page's content"),
        codec.as_int(page_length, 1, MAX_PAGE_BYTES, "length of a page"),
    )
