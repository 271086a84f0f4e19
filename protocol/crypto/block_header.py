"""The clear header of a block's frame: what whoever holds no key may see.

Owns the layout and its rules, so that server, seed and reader refuse the same frames. Opens
nothing and hashes nothing. Called by `protocol.crypto.blocks`, and by the server, which learns from
it a page's children and the exact length of the frame.

All integers are big endian::

    4  'ATLB'        1  version 1       1  kind: 0 data, 1 page
    2  child count   2  segment count   32 per child: its block id, strictly ascending
    4  per segment: bit 31 set if compressed, the rest the length of its padded payload
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import BlockId

SEGMENT_BYTES: Final = 64 * 1024
"""Plaintext of a segment. Compression keeps nine tenths of the ratio of 1 MiB, and a small read
opens no more than this."""

MAX_PLAIN_BYTES: Final = 4 * 1024 * 1024
"""Plaintext of a block: the largest chunk that content is cut into."""

MAX_SEGMENTS: Final = MAX_PLAIN_BYTES // SEGMENT_BYTES

MAX_CHILDREN: Final = 1024
"""Children of a page: at 1 MiB per block one page describes 1 GiB in about 75 KiB."""

TAG_BYTES: Final = 16
"""AES-GCM adds it to every segment."""

_MAGIC: Final = b"ATLB"
_VERSION: Final = 1
_COMPRESSED: Final = 1 << 31
_FIXED: Final = struct.Struct(">4sBBHH")

FIXED_HEADER_BYTES: Final = _FIXED.size
"""How much of a frame tells the length of its header."""

MAX_HEADER_BYTES: Final = FIXED_HEADER_BYTES + BlockId.size_bytes * MAX_CHILDREN + 4 * MAX_SEGMENTS

MAX_BLOCK_FRAME_BYTES: Final = MAX_HEADER_BYTES + MAX_SEGMENTS * (SEGMENT_BYTES + TAG_BYTES)


class BlockKind(IntEnum):
    """What a block holds."""

    DATA = 0
    """Content of a file."""
    PAGE = 1
    """Entries of a manifest; the header lists the blocks that they name."""


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """Where a segment lies in its frame.

    Attributes:
        offset: of its ciphertext, from the beginning of the frame.
        payload_length: bytes of padded payload; the frame holds `TAG_BYTES` more.
        is_compressed: whether the payload is a length and a zstd frame.
    """

    offset: int
    payload_length: int
    is_compressed: bool

    @property
    def end(self) -> int:
        """The offset just behind its tag."""
        return self.offset + self.payload_length + TAG_BYTES


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """A valid header.

    Attributes:
        kind: data or page.
        children: of a page, strictly ascending.
        segments: at least one.
        encoded: the bytes of the header, which every segment authenticates.
    """

    kind: BlockKind
    children: tuple[BlockId, ...]
    segments: tuple[SegmentShape, ...]
    encoded: bytes

    @property
    def header_length(self) -> int:
        """Bytes of the frame before the first segment."""
        return len(self.encoded)

    @property
    def frame_length(self) -> int:
        """Bytes of the whole frame."""
        return self.segments[-1].end

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Padded payload of each segment, without its tag."""
        return tuple(segment.payload_length for segment in self.segments)


def padme(length: int) -> int:
    """The length that an object of ``length`` bytes is padded to.

    Padme, from 'Reducing Metadata Leakage from Encrypted Files and Communication with PURBs'
    (Nikitin et al., 2019), section 4: a floating-point number whose mantissa is no longer than its
    exponent. At most 12 per cent longer, and lengths tell only O(log log length) bits.
    """
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def encode_header(
    kind: BlockKind, children: Sequence[BlockId], segments: Sequence[tuple[int, bool]]
) -> bytes:
    """The header of a frame; the arguments are valid already.

    Args:
        kind: data or page.
        children: of a page, strictly ascending.
        segments: padded payload length, and whether it is compressed.
    """
    words = (length | (_COMPRESSED if compressed else 0) for length, compressed in segments)
    return b"".join(
        (
            _FIXED.pack(_MAGIC, _VERSION, kind, len(children), len(segments)),
            *children,
            struct.pack(f">{len(segments)}I", *words),
        )
    )


