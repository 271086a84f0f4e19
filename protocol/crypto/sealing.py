"""Values and secrets sealed for one place: under a key, or for the holder of a public key.

Owns two envelopes. Under a symmetric key: XChaCha20-Poly1305 with a random nonce in front; values
are padded besides, so that their lengths tell little. For a public key: libsodium's sealed box
(X25519) around ``canonical([purpose, context, secret])``; it does not say who made it, the signature
of the log event that carries it does. Knows nothing of which key to use when. Bulk content is
sealed in `protocol.crypto.blocks`. Called by whatever writes or reads records, device names and
wrapped keys.
"""

import os
from collections.abc import Callable
from typing import Final, Self

import nacl.bindings
import nacl.exceptions

from protocol import codec
from protocol.crypto.keys import KEY_BYTES
from protocol.crypto.labels import SealedKind
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import ActorId, ItemId, NamespaceId
from protocol.limits import FORMAT_VERSION

NONCE_BYTES: Final = 24
"""Long enough to be drawn at random for every value of a key's life."""

TAG_BYTES: Final = 16

ENVELOPE_BYTES: Final = NONCE_BYTES + TAG_BYTES
"""What sealing adds to the padded plaintext."""

MIN_PADDED_BYTES: Final = 32
"""Smallest padded value: most attributes and short names look alike."""

BOX_KEY_BYTES: Final = 32
"""A private or a public X25519 key."""

BOX_OVERHEAD_BYTES: Final = 48
"""An ephemeral public key and a tag: what sealing adds to the inside."""

MAX_BOX_BYTES: Final = 1024
"""A sealed box; one with a 32-byte secret and a context of three hashes has some 230."""

_PAD_MARK: Final = b"\x80"


def value_context(
    format_version: int,
    kind: SealedKind,
    namespace: NamespaceId,
    item: ItemId,
    register: int,
    epoch: int,
    actor: ActorId,
    n: int,
) -> bytes:
    """The associated data of a register's value: it opens in this place and nowhere else.

    Args:
        format_version: of the record that carries the value.
        kind: `SealedKind.VALUE`.
        namespace: of the record.
        item: to which the register belongs.
        register: number of the register.
        epoch: whose values key seals it.
        actor: with ``n``, the dot of the write.
        n: the dot's count.
    """
    return codec.encode([format_version, str(kind), namespace, item, register, epoch, actor, n])


def secret_context(kind: SealedKind, *parts: bytes | int) -> bytes:
    """The context of a wrapped secret or a device name: what it is and whose.

    Args:
        kind: what is sealed.
        parts: ids and numbers that single out the one place it belongs to.
    """
    return codec.encode([FORMAT_VERSION, str(kind), *parts])


def padded_length(length: int) -> int:
    """Bytes to which `seal_value` pads: the power of two, from 32 on, above ``length``."""
    return max(MIN_PADDED_BYTES, 1 << length.bit_length())


