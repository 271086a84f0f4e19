"""The clear header of a frame: one encoding, bounded, refused when a rule is broken."""

import struct

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol.crypto.block_header import (
    FIXED_HEADER_BYTES,
    MAX_HEADER_BYTES,
    BlockKind,
    encode_header,
    header_length,
    padme,
    parse_header,
)
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import BlockId
from tests.protocol.crypto.frames import reference_header, reference_padme

CHILD = BlockId(b"\x11" * 32)
OTHER = BlockId(b"\x22" * 32)

raw_last = st.integers(1, 65_536).map(padme).map(lambda length: (length, False))
packed = st.integers(5, 63_000).map(padme).map(lambda length: (length, True))
full = st.one_of(st.just((65_536, False)), packed)
shapes = st.tuples(st.lists(full, max_size=63), st.one_of(raw_last, packed)).map(
    lambda both: [*both[0], both[1]]
)
children = st.lists(st.binary(min_size=32, max_size=32), max_size=40, unique=True).map(
    lambda ids: tuple(BlockId(identifier) for identifier in sorted(ids))
)


@given(shapes=shapes, ids=children)
def test_any_valid_header_reads_back(shapes, ids):
    kind = BlockKind.PAGE if ids else BlockKind.DATA
    encoded = encode_header(kind, ids, shapes)
    assert encoded == reference_header(int(kind), ids, shapes)
    header = parse_header(encoded + b"what follows")
    assert (header.kind, header.children, header.encoded) == (kind, ids, encoded)
    assert [(s.payload_length, s.is_compressed) for s in header.segments] == shapes
    assert header.segment_lengths == tuple(length for length, _ in shapes)
    assert header.header_length == header_length(encoded[:FIXED_HEADER_BYTES]) == len(encoded)
    assert header.frame_length == len(encoded) + sum(length + 16 for length, _ in shapes)
    assert header.segments[0].offset == len(encoded)
    assert len(encoded) <= MAX_HEADER_BYTES


@given(shapes=shapes, ids=children, data=st.data())
def test_a_header_that_ends_early_is_refused(shapes, ids, data):
    encoded = encode_header(BlockKind.PAGE, ids, shapes)
    with pytest.raises(RemoteProtocolError):
        parse_header(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


plausible = st.builds(
    lambda kind, counts, tail: b"ATLB\1" + kind + counts + tail,
    st.sampled_from([b"\0", b"\1", b"\2"]),
    st.sampled_from([b"\0\0\0\1", b"\0\1\0\1", b"\0\0\0\2", b"\0\0\0\0", b"\xff\xff\0\1"]),
    st.one_of(
        st.binary(max_size=80),
        st.lists(st.sampled_from([0, 5, 64, 65, 65_536, 2**31 + 64, 2**31]), max_size=3).map(
            lambda words: struct.pack(f">{len(words)}I", *words)
        ),
    ),
)


@given(prefix=st.one_of(st.binary(max_size=200), plausible))
def test_any_bytes_give_a_header_or_a_remote_error(prefix):
    try:
        header = parse_header(prefix)
    except RemoteProtocolError:
        event("refused")
    else:
        event("accepted")
        assert prefix.startswith(header.encoded)


@given(shapes=shapes, data=st.data())
def test_any_changed_byte_gives_another_header_or_a_remote_error(shapes, data):
    encoded = bytearray(encode_header(BlockKind.PAGE, (CHILD, OTHER), shapes))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        header = parse_header(bytes(encoded) + bytes(MAX_HEADER_BYTES))
    except RemoteProtocolError:
        event("refused")
    else:
        event("accepted")
        shapes_read = [(s.payload_length, s.is_compressed) for s in header.segments]
        assert encode_header(header.kind, header.children, shapes_read) == header.encoded


@pytest.mark.parametrize(
    ("kind", "ids", "segments"),
    [
        (0, (CHILD,), [(64, False)]),
        (2, (), [(64, False)]),
        (1, (OTHER, CHILD), [(64, False)]),
        (1, (CHILD, CHILD), [(64, False)]),
        (0, (), []),
        (0, (), [(64, False)] * 2),
        (0, (), [(0, False), (64, False)]),
        (0, (), [(65_536, False), (0, False)]),
        (0, (), [(65, False)]),
        (0, (), [(73_728, False)]),
        (0, (), [(65_536, True)]),
        (0, (), [(4, True)]),
        (0, (), [(0, True)]),
        (0, (), [(65_536, False)] * 65),
        (1, tuple(BlockId(n.to_bytes(32, "big")) for n in range(1025)), [(64, False)]),
    ],
    ids=str,
)
def test_a_header_that_breaks_a_rule_is_refused(kind, ids, segments):
    with pytest.raises(RemoteProtocolError) as caught:
        parse_header(reference_header(kind, ids, segments))
    assert not isinstance(caught.value, UnsupportedFormatError)


def test_a_version_from_the_future_is_told_apart():
    encoded = bytearray(reference_header(0, (), [(64, False)]))
    encoded[4] = 2
    with pytest.raises(UnsupportedFormatError):
        parse_header(bytes(encoded))


@given(length=st.integers(2, 2**40))
def test_padme_is_the_papers(length):
    assert padme(length) == reference_padme(length)
    assert length <= padme(length) <= length * 1.12 + 1
    assert padme(padme(length)) == padme(length)


def test_padme_of_nothing_and_of_one_byte():
    assert (padme(0), padme(1), padme(9), padme(65_536)) == (0, 1, 10, 65_536)


def test_padme_leaves_few_lengths():
    assert len({padme(length) for length in range(65_537)}) < 220


def test_the_fixed_part_has_ten_bytes():
    assert struct.calcsize(">4sBBHH") == FIXED_HEADER_BYTES == 10
