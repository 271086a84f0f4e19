import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.ids import (
    ROOT_ITEM,
    AccountId,
    ActorId,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    LinkId,
    NamespaceId,
    RecordId,
    actor_id,
    device_id,
)

TYPES = [AccountId, DeviceId, NamespaceId, RecordId, EventId, BlockId, ItemId, LinkId, ActorId]

types = st.sampled_from(TYPES)


@st.composite
def identifiers(draw):
    kind = draw(types)
    return kind(draw(st.binary(min_size=kind.size_bytes, max_size=kind.size_bytes)))


@given(identifiers())
def test_what_is_printed_is_parsed(identifier):
    parsed = type(identifier).parse(str(identifier))
    assert parsed == identifier
    assert type(parsed) is type(identifier)


@given(types, st.binary(max_size=70))
def test_another_length_is_refused(kind, data):
    if len(data) == kind.size_bytes:
        assert kind(data) == data
    else:
        with pytest.raises(RemoteProtocolError, match=kind.__name__):
            kind(data)


@given(types, st.text(max_size=80))
def test_any_text_is_an_identifier_or_refused(kind, text):
    for candidate in (text, kind.prefix + text):
        try:
            parsed = kind.parse(candidate)
        except RemoteProtocolError:
            continue
        assert str(parsed) == candidate


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        str.title,
        lambda text: text + "=",
        lambda text: " " + text,
        lambda text: text[:-1],
    ],
    ids=["upper", "title", "padded", "spaced", "cut"],
)
def test_only_the_canonical_form_is_parsed(change):
    for kind in TYPES:
        text = str(kind(bytes(range(1, kind.size_bytes + 1))))
        if change(text) != text:
            with pytest.raises(RemoteProtocolError):
                kind.parse(change(text))


def test_bits_behind_the_last_byte_are_refused():
    text = str(DeviceId(bytes(32)))
    with pytest.raises(RemoteProtocolError):
        DeviceId.parse(text[:-1] + "b")


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_order_is_that_of_the_bytes(raw):
    assert sorted(map(ItemId, raw)) == sorted(raw)


def test_printed_forms_name_their_type():
    assert str(AccountId(bytes(32))) == "acct-" + "a" * 52
    assert str(BlockId(b"\xab" * 32)) == "ab" * 32
    assert str(ROOT_ITEM) == "item-" + "a" * 26
    assert repr(LinkId(bytes(8))) == "LinkId(0000000000000000)"


def test_an_actor_is_the_hash_of_device_and_incarnation():
    device = DeviceId(b"d" * 32)
    digest = hashlib.blake2b(b"d" * 32 + b"i" * 8, digest_size=16, person=b"atoll-actor-v1")
    assert actor_id(device, b"i" * 8) == digest.digest()
    with pytest.raises(RemoteProtocolError):
        actor_id(device, b"i" * 7)


def test_a_device_is_the_hash_of_its_keys():
    digest = hashlib.blake2b(b"s" * 32 + b"b" * 32, digest_size=32, person=b"atoll-device-v1")
    assert device_id(b"s" * 32, b"b" * 32) == digest.digest()
