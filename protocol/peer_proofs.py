"""How two peers prove to each other what they may know, before either says who it is.

The dialling side proves its LAN keys first, the listening side answers with those that it has too; every
proof covers both nonces, the versions and the certificate of the connection's listening side, so that it
is worth nothing on any other connection. Both lists are filled up with bytes that look like proofs,
and sorted: neither how many keys there are nor which they are can be told without one of them.

Pure; called by `protocol.peer_session`. The layout stands in docs/formats.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol.codec import encode
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label
from protocol.errors import LocalProtocolError
from protocol.ids import AccountId, DeviceId, NamespaceId
from protocol.limits import MAX_PEER_PROOFS

CERTIFICATE_HASH_BYTES: Final = 32

_PROOFS_AT_LEAST: Final = 8
"""Lists have 8, 16, 32 or 64 proofs: most people have fewer than eight namespaces."""


@dataclass(frozen=True, slots=True)
class LanKey:
    """The key that proves membership of a namespace since one of its epochs."""

    namespace: NamespaceId
    epoch: int
    key: bytes = field(repr=False)


def before_proof(
    certificate_hash: bytes, server_nonce: bytes, versions: Sequence[int], client_nonce: bytes
) -> bytes:
    """The transcript that the dialling side's proofs cover."""
    return _transcript(certificate_hash, server_nonce, list(versions), client_nonce)


def before_answer(former: bytes, client_proofs: Sequence[bytes], version: int) -> bytes:
    """The transcript that the listening side's proofs cover."""
    return _transcript(former, list(client_proofs), version)


def before_identity(former: bytes, server_proofs: Sequence[bytes]) -> bytes:
    """The transcript that both sides' devices sign."""
    return _transcript(former, list(server_proofs))


def identity_body(
    transcript: bytes, is_server: bool, account: AccountId, device: DeviceId, run: bytes
) -> bytes:
    """What a device signs: the transcript, and which side of it is who."""
    return encode([transcript, is_server, account, device, run])


def client_proof(key: LanKey, transcript: bytes) -> bytes:
    """What only a holder of the key can say, dialling."""
    return derive(key.key, Label.LAN_PROOF_CLIENT, transcript)


def server_proof(key: LanKey, transcript: bytes) -> bytes:
    """What only a holder of the key can say, listening."""
    return derive(key.key, Label.LAN_PROOF_SERVER, transcript)


def filled_up(proofs: Iterable[bytes], filler: bytes) -> tuple[bytes, ...]:
    """Proofs among others that look the same, ascending.

    Args:
        proofs: of 32 bytes.
        filler: 32 random bytes, used for nothing else.

    Raises:
        LocalProtocolError: there are too many.
    """
    filled = set(proofs)
    if len(filled) > MAX_PEER_PROOFS:
        raise LocalProtocolError(f"at most {MAX_PEER_PROOFS} keys can be proved at once")
    wanted = _PROOFS_AT_LEAST
    while wanted < len(filled):
        wanted *= 2
    number = 0
    while len(filled) < wanted:
        filled.add(_transcript(filler, number))
        number += 1
    return tuple(sorted(filled))


def _transcript(*parts: object) -> bytes:
    hashed = hashlib.blake2b(encode(list(parts)), digest_size=32, person=b"atoll-peer-v1")
    return hashed.digest()
