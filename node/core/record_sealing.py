"""From local writes to a signed record, and from a received record to versions. Pure.

Called by the publisher and the puller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.core.staged_content import StagedContent
from node.core.tree_view import Version
from protocol import codec, limits
from protocol.crypto.keys import EpochKeys
from protocol.crypto.labels import SealedKind, SignedType
from protocol.crypto.sealing import open_value, seal_value, value_context
from protocol.crypto.signing import SigningKey
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import BlockId, DeviceId, EventId, ItemId, NamespaceId, RecordId
from protocol.records import FolderChange, Record, RecordWrite, Register, SignedRecord
from protocol.values import Content, ItemAttributes, Placement
from protocol.version_vector import Dot


@dataclass(frozen=True, slots=True)
class OpenedWrite:
    """One write of a record with its value in clear."""

    item: ItemId
    register: Register
    version: Version[Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """What goes into a record.

    Attributes:
        incarnation: of the writing device in this run.
        writes: with final values: no content is staged any more.
    """

    namespace: NamespaceId
    device: DeviceId
    incarnation: bytes
    sequence: int
    previous: RecordId
    hybrid_time_us: int
    account_head: EventId
    namespace_head: EventId
    folders: tuple[FolderChange, ...]
    writes: Sequence[OpenedWrite]

    @property
    def is_automatic(self) -> bool:
        """Whether a node made all of it on its own: one change of a user makes it a user's."""
        return all(write.version.automatic for write in self.writes)


def seal_record(
    draft: Draft,
    keys: EpochKeys,
    signing: SigningKey,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> SignedRecord:
    """Seal the values of a draft, under nonces of ``token_bytes``, and sign the record.

    Raises:
        LocalProtocolError: a value can not be encoded, or a content is still in staging.
    """
    blocks: dict[BlockId, None] = {}
    writes = []
    for write in draft.writes:
        value = write.version.value
        if isinstance(value, StagedContent):
            raise LocalProtocolError("a content that is still in staging can not be sealed")
        if isinstance(value, Content):
            blocks.update(dict.fromkeys(value.blocks))
        sealed = seal_value(
            keys.values,
            codec.encode(value.to_value()),
            _place(draft.namespace, write.item, write.register, keys.number, write.version.dot),
            token_bytes,
        )
        dot = write.version.dot
        writes.append(RecordWrite(write.item, write.register, dot.n, write.version.context, sealed))
    record = Record(
        namespace=draft.namespace,
        epoch=keys.number,
        device=draft.device,
        incarnation=draft.incarnation,
        sequence=draft.sequence,
        previous=draft.previous,
        hybrid_time_us=draft.hybrid_time_us,
        account_head=draft.account_head,
        namespace_head=draft.namespace_head,
        automatic=draft.is_automatic,
        folders=draft.folders,
        blocks=tuple(blocks),
        writes=tuple(writes),
    )
    body = record.encode()
    return SignedRecord(record, body, signing.sign(SignedType.RECORD, body))


def open_record(signed: SignedRecord, epochs: Mapping[int, EpochKeys]) -> list[OpenedWrite]:
    """The writes of a record whose signature is verified, in clear.

    Raises:
        RemoteProtocolError: no key for the epoch, a value does not open in its place, is not a
            value of its register, or a content refers to blocks that the header does not list.
    """
    record = signed.record
    keys = epochs.get(record.epoch)
    if keys is None:
        raise RemoteProtocolError(f"no key for epoch {record.epoch}")
    actor = record.actor
    listed = frozenset(record.blocks)
    opened = []
    for write in record.writes:
        dot = Dot(actor, write.n)
        place = _place(record.namespace, write.item, write.register, record.epoch, dot)
        value = _parse(write.register, open_value(keys.values, write.sealed, place))
        if isinstance(value, Content) and not listed.issuperset(value.blocks):
            raise RemoteProtocolError("a content refers to blocks that its record does not list")
        opened.append(
            OpenedWrite(
                write.item,
                write.register,
                Version(
                    dot,
                    record.hybrid_time_us,
                    record.device,
                    write.context,
                    value,
                    record.automatic,
                ),
            )
        )
    return opened


def _place(namespace: NamespaceId, item: ItemId, register: Register, epoch: int, dot: Dot) -> bytes:
    return value_context(
        limits.FORMAT_VERSION,
        SealedKind.VALUE,
        namespace,
        item,
        int(register),
        epoch,
        dot.actor,
        dot.n,
    )


def _parse(register: Register, plain: bytes) -> Placement | ItemAttributes | Content:
    value = codec.decode(plain, limits.MAX_RECORD_BYTES)
    match register:
        case Register.PLACEMENT:
            return Placement.from_value(value)
        case Register.ATTRIBUTES:
            return ItemAttributes.from_value(value)
        case Register.CONTENT:
            return Content.from_value(value)
