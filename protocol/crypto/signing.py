"""Ed25519 signatures (RFC 8032), by libsodium on every side.

Owns what a signature covers: ``atoll/<type>/v1``, a zero byte, and the body as received, so that a
signature of one type is worthless as another. One library everywhere, because implementations
differ in which malformed signatures they accept, and nodes and server must agree. Called by the
logs, the records and the login.
"""

import os
from typing import Final, Self

import nacl.bindings
import nacl.exceptions

from protocol.crypto.labels import SignedType
from protocol.errors import LocalProtocolError, RemoteProtocolError

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_PREFIXES: Final = {kind: f"atoll/{kind}/v1\0".encode() for kind in SignedType}


class SigningKey:
    """A private Ed25519 key. Immutable; printing it does not show it."""

    __slots__ = ("_expanded", "public")

    public: bytes
    """The public key, 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a signing seed has {SEED_BYTES} bytes, not {len(seed)}")
        self.public, self._expanded = nacl.bindings.crypto_sign_seed_keypair(bytes(seed))

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the system's randomness."""
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a 32-byte seed.

        Raises:
            LocalProtocolError: the seed has another length.
        """
        return cls(seed)

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes from which `from_seed` makes this key again."""
        return self._expanded[:SEED_BYTES]

    def sign(self, signed_type: SignedType, body: bytes) -> bytes:
        """Sign a body as one type of statement. Deterministic.

        Returns:
            64 bytes.
        """
        signed = nacl.bindings.crypto_sign(_PREFIXES[signed_type] + body, self._expanded)
        return signed[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def verify(public: bytes, signed_type: SignedType, body: bytes, signature: bytes) -> None:
    """Accept a signature, or raise.

    Args:
        public: 32 bytes, from a verified log.
        signed_type: what the signature must say.
        body: the bytes as received.
        signature: 64 bytes.

    Raises:
        RemoteProtocolError: the signature does not belong to this key, type and body, or the
            key or the signature is malformed.
    """
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise RemoteProtocolError("a public key or signature has the wrong length")
    try:
        nacl.bindings.crypto_sign_open(signature + _PREFIXES[signed_type] + body, bytes(public))
    except nacl.exceptions.CryptoError as error:
        raise RemoteProtocolError(f"the {signed_type} signature is not valid") from error
