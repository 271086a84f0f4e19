"""Blocks: content sealed into a frame that whoever holds no key can still verify by its id.

Owns the frame behind the header (see `protocol.crypto.block_header`): segments of 64 KiB of
plaintext, each compressed if that makes it smaller, padded, and sealed with AES-256-GCM. The key
follows from the hash of exactly the bytes that are sealed, so that equal content of one epoch gives
equal frames, and two different plaintexts never meet under one key. Knows nothing of where blocks
are stored or how content was cut. Called by the publisher and by every reader of content.

Everything that touches much data releases the GIL: call it in worker threads. Contexts of the
compressor belong to one thread each.
"""

import hashlib
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.crypto.block_header import (
    FIXED_HEADER_BYTES,
    MAX_BLOCK_FRAME_BYTES,
    MAX_CHILDREN,
    MAX_HEADER_BYTES,
    MAX_PLAIN_BYTES,
    MAX_SEGMENTS,
    SEGMENT_BYTES,
    BlockHeader,
    BlockKind,
    SegmentShape,
    encode_header,
    header_length,
    padme,
    parse_header,
)
from protocol.crypto.keys import KEY_BYTES
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import BlockId

__all__ = [
    "FIXED_HEADER_BYTES",
    "MAX_BLOCK_FRAME_BYTES",
    "MAX_CHILDREN",
    "MAX_HEADER_BYTES",
    "MAX_PLAIN_BYTES",
    "MAX_SEGMENTS",
    "SEGMENT_BYTES",
    "BlockHeader",
    "BlockKind",
    "Buffer",
    "SealedBlock",
    "block_id",
    "frame_range",
    "header_length",
    "open_block",
    "open_range",
    "padme",
    "parse_header",
    "read_range",
    "seal_block",
]

Buffer = bytes | bytearray | memoryview

_HASH_PERSON: Final = b"atoll-block-v1"
_KEY_PERSON: Final = b"atoll-blkkey-v1"
_NONCE_PERSON: Final = b"atoll-nonce-v1"

_COMPRESSION_LEVEL: Final = 1
"""Fast enough that nobody waits for it, and it gives up on incompressible bytes at 10 GB/s."""

_MAX_WINDOW_BYTES: Final = 1024 * 1024
"""A segment needs 64 KiB; what claims to need much more is not ours."""

_LENGTH: Final = struct.Struct(">I")


class _Contexts(threading.local):
    """The compressor's contexts, which must not be shared: one of each per thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(
            level=_COMPRESSION_LEVEL, write_checksum=False, write_content_size=False
        )
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)


_contexts = _Contexts()


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block ready to be stored anywhere.

    Attributes:
        id: SHA-256 of the frame.
        key: 32 secret bytes that open it; kept in a manifest.
        frame: what is stored and travels.
        plain_length: bytes of content; kept in a manifest.
    """

    id: BlockId
    key: bytes = field(repr=False)
    frame: bytes = field(repr=False)
    plain_length: int


def block_id(frame: Buffer) -> BlockId:
    """The id of a frame: its SHA-256."""
    return BlockId(hashlib.sha256(frame).digest())


def seal_block(
    dedup_key: bytes,
    plain: Buffer,
    kind: BlockKind = BlockKind.DATA,
    children: Sequence[BlockId] = (),
) -> SealedBlock:
    """Seal content. The same key and content give the same frame (with the same zstd).

    Args:
        dedup_key: the epoch's, 32 bytes.
        plain: 0 to `MAX_PLAIN_BYTES` bytes, contiguous. A writable buffer is copied: bytes that
            changed between the hash and the cipher would put two plaintexts under one nonce.
        kind: what the block holds.
        children: of a page, the ids of the blocks that it names, strictly ascending.

    Raises:
        LocalProtocolError: too long, a key of the wrong length, or children that a block of this
            kind can not have.
    """
    _check_sealable(dedup_key, plain, kind, children)
    view = memoryview(plain).cast("B")
    payloads, shapes = _payloads(view if view.readonly else memoryview(bytes(view)))
    header = encode_header(kind, children, shapes)
    key = _block_key(dedup_key, header, payloads)
    cipher, nonce = AESGCM(key), _nonce_prefix(key)
    sealed = [header]
    for index, payload in enumerate(payloads):
        number = _LENGTH.pack(index)
        sealed.append(cipher.encrypt(nonce + number, payload, header + number))
    frame = b"".join(sealed)
    return SealedBlock(block_id(frame), key, frame, len(view))


