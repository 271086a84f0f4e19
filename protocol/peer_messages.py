"""What peers on a LAN say to each other: one frozen dataclass per message, and its bytes.

A payload is one byte that says which message it is, and its fields in canonical msgpack; only a
piece of a block stands there as it is. Which message may come when is `protocol.peer_session`'s. The
layouts stand in docs/formats.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final, Protocol, Self

from protocol import codec, limits
from protocol.crypto.signing import SIGNATURE_BYTES
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
from protocol.records import Register
from protocol.state_digest import DIGEST_BYTES, PREFIX_BYTES, LiveWrite
from protocol.state_exchange import Children, Compare, Want, Writes
from protocol.version_vector import Dot

NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
RUN_BYTES: Final = 16
HAVE_BYTES: Final = 6
"""Of the id of a block that is held: two of 2^48 fit by chance, and then a request is in vain."""

MAX_HAVE_BLOCKS: Final = 128 * 1024
"""Blocks in one announcement."""

_HASH_BYTES: Final = 32
_MAX_U32: Final = 2**32 - 1
_MAX_VERSIONS: Final = 16


class Urgency(IntEnum):
    """Who waits for a block."""

    WAITED = 0
    AHEAD = 1
    BACKGROUND = 2


class Farewell(IntEnum):
    """Why a session ends."""

    DONE = 0
    DUPLICATE = 1
    UNWANTED = 2
    MISTAKE = 3


class Refusal(IntEnum):
    """Why a block is not given."""

    NOT_HERE = 0
    BUSY = 1
    CANCELLED = 2


class Message(Protocol):
    """A message of fields that are plain values.

    Attributes:
        kind: the first byte of the payload.
    """

    kind: ClassVar[int]

    def to_value(self) -> list[codec.Value]:
        """The fields in their order."""

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        """Check the fields; `RemoteProtocolError` when they are not what they should be."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The listening side's first word, and all that a stranger hears: random bytes."""

    kind: ClassVar[int] = 1
    nonce: bytes

    def to_value(self) -> list[codec.Value]:
        return [self.nonce]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (nonce,) = codec.as_tuple(value, "challenge", 1)
        return cls(_exact(nonce, "nonce", NONCE_BYTES))


