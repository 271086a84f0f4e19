"""Burials: signed lists of deleted items of which devices and server need nothing any more.

A deletion must be remembered for as long as a device may come back that does not know it: else that
device would bring back what it deletes. After a long retention an owner's device names such items in
a burial. From then on nothing that was ever written to them has an effect, whoever wrote it and
whenever it arrives, so that their values and records may go; what a late device has of them it keeps
for its user. The layout stands in docs/formats.md. Called by nodes and server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol import codec, limits
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import ROOT_ITEM, AccountId, DeviceId, ItemId, NamespaceId

MAX_BURIAL_ITEMS: Final = 2048
"""Items of one burial; 36 KiB of ids."""

_MAX_BYTES: Final = 64 * 1024
_HASH_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Burial:
    """The body of a burial.

    Attributes:
        account, device: of the author, who must be an owner's enrolled device.
        time_us: the author's clock, in microseconds since 1970.
        items: ascending, each once, at least one; never the root.
    """

    namespace: NamespaceId
    account: AccountId
    device: DeviceId
    time_us: int
    items: tuple[ItemId, ...]

    def encode(self) -> bytes:
        """The canonical body."""
        return codec.encode(
            [
                limits.FORMAT_VERSION,
                self.namespace,
                self.account,
                self.device,
                self.time_us,
                list(self.items),
            ]
        )

    @classmethod
    def decode(cls, body: bytes) -> Burial:
        """Read a body.

        Raises:
            UnsupportedFormatError: another format version.
            RemoteProtocolError: not the body of a burial.
        """
        value = codec.decode(body, _MAX_BYTES)
        if type(value) is not list or not value:
            raise RemoteProtocolError("burial body is not a list")
        version = codec.as_int(value[0], 0, limits.MAX_COUNTER, "format version")
        if version != limits.FORMAT_VERSION:
            raise UnsupportedFormatError(f"burial of format version {version}")
        _, namespace, account, device, time_us, items = codec.as_tuple(value, "burial body", 6)
        burial = cls(
            NamespaceId(_hash(namespace, "namespace")),
            AccountId(_hash(account, "account")),
            DeviceId(_hash(device, "device")),
            codec.as_int(time_us, 0, limits.MAX_TIME_US, "burial time"),
            tuple(
                ItemId(codec.as_bytes(item, "item", ItemId.size_bytes, ItemId.size_bytes))
                for item in codec.as_list(items, "items", MAX_BURIAL_ITEMS)
            ),
        )
        burial._check()
        return burial

    def _check(self) -> None:
        if not self.items:
            raise RemoteProtocolError("burial names nothing")
        if list(self.items) != sorted(set(self.items)):
            raise RemoteProtocolError("burial names its items out of order, or one twice")
        if ROOT_ITEM in self.items:
            raise RemoteProtocolError("burial names the root")

    def sign(self, key: SigningKey) -> SignedBurial:
        """The burial with its author's signature."""
        body = self.encode()
        return SignedBurial(self, body, key.sign(SignedType.BURIAL, body))


@dataclass(frozen=True, slots=True)
class SignedBurial:
    """A burial with its signature, as it is stored and travels."""

    burial: Burial
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def to_wire(self) -> bytes:
        """Canonical ``[body, signature]``."""
        return codec.encode([self.body, self.signature])

    @classmethod
    def from_wire(cls, data: bytes) -> SignedBurial:
        """Read `to_wire`; the signature is not yet verified.

        Raises:
            UnsupportedFormatError: a body of another format version.
            RemoteProtocolError: not a signed burial.
        """
        body, signature = codec.as_tuple(codec.decode(data, _MAX_BYTES), "signed burial", 2)
        codec.as_bytes(body, "burial body", 1, _MAX_BYTES)
        codec.as_bytes(signature, "burial signature", _SIGNATURE_BYTES, _SIGNATURE_BYTES)
        return cls(Burial.decode(body), body, signature)

    def verify(self, signing_public: bytes) -> None:
        """Check the signature with the device's public key; `RemoteProtocolError` if it is not its."""
        verify(signing_public, SignedType.BURIAL, self.body, self.signature)


def _hash(value: codec.Value, what: str) -> bytes:
    return codec.as_bytes(value, what, _HASH_BYTES, _HASH_BYTES)
