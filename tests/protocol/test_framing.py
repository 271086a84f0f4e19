import itertools

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.framing import FrameDecoder, encode_frame


def cut(data, cuts):
    positions = sorted(position % (len(data) + 1) for position in cuts)
    bounds = [0, *positions, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(0, 10_000)))
def test_payloads_come_out_however_the_stream_is_cut(payloads, cuts):
    stream = b"".join(map(encode_frame, payloads))
    decoder = FrameDecoder()
    received = [payload for piece in cut(stream, cuts) for payload in decoder.feed(piece)]
    assert received == payloads
    assert decoder.is_idle


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_give_payloads_within_the_bound_or_an_error(pieces):
    decoder = FrameDecoder(max_bytes=8)
    for piece in pieces:
        try:
            assert all(len(payload) <= 8 for payload in decoder.feed(piece))
        except RemoteProtocolError:
            event("refused")
            with pytest.raises(RemoteProtocolError):
                decoder.feed(b"")
            return


def test_a_length_is_four_bytes_big_endian():
    assert encode_frame(b"abc") == b"\0\0\0\3abc"
    assert encode_frame(b"") == b"\0\0\0\0"


def test_an_announcement_above_the_bound_is_refused_before_its_bytes_come():
    decoder = FrameDecoder(max_bytes=3)
    assert decoder.feed(b"\0\0\0") == []
    with pytest.raises(RemoteProtocolError, match="at most 3"):
        decoder.feed(b"\4")


def test_after_an_error_the_stream_stays_lost():
    decoder = FrameDecoder(max_bytes=3)
    for data in (b"\xff\xff\xff\xff", b"", encode_frame(b"ok")):
        with pytest.raises(RemoteProtocolError):
            decoder.feed(data)


def test_a_stream_that_ends_within_a_frame_is_not_idle():
    decoder = FrameDecoder()
    idle = [decoder.is_idle]
    for piece in (encode_frame(b"abc")[:-1], b"c"):
        decoder.feed(piece)
        idle.append(decoder.is_idle)
    assert idle == [True, False, True]


def test_a_payload_above_the_bound_is_not_encoded():
    with pytest.raises(LocalProtocolError):
        encode_frame(b"abcd", max_bytes=3)
