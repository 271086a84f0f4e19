"""Identifiers: what they are made of, how they are printed, parsed and ordered.

An identifier is its bytes: it packs, hashes and sorts as `bytes` do. Its type says what it names,
so that a device id can not be passed where an item id is meant.
"""

import base64
import hashlib
from typing import ClassVar, Self

from protocol.errors import RemoteProtocolError


class Identifier(bytes):
    """Base of all identifiers; never built itself.

    Raises:
        RemoteProtocolError: the bytes have another length than the type's.
    """

    __slots__ = ()
    size_bytes: ClassVar[int]
    prefix: ClassVar[str] = ""

    def __new__(cls, value: bytes) -> Self:
        if len(value) != cls.size_bytes:
            raise RemoteProtocolError(
                f"{cls.__name__} has {len(value)} bytes instead of {cls.size_bytes}"
            )
        return super().__new__(cls, value)

    def __str__(self) -> str:
        if not self.prefix:
            return self.hex()
        return self.prefix + base64.b32encode(self).decode().rstrip("=").lower()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` printed.

        Raises:
            RemoteProtocolError: the text is not an identifier of this type.
        """
        if not text.startswith(cls.prefix):
            raise RemoteProtocolError(f"{text!r} is no {cls.__name__}: it lacks {cls.prefix!r}")
        digits = text[len(cls.prefix) :]
        try:
            if not cls.prefix:
                identifier = cls(bytes.fromhex(digits))
            else:
                padding = "=" * (-len(digits) % 8)
                identifier = cls(base64.b32decode(digits.upper() + padding))
        except ValueError as error:
            raise RemoteProtocolError(f"{text!r} is no {cls.__name__}") from error
        if str(identifier) != text:
            raise RemoteProtocolError(f"{text!r} is not the canonical form of a {cls.__name__}")
        return identifier


class AccountId(Identifier):
    """A person: the hash of the signed genesis event of the account's log."""

    __slots__ = ()
    size_bytes = 32
    prefix = "acct-"


class DeviceId(Identifier):
    """A node of an account: the hash of the device's public keys."""

    __slots__ = ()
    size_bytes = 32
    prefix = "dev-"


class NamespaceId(Identifier):
    """A tree with its own keys and members: the hash of its signed genesis event."""

    __slots__ = ()
    size_bytes = 32
    prefix = "ns-"


class RecordId(Identifier):
    """A record: the hash of its body."""

    __slots__ = ()
    size_bytes = 32
    prefix = "rec-"


class EventId(Identifier):
    """An event of an account or namespace log: the hash of its body and signature."""

    __slots__ = ()
    size_bytes = 32
    prefix = "evt-"


class BlockId(Identifier):
    """A sealed block: the SHA-256 of its frame, printed in hexadecimal."""

    __slots__ = ()
    size_bytes = 32


class ItemId(Identifier):
    """A file, folder, symlink or special file of one namespace: random, never changed."""

    __slots__ = ()
    size_bytes = 16
    prefix = "item-"


class LinkId(Identifier):
    """One name of an item (hard links have several): random."""

    __slots__ = ()
    size_bytes = 8


class ActorId(Identifier):
    """A writer of dots: the hash of a device and one of its incarnations."""

    __slots__ = ()
    size_bytes = 16


ROOT_ITEM = ItemId(bytes(ItemId.size_bytes))
"""The root folder of every namespace. It has no placement."""

INCARNATION_BYTES = 8


def actor_id(device: DeviceId, incarnation: bytes) -> ActorId:
    """The actor that writes as one incarnation of a device.

    Raises:
        RemoteProtocolError: the incarnation has not `INCARNATION_BYTES` bytes.
    """
    if len(incarnation) != INCARNATION_BYTES:
        raise RemoteProtocolError(f"an incarnation has {INCARNATION_BYTES} bytes")
    digest = hashlib.blake2b(device + incarnation, digest_size=16, person=b"atoll-actor-v1")
    return ActorId(digest.digest())


def device_id(signing_public: bytes, box_public: bytes) -> DeviceId:
    """The id of the device that holds these two 32-byte public keys (Ed25519, X25519)."""
    digest = hashlib.blake2b(signing_public + box_public, digest_size=32, person=b"atoll-device-v1")
    return DeviceId(digest.digest())
