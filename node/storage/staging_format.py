"""The bytes of a staging file: how one slot is written, sealed, read back and verified.

A staging file is a sequence of slots of `SLOT_STRIDE` bytes. A slot carries the written bytes of
one segment of the file (64 KiB), or none, and always the file's whole state; so the newest slot
tells all that no segment tells, and no slot is more precious than another. Integers are big endian.

    clear   magic "ATLS", version u8, 3 zero bytes, sequence u64, segment u64 (2^64-1: none),
            data length u32, meta length u32, nonce 12 bytes, 4 zero bytes
    sealed  data: the bytes of the extents, one after the other
            meta: state: size u64, base limit u64, floor u64, durable u64, label length u8,
                         number of cuts u8, label, per cut: sequence u64, size u64
                  extents: 0 the whole segment
                           | 1, number u16, per extent: start u16, length - 1 u16
                           | 2, a bitmap of the segment's bytes, first byte in the highest bit
            tag: AES-256-GCM's 16 bytes; associated: the staging id, then the clear part

Owns this layout. Refuses to know files and which slots are live. Called by `node.storage.staging`
and its neighbours.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from node.storage.staging_extents import Range, cut_ranges, joined, total_bytes
from protocol.crypto.segments import NONCE_BYTES, TAG_BYTES, Buffer, open_segment, seal_segment
from protocol.errors import RemoteProtocolError

STAGING_ID_BYTES: Final = 8
SEGMENT_BYTES: Final = 64 * 1024
SLOT_STRIDE: Final = SEGMENT_BYTES + 8 * 1024
"""Room for the worst segment: 2,047 extents as pairs or any number as a bitmap, beside their data
(each further extent costs a byte of data), the largest state, the clear part and the tag."""

NO_SEGMENT: Final = 2**64 - 1
"""Segment number of a slot that carries the state alone."""

MAX_LABEL_BYTES: Final = 64
MAX_CUTS: Final = 32
"""Cuts that a state may carry: 512 bytes of each slot at most."""

WHOLE: Final[tuple[Range, ...]] = ((0, SEGMENT_BYTES),)

_MAGIC: Final = b"ATLS"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">4sB3xQQII12s4x")
_STATE: Final = struct.Struct(">QQQQBB")
_CUT: Final = struct.Struct(">QQ")
_PAIRS_BELOW: Final = 2048
"""From here on a bitmap (8 KiB) is shorter than pairs of four bytes."""
_BITMAP_BYTES: Final = SEGMENT_BYTES // 8


@dataclass(frozen=True, slots=True)
class Cut:
    """Bytes from ``size`` on in slots older than ``sequence`` were truncated away."""

    sequence: int
    size: int


@dataclass(frozen=True, slots=True)
class FileState:
    """What is true of the whole file when a slot is written.

    Attributes:
        size: Of the file, in bytes.
        base_limit: From here on nothing of the base shows, in bytes.
        floor: Slots with this or a smaller sequence are dead.
        label: Whose bytes these are; the caller's words.
        cuts: Ascending in sequence and in size.
        durable: Slots up to this sequence were synced: one that does not verify is damaged, while
            a later one may be what a crash left of a write.
    """

    size: int
    base_limit: int
    floor: int
    label: bytes
    cuts: tuple[Cut, ...] = ()
    durable: int = 0

    def limit_of(self, sequence: int) -> int:
        """Up to where in the file a slot's bytes still count; 0 when it is dead."""
        if sequence <= self.floor:
            return 0
        for cut in self.cuts:
            if cut.sequence > sequence:
                # Later cuts are at larger sizes: the first one that applies is the deepest.
                return min(cut.size, self.size)
        return self.size


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """Where a segment's bytes are in the staging file.

    Attributes:
        slot: Number of the slot.
        sequence: Of the write; must match what is read.
        length: Of the slot's bytes in the file.
        extents: Parts of the segment that count; the slot may hold more behind them.
    """

    slot: int
    sequence: int
    length: int
    extents: tuple[Range, ...]

    def ends_behind(self, limit: int) -> bool:
        """Whether bytes from ``limit`` of the segment on count."""
        return bool(self.extents) and self.extents[-1][1] > limit

    def cut(self, limit: int) -> StoredSegment:
        """The same without the bytes from ``limit`` on; what is left lies where it lay."""
        return replace(self, extents=tuple(cut_ranges(self.extents, limit)))


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that was read and verified."""

    sequence: int
    segment: int
    length: int
    state: FileState
    extents: tuple[Range, ...]
    data: memoryview


class SlotSeal:
    """Seals and opens the slots of one staging file."""

    __slots__ = ("_identity", "_key")

    def __init__(self, key: bytes, identity: bytes) -> None:
        self._key = key
        self._identity = identity

    def seal(
        self,
        sequence: int,
        segment: int,
        data: Sequence[Buffer],
        meta: bytes,
        nonce: bytes,
    ) -> tuple[bytes, bytes]:
        """The clear and the sealed part of a slot; ``data`` are the bytes of its extents."""
        plain = b"".join((*data, meta))
        header = _HEADER.pack(
            _MAGIC, _VERSION, sequence, segment, len(plain) - len(meta), len(meta), nonce
        )
        return header, seal_segment(self._key, nonce, plain, self._identity + header)

    def open_data(self, raw: Buffer, sequence: int) -> memoryview:
        """The data of the slot that was written with this sequence.

        Raises:
            RemoteProtocolError: the bytes are not that slot's.
        """
        found, _, data, _ = self._open(memoryview(raw))
        if found != sequence:
            raise RemoteProtocolError(f"slot has sequence {found} instead of {sequence}")
        return data

    def open(self, raw: Buffer) -> Slot:
        """A whole slot; bytes that follow it are ignored.

        Raises:
            RemoteProtocolError: the bytes are no slot of this staging file.
        """
        view = memoryview(raw)
        sequence, segment, data, meta = self._open(view)
        state, extents = _decode_meta(meta)
        if total_bytes(extents) != len(data):
            raise RemoteProtocolError("the extents of a slot do not match its data")
        length = slot_bytes(len(data), len(meta))
        return Slot(sequence, segment, length, state, extents, data)

    def _open(self, raw: memoryview) -> tuple[int, int, memoryview, bytes]:
        claimed = claimed_bytes(raw)
        if claimed is None or claimed > len(raw):
            raise RemoteProtocolError("not a slot of a staging file")
        _, _, sequence, segment, data_length, _, nonce = _HEADER.unpack_from(raw)
        header = bytes(raw[: _HEADER.size])
        plain = open_segment(self._key, nonce, raw[_HEADER.size : claimed], self._identity + header)
        return sequence, segment, memoryview(plain)[:data_length], plain[data_length:]


def claimed_write(raw: Buffer) -> tuple[int, int] | None:
    """The sequence and segment that a slot's clear part names; None when this is no clear part."""
    if claimed_bytes(raw) is None:
        return None
    _, _, sequence, segment, _, _, _ = _HEADER.unpack_from(raw)
    return sequence, segment


