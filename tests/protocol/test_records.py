import dataclasses
import hashlib

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey
from protocol.errors import ProtocolError, RemoteProtocolError, UnsupportedFormatError
from protocol.ids import BlockId, DeviceId, EventId, ItemId, NamespaceId, RecordId, actor_id
from protocol.records import (
    NO_RECORD,
    FolderChange,
    Record,
    RecordWrite,
    Register,
    SignedRecord,
    block_ids,
)
from protocol.version_vector import EMPTY_CONTEXT, Dot
from tests.protocol import anything

KEY = SigningKey.from_seed(b"k" * 32)
DEVICE = DeviceId(b"d" * 32)
INCARNATION = b"incarnat"
ACTOR = actor_id(DEVICE, INCARNATION)
ITEM = ItemId(b"i" * 16)


def write(n=1, context=EMPTY_CONTEXT, register=Register.CONTENT, item=ITEM):
    return RecordWrite(item, register, n, context, b"sealed")


RECORD = Record(
    namespace=NamespaceId(b"n" * 32),
    epoch=1,
    device=DEVICE,
    incarnation=INCARNATION,
    sequence=2,
    previous=RecordId(b"p" * 32),
    hybrid_time_us=1_700_000_000_000_000,
    account_head=EventId(b"a" * 32),
    namespace_head=EventId(b"h" * 32),
    automatic=False,
    folders=(FolderChange(ItemId(b"f" * 16), 1_700_000_000_000_000),),
    blocks=(BlockId(b"b" * 32),),
    writes=(
        write(2, EMPTY_CONTEXT.add([Dot(ACTOR, 1)]), Register.PLACEMENT),
        write(3, EMPTY_CONTEXT.add([Dot(ACTOR, 2)])),
    ),
)


def signed(record=RECORD):
    body = record.encode()
    return SignedRecord(record, body, KEY.sign(SignedType.RECORD, body))


def changed(**fields):
    return dataclasses.replace(RECORD, **fields)


def test_a_record_travels_unchanged():
    received = SignedRecord.from_wire(signed().to_wire())
    assert received.record == RECORD
    assert received == signed()
    received.verify(KEY.public)
    assert received.record.actor == ACTOR


def test_a_record_is_named_by_the_hash_of_its_body():
    body = RECORD.encode()
    digest = hashlib.blake2b(body, digest_size=32, person=b"atoll-record-v1").digest()
    assert signed().id == digest


def test_another_key_or_another_body_does_not_verify():
    with pytest.raises(RemoteProtocolError):
        signed().verify(SigningKey.from_seed(b"o" * 32).public)
    other = changed(automatic=True)
    with pytest.raises(RemoteProtocolError):
        SignedRecord(other, other.encode(), signed().signature).verify(KEY.public)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"writes": ()}, "writes nothing"),
        ({"writes": (write(), write(2))}, "one register twice"),
        ({"writes": (write(1, EMPTY_CONTEXT.add([Dot(ACTOR, 1)])),)}, "its own write"),
        (
            {"writes": (write(1, EMPTY_CONTEXT.add([Dot(ACTOR, 2), Dot(ACTOR, 1)])),)},
            "its own write",
        ),
        ({"writes": (write(limits.MAX_CONTEXT_EXCEPTIONS + 2),)}, "skips too many"),
        ({"writes": (write(0),)}, "dot"),
        ({"sequence": 1}, "disagree"),
        ({"previous": NO_RECORD}, "disagree"),
        ({"sequence": 0}, "sequence"),
        ({"epoch": 0}, "epoch"),
        ({"hybrid_time_us": limits.MAX_TIME_US + 1}, "hybrid time"),
        ({"hybrid_time_us": -1}, "hybrid time"),
        ({"incarnation": b"short"}, "incarnation"),
        ({"folders": (FolderChange(ITEM, limits.MAX_TIME_US + 1),)}, "folder change time"),
        ({"blocks": (b"short",)}, "block id"),
        ({"blocks": (bytes(32),) * (limits.MAX_RECORD_BLOCKS + 1)}, "blocks"),
    ],
)
def test_decode_refuses(fields, message):
    with pytest.raises(RemoteProtocolError, match=message):
        Record.decode(changed(**fields).encode())


def test_a_dot_that_is_not_above_all_that_was_seen_is_a_sibling_of_the_same_actor():
    record = changed(writes=(write(2, EMPTY_CONTEXT.add([Dot(ACTOR, 3), Dot(ACTOR, 1)])),))
    assert Record.decode(record.encode()) == record


@pytest.mark.parametrize("version", [0, 2, 2**62])
def test_another_format_version_is_told_apart_from_garbage(version):
    body = codec.encode([version, "whatever that release writes"])
    with pytest.raises(UnsupportedFormatError, match=str(version)):
        Record.decode(body)
    with pytest.raises(UnsupportedFormatError):
        SignedRecord.from_wire(codec.encode([body, bytes(64)]))


def parse(data):
    try:
        record = SignedRecord.from_wire(data)
    except RemoteProtocolError:
        event("refused")
        return None
    event("accepted")
    assert record.to_wire() == data
    assert record.record.encode() == record.body
    with pytest.raises(ProtocolError):
        record.verify(KEY.public)
    return record


@given(st.one_of(st.binary(max_size=200), anything.values.map(codec.encode)))
def test_any_bytes_are_a_record_or_refused(data):
    parse(data)


@given(anything.mutated_encodings(codec.decode(RECORD.encode(), 1 << 20)))
def test_any_body_is_a_record_or_refused(body):
    if body != RECORD.encode() and len(body) > 0:
        parse(codec.encode([body, bytes(64)]))


def test_a_register_that_does_not_exist_is_refused():
    fields = codec.decode(RECORD.encode(), 1 << 20)
    for register in (-1, 3, 2**63, "0", True, None):
        fields[13][0][1] = register
        with pytest.raises(RemoteProtocolError):
            Record.decode(codec.encode(fields))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_has_sixty_four_bytes(size):
    with pytest.raises(RemoteProtocolError):
        SignedRecord.from_wire(codec.encode([RECORD.encode(), bytes(size)]))


def test_a_record_above_its_bound_is_refused():
    with pytest.raises(RemoteProtocolError, match="at most"):
        SignedRecord.from_wire(bytes(limits.MAX_RECORD_BYTES + 1))


def test_block_ids_are_distinct_in_order_of_first_use():
    one, two = BlockId(b"1" * 32), BlockId(b"2" * 32)
    assert block_ids([[two, one], [two], []]) == (two, one)
