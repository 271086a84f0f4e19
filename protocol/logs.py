"""Signed, linear logs of accounts and namespaces.

An account's log says which devices and key generations it has; a namespace's log says who its
members are and which epochs its keys went through. Keys come only from verified logs, never from a
server's word. Server and nodes check the same rules, here. Layouts stand in docs/formats.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from functools import cached_property

from protocol import codec, limits
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import AccountId, ActorId, DeviceId, EventId, NamespaceId, RecordId, device_id

NO_EVENT = EventId(bytes(EventId.size_bytes))
"""The 'previous' of a genesis event."""

_KEY_BYTES = 32
_MAX_SEALED_BYTES = 1024
_MAX_WRAPS = 2048


class EventType(StrEnum):
    """What an event says. The first four belong to accounts, the rest to namespaces."""

    ACCOUNT_GENESIS = "account-genesis"
    DEVICE = "device"
    REVOCATION = "revocation"
    GENERATION = "generation"
    NAMESPACE_GENESIS = "namespace-genesis"
    EPOCH = "epoch"
    MEMBER = "member"
    MINIMUM_FORMAT = "minimum-format"


class Role(IntEnum):
    """What a member may do. A seed holds LAN keys only and stores what it can not read."""

    OWNER = 0
    EDITOR = 1
    VIEWER = 2
    SEED = 3


@dataclass(frozen=True, slots=True)
class Event:
    """The body of an event.

    Attributes:
        log: id of the log, empty in its genesis event (whose hash becomes the id).
        index: position in the log from 0; `previous` is the event before it.
        account: of the author; empty in an account's own log.
        device: of the author; empty when the account's root key signs.
        account_head: last event of the author's account log that it had seen; `NO_EVENT` in an
            account's own log.
        payload: depends on the type.
    """

    type: EventType
    log: bytes
    index: int
    previous: EventId
    account: bytes
    device: bytes
    account_head: EventId
    time_us: int
    payload: list[codec.Value]

    def encode(self) -> bytes:
        """The canonical body."""
        return codec.encode(
            [
                limits.FORMAT_VERSION,
                self.type.value,
                self.log,
                self.index,
                self.previous,
                self.account,
                self.device,
                self.account_head,
                self.time_us,
                self.payload,
            ]
        )

    @classmethod
    def decode(cls, body: bytes) -> Event:
        """Read a body; the payload is checked when the event is appended to its log.

        Raises:
            UnsupportedFormatError: another format version, or a type of event not known here.
            RemoteProtocolError: not the body of an event.
        """
        value = codec.decode(body, limits.MAX_EVENT_BYTES)
        if type(value) is not list or not value:
            raise RemoteProtocolError("event body is not a list")
        version = codec.as_int(value[0], 0, limits.MAX_COUNTER, "format version")
        if version != limits.FORMAT_VERSION:
            raise UnsupportedFormatError(f"event of format version {version}")
        fields = codec.as_tuple(value, "event body", 10)
        _, kind, log, index, previous, account, device, account_head, time_us, payload = fields
        try:
            event_type = EventType(codec.as_str(kind, "event type", 64))
        except ValueError as error:
            raise UnsupportedFormatError(f"event of unknown type {kind!r}") from error
        return cls(
            type=event_type,
            log=_empty_or_hash(log, "log id"),
            index=codec.as_int(index, 0, limits.MAX_LOG_EVENTS, "event index"),
            previous=EventId(_hash(previous, "previous event")),
            account=_empty_or_hash(account, "author's account"),
            device=_empty_or_hash(device, "author's device"),
            account_head=EventId(_hash(account_head, "account head")),
            time_us=codec.as_int(time_us, 0, limits.MAX_TIME_US, "event time"),
            payload=codec.as_list(payload, "event payload", _MAX_WRAPS),
        )

    def sign(self, key: SigningKey) -> SignedEvent:
        """The event with the author's signature."""
        body = self.encode()
        return SignedEvent(self, body, key.sign(_signed_type(self.type), body))