def seal_value(
    key: bytes,
    plaintext: bytes,
    associated: bytes,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Seal a value under a fresh nonce, its length hidden.

    The plaintext is padded as in ISO/IEC 7816-4 (0x80, then zeros) to 32, 64, 128 ... bytes.

    Args:
        key: 32 bytes.
        plaintext: the value.
        associated: from `value_context` or `secret_context`; needed again to open.
        token_bytes: gives the nonce, which must never repeat; a simulation gives its own.

    Raises:
        LocalProtocolError: the key has another length.
    """
    padding = bytes(padded_length(len(plaintext)) - len(plaintext) - 1)
    return _seal(key, plaintext + _PAD_MARK + padding, associated, token_bytes)


def open_value(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Open what `seal_value` sealed.

    Raises:
        RemoteProtocolError: another key or place, changed bytes, or padding that `seal_value`
            would not have made.
        LocalProtocolError: the key has another length.
    """
    padded = _open(key, sealed, associated)
    length = padded.rfind(_PAD_MARK)
    if length < 0 or len(padded) != padded_length(length) or any(padded[length + 1 :]):
        raise RemoteProtocolError("a sealed value is not padded as it must be")
    return padded[:length]


def seal_secret(key: bytes, secret: bytes, context: bytes) -> bytes:
    """Wrap a secret, whose length everybody knows, with a key; no padding.

    Args:
        key: 32 bytes.
        secret: usually 32 bytes.
        context: from `secret_context`; needed again to open.

    Raises:
        LocalProtocolError: the key has another length.
    """
    return _seal(key, secret, context)


def open_secret(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what `seal_secret` wrapped.

    Raises:
        RemoteProtocolError: another key (such as a wrong password's) or place, or changed bytes.
        LocalProtocolError: the key has another length.
    """
    return _open(key, sealed, context)


class BoxKey:
    """A private X25519 key. Immutable; printing it does not show it."""

    __slots__ = ("_private", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, private: bytes) -> None:
        if len(private) != BOX_KEY_BYTES:
            raise LocalProtocolError(f"a box key has {BOX_KEY_BYTES} bytes, not {len(private)}")
        self._private = bytes(private)
        self.public = nacl.bindings.crypto_scalarmult_base(self._private)

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the system's randomness."""
        return cls(os.urandom(BOX_KEY_BYTES))

    @classmethod
    def from_private(cls, private: bytes) -> Self:
        """The key of 32 private bytes.

        Raises:
            LocalProtocolError: they have another length.
        """
        return cls(private)

    @property
    def private(self) -> bytes:
        """The 32 secret bytes from which `from_private` makes this key again."""
        return self._private

    def open(self, purpose: SealedKind, context: bytes, sealed: bytes) -> bytes:
        """Open a box that `seal_to` made for this key, this purpose and this context.

        Raises:
            RemoteProtocolError: it was made for another key, purpose or context, or was changed.
        """
        if not BOX_OVERHEAD_BYTES <= len(sealed) <= MAX_BOX_BYTES:
            raise RemoteProtocolError(f"a sealed box does not have {len(sealed)} bytes")
        try:
            inside = nacl.bindings.crypto_box_seal_open(bytes(sealed), self.public, self._private)
        except nacl.exceptions.CryptoError as error:
            raise RemoteProtocolError("a sealed box does not open with this key") from error
        values = codec.as_tuple(codec.decode(inside, MAX_BOX_BYTES), "inside of a box", 3)
        if values[:2] != [str(purpose), context]:
            raise RemoteProtocolError(f"a sealed box was not made as {purpose} for this place")
        return codec.as_bytes(values[2], "secret in a box", 0, MAX_BOX_BYTES)

    def __repr__(self) -> str:
        return f"BoxKey(public={self.public.hex()})"


def seal_to(public: bytes, purpose: SealedKind, context: bytes, secret: bytes) -> bytes:
    """Seal a secret so that only the holder of a public key opens it.

    Args:
        public: 32 bytes, from a verified log.
        purpose: what the secret is.
        context: canonical, such as `secret_context` gives.
        secret: usually 32 bytes.

    Raises:
        RemoteProtocolError: the public key is malformed (such as a point of low order).
        LocalProtocolError: secret and context are too long for a box.
    """
    inside = codec.encode([str(purpose), context, secret])
    if len(inside) + BOX_OVERHEAD_BYTES > MAX_BOX_BYTES:
        raise LocalProtocolError(f"{len(inside)} bytes are too many for a sealed box")
    if len(public) != BOX_KEY_BYTES:
        raise RemoteProtocolError(f"a box key has {BOX_KEY_BYTES} bytes, not {len(public)}")
    try:
        return nacl.bindings.crypto_box_seal(inside, bytes(public))
    except nacl.exceptions.CryptoError as error:
        raise RemoteProtocolError("nothing can be sealed for this public key") from error


def _seal(
    key: bytes,
    message: bytes,
    associated: bytes,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    _check_key(key)
    nonce = token_bytes(NONCE_BYTES)
    return nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        message, associated, nonce, key
    )


def _open(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    _check_key(key)
    if len(sealed) < ENVELOPE_BYTES:
        raise RemoteProtocolError(f"{len(sealed)} bytes are too few for a sealed value")
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed[NONCE_BYTES:], associated, sealed[:NONCE_BYTES], key
        )
    except nacl.exceptions.CryptoError as error:
        raise RemoteProtocolError("a sealed value does not open with this key and place") from error


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise LocalProtocolError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