def header_length(prefix: bytes | memoryview) -> int:
    """How long the header is, from the first `FIXED_HEADER_BYTES` bytes of a frame.

    Raises:
        RemoteProtocolError: not the beginning of a frame, or its counts are out of bounds.
        UnsupportedFormatError: a frame of another version.
    """
    _, child_count, segment_count = _parse_fixed(prefix)
    return FIXED_HEADER_BYTES + BlockId.size_bytes * child_count + 4 * segment_count


def parse_header(prefix: bytes | bytearray | memoryview) -> BlockHeader:
    """Read the header at the beginning of a frame.

    Args:
        prefix: the frame, or at least its whole header (see `header_length`).

    Raises:
        RemoteProtocolError: not the beginning of a frame, incomplete, or breaking a rule.
        UnsupportedFormatError: a frame of another version.
    """
    view = memoryview(prefix)
    kind, child_count, segment_count = _parse_fixed(view)
    children_end = FIXED_HEADER_BYTES + BlockId.size_bytes * child_count
    length = children_end + 4 * segment_count
    if len(view) < length:
        raise RemoteProtocolError(f"a block's header of {length} bytes ends at {len(view)}")
    encoded = bytes(view[:length])
    children = tuple(
        BlockId(encoded[start : start + BlockId.size_bytes])
        for start in range(FIXED_HEADER_BYTES, children_end, BlockId.size_bytes)
    )
    if any(former >= latter for former, latter in pairwise(children)):
        raise RemoteProtocolError("the children of a page are not strictly ascending")
    words = struct.unpack_from(f">{segment_count}I", encoded, children_end)
    return BlockHeader(kind, children, _segments(words, length), encoded)


def _parse_fixed(prefix: bytes | memoryview) -> tuple[BlockKind, int, int]:
    if len(prefix) < FIXED_HEADER_BYTES:
        raise RemoteProtocolError(f"a block does not have {len(prefix)} bytes")
    magic, version, kind, child_count, segment_count = _FIXED.unpack_from(prefix)
    if magic != _MAGIC:
        raise RemoteProtocolError("not a block: it begins with other bytes")
    if version != _VERSION:
        raise UnsupportedFormatError(f"a block of version {version}")
    if kind not in (BlockKind.DATA, BlockKind.PAGE):
        raise RemoteProtocolError(f"a block of unknown kind {kind}")
    if child_count > (MAX_CHILDREN if kind == BlockKind.PAGE else 0):
        raise RemoteProtocolError(f"a block with {child_count} children")
    if not 1 <= segment_count <= MAX_SEGMENTS:
        raise RemoteProtocolError(f"a block with {segment_count} segments")
    return BlockKind(kind), child_count, segment_count


def _segments(words: Sequence[int], offset: int) -> tuple[SegmentShape, ...]:
    segments = []
    for index, word in enumerate(words):
        is_last = index == len(words) - 1
        segment = SegmentShape(offset, word & ~_COMPRESSED, bool(word & _COMPRESSED))
        _check_segment(segment, is_last, is_only=is_last and index == 0)
        segments.append(segment)
        offset = segment.end
    return tuple(segments)


def _check_segment(segment: SegmentShape, is_last: bool, is_only: bool) -> None:
    length = segment.payload_length
    if segment.is_compressed:
        is_valid = 4 < length < SEGMENT_BYTES
    elif is_last:
        is_valid = length <= SEGMENT_BYTES and (length > 0 or is_only)
    else:
        is_valid = length == SEGMENT_BYTES
    if not is_valid or padme(length) != length:
        raise RemoteProtocolError(f"a block with a segment of {length} bytes")