@dataclass(frozen=True)
class SignedEvent:
    """An event with its signature, as it is stored and travels."""

    event: Event
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @cached_property
    def id(self) -> EventId:
        """The hash of body and signature."""
        digest = hashlib.blake2b(
            self.body + self.signature, digest_size=32, person=b"atoll-event-v1"
        )
        return EventId(digest.digest())

    def to_wire(self) -> bytes:
        """Canonical ``[body, signature]``."""
        return codec.encode([self.body, self.signature])

    @classmethod
    def from_wire(cls, data: bytes) -> SignedEvent:
        """Read `to_wire`; neither signature nor rules are checked yet.

        Raises:
            UnsupportedFormatError: another format version or an unknown type.
            RemoteProtocolError: not a signed event.
        """
        body, signature = codec.as_tuple(
            codec.decode(data, limits.MAX_EVENT_BYTES), "signed event", 2
        )
        codec.as_bytes(body, "event body", 1, limits.MAX_EVENT_BYTES)
        codec.as_bytes(signature, "event signature", 64, 64)
        return cls(Event.decode(body), body, signature)

    def verify(self, public: bytes) -> None:
        """Check the signature; `RemoteProtocolError` when it is not by that key."""
        verify(public, _signed_type(self.event.type), self.body, self.signature)


