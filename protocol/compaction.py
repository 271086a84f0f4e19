"""What compaction may drop from a journal, and the signed words that go before it.

A device acknowledges how far it has applied the journal; an owner's device sets a *floor*, a position
at or below which everybody knows everything; the server then drops the records that say nothing any
more. Which these are follows from what records say in clear: a record says nothing if each of its
writes belongs to an item that is dead (deleted, with all its records at or below the floor), or is
covered by what stays. So a journal from which it was dropped gives the same state as before, but
that dead items leave no trace. Server and nodes call this; layouts stand in docs/formats.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from protocol import codec, limits
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import ActorId, DeviceId, ItemId, NamespaceId, RecordId
from protocol.records import FolderChange, RecordWrite, Register
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

DIGEST_BYTES: Final = 32

NO_RECORDS: Final = bytes(DIGEST_BYTES)
"""The digest of a journal from which everything up to a position was dropped."""

MAX_JOURNAL_EPOCH_BYTES: Final = 64

_MAX_ACKNOWLEDGEMENT_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A device has applied a journal up to a position, and owes nothing from before.

    Whatever it had written without knowing all of that is in the journal by now.
    """

    namespace: NamespaceId
    device: DeviceId
    journal_epoch: str
    position: int
    time_us: int

    def encode(self) -> bytes:
        """The canonical body."""
        return codec.encode(
            [
                limits.FORMAT_VERSION,
                self.namespace,
                self.device,
                self.journal_epoch,
                self.position,
                self.time_us,
            ]
        )

    def sign(self, key: SigningKey) -> SignedAcknowledgement:
        """With the device's signature."""
        body = self.encode()
        return SignedAcknowledgement(self, body, key.sign(SignedType.ACKNOWLEDGEMENT, body))


@dataclass(frozen=True, slots=True)
class SignedAcknowledgement:
    """An acknowledgement as it is stored and travels."""

    acknowledgement: Acknowledgement
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def to_wire(self) -> bytes:
        """Canonical ``[body, signature]``."""
        return codec.encode([self.body, self.signature])

    @classmethod
    def from_wire(cls, data: bytes) -> SignedAcknowledgement:
        """Read `to_wire`; the signature is not yet verified.

        Raises:
            UnsupportedFormatError: another format version.
            RemoteProtocolError: not a signed acknowledgement.
        """
        body, signature = codec.as_tuple(
            codec.decode(data, _MAX_ACKNOWLEDGEMENT_BYTES), "signed acknowledgement", 2
        )
        codec.as_bytes(body, "acknowledgement", 1, _MAX_ACKNOWLEDGEMENT_BYTES)
        codec.as_bytes(signature, "signature", 64, 64)
        fields = codec.decode(body, _MAX_ACKNOWLEDGEMENT_BYTES)
        if type(fields) is not list or not fields:
            raise RemoteProtocolError("an acknowledgement is a list")
        if codec.as_int(fields[0], 0, limits.MAX_COUNTER, "version") != limits.FORMAT_VERSION:
            raise UnsupportedFormatError(f"acknowledgement of format version {fields[0]}")
        _, namespace, device, epoch, position, time_us = codec.as_tuple(
            fields, "acknowledgement", 6
        )
        acknowledgement = Acknowledgement(
            NamespaceId(codec.as_bytes(namespace, "namespace", 32, 32)),
            DeviceId(codec.as_bytes(device, "device", 32, 32)),
            codec.as_str(epoch, "journal epoch", MAX_JOURNAL_EPOCH_BYTES),
            codec.as_int(position, 0, limits.MAX_COUNTER, "position"),
            codec.as_int(time_us, 0, limits.MAX_TIME_US, "time"),
        )
        return cls(acknowledgement, body, signature)

    def verify(self, public: bytes) -> None:
        """Check the signature; `RemoteProtocolError` when it is not by that key."""
        verify(public, SignedType.ACKNOWLEDGEMENT, self.body, self.signature)


@dataclass(frozen=True, slots=True)
class Floor:
    """What a namespace's log says of its journal.

    Attributes:
        position: everything at or below it was seen by all, or is old enough.
        digest: of the records that stay at or below it, by `longer_digest`.
    """

    journal_epoch: str
    position: int
    digest: bytes

    def to_value(self) -> list[codec.Value]:
        """The payload of the event."""
        return [self.journal_epoch, self.position, self.digest]

    @classmethod
    def from_value(cls, value: codec.Value) -> Floor:
        """Read `to_value`; `RemoteProtocolError` when it is none."""
        epoch, position, digest = codec.as_tuple(value, "floor", 3)
        return cls(
            codec.as_str(epoch, "journal epoch", MAX_JOURNAL_EPOCH_BYTES),
            codec.as_int(position, 1, limits.MAX_COUNTER, "position"),
            codec.as_bytes(digest, "digest", DIGEST_BYTES, DIGEST_BYTES),
        )