def claimed_bytes(raw: Buffer) -> int | None:
    """The length that a slot's clear part gives it; None when this is no clear part."""
    if len(raw) < _HEADER.size:
        return None
    magic, version, _, _, data_length, meta_length, _ = _HEADER.unpack_from(raw)
    length = slot_bytes(data_length, meta_length)
    if magic != _MAGIC or version != _VERSION or length > SLOT_STRIDE:
        return None
    return length


def slot_bytes(data_length: int, meta_length: int) -> int:
    """Bytes that a slot takes in the file, before the gap up to the next one."""
    return _HEADER.size + data_length + meta_length + TAG_BYTES


def encode_state(state: FileState) -> bytes:
    """The first part of a slot's meta; the same for every slot written in one go."""
    assert len(state.label) <= MAX_LABEL_BYTES
    assert len(state.cuts) <= MAX_CUTS
    fixed = _STATE.pack(
        state.size,
        state.base_limit,
        state.floor,
        state.durable,
        len(state.label),
        len(state.cuts),
    )
    cuts = [_CUT.pack(cut.sequence, cut.size) for cut in state.cuts]
    return b"".join((fixed, state.label, *cuts))


def encode_extents(extents: Sequence[Range]) -> bytes:
    """The second part of a slot's meta."""
    if len(extents) == 1 and extents[0] == WHOLE[0]:
        return b"\x00"
    if len(extents) < _PAIRS_BELOW:
        numbers = [number for start, end in extents for number in (start, end - start - 1)]
        return b"\x01" + struct.pack(f">H{len(numbers)}H", len(extents), *numbers)
    bits = bytearray(b"0") * SEGMENT_BYTES
    for start, end in extents:
        bits[start:end] = b"1" * (end - start)
    return b"\x02" + int(bits, 2).to_bytes(_BITMAP_BYTES, "big")


def _decode_meta(meta: bytes) -> tuple[FileState, tuple[Range, ...]]:
    try:
        size, base_limit, floor, durable, label_length, cut_count = _STATE.unpack_from(meta)
        offset = _STATE.size + label_length
        label = meta[_STATE.size : offset]
        end = offset + cut_count * _CUT.size
        cuts = tuple(Cut(*numbers) for numbers in _CUT.iter_unpack(meta[offset:end]))
        state = FileState(size, base_limit, floor, label, cuts, durable)
        return state, _decode_extents(meta[end:])
    except (struct.error, IndexError) as error:
        raise RemoteProtocolError("the state in a slot can not be read") from error


def _decode_extents(encoded: bytes) -> tuple[Range, ...]:
    kind = encoded[0]
    if kind == 0:
        return WHOLE
    if kind == 1:
        (count,) = struct.unpack_from(">H", encoded, 1)
        pairs = struct.iter_unpack(">HH", encoded[3 : 3 + 4 * count])
        return tuple((start, start + length + 1) for start, length in pairs)
    if kind == 2 and len(encoded) == 1 + _BITMAP_BYTES:
        bits = f"{int.from_bytes(encoded[1:], 'big'):0{SEGMENT_BYTES}b}"
        return tuple(_runs_of_ones(bits))
    raise RemoteProtocolError("the extents in a slot can not be read")


def _runs_of_ones(bits: str) -> list[Range]:
    return joined((index, index + 1) for index, bit in enumerate(bits) if bit == "1")


assert _HEADER.size == 48
assert len(_MAGIC) + NONCE_BYTES < _HEADER.size
assert (
    _HEADER.size
    + TAG_BYTES
    + (SEGMENT_BYTES + 1 - _PAIRS_BELOW)
    + 1
    + _BITMAP_BYTES
    + _STATE.size
    + MAX_LABEL_BYTES
    + MAX_CUTS * _CUT.size
    <= SLOT_STRIDE
)
