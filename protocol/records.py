"""Records: one signed operation of one device, and the values of the registers it writes.

A record is immutable and named by the hash of its body. Header fields are clear, so that the server
can check them; values are sealed. Layouts stand in docs/formats.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

from protocol import codec, limits
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import verify
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import (
    INCARNATION_BYTES,
    ActorId,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    NamespaceId,
    RecordId,
    actor_id,
)
from protocol.version_vector import Context, Dot

HASH_BYTES = 32
SIGNATURE_BYTES = 64
NO_RECORD = RecordId(bytes(HASH_BYTES))
"""The 'previous' of an actor's first record."""


class Register(IntEnum):
    """What one write sets: each item has these three, independent of each other."""

    PLACEMENT = 0
    ATTRIBUTES = 1
    CONTENT = 2


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One sealed value for one register.

    Attributes:
        n: the dot's count; the dot's actor is the record's.
        context: the dots of this register that the writer had seen, without its own.
        sealed: the value, sealed for exactly this place.
    """

    item: ItemId
    register: Register
    n: int
    context: Context
    sealed: bytes


@dataclass(frozen=True, slots=True)
class FolderChange:
    """A folder whose entries the record changed, and when (hybrid time)."""

    folder: ItemId
    time_us: int


@dataclass(frozen=True, slots=True)
class Record:
    """The body of a record.

    Attributes:
        sequence: counts the records of the actor from 1.
        previous: the actor's record before this one, or `NO_RECORD`.
        hybrid_time_us: decides between siblings.
        account_head, namespace_head: the last events of the two logs that the writer had seen.
        automatic: made by a node on its own (a merge): counts as seen when all it covers was seen.
        folders: the folders whose entries changed; they carry the folders' shown times.
        blocks: what the contents refer to: data blocks of an inline manifest, or its root page.
    """

    namespace: NamespaceId
    epoch: int
    device: DeviceId
    incarnation: bytes
    sequence: int
    previous: RecordId
    hybrid_time_us: int
    account_head: EventId
    namespace_head: EventId
    automatic: bool
    folders: tuple[FolderChange, ...]
    blocks: tuple[BlockId, ...]
    writes: tuple[RecordWrite, ...]

    @property
    def actor(self) -> ActorId:
        """The writer of the record's dots."""
        return actor_id(self.device, self.incarnation)

    def encode(self) -> bytes:
        """The canonical body."""
        return codec.encode(
            [
                limits.FORMAT_VERSION,
                self.namespace,
                self.epoch,
                self.device,
                self.incarnation,
                self.sequence,
                self.previous,
                self.hybrid_time_us,
                self.account_head,
                self.namespace_head,
                self.automatic,
                [[change.folder, change.time_us] for change in self.folders],
                list(self.blocks),
                [
                    [
                        write.item,
                        int(write.register),
                        write.n,
                        write.context.to_value(),
                        write.sealed,
                    ]
                    for write in self.writes
                ],
            ]
        )

    @classmethod
    def decode(cls, body: bytes) -> Record:
        """Read a body.

        Raises:
            UnsupportedFormatError: another format version.
            RemoteProtocolError: not a record body.
        """
        value = codec.decode(body, limits.MAX_RECORD_BYTES)
        if type(value) is not list or not value:
            raise RemoteProtocolError("record body is not a list")
        version = codec.as_int(value[0], 0, limits.MAX_COUNTER, "format version")
        if version != limits.FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"record of format version {version}; this release reads {limits.FORMAT_VERSION}"
            )
        fields = codec.as_tuple(value, "record body", 14)
        (_, namespace, epoch, device, incarnation, sequence, previous, time_us) = fields[:8]
        (account_head, namespace_head, automatic, folders, blocks, writes) = fields[8:]
        record = cls(
            namespace=NamespaceId(_hash(namespace, "namespace")),
            epoch=codec.as_int(epoch, 1, limits.MAX_COUNTER, "epoch"),
            device=DeviceId(_hash(device, "device")),
            incarnation=codec.as_bytes(
                incarnation, "incarnation", INCARNATION_BYTES, INCARNATION_BYTES
            ),
            sequence=codec.as_int(sequence, 1, limits.MAX_COUNTER, "sequence"),
            previous=RecordId(_hash(previous, "previous record")),
            hybrid_time_us=codec.as_int(time_us, 0, limits.MAX_TIME_US, "hybrid time"),
            account_head=EventId(_hash(account_head, "account head")),
            namespace_head=EventId(_hash(namespace_head, "namespace head")),
            automatic=codec.as_bool(automatic, "automatic"),
            folders=tuple(
                _folder_change(change)
                for change in codec.as_list(folders, "folders", limits.MAX_RECORD_FOLDERS)
            ),
            blocks=tuple(
                BlockId(_hash(block, "block id"))
                for block in codec.as_list(blocks, "blocks", limits.MAX_RECORD_BLOCKS)
            ),
            writes=tuple(
                _write(write) for write in codec.as_list(writes, "writes", limits.MAX_RECORD_WRITES)
            ),
        )
        record._check()
        return record

    def _check(self) -> None:
        if not self.writes:
            raise RemoteProtocolError("record writes nothing")
        places = {(write.item, write.register) for write in self.writes}
        if len(places) != len(self.writes):
            raise RemoteProtocolError("record writes one register twice")
        actor = self.actor
        for write in self.writes:
            if write.context.covers(Dot(actor, write.n)):
                raise RemoteProtocolError("record claims to have seen its own write")
            # A reader adds the dot to what it has seen: the gap becomes exceptions.
            if write.n - write.context.vector.get(actor, 0) > limits.MAX_CONTEXT_EXCEPTIONS:
                raise RemoteProtocolError("record skips too many writes of its own")
        if (self.sequence == 1) != (self.previous == NO_RECORD):
            raise RemoteProtocolError("record's sequence and previous record disagree")