def open_block(
    frame: Buffer, key: bytes, plain_length: int, expected_id: BlockId | None = None
) -> bytes:
    """The content of a block, all of it verified.

    Args:
        frame: the whole frame.
        key: from the manifest.
        plain_length: from the manifest.
        expected_id: compared with the frame's hash unless None.

    Raises:
        RemoteProtocolError: the frame is not what was sealed with this key and length, or has
            another id.
    """
    if expected_id is not None and block_id(frame) != expected_id:
        raise RemoteProtocolError(f"the bytes of block {expected_id} do not match its id")
    header = parse_header(frame)
    if len(frame) != header.frame_length:
        raise RemoteProtocolError(
            f"a block's frame has {len(frame)} bytes instead of {header.frame_length}"
        )
    _check_openable(header, key, plain_length)
    sealed = memoryview(frame)[header.header_length :]
    return _open_segments(header, key, plain_length, 0, len(header.segments), sealed)


def read_range(frame: Buffer, key: bytes, plain_length: int, offset: int, size: int) -> bytes:
    """A part of the content, as the slice ``[offset : offset + size]``; opens only what it needs.

    Args:
        frame: the whole frame, or as much of it as the range needs.
        key: from the manifest.
        plain_length: from the manifest.
        offset: of the first byte, not negative.
        size: bytes wanted, not negative; less is returned at the end of the content.

    Raises:
        RemoteProtocolError: the header or a segment that is needed is not what was sealed.
        LocalProtocolError: a negative offset or size.
    """
    header = parse_header(frame)
    start, stop = frame_range(header, plain_length, offset, size)
    sealed = memoryview(frame)[start:stop]
    return open_range(header, key, plain_length, offset, size, sealed)


def frame_range(header: BlockHeader, plain_length: int, offset: int, size: int) -> tuple[int, int]:
    """Which bytes of the frame `open_range` needs: from the first up to, not including, the second.

    Raises:
        LocalProtocolError: a negative offset or size.
    """
    first, last = _segment_range(header, plain_length, offset, size)
    if first == last:
        return header.header_length, header.header_length
    return header.segments[first].offset, header.segments[last - 1].end


def open_range(
    header: BlockHeader, key: bytes, plain_length: int, offset: int, size: int, sealed: Buffer
) -> bytes:
    """As `read_range`, for a reader that fetched only the header and one part of the frame.

    Args:
        header: of the frame.
        key: from the manifest.
        plain_length: from the manifest.
        offset: of the first byte, not negative.
        size: bytes wanted, not negative.
        sealed: the bytes of the frame within `frame_range` of the same arguments.

    Raises:
        RemoteProtocolError: the bytes are not what was sealed.
        LocalProtocolError: a negative offset or size.
    """
    _check_openable(header, key, plain_length)
    first, last = _segment_range(header, plain_length, offset, size)
    if first == last:
        return b""
    opened = _open_segments(header, key, plain_length, first, last, memoryview(sealed))
    start = offset - first * SEGMENT_BYTES
    if start == 0 and size >= len(opened):
        return opened
    return opened[start : start + size]


def _check_sealable(
    dedup_key: bytes, plain: Buffer, kind: BlockKind, children: Sequence[BlockId]
) -> None:
    if len(dedup_key) != KEY_BYTES:
        raise LocalProtocolError(f"a dedup key has {KEY_BYTES} bytes, not {len(dedup_key)}")
    if memoryview(plain).nbytes > MAX_PLAIN_BYTES:
        raise LocalProtocolError(f"a block holds at most {MAX_PLAIN_BYTES} bytes")
    if len(children) > (MAX_CHILDREN if kind is BlockKind.PAGE else 0):
        raise LocalProtocolError(f"a {kind.name.lower()} block with {len(children)} children")
    if any(former >= latter for former, latter in pairwise(children)):
        raise LocalProtocolError("the children of a page are not strictly ascending")


def _payloads(plain: memoryview) -> tuple[list[Buffer], list[tuple[int, bool]]]:
    payloads: list[Buffer] = []
    shapes = []
    for start in range(0, max(1, len(plain)), SEGMENT_BYTES):
        segment = plain[start : start + SEGMENT_BYTES]
        payload, is_compressed = _payload(segment)
        payloads.append(payload)
        shapes.append((len(payload), is_compressed))
    return payloads, shapes


