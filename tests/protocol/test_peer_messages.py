"""Messages between peers: each comes out as it went in, and nothing else comes out of other bytes."""

import json
from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import (
    AccountId,
    ActorId,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    NamespaceId,
    RecordId,
)
from protocol.peer_messages import (
    Answer,
    Bye,
    Cancel,
    Challenge,
    EventsWanted,
    Exchanged,
    Farewell,
    Get,
    Have,
    Heads,
    Identity,
    LogEvents,
    LogHead,
    Lost,
    Piece,
    Ping,
    Pong,
    Proof,
    Ready,
    Records,
    Refusal,
    Refused,
    Urgency,
    decode_message,
    encode_message,
)
from protocol.records import Register
from protocol.state_digest import LiveWrite
from protocol.state_exchange import Children, Compare, Want, Writes
from protocol.version_vector import Dot
from tests.protocol.anything import mutated_bytes

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/peers.json").read_text())


def exactly(size):
    return st.binary(min_size=size, max_size=size)


hashes = exactly(32)
namespaces = hashes.map(NamespaceId)
numbers = st.integers(0, 2**32 - 1)
sorted_hashes = st.lists(hashes, max_size=5, unique=True).map(sorted).map(tuple)


@st.composite
def written(draw):
    prefix = draw(st.binary(max_size=2))
    writes = draw(
        st.lists(
            st.builds(
                LiveWrite,
                exactly(16 - len(prefix)).map(lambda rest: ItemId(prefix + rest)),
                st.sampled_from(Register),
                st.builds(Dot, exactly(16).map(ActorId), st.integers(1, limits.MAX_COUNTER)),
                hashes.map(RecordId),
            ),
            max_size=3,
        )
    )
    return Writes(prefix, tuple(writes), draw(st.booleans()))


steps = st.one_of(
    st.builds(Compare, hashes),
    st.builds(
        Children,
        st.binary(max_size=1),
        st.dictionaries(st.integers(0, 255), hashes, max_size=4).map(
            lambda found: tuple(sorted(found.items()))
        ),
    ),
    written(),
    st.builds(Want, st.lists(hashes.map(RecordId), max_size=3).map(tuple)),
)
messages = st.one_of(
    st.builds(Challenge, hashes),
    st.builds(
        Proof,
        st.sets(st.integers(1, 9), max_size=3).map(sorted).map(tuple),
        hashes,
        sorted_hashes,
    ),
    st.builds(Answer, st.integers(1, 9), sorted_hashes),
    st.builds(Identity, hashes.map(AccountId), hashes.map(DeviceId), exactly(16), exactly(64)),
    st.builds(EventsWanted, st.integers(0, limits.MAX_LOG_EVENTS)),
    st.builds(
        Heads,
        st.lists(
            st.builds(LogHead, hashes, st.integers(1, limits.MAX_LOG_EVENTS), hashes.map(EventId)),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(
        LogEvents,
        hashes,
        st.integers(0, 9),
        st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(tuple),
    ),
    st.builds(Ready, st.lists(namespaces, max_size=3).map(tuple)),
    st.builds(Bye, st.sampled_from(Farewell)),
    st.builds(Ping, numbers),
    st.builds(Pong, numbers),
    st.builds(
        Records, namespaces, st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(tuple)
    ),
    st.builds(Exchanged, namespaces, steps),
    st.builds(Have, namespaces, st.booleans(), st.lists(exactly(6), max_size=4).map(b"".join)),
    st.builds(Lost, namespaces, st.lists(exactly(6), max_size=4).map(b"".join)),
    st.builds(Get, numbers, namespaces, hashes.map(BlockId), st.sampled_from(Urgency)),
    st.builds(Cancel, numbers),
    st.builds(Refused, numbers, st.sampled_from(Refusal)),
    st.builds(Piece, numbers, st.booleans(), st.binary(max_size=20)),
)


@given(messages)
def test_a_message_comes_out_as_it_went_in(message):
    event(type(message).__name__)
    assert decode_message(encode_message(message)) == message


@given(st.one_of(st.binary(max_size=40), messages.map(encode_message).flatmap(mutated_bytes)))
def test_any_bytes_are_a_message_that_encodes_to_them_or_an_error(payload):
    try:
        message = decode_message(payload)
    except RemoteProtocolError:
        event("refused")
        return
    event("taken")
    assert encode_message(message) == payload


@pytest.mark.parametrize(
    "message",
    [
        Challenge(b"short"),
        Proof((2, 1), b"n" * 32, ()),
        Proof((1,), b"n" * 32, (b"b" * 32, b"a" * 32)),
        Have(NamespaceId(b"s" * 32), True, b"12345"),
        Piece(1, False, bytes(limits.PIECE_BYTES + 1)),
        Piece(-1, False, b""),
        Ping(2**32),
        Records(NamespaceId(b"s" * 32), (b"",)),
        Heads((LogHead(b"l" * 32, 0, EventId(b"h" * 32)),)),
        Exchanged(
            NamespaceId(b"s" * 32),
            Writes(
                b"p",
                (
                    LiveWrite(
                        ItemId(b"q" * 16),
                        Register.CONTENT,
                        Dot(ActorId(b"a" * 16), 1),
                        RecordId(b"r" * 32),
                    ),
                ),
                False,
            ),
        ),
    ],
    ids=str,
)
def test_what_no_peer_would_accept_is_not_encoded(message):
    with pytest.raises(LocalProtocolError):
        encode_message(message)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", b"\xff\x90", b"\x13\0\0\0\1", b"\x13\0\0\0\1\2x", b"\x0a" + codec.encode([True])],
)
def test_what_is_no_message_is_refused(payload):
    with pytest.raises(RemoteProtocolError):
        decode_message(payload)


@pytest.mark.parametrize("vector", VECTORS["messages"], ids=lambda vector: vector["payload"][:84])
def test_the_examples_never_change(vector):
    payload = bytes.fromhex(vector["payload"])
    message = decode_message(payload)
    assert repr(message) == vector["message"]
    assert encode_message(message) == payload