def longer_digest(digest: bytes, position: int, record: RecordId) -> bytes:
    """The digest of a journal's records with the next one, in the order of their positions."""
    chained = hashlib.blake2b(
        digest + position.to_bytes(8, "big") + record,
        digest_size=DIGEST_BYTES,
        person=b"atoll-floor-v1",
    )
    return chained.digest()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a node has acknowledged last; its own memory, the same as it told the server."""

    journal_epoch: str
    position: int


def is_late(floors: Iterable[Floor], acknowledged: Acknowledged | None) -> bool:
    """Whether floors were set without a node that has acknowledged this, and now hears of them.

    Args:
        floors: those that the node has not heard of before.
        acknowledged: None if it never did.
    """
    return any(
        acknowledged is None
        or floor.journal_epoch != acknowledged.journal_epoch
        or floor.position > acknowledged.position
        for floor in floors
    )


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """What a record in the journal says in clear.

    Attributes:
        counts: False for one that a revocation made invalid: it covers nothing, and stays.
    """

    position: int
    actor: ActorId
    folders: Sequence[FolderChange]
    writes: Sequence[RecordWrite]
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What compaction drops.

    Attributes:
        positions: of the records.
        items: the dead items of which nothing stays.
    """

    positions: frozenset[int]
    items: frozenset[ItemId]


def compaction_plan(
    records: Iterable[JournalRecord],
    floor: int,
    dead: Collection[ItemId],
    folder_times: Mapping[ItemId, int] = MappingProxyType({}),
) -> Plan:
    """What may be dropped at a floor.

    Args:
        records: any of the journal: the more, the more is known to be covered. Of every dead item all
            of them, from above the floor as well: one there means that it is not dead.
        floor: position.
        dead: items that an owner's device has found deleted.
        folder_times: of folders, the latest changes (microseconds) that other records at or below the
            floor name; those stay in any case.
    """
    ordered = sorted(records, key=lambda record: record.position, reverse=True)
    plan = _Plan(dead, folder_times)
    for record in ordered:
        # What is covered from above the floor was covered lately: it is needed to merge with.
        if record.position > floor or not record.counts:
            plan.keep(record, tells=False)
    candidates = [record for record in ordered if record.position not in plan.kept]
    # Each round keeps more, and lets fewer items be dead. A later record is looked at first: it covers.
    while True:
        stays = [record for record in candidates if plan.must_stay(record)]
        candidates = [record for record in candidates if record.position not in plan.kept]
        if not stays:
            break
    return Plan(frozenset(record.position for record in candidates), frozenset(plan.dead))


class _Plan:
    """What is known to stay so far."""

    def __init__(self, dead: Collection[ItemId], folder_times: Mapping[ItemId, int]) -> None:
        self.dead = set(dead)
        self.kept: set[int] = set()
        self._covered: dict[tuple[ItemId, Register], Context] = {}
        self._folders = dict(folder_times)

    def keep(self, record: JournalRecord, *, tells: bool = True) -> None:
        """It stays; what it writes is of no dead item. ``tells``: whether it covers others."""
        self.kept.add(record.position)
        for write in record.writes:
            self.dead.discard(write.item)
            if tells:
                place = (write.item, write.register)
                covered = self._covered.get(place, EMPTY_CONTEXT)
                self._covered[place] = covered.join(write.context)
        if tells:
            for change in record.folders:
                latest = self._folders.get(change.folder, 0)
                self._folders[change.folder] = max(latest, change.time_us)

    def must_stay(self, record: JournalRecord) -> bool:
        """Whether something would be missing without it; then it is kept."""
        if all(self._is_told(record, write) for write in record.writes) and all(
            change.folder in self.dead or self._folders.get(change.folder, -1) >= change.time_us
            for change in record.folders
        ):
            return False
        self.keep(record)
        return True

    def _is_told(self, record: JournalRecord, write: RecordWrite) -> bool:
        """Whether a write is of a dead item, or what stays covers it and all that it covers."""
        if write.item in self.dead:
            return True
        covered = self._covered.get((write.item, write.register))
        return (
            covered is not None
            and covered.covers(Dot(record.actor, write.n))
            and covered.join(write.context) == covered
        )