@dataclass(frozen=True, slots=True)
class Cut:
    """The last record of an actor that stays valid after its device was revoked."""

    actor: ActorId
    sequence: int
    record: RecordId


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device as its account's log knows it.

    Attributes:
        sealed_name: readable by the account's devices.
        wraps: secret keys of the account's generations, sealed to this device when it was enrolled.
        cuts: None while enrolled; after a revocation, where its valid records end.
    """

    id: DeviceId
    signing_public: bytes
    box_public: bytes
    sealed_name: bytes
    wraps: Mapping[int, bytes]
    cuts: tuple[Cut, ...] | None = None

    @property
    def is_revoked(self) -> bool:
        """Whether the root took the device back."""
        return self.cuts is not None


@dataclass(frozen=True, slots=True)
class Generation:
    """One X25519 key of the account, to which namespace keys are sealed.

    Attributes:
        root_wrap: its secret, sealed to the account's root.
        wraps: its secret, sealed to each device that was enrolled when it was made.
    """

    number: int
    box_public: bytes
    root_wrap: bytes
    wraps: Mapping[DeviceId, bytes]


@dataclass(frozen=True, slots=True)
class AccountLog:
    """A verified account log. Immutable: `append` gives a longer one."""

    id: AccountId
    root_public: bytes
    root_box_public: bytes
    head: EventId
    length: int
    devices: Mapping[DeviceId, DeviceEntry] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()

    @classmethod
    def from_events(cls, events: Sequence[SignedEvent]) -> AccountLog:
        """Check a whole log.

        Raises:
            RemoteProtocolError: empty, or some event breaks a rule of `append`.
        """
        if not events:
            raise RemoteProtocolError("an account log has at least its genesis event")
        log = cls._from_genesis(events[0])
        for event in events[1:]:
            log = log.append(event)
        return log

    @classmethod
    def _from_genesis(cls, signed: SignedEvent) -> AccountLog:
        event = signed.event
        _check_genesis(event, EventType.ACCOUNT_GENESIS)
        if event.account or event.device:
            raise RemoteProtocolError("an account's genesis is signed by its root")
        root, root_box, salt = codec.as_tuple(event.payload, "account genesis", 3)
        codec.as_bytes(salt, "salt", 16, 16)
        signed.verify(_key(root, "root key"))
        return cls(AccountId(signed.id), root, _key(root_box, "root box key"), signed.id, 1)

    def append(self, signed: SignedEvent) -> AccountLog:
        """The log with one more event.

        Raises:
            RemoteProtocolError: it does not continue this log, is not signed by one who may, or
                says what is not allowed: enrolling twice, revoking a stranger, skipping a number.
        """
        event = signed.event
        _check_continues(event, self.id, self.head, self.length)
        if event.account or event.account_head != NO_EVENT:
            raise RemoteProtocolError("events of an account's own log name no account")
        signed.verify(self._author_key(event))
        match event.type:
            case EventType.DEVICE:
                changed = self._with_device(event)
            case EventType.REVOCATION:
                changed = self._with_revocation(event)
            case EventType.GENERATION:
                changed = self._with_generation(event)
            case _:
                raise RemoteProtocolError(f"{event.type} does not belong in an account log")
        return replace(changed, head=signed.id, length=self.length + 1)

    def active_device(self, device: DeviceId) -> DeviceEntry:
        """The entry of an enrolled device; `RemoteProtocolError` when unknown or revoked."""
        entry = self.devices.get(device)
        if entry is None:
            raise RemoteProtocolError(f"{device} is not enrolled in {self.id}")
        if entry.is_revoked:
            raise RemoteProtocolError(f"{device} was revoked")
        return entry

    def next_event(
        self, kind: EventType, payload: list[codec.Value], time_us: int, device: bytes = b""
    ) -> Event:
        """An unsigned event that continues this log; ``device`` is empty when the root signs."""
        return Event(kind, self.id, self.length, self.head, b"", device, NO_EVENT, time_us, payload)

    def _author_key(self, event: Event) -> bytes:
        if not event.device:
            return self.root_public
        if event.type is not EventType.DEVICE:
            raise RemoteProtocolError(f"{event.type} must be signed by the account's root")
        return self.active_device(DeviceId(event.device)).signing_public

    def _with_device(self, event: Event) -> AccountLog:
        signing, box, sealed_name, wraps = codec.as_tuple(event.payload, "device event", 4)
        device = device_id(_key(signing, "signing key"), _key(box, "box key"))
        if device in self.devices:
            raise RemoteProtocolError(f"{device} is enrolled already, or was revoked")
        by_generation: dict[int, bytes] = {}
        for pair in codec.as_list(wraps, "wraps", _MAX_WRAPS):
            number, sealed = codec.as_tuple(pair, "wrap", 2)
            by_generation[codec.as_int(number, 1, limits.MAX_COUNTER, "generation")] = _sealed(
                sealed
            )
        entry = DeviceEntry(device, signing, box, _sealed(sealed_name), by_generation)
        return replace(self, devices={**self.devices, device: entry})

    def _with_revocation(self, event: Event) -> AccountLog:
        device_value, cuts_value = codec.as_tuple(event.payload, "revocation", 2)
        device = DeviceId(_hash(device_value, "device"))
        entry = self.active_device(device)
        cuts = []
        for cut in codec.as_list(cuts_value, "cuts", _MAX_WRAPS):
            actor, sequence, record = codec.as_tuple(cut, "cut", 3)
            cuts.append(
                Cut(
                    ActorId(codec.as_bytes(actor, "actor", 16, 16)),
                    codec.as_int(sequence, 0, limits.MAX_COUNTER, "sequence"),
                    RecordId(_hash(record, "record")),
                )
            )
        return replace(self, devices={**self.devices, device: replace(entry, cuts=tuple(cuts))})

    def _with_generation(self, event: Event) -> AccountLog:
        number, box, root_wrap, wraps_value = codec.as_tuple(event.payload, "generation", 4)
        if codec.as_int(number, 1, limits.MAX_COUNTER, "generation") != len(self.generations) + 1:
            raise RemoteProtocolError(f"generation {number} follows {len(self.generations)}")
        wraps: dict[DeviceId, bytes] = {}
        for pair in codec.as_list(wraps_value, "wraps", _MAX_WRAPS):
            device, sealed = codec.as_tuple(pair, "wrap", 2)
            wraps[DeviceId(_hash(device, "device"))] = _sealed(sealed)
        enrolled = {device for device, entry in self.devices.items() if not entry.is_revoked}
        if set(wraps) != enrolled:
            raise RemoteProtocolError("a generation is sealed to exactly the enrolled devices")
        generation = Generation(number, _key(box, "box key"), _sealed(root_wrap), wraps)
        return replace(self, generations=(*self.generations, generation))


def account_genesis(
    root: SigningKey, root_box_public: bytes, salt: bytes, time_us: int
) -> SignedEvent:
    """The first event of a new account; its id is the account's. ``salt`` is 16 random bytes."""
    payload: list[codec.Value] = [root.public, root_box_public, salt]
    return Event(
        EventType.ACCOUNT_GENESIS, b"", 0, NO_EVENT, b"", b"", NO_EVENT, time_us, payload
    ).sign(root)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One key of a namespace.

    Attributes:
        commitment: what the opened key must match.
        account_heads: the account logs, as of which the members' keys were taken.
        wraps: per account, the number of its key generation and the epoch's key sealed to it.
    """

    number: int
    commitment: bytes
    account_heads: Mapping[AccountId, EventId]
    wraps: Mapping[AccountId, tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class NamespaceLog:
    """A verified namespace log. Immutable: `append` gives a longer one."""

    id: NamespaceId
    head: EventId
    length: int
    members: Mapping[AccountId, Role]
    epochs: tuple[Epoch, ...] = ()
    minimum_format: int = limits.FORMAT_VERSION

    @classmethod
    def from_events(
        cls, events: Sequence[SignedEvent], accounts: Callable[[AccountId], AccountLog]
    ) -> NamespaceLog:
        """Check a whole log.

        Args:
            events: from the genesis event on.
            accounts: gives the verified log of an author's account; raises `RemoteProtocolError`
                when it is not known.

        Raises:
            RemoteProtocolError: empty, or some event breaks a rule of `append`.
        """
        if not events:
            raise RemoteProtocolError("a namespace log has at least its genesis event")
        log = cls._from_genesis(events[0], accounts)
        for event in events[1:]:
            log = log.append(event, accounts)
        return log

    @classmethod
    def _from_genesis(
        cls, signed: SignedEvent, accounts: Callable[[AccountId], AccountLog]
    ) -> NamespaceLog:
        event = signed.event
        _check_genesis(event, EventType.NAMESPACE_GENESIS)
        codec.as_tuple(event.payload, "namespace genesis", 1)
        codec.as_bytes(event.payload[0], "salt", 16, 16)
        signed.verify(_author(event, accounts))
        owner = AccountId(event.account)
        return cls(NamespaceId(signed.id), signed.id, 1, {owner: Role.OWNER})

    def append(
        self, signed: SignedEvent, accounts: Callable[[AccountId], AccountLog]
    ) -> NamespaceLog:
        """The log with one more event.

        Raises:
            RemoteProtocolError: it does not continue this log, its author is no owner or no
                enrolled device of it, or it says what is not allowed: an epoch out of turn, no
                owner left, a format below the present one.
        """
        event = signed.event
        _check_continues(event, self.id, self.head, self.length)
        signed.verify(_author(event, accounts))
        if self.members.get(AccountId(event.account)) is not Role.OWNER:
            raise RemoteProtocolError("only an owner's device appends to a namespace log")
        match event.type:
            case EventType.EPOCH:
                changed = self._with_epoch(event)
            case EventType.MEMBER:
                changed = self._with_member(event)
            case EventType.MINIMUM_FORMAT:
                (version,) = codec.as_tuple(event.payload, "minimum format", 1)
                changed = replace(
                    self,
                    minimum_format=codec.as_int(
                        version, self.minimum_format, limits.MAX_COUNTER, "minimum format"
                    ),
                )
            case _:
                raise RemoteProtocolError(f"{event.type} does not belong in a namespace log")
        return replace(changed, head=signed.id, length=self.length + 1)

    def next_event(
        self,
        kind: EventType,
        payload: list[codec.Value],
        time_us: int,
        author: AccountLog,
        device: DeviceId,
    ) -> Event:
        """An unsigned event by a device of ``author`` that continues this log."""
        return Event(
            kind,
            self.id,
            self.length,
            self.head,
            author.id,
            device,
            author.head,
            time_us,
            payload,
        )

    def _with_epoch(self, event: Event) -> NamespaceLog:
        number, commitment, heads, wraps_value = codec.as_tuple(event.payload, "epoch", 4)
        if codec.as_int(number, 1, limits.MAX_COUNTER, "epoch") != len(self.epochs) + 1:
            raise RemoteProtocolError(f"epoch {number} follows {len(self.epochs)}")
        account_heads: dict[AccountId, EventId] = {}
        for pair in codec.as_list(heads, "account heads", _MAX_WRAPS):
            account, head = codec.as_tuple(pair, "account head", 2)
            account_heads[AccountId(_hash(account, "account"))] = EventId(_hash(head, "head"))
        wraps: dict[AccountId, tuple[int, bytes]] = {}
        for triple in codec.as_list(wraps_value, "wraps", _MAX_WRAPS):
            account, generation, sealed = codec.as_tuple(triple, "wrap", 3)
            wraps[AccountId(_hash(account, "account"))] = (
                codec.as_int(generation, 1, limits.MAX_COUNTER, "generation"),
                _sealed(sealed),
            )
        if not set(wraps) <= set(self.members):
            raise RemoteProtocolError("an epoch is sealed to members only")
        epoch = Epoch(number, _hash(commitment, "commitment"), account_heads, wraps)
        return replace(self, epochs=(*self.epochs, epoch))

    def _with_member(self, event: Event) -> NamespaceLog:
        account_value, role_value = codec.as_tuple(event.payload, "member", 2)
        account = AccountId(_hash(account_value, "account"))
        members = dict(self.members)
        if role_value is None:
            if members.pop(account, None) is None:
                raise RemoteProtocolError(f"{account} is no member")
        else:
            members[account] = Role(codec.as_int(role_value, 0, max(Role), "role"))
        if Role.OWNER not in members.values():
            raise RemoteProtocolError("a namespace keeps at least one owner")
        return replace(self, members=members)


def namespace_genesis(
    author: AccountLog, device: DeviceId, key: SigningKey, salt: bytes, time_us: int
) -> SignedEvent:
    """The first event of a new namespace; its id is the namespace's. ``salt`` is 16 random bytes."""
    return Event(
        EventType.NAMESPACE_GENESIS,
        b"",
        0,
        NO_EVENT,
        author.id,
        device,
        author.head,
        time_us,
        [salt],
    ).sign(key)