def _payload(segment: memoryview) -> tuple[Buffer, bool]:
    raw_length = padme(len(segment))
    compressed = _contexts.compressor.compress(segment)
    packed_length = padme(_LENGTH.size + len(compressed))
    if packed_length < raw_length:
        padding = bytes(packed_length - _LENGTH.size - len(compressed))
        return _LENGTH.pack(len(compressed)) + compressed + padding, True
    if raw_length == len(segment):
        return segment, False
    return bytes(segment) + bytes(raw_length - len(segment)), False


def _block_key(dedup_key: bytes, header: bytes, payloads: Sequence[Buffer]) -> bytes:
    digest = hashlib.blake2b(header, digest_size=KEY_BYTES, person=_HASH_PERSON)
    for payload in payloads:
        digest.update(payload)
    return hashlib.blake2b(
        digest.digest(), digest_size=KEY_BYTES, key=dedup_key, person=_KEY_PERSON
    ).digest()


def _nonce_prefix(key: bytes) -> bytes:
    return hashlib.blake2b(digest_size=KEY_BYTES, key=key, person=_NONCE_PERSON).digest()[:8]


def _check_openable(header: BlockHeader, key: bytes, plain_length: int) -> None:
    if len(key) != KEY_BYTES:
        raise RemoteProtocolError(f"a block key has {KEY_BYTES} bytes, not {len(key)}")
    if plain_length < 0 or len(header.segments) != max(1, -(-plain_length // SEGMENT_BYTES)):
        raise RemoteProtocolError(
            f"a block of {len(header.segments)} segments does not hold {plain_length} bytes"
        )


def _segment_range(
    header: BlockHeader, plain_length: int, offset: int, size: int
) -> tuple[int, int]:
    if offset < 0 or size < 0:
        raise LocalProtocolError(f"no block has a range of {size} bytes at {offset}")
    stop = min(offset + size, plain_length)
    if offset >= stop:
        return 0, 0
    last = min(-(-stop // SEGMENT_BYTES), len(header.segments))
    return min(offset // SEGMENT_BYTES, last), last


def _open_segments(
    header: BlockHeader, key: bytes, plain_length: int, first: int, last: int, sealed: memoryview
) -> bytes:
    """Open segments ``first`` up to ``last``, which ``sealed`` holds and nothing else."""
    start = header.segments[first].offset
    if len(sealed) != header.segments[last - 1].end - start:
        raise RemoteProtocolError("a part of a block has another length than its header says")
    cipher, nonce = AESGCM(key), _nonce_prefix(key)
    opened = []
    for index in range(first, last):
        shape = header.segments[index]
        number = _LENGTH.pack(index)
        ciphertext = sealed[shape.offset - start : shape.end - start]
        try:
            payload = cipher.decrypt(nonce + number, ciphertext, header.encoded + number)
        except InvalidTag as error:
            raise RemoteProtocolError(f"segment {index} of a block does not open") from error
        length = min(SEGMENT_BYTES, plain_length - index * SEGMENT_BYTES)
        opened.append(_segment(shape, payload, length))
    return opened[0] if len(opened) == 1 else b"".join(opened)


def _segment(shape: SegmentShape, payload: bytes, length: int) -> bytes:
    if shape.is_compressed:
        return _decompressed(payload, length)
    if len(payload) != padme(length) or not _ends_in_zeros(payload, length):
        raise RemoteProtocolError("a segment of a block is not padded as it must be")
    return payload if len(payload) == length else payload[:length]


def _decompressed(payload: bytes, length: int) -> bytes:
    (packed_length,) = _LENGTH.unpack_from(payload)
    end = _LENGTH.size + packed_length
    if padme(end) != len(payload) or not _ends_in_zeros(payload, end):
        raise RemoteProtocolError("a compressed segment is not padded as it must be")
    packed = memoryview(payload)[_LENGTH.size : end]
    try:
        # The library trusts a size in the frame's header and would allocate it; ours have none.
        if zstandard.frame_content_size(packed) != -1:
            raise RemoteProtocolError("a compressed segment says how long it is")
        plain = _contexts.decompressor.decompress(
            packed, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise RemoteProtocolError("a segment of a block does not decompress") from error
    if len(plain) != length:
        raise RemoteProtocolError(f"a segment has {len(plain)} bytes instead of {length}")
    return plain


def _ends_in_zeros(payload: bytes, start: int) -> bool:
    return payload.count(0, start) == len(payload) - start
