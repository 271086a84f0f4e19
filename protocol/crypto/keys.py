"""Derivation of keys from keys, and the keys of an epoch.

Owns the one derivation function and what an epoch's secret turns into. Knows nothing of how
secrets are stored, wrapped or agreed on: see `protocol.crypto.sealing` and `protocol.logs`. Called
by whatever holds a secret.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Self

from protocol.codec import encode
from protocol.crypto.labels import Label
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import NamespaceId

KEY_BYTES: Final = 32
"""Every symmetric key, secret, seed and commitment."""

_PERSON: Final = b"atoll-kdf-v1"


def derive(key: bytes, label: str, context: bytes | None = b"") -> bytes:
    """The sub-key of a key for one purpose.

    ``BLAKE2b-256(key, person='atoll-kdf-v1', canonical([label, context]))``; BLAKE2b's key and
    personalisation are those of RFC 7693 and of its parameter block.

    Args:
        key: 32 secret bytes.
        label: what the sub-key is for; in the product a `Label`.
        context: what sets this sub-key apart from others with the same label.

    Returns:
        32 bytes.

    Raises:
        LocalProtocolError: the key has not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise LocalProtocolError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    message = encode([str(label), context])
    return hashlib.blake2b(message, digest_size=KEY_BYTES, key=key, person=_PERSON).digest()


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """The sub-keys of one epoch of one namespace, 32 bytes each; printing it shows none."""

    namespace: NamespaceId
    number: int
    values: bytes = field(repr=False)
    names: bytes = field(repr=False)
    dedup: bytes = field(repr=False)
    chunker: bytes = field(repr=False)
    lan: bytes = field(repr=False)

    @classmethod
    def from_secret(cls, namespace: NamespaceId, number: int, secret: bytes) -> Self:
        """The sub-keys that an epoch's 32-byte secret yields.

        Raises:
            LocalProtocolError: the secret has not 32 bytes.
        """
        context = _epoch_context(namespace, number)
        return cls(
            namespace=namespace,
            number=number,
            values=derive(secret, Label.EPOCH_VALUES, context),
            names=derive(secret, Label.EPOCH_NAMES, context),
            dedup=derive(secret, Label.EPOCH_DEDUP, context),
            chunker=derive(secret, Label.EPOCH_CHUNKER, context),
            lan=derive(secret, Label.EPOCH_LAN, context),
        )


def commitment(namespace: NamespaceId, number: int, secret: bytes) -> bytes:
    """What an epoch event says about the secret without revealing it (32 bytes).

    BLAKE2b is collision resistant in its key as well, so no second secret fits.

    Raises:
        LocalProtocolError: the secret has not 32 bytes.
    """
    return derive(secret, Label.EPOCH_COMMITMENT, _epoch_context(namespace, number))


def check_commitment(namespace: NamespaceId, number: int, secret: bytes, expected: bytes) -> None:
    """Accept an unwrapped secret only if the namespace log committed to it.

    Raises:
        RemoteProtocolError: the secret has not 32 bytes or is another than committed to.
    """
    if len(secret) != KEY_BYTES:
        raise RemoteProtocolError(f"an epoch secret has {KEY_BYTES} bytes, not {len(secret)}")
    if not hmac.compare_digest(commitment(namespace, number, secret), expected):
        raise RemoteProtocolError("the epoch secret is not the one that the log committed to")


def _epoch_context(namespace: NamespaceId, number: int) -> bytes:
    return encode([bytes(namespace), number])
