"""A slot holds any set of extents, and opens only as what it was sealed."""

from itertools import pairwise

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from node.storage.staging_extents import Range, add_range, cut_ranges, total_bytes
from node.storage.staging_format import (
    MAX_CUTS,
    MAX_LABEL_BYTES,
    SEGMENT_BYTES,
    SLOT_STRIDE,
    WHOLE,
    Cut,
    FileState,
    SlotSeal,
    claimed_bytes,
    encode_extents,
    encode_state,
)
from protocol.errors import RemoteProtocolError

LARGEST_STATE = FileState(
    size=2**62,
    base_limit=2**61,
    floor=2**60,
    label=b"L" * MAX_LABEL_BYTES,
    cuts=tuple(Cut(2**62 + index, 2**61 + index) for index in range(MAX_CUTS)),
)
SEAL = SlotSeal(bytes(32), b"identity")


def seal_slot(extents: tuple[Range, ...], state: FileState, sequence: int = 5) -> bytes:
    data = bytes(range(256)) * 256
    parts = [data[start:end] for start, end in extents]
    meta = encode_state(state) + encode_extents(extents)
    return b"".join(SEAL.seal(sequence, 3, parts, meta, bytes(12)))


def every_other(count: int, gap: int = 1) -> tuple[Range, ...]:
    return tuple((index * (gap + 1), index * (gap + 1) + 1) for index in range(count))


def long_first(count: int) -> tuple[Range, ...]:
    """So many extents that hold as many bytes as so many can."""
    singles = [
        (SEGMENT_BYTES - 2 * index - 1, SEGMENT_BYTES - 2 * index) for index in range(count - 1)
    ]
    return ((0, SEGMENT_BYTES - 2 * (count - 1)), *reversed(singles))


@pytest.mark.parametrize(
    "extents",
    [
        (),
        WHOLE,
        ((0, 1),),
        ((SEGMENT_BYTES - 1, SEGMENT_BYTES),),
        ((0, 10), (20, SEGMENT_BYTES)),
        every_other(100),
        every_other(SEGMENT_BYTES // 2),
        *(long_first(count) for count in (2, 1000, 2046, 2047, 2048, 2049, 5000)),
    ],
)
def test_any_extents_fit_beside_the_largest_state_and_come_back(extents: tuple[Range, ...]):
    raw = seal_slot(extents, LARGEST_STATE)
    assert len(raw) <= SLOT_STRIDE
    assert claimed_bytes(raw) == len(raw)
    slot = SEAL.open(raw + b"whatever follows")
    assert (slot.extents, slot.state, slot.sequence, slot.segment) == (
        extents,
        LARGEST_STATE,
        5,
        3,
    )
    assert (slot.length, len(slot.data)) == (len(raw), total_bytes(extents))
    assert SEAL.open_data(raw, 5) == slot.data


def test_no_changed_byte_goes_unnoticed():
    raw = seal_slot(((5, 25),), FileState(25, 0, 0, b"label"))
    for position in range(len(raw)):
        damaged = bytearray(raw)
        damaged[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            SEAL.open(damaged)


def test_no_shortened_slot_opens():
    raw = seal_slot(((5, 25),), FileState(25, 0, 0, b"label"))
    for length in range(len(raw)):
        with pytest.raises(RemoteProtocolError):
            SEAL.open(raw[:length])


def test_a_slot_opens_under_its_own_key_identity_and_sequence_only():
    raw = seal_slot(((5, 25),), FileState(25, 0, 0, b"label"))
    with pytest.raises(RemoteProtocolError):
        SlotSeal(bytes(32), b"another!").open(raw)
    with pytest.raises(RemoteProtocolError):
        SlotSeal(b"k" * 32, b"identity").open(raw)
    with pytest.raises(RemoteProtocolError):
        SEAL.open_data(raw, 6)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error(raw: bytes):
    with pytest.raises(RemoteProtocolError):
        SEAL.open(raw)


def test_the_first_cut_after_a_slot_limits_it_and_the_floor_kills_it():
    state = FileState(1000, 0, 3, b"", (Cut(10, 100), Cut(20, 200)))
    assert [state.limit_of(sequence) for sequence in (2, 3, 4, 9, 10, 19, 20, 30)] == [
        0,
        0,
        100,
        100,
        200,
        200,
        1000,
        1000,
    ]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12),
    st.integers(0, 80),
)
def test_ranges_hold_what_was_added_below_a_cut(added: list[tuple[int, int]], limit: int):
    ranges: list[Range] = []
    expected: set[int] = set()
    for start, length in added:
        add_range(ranges, start, start + length)
        expected.update(range(start, start + length))
    assert {position for start, end in ranges for position in range(start, end)} == expected
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))
    event(f"{len(ranges)} ranges")
    cut = cut_ranges(ranges, limit)
    assert total_bytes(cut) == len({position for position in expected if position < limit})
