"""Nonces that prove themselves: nothing is stored for one until somebody logs in with it.

Owns the layout of the 32 bytes: expiry (8, big endian, seconds since 1970), randomness (8), and a
MAC (16) over both and over whom it was made for, keyed by the server's secret. So anyone may ask for
any number of them at no cost, every process of a server knows them, and a nonce for one email or
device serves no other. That each serves once is the store's to remember. Called by `sessions`.
"""

import hashlib
import hmac
from typing import Final

RANDOM_BYTES: Final = 8
_EXPIRY_BYTES: Final = 8
_MAC_BYTES: Final = 16


def make_nonce(secret: bytes, subject: bytes, expires_s: int, random: bytes) -> bytes:
    """A nonce of 32 bytes.

    Args:
        secret: the server's, 32 bytes.
        subject: whom it is for.
        expires_s: when it ends.
        random: `RANDOM_BYTES` unpredictable bytes.
    """
    head = expires_s.to_bytes(_EXPIRY_BYTES, "big") + random
    return head + _mac(secret, subject, head)


def is_valid_nonce(secret: bytes, subject: bytes, nonce: bytes, now_s: int) -> bool:
    """Whether `make_nonce` made it for that subject and it has not expired."""
    head, mac = nonce[:-_MAC_BYTES], nonce[-_MAC_BYTES:]
    return hmac.compare_digest(mac, _mac(secret, subject, head)) and expiry_s(nonce) > now_s


def expiry_s(nonce: bytes) -> int:
    """When the nonce ends; meaningless before `is_valid_nonce`."""
    return int.from_bytes(nonce[:_EXPIRY_BYTES], "big")


def _mac(secret: bytes, subject: bytes, head: bytes) -> bytes:
    digest = hashlib.blake2b(
        head + subject, digest_size=_MAC_BYTES, key=secret, person=b"atoll-srvnonce-1"
    )
    return digest.digest()