@dataclass(frozen=True)
class SignedRecord:
    """A record with its signature, as it is stored and travels."""

    record: Record
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @cached_property
    def id(self) -> RecordId:
        """The hash of the body."""
        digest = hashlib.blake2b(self.body, digest_size=HASH_BYTES, person=b"atoll-record-v1")
        return RecordId(digest.digest())

    def to_wire(self) -> bytes:
        """Canonical ``[body, signature]``."""
        return codec.encode([self.body, self.signature])

    @classmethod
    def from_wire(cls, data: bytes) -> SignedRecord:
        """Read `to_wire`; the signature is not yet verified.

        Raises:
            UnsupportedFormatError: a body of another format version.
            RemoteProtocolError: not a signed record.
        """
        body, signature = codec.as_tuple(
            codec.decode(data, limits.MAX_RECORD_BYTES), "signed record", 2
        )
        codec.as_bytes(body, "record body", 1, limits.MAX_RECORD_BYTES)
        codec.as_bytes(signature, "record signature", SIGNATURE_BYTES, SIGNATURE_BYTES)
        return cls(Record.decode(body), body, signature)

    def verify(self, signing_public: bytes) -> None:
        """Check the signature with the device's public key.

        Raises:
            RemoteProtocolError: it is not that device's signature of this body.
        """
        verify(signing_public, SignedType.RECORD, self.body, self.signature)


def _hash(value: codec.Value, what: str) -> bytes:
    return codec.as_bytes(value, what, HASH_BYTES, HASH_BYTES)


def _folder_change(value: codec.Value) -> FolderChange:
    folder, time_us = codec.as_tuple(value, "folder change", 2)
    return FolderChange(
        ItemId(codec.as_bytes(folder, "folder", 16, 16)),
        codec.as_int(time_us, 0, limits.MAX_TIME_US, "folder change time"),
    )


def _write(value: codec.Value) -> RecordWrite:
    item, register, n, context, sealed = codec.as_tuple(value, "write", 5)
    return RecordWrite(
        item=ItemId(codec.as_bytes(item, "item", 16, 16)),
        register=Register(codec.as_int(register, 0, max(Register), "register")),
        n=codec.as_int(n, 1, limits.MAX_COUNTER, "dot"),
        context=Context.from_value(context),
        sealed=codec.as_bytes(sealed, "sealed value", 1, limits.MAX_RECORD_BYTES),
    )


def block_ids(writes_blocks: Sequence[Sequence[BlockId]]) -> tuple[BlockId, ...]:
    """The distinct block ids of several contents, in order of first use."""
    return tuple(dict.fromkeys(block for blocks in writes_blocks for block in blocks))