def events_from_wire(events: Iterable[bytes]) -> list[SignedEvent]:
    """Parse events as they travel; the errors of `SignedEvent.from_wire`."""
    return [SignedEvent.from_wire(event) for event in events]


_ACCOUNT_TYPES = frozenset(
    {
        EventType.ACCOUNT_GENESIS,
        EventType.DEVICE,
        EventType.REVOCATION,
        EventType.GENERATION,
    }
)


def _signed_type(kind: EventType) -> SignedType:
    return SignedType.ACCOUNT_EVENT if kind in _ACCOUNT_TYPES else SignedType.NAMESPACE_EVENT


def _author(event: Event, accounts: Callable[[AccountId], AccountLog]) -> bytes:
    if not event.account or not event.device:
        raise RemoteProtocolError("a namespace event names its author's account and device")
    log = accounts(AccountId(event.account))
    entry = log.devices.get(DeviceId(event.device))
    if entry is None:
        raise RemoteProtocolError(f"{DeviceId(event.device)} is not enrolled in {log.id}")
    return entry.signing_public


def _check_genesis(event: Event, expected: EventType) -> None:
    if event.type is not expected or event.log or event.index or event.previous != NO_EVENT:
        raise RemoteProtocolError(f"a log starts with its {expected} event")


def _check_continues(event: Event, log: bytes, head: EventId, length: int) -> None:
    if event.log != log or event.index != length or event.previous != head:
        raise RemoteProtocolError("the event does not continue this log")
    if length >= limits.MAX_LOG_EVENTS:
        raise RemoteProtocolError(f"a log holds at most {limits.MAX_LOG_EVENTS} events")


def _hash(value: codec.Value, what: str) -> bytes:
    return codec.as_bytes(value, what, 32, 32)


def _key(value: codec.Value, what: str) -> bytes:
    return codec.as_bytes(value, what, _KEY_BYTES, _KEY_BYTES)


def _sealed(value: codec.Value) -> bytes:
    return codec.as_bytes(value, "sealed value", 1, _MAX_SEALED_BYTES)


def _empty_or_hash(value: codec.Value, what: str) -> bytes:
    if value == b"":
        return b""
    return _hash(value, what)