@dataclass(frozen=True, slots=True)
class Proof:
    """The dialling side proves LAN keys.

    Attributes:
        versions: of the protocol that it speaks, ascending.
        proofs: one for each key, and random bytes among them; ascending.
    """

    kind: ClassVar[int] = 2
    versions: tuple[int, ...]
    nonce: bytes
    proofs: tuple[bytes, ...] = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [list(self.versions), self.nonce, list(self.proofs)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        versions, nonce, proofs = codec.as_tuple(value, "proof", 3)
        numbers = [
            codec.as_int(version, 1, _MAX_U32, "version")
            for version in codec.as_list(versions, "versions", _MAX_VERSIONS)
        ]
        return cls(
            tuple(_ascending(numbers, "versions")),
            _exact(nonce, "nonce", NONCE_BYTES),
            _proofs(proofs),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The listening side proves those of the keys that it has as well."""

    kind: ClassVar[int] = 3
    version: int
    proofs: tuple[bytes, ...] = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.version, list(self.proofs)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        version, proofs = codec.as_tuple(value, "answer", 2)
        return cls(codec.as_int(version, 1, _MAX_U32, "version"), _proofs(proofs))


@dataclass(frozen=True, slots=True)
class Identity:
    """Which device it is.

    Attributes:
        run: random, of one run of the node: a session of another run is an old one.
        signature: by the device over the transcript of the proofs.
    """

    kind: ClassVar[int] = 4
    account: AccountId
    device: DeviceId
    run: bytes
    signature: bytes = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.account, self.device, self.run, self.signature]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        account, device, run, signature = codec.as_tuple(value, "identity", 4)
        return cls(
            AccountId(_exact(account, "account", _HASH_BYTES)),
            DeviceId(_exact(device, "device", _HASH_BYTES)),
            _exact(run, "run", RUN_BYTES),
            _exact(signature, "signature", SIGNATURE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class EventsWanted:
    """Asks for the sender's account log, from an index on: its device is not known here."""

    kind: ClassVar[int] = 5
    first: int

    def to_value(self) -> list[codec.Value]:
        return [self.first]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (first,) = codec.as_tuple(value, "wanted events", 1)
        return cls(codec.as_int(first, 0, limits.MAX_LOG_EVENTS, "index"))


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far a log is known: its id (of an account or namespace), length and last event."""

    log: bytes
    length: int
    head: EventId


@dataclass(frozen=True, slots=True)
class Heads:
    """How far the sender knows logs."""

    kind: ClassVar[int] = 6
    heads: tuple[LogHead, ...]

    def to_value(self) -> list[codec.Value]:
        return [[each.log, each.length, each.head] for each in self.heads]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        heads = []
        for each in codec.as_list(value, "heads", limits.MAX_PEER_LOGS):
            log, length, head = codec.as_tuple(each, "head", 3)
            heads.append(
                LogHead(
                    _exact(log, "log", _HASH_BYTES),
                    codec.as_int(length, 1, limits.MAX_LOG_EVENTS, "length"),
                    EventId(_exact(head, "head", _HASH_BYTES)),
                )
            )
        return cls(tuple(heads))


@dataclass(frozen=True, slots=True)
class LogEvents:
    """Signed events of one log, from an index on."""

    kind: ClassVar[int] = 7
    log: bytes
    first: int
    events: tuple[bytes, ...] = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.log, self.first, list(self.events)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        log, first, events = codec.as_tuple(value, "log events", 3)
        return cls(
            _exact(log, "log", _HASH_BYTES),
            codec.as_int(first, 0, limits.MAX_LOG_EVENTS, "index"),
            tuple(
                codec.as_bytes(event, "event", 1, limits.MAX_EVENT_BYTES)
                for event in codec.as_list(events, "events", limits.MAX_LOG_EVENTS)
            ),
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """The sender has said all of its logs; it will speak about these namespaces."""

    kind: ClassVar[int] = 8
    namespaces: tuple[NamespaceId, ...]

    def to_value(self) -> list[codec.Value]:
        return list(self.namespaces)

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        return cls(
            tuple(
                _namespace(each)
                for each in codec.as_list(value, "namespaces", limits.MAX_PEER_LOGS)
            )
        )


@dataclass(frozen=True, slots=True)
class Bye:
    """The last message."""

    kind: ClassVar[int] = 9
    reason: Farewell

    def to_value(self) -> list[codec.Value]:
        return [int(self.reason)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (reason,) = codec.as_tuple(value, "farewell", 1)
        return cls(Farewell(codec.as_int(reason, 0, max(Farewell), "reason")))


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `Pong` of the same number."""

    kind: ClassVar[int] = 10
    number: int

    def to_value(self) -> list[codec.Value]:
        return [self.number]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (number,) = codec.as_tuple(value, "ping", 1)
        return cls(codec.as_int(number, 0, _MAX_U32, "number"))


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `Ping`."""

    kind: ClassVar[int] = 11
    number: int

    def to_value(self) -> list[codec.Value]:
        return [self.number]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (number,) = codec.as_tuple(value, "pong", 1)
        return cls(codec.as_int(number, 0, _MAX_U32, "number"))


@dataclass(frozen=True, slots=True)
class Records:
    """Signed records as they travel: pushed, or asked for by an exchange."""

    kind: ClassVar[int] = 12
    namespace: NamespaceId
    records: tuple[bytes, ...] = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.namespace, list(self.records)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        namespace, records = codec.as_tuple(value, "records", 2)
        return cls(
            _namespace(namespace),
            tuple(
                codec.as_bytes(record, "record", 1, limits.MAX_RECORD_BYTES)
                for record in codec.as_list(records, "records", limits.MAX_PEER_FRAME_BYTES)
            ),
        )


Step = Compare | Children | Writes | Want


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A step of the exchange of `protocol.state_exchange`; what is given travels as `Records`."""

    kind: ClassVar[int] = 13
    namespace: NamespaceId
    step: Step

    def to_value(self) -> list[codec.Value]:
        match self.step:
            case Compare(digest):
                return [self.namespace, 0, digest]
            case Children(prefix, digests):
                return [self.namespace, 1, prefix, [list(pair) for pair in digests]]
            case Writes(prefix, writes, is_answer):
                return [self.namespace, 2, prefix, [_write_value(w) for w in writes], is_answer]
            case Want(records):
                return [self.namespace, 3, list(records)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        if type(value) is not list or len(value) < 2:
            raise RemoteProtocolError("an exchange names its namespace and step")
        return cls(_namespace(value[0]), _step(value[1], value[2:]))


@dataclass(frozen=True, slots=True)
class Have:
    """Blocks that the sender holds from now on.

    Attributes:
        is_all: it holds no others; what it announced before is void.
        blocks: the first `HAVE_BYTES` of each id, one after the other.
    """

    kind: ClassVar[int] = 14
    namespace: NamespaceId
    is_all: bool
    blocks: bytes = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.namespace, self.is_all, self.blocks]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        namespace, is_all, blocks = codec.as_tuple(value, "announcement", 3)
        return cls(_namespace(namespace), codec.as_bool(is_all, "is_all"), _have(blocks))


@dataclass(frozen=True, slots=True)
class Lost:
    """Blocks, as in `Have`, that the sender holds no longer."""

    kind: ClassVar[int] = 15
    namespace: NamespaceId
    blocks: bytes = field(repr=False)

    def to_value(self) -> list[codec.Value]:
        return [self.namespace, self.blocks]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        namespace, blocks = codec.as_tuple(value, "announcement", 2)
        return cls(_namespace(namespace), _have(blocks))


@dataclass(frozen=True, slots=True)
class Get:
    """Asks for a block.

    Attributes:
        request: the sender's number for it, free until the last piece or the refusal came.
    """

    kind: ClassVar[int] = 16
    request: int
    namespace: NamespaceId
    block: BlockId
    urgency: Urgency

    def to_value(self) -> list[codec.Value]:
        return [self.request, self.namespace, self.block, int(self.urgency)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        request, namespace, block, urgency = codec.as_tuple(value, "request", 4)
        return cls(
            _request(request),
            _namespace(namespace),
            BlockId(_exact(block, "block", _HASH_BYTES)),
            Urgency(codec.as_int(urgency, 0, max(Urgency), "urgency")),
        )


@dataclass(frozen=True, slots=True)
class Cancel:
    """The block is no longer wanted; the request still ends with a last piece or a refusal."""

    kind: ClassVar[int] = 17
    request: int

    def to_value(self) -> list[codec.Value]:
        return [self.request]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        (request,) = codec.as_tuple(value, "cancel", 1)
        return cls(_request(request))


@dataclass(frozen=True, slots=True)
class Refused:
    """The block is not given."""

    kind: ClassVar[int] = 18
    request: int
    reason: Refusal

    def to_value(self) -> list[codec.Value]:
        return [self.request, int(self.reason)]

    @classmethod
    def from_value(cls, value: codec.Value) -> Self:
        request, reason = codec.as_tuple(value, "refusal", 2)
        return cls(_request(request), Refusal(codec.as_int(reason, 0, max(Refusal), "reason")))


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a block that was asked for, at most `PIECE_BYTES`."""

    kind: ClassVar[int] = 19
    request: int
    is_last: bool
    data: bytes | memoryview = field(repr=False)


PeerMessage = (
    Challenge
    | Proof
    | Answer
    | Identity
    | EventsWanted
    | Heads
    | LogEvents
    | Ready
    | Bye
    | Ping
    | Pong
    | Records
    | Exchanged
    | Have
    | Lost
    | Get
    | Cancel
    | Refused
    | Piece
)

_PLAIN: Final[dict[int, type[Message]]] = {
    each.kind: each
    for each in (
        Challenge,
        Proof,
        Answer,
        Identity,
        EventsWanted,
        Heads,
        LogEvents,
        Ready,
        Bye,
        Ping,
        Pong,
        Records,
        Exchanged,
        Have,
        Lost,
        Get,
        Cancel,
        Refused,
    )
}
_PIECE_HEAD_BYTES: Final = 6


def encode_message(message: PeerMessage) -> bytes:
    """The payload of the frame that carries a message.

    Raises:
        LocalProtocolError: a field is not what the protocol allows.
    """
    if isinstance(message, Piece):
        if not 0 <= message.request <= _MAX_U32 or len(message.data) > limits.PIECE_BYTES:
            raise LocalProtocolError("a piece names its request and is not longer than a piece")
        head = bytes([Piece.kind]) + message.request.to_bytes(4, "big") + bytes([message.is_last])
        return b"".join((head, message.data))
    value = message.to_value()
    encoded = codec.encode(value)
    try:
        type(message).from_value(codec.decode(encoded, limits.MAX_PEER_FRAME_BYTES))
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"no peer would accept it: {error}") from error
    return bytes([message.kind]) + encoded


def decode_message(payload: bytes) -> Any:
    """Read a payload: one of `PeerMessage`.

    Raises:
        RemoteProtocolError: no message that is known here, or not as it should be.
    """
    if not payload:
        raise RemoteProtocolError("an empty message")
    if payload[0] == Piece.kind:
        return _piece(payload)
    known = _PLAIN.get(payload[0])
    if known is None:
        raise RemoteProtocolError(f"a message of unknown kind {payload[0]}")
    return known.from_value(codec.decode(payload[1:], limits.MAX_PEER_FRAME_BYTES))


def _piece(payload: bytes) -> Piece:
    data = memoryview(payload)[_PIECE_HEAD_BYTES:]
    if len(payload) < _PIECE_HEAD_BYTES or payload[5] > 1 or len(data) > limits.PIECE_BYTES:
        raise RemoteProtocolError("not a piece of a block")
    return Piece(int.from_bytes(payload[1:5], "big"), payload[5] == 1, data)


def _step(kind: codec.Value, fields: list[codec.Value]) -> Step:
    match kind, fields:
        case 0, [digest]:
            return Compare(_exact(digest, "digest", DIGEST_BYTES))
        case 1, [prefix, pairs]:
            children = [
                codec.as_tuple(pair, "child", 2) for pair in codec.as_list(pairs, "children", 256)
            ]
            digests = [
                (codec.as_int(byte, 0, 255, "byte"), _exact(digest, "digest", DIGEST_BYTES))
                for byte, digest in children
            ]
            _ascending([byte for byte, _ in digests], "children")
            return Children(codec.as_bytes(prefix, "prefix", 0, PREFIX_BYTES - 1), tuple(digests))
        case 2, [prefix, writes, is_answer]:
            head = codec.as_bytes(prefix, "prefix", 0, PREFIX_BYTES)
            listed = [_write(each) for each in codec.as_list(writes, "w", limits.MAX_PEER_WRITES)]
            if not all(write.item.startswith(head) for write in listed):
                raise RemoteProtocolError("a write outside of the prefix that is listed")
            return Writes(head, tuple(listed), codec.as_bool(is_answer, "is_answer"))
        case 3, [records]:
            wanted = codec.as_list(records, "records", limits.MAX_PEER_WRITES)
            return Want(tuple(RecordId(_exact(each, "record", _HASH_BYTES)) for each in wanted))
        case _:
            raise RemoteProtocolError("not a step of an exchange")


def _write_value(write: LiveWrite) -> list[codec.Value]:
    return [write.item, int(write.register), write.dot.actor, write.dot.n, write.record]


def _write(value: codec.Value) -> LiveWrite:
    item, register, actor, n, record = codec.as_tuple(value, "live write", 5)
    return LiveWrite(
        ItemId(_exact(item, "item", ItemId.size_bytes)),
        Register(codec.as_int(register, 0, max(Register), "register")),
        Dot(
            ActorId(_exact(actor, "actor", ActorId.size_bytes)),
            codec.as_int(n, 1, limits.MAX_COUNTER, "n"),
        ),
        RecordId(_exact(record, "record", _HASH_BYTES)),
    )


def _exact(value: codec.Value, what: str, size_bytes: int) -> bytes:
    return codec.as_bytes(value, what, size_bytes, size_bytes)


def _namespace(value: codec.Value) -> NamespaceId:
    return NamespaceId(_exact(value, "namespace", _HASH_BYTES))


def _request(value: codec.Value) -> int:
    return codec.as_int(value, 0, _MAX_U32, "request")


def _have(value: codec.Value) -> bytes:
    blocks = codec.as_bytes(value, "blocks", 0, HAVE_BYTES * MAX_HAVE_BLOCKS)
    if len(blocks) % HAVE_BYTES:
        raise RemoteProtocolError("an announcement that ends within a block")
    return blocks


def _proofs(value: codec.Value) -> tuple[bytes, ...]:
    proofs = [
        _exact(proof, "proof", PROOF_BYTES)
        for proof in codec.as_list(value, "proofs", limits.MAX_PEER_PROOFS)
    ]
    return tuple(_ascending(proofs, "proofs"))


def _ascending(values: list[Any], what: str) -> list[Any]:
    if any(one >= other for one, other in itertools.pairwise(values)):
        raise RemoteProtocolError(f"{what} are not in ascending order")
    return values
