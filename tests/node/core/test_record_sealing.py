import dataclasses

import pytest

from node.core.record_sealing import Draft, OpenedWrite, open_record, seal_record
from node.core.staged_content import staged_content
from node.core.tree_view import Version
from protocol import codec
from protocol.crypto.keys import EpochKeys
from protocol.crypto.labels import SealedKind
from protocol.crypto.sealing import seal_value, value_context
from protocol.crypto.signing import SigningKey
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import (
    ROOT_ITEM,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    LinkId,
    NamespaceId,
    actor_id,
)
from protocol.manifests import Entry, Manifest
from protocol.records import NO_RECORD, FolderChange, Register, SignedRecord
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Dot

NAMESPACE = NamespaceId(b"n" * 32)
KEYS = EpochKeys.from_secret(NAMESPACE, 1, b"s" * 32)
SIGNING = SigningKey.from_seed(b"k" * 32)
DEVICE = DeviceId(b"d" * 32)
INCARNATION = b"incarnat"
ACTOR = actor_id(DEVICE, INCARNATION)
ITEM = ItemId(b"i" * 16)
BLOCKS = [BlockId(bytes([number]) * 32) for number in range(3)]
TIME_US = 1_700_000_000_000_000


def file_of(*blocks):
    entries = tuple(Entry(block, b"k" * 32, 5000) for block in blocks)
    return Content(Kind.FILE, 5000 * len(blocks), manifest=Manifest(entries))


def opened(register, value, item=ITEM, n=1):
    context = EMPTY_CONTEXT.add([Dot(ACTOR, other) for other in range(1, n)])
    return OpenedWrite(item, register, Version(Dot(ACTOR, n), TIME_US, DEVICE, context, value))


WRITES = [
    opened(Register.PLACEMENT, Placement((Link(LinkId(bytes(8)), ROOT_ITEM, b"secret name"),))),
    opened(Register.ATTRIBUTES, ItemAttributes(0o644)),
    opened(Register.CONTENT, file_of(BLOCKS[1], BLOCKS[0]), n=3),
    opened(Register.CONTENT, file_of(BLOCKS[1], BLOCKS[2]), item=ItemId(b"j" * 16)),
]


def draft(writes=WRITES):
    return Draft(
        namespace=NAMESPACE,
        device=DEVICE,
        incarnation=INCARNATION,
        sequence=1,
        previous=NO_RECORD,
        hybrid_time_us=TIME_US,
        account_head=EventId(bytes(32)),
        namespace_head=EventId(bytes(32)),
        folders=(FolderChange(ROOT_ITEM, TIME_US),),
        writes=writes,
    )


def test_a_record_is_automatic_if_all_of_it_is():
    merge = dataclasses.replace(
        WRITES[2], version=dataclasses.replace(WRITES[2].version, automatic=True)
    )
    for writes, is_automatic in (([merge], True), ([merge, WRITES[1]], False), (WRITES, False)):
        signed = seal_record(draft(writes), KEYS, SIGNING)
        assert signed.record.automatic is is_automatic
        versions = [write.version for write in open_record(signed, {1: KEYS})]
        assert [version.automatic for version in versions] == [is_automatic] * len(versions)


def forged(record, **fields):
    """A record that its author signed, with other fields."""
    changed = dataclasses.replace(record, **fields)
    return SignedRecord(changed, changed.encode(), bytes(64))


def test_what_is_sealed_is_opened_by_whoever_has_the_key():
    signed = SignedRecord.from_wire(seal_record(draft(), KEYS, SIGNING).to_wire())
    signed.verify(SIGNING.public)
    assert open_record(signed, {1: KEYS}) == WRITES


def test_a_record_lists_each_block_once_and_shows_neither_names_nor_keys():
    signed = seal_record(draft(), KEYS, SIGNING)
    assert signed.record.blocks == (BLOCKS[0], BLOCKS[1], BLOCKS[2])
    assert not signed.record.automatic
    wire = signed.to_wire()
    assert b"secret name" not in wire
    assert b"k" * 32 not in wire


def test_without_the_epochs_key_nothing_is_opened():
    signed = seal_record(draft(), KEYS, SIGNING)
    with pytest.raises(RemoteProtocolError, match="epoch 1"):
        open_record(signed, {2: KEYS})
    with pytest.raises(RemoteProtocolError):
        open_record(signed, {1: EpochKeys.from_secret(NAMESPACE, 1, b"x" * 32)})


def test_a_sealed_value_opens_in_its_own_place_only():
    record = seal_record(draft(), KEYS, SIGNING).record
    (first, second, *_) = record.writes
    moved: list[dict] = [
        {"namespace": NamespaceId(b"o" * 32)},
        {"device": DeviceId(b"o" * 32)},
        {"incarnation": b"restored"},
        {"writes": (dataclasses.replace(first, item=ItemId(b"o" * 16)),)},
        {"writes": (dataclasses.replace(first, register=Register.ATTRIBUTES),)},
        {"writes": (dataclasses.replace(first, n=2),)},
        {"writes": (dataclasses.replace(first, sealed=second.sealed),)},
        {"writes": (dataclasses.replace(first, sealed=first.sealed[:-1]),)},
        {"writes": (dataclasses.replace(first, sealed=b"x"),)},
    ]
    for fields in moved:
        with pytest.raises(RemoteProtocolError):
            open_record(forged(record, **fields), {1: KEYS})


def test_blocks_that_the_header_does_not_list_are_refused():
    record = seal_record(draft(), KEYS, SIGNING).record
    with pytest.raises(RemoteProtocolError, match="does not list"):
        open_record(forged(record, blocks=record.blocks[:-1]), {1: KEYS})


@pytest.mark.parametrize(
    "plain", [b"", b"\xc1", codec.encode([]), codec.encode([[], [], 0]), b"\x80"]
)
@pytest.mark.parametrize("register", list(Register))
def test_a_well_sealed_value_that_makes_no_sense_is_refused(register, plain):
    record = seal_record(draft(), KEYS, SIGNING).record
    place = value_context(1, SealedKind.VALUE, NAMESPACE, ITEM, int(register), 1, ACTOR, 1)
    write = dataclasses.replace(
        record.writes[0], register=register, sealed=seal_value(KEYS.values, plain, place)
    )
    with pytest.raises(RemoteProtocolError):
        open_record(forged(record, writes=(write,)), {1: KEYS})


def test_content_that_is_still_in_staging_is_never_sealed():
    staged = staged_content(Content(Kind.FILE), "00ff", 3, 1)
    with pytest.raises(LocalProtocolError, match="staging"):
        seal_record(draft([opened(Register.CONTENT, staged)]), KEYS, SIGNING)


def test_staged_bytes_are_the_same_only_as_themselves():
    one, other = (staged_content(Content(Kind.FILE), name, 3, 1) for name in ("1", "2"))
    assert one.has_same_bytes(staged_content(Content(Kind.FILE), "1", 3, 9))
    assert not one.has_same_bytes(other)
    assert not one.has_same_bytes(Content(Kind.FILE, 3, inline=b"abc"))
