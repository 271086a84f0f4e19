"""The examples of values, records and events under tests/vectors. They never change.

A plain value stands there as JSON in which ``{"bytes": hex}`` is a byte string. The encoder below
is a second one, written from docs/formats.md.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from protocol import codec
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey
from protocol.framing import FrameDecoder, encode_frame
from protocol.ids import (
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
from protocol.logs import AccountLog, EventType, NamespaceLog, SignedEvent
from protocol.records import Record, SignedRecord
from protocol.values import Content, ItemAttributes, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

VECTORS = Path(__file__).parents[1] / "vectors"
VALUES = json.loads((VECTORS / "values.json").read_text())
RECORDS = json.loads((VECTORS / "records.json").read_text())
EVENTS = json.loads((VECTORS / "events.json").read_text())

unhex = bytes.fromhex

IDENTIFIERS = {
    kind.__name__: kind
    for kind in (
        AccountId,
        DeviceId,
        NamespaceId,
        RecordId,
        EventId,
        BlockId,
        ItemId,
        LinkId,
        ActorId,
    )
}


def plain(notation):
    match notation:
        case {"bytes": digits}:
            return unhex(digits)
        case list():
            return [plain(element) for element in notation]
        case _:
            return notation


def head(size, short, short_limit, longer):
    """The first bytes of something that has a size: the shortest form that holds it."""
    if size < short_limit:
        return bytes([short | size])
    for width, code in longer:
        if size < 1 << (8 * width):
            return bytes([code]) + size.to_bytes(width, "big")
    raise AssertionError(size)


def canonical(value):
    if value is None:
        return b"\xc0"
    if value is False or value is True:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int) and value >= 0:
        return head(value, 0, 128, [(1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)])
    if isinstance(value, int):
        if value >= -32:
            return value.to_bytes(1, "big", signed=True)
        for width, code in ((1, 0xD0), (2, 0xD1), (4, 0xD2), (8, 0xD3)):
            if value >= -(1 << (8 * width - 1)):
                return bytes([code]) + value.to_bytes(width, "big", signed=True)
    if isinstance(value, bytes):
        return head(len(value), 0, 0, [(1, 0xC4), (2, 0xC5), (4, 0xC6)]) + value
    if isinstance(value, str):
        data = value.encode()
        return head(len(data), 0xA0, 32, [(1, 0xD9), (2, 0xDA), (4, 0xDB)]) + data
    if isinstance(value, list):
        return head(len(value), 0x90, 16, [(2, 0xDC), (4, 0xDD)]) + b"".join(map(canonical, value))
    raise AssertionError(value)


@pytest.mark.parametrize("vector", VALUES["canonical"])
def test_canonical_encodings(vector):
    value = plain(vector["value"])
    assert canonical(value).hex() == vector["encoding"]
    assert codec.encode(value).hex() == vector["encoding"]
    assert codec.decode(unhex(vector["encoding"]), 1 << 20) == value


@pytest.mark.parametrize("vector", VALUES["identifiers"])
def test_identifiers(vector):
    kind = IDENTIFIERS[vector["type"]]
    assert str(kind(unhex(vector["bytes"]))) == vector["text"]
    assert kind.parse(vector["text"]) == unhex(vector["bytes"])


def test_every_type_of_identifier_has_a_vector():
    assert {vector["type"] for vector in VALUES["identifiers"]} == set(IDENTIFIERS)


@pytest.mark.parametrize("vector", VALUES["hashed"])
def test_hashed_identifiers(vector):
    device = device_id(unhex(vector["signing_public"]), unhex(vector["box_public"]))
    assert device.hex() == vector["device"]
    assert actor_id(device, unhex(vector["incarnation"])).hex() == vector["actor"]


@pytest.mark.parametrize("vector", VALUES["contexts"])
def test_contexts(vector):
    dots = [Dot(ActorId(unhex(actor)), n) for actor, n in vector["dots"]]
    context = EMPTY_CONTEXT.add(dots)
    value = plain(vector["value"])
    assert canonical(value).hex() == vector["encoding"]
    assert codec.encode(context.to_value()).hex() == vector["encoding"]
    assert Context.from_value(value) == context


@pytest.mark.parametrize("vector", VALUES["registers"])
def test_values_of_registers(vector):
    kinds: dict[str, Any] = {
        "placement": Placement,
        "attributes": ItemAttributes,
        "content": Content,
    }
    value = plain(vector["value"])
    assert canonical(value).hex() == vector["encoding"]
    parsed = kinds[vector["register"]].from_value(value)
    assert codec.encode(parsed.to_value()).hex() == vector["encoding"]


@pytest.mark.parametrize("vector", VALUES["frames"])
def test_frames(vector):
    payload = unhex(vector["payload"])
    assert encode_frame(payload).hex() == vector["frame"]
    assert FrameDecoder().feed(unhex(vector["frame"])) == [payload]


@pytest.mark.parametrize("vector", RECORDS["records"])
def test_records(vector):
    body = canonical(plain(vector["value"]))
    assert body.hex() == vector["body"]
    record = Record.decode(body)
    assert record.encode() == body
    assert record.actor.hex() == vector["actor"]
    key = SigningKey.from_seed(unhex(vector["seed"]))
    signed = SignedRecord(record, body, key.sign(SignedType.RECORD, body))
    assert signed.signature.hex() == vector["signature"]
    digest = hashlib.blake2b(body, digest_size=32, person=b"atoll-record-v1")
    assert signed.id.hex() == vector["id"] == digest.hexdigest()
    assert signed.to_wire() == canonical([body, signed.signature])
    assert SignedRecord.from_wire(signed.to_wire()) == signed


def check_event(vector):
    body = canonical(plain(vector["value"]))
    assert body.hex() == vector["body"]
    signature = unhex(vector["signature"])
    signed = SignedEvent.from_wire(canonical([body, signature]))
    digest = hashlib.blake2b(body + signature, digest_size=32, person=b"atoll-event-v1")
    assert signed.id.hex() == vector["id"] == digest.hexdigest()
    assert signed.event.encode() == body
    assert signed.event.sign(SigningKey.from_seed(unhex(vector["seed"]))) == signed
    return signed


def test_logs():
    account = AccountLog.from_events([check_event(vector) for vector in EVENTS["account"]])
    assert str(account.id) == EVENTS["account_id"]
    assert account.length == len(EVENTS["account"])
    namespace = NamespaceLog.from_events(
        [check_event(vector) for vector in EVENTS["namespace"]],
        {account.id: account}.__getitem__,
    )
    assert str(namespace.id) == EVENTS["namespace_id"]
    assert namespace.length == len(EVENTS["namespace"])


def test_every_type_of_event_has_a_vector():
    types = {vector["value"][1] for vector in (*EVENTS["account"], *EVENTS["namespace"])}
    assert types == set(EventType)
