"""AES-256-GCM over one segment of bytes: the seal of what stays on one machine.

Owns the calls into the cipher. Refuses to choose keys and nonces: whoever seals keeps a key for one
use and never gives it the same nonce twice. Called by ``node.storage`` for staging; the frames of
blocks have their own module, `protocol.crypto.blocks`.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.crypto.keys import KEY_BYTES
from protocol.errors import LocalProtocolError, RemoteProtocolError

NONCE_BYTES: Final = 12
"""What NIST SP 800-38D, section 8.2 takes without hashing. Drawn at random it serves 2^32 seals."""

TAG_BYTES: Final = 16
"""How much longer the sealed bytes are than the plain ones."""

Buffer = bytes | bytearray | memoryview


def seal_segment(key: bytes, nonce: bytes, plaintext: Buffer, associated: Buffer) -> bytes:
    """The ciphertext, followed by the tag that covers it and the associated data.

    Raises:
        LocalProtocolError: the key or the nonce has the wrong length.
    """
    _check_lengths(key, nonce)
    return AESGCM(key).encrypt(nonce, plaintext, associated)


def open_segment(key: bytes, nonce: bytes, sealed: Buffer, associated: Buffer) -> bytes:
    """What was sealed with the same key, nonce and associated data.

    Raises:
        LocalProtocolError: the key or the nonce has the wrong length.
        RemoteProtocolError: the bytes are not what was sealed.
    """
    _check_lengths(key, nonce)
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag as error:
        raise RemoteProtocolError("a sealed segment does not verify") from error


def _check_lengths(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise LocalProtocolError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    if len(nonce) != NONCE_BYTES:
        raise LocalProtocolError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
