"""The proofs of LAN keys against the examples, made by a second implementation."""

import hashlib
import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from protocol.ids import AccountId, DeviceId, NamespaceId
from protocol.peer_proofs import (
    LanKey,
    before_answer,
    before_identity,
    before_proof,
    client_proof,
    filled_up,
    identity_body,
    server_proof,
)

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/peers.json").read_text())["handshake"]


def canonical(value):
    return msgpack.packb(value, use_bin_type=True)


def hashed(parts):
    return hashlib.blake2b(canonical(parts), digest_size=32, person=b"atoll-peer-v1").digest()


def mac(key, label, transcript):
    return hashlib.blake2b(
        canonical([label, transcript]), key=key, digest_size=32, person=b"atoll-kdf-v1"
    ).digest()


def test_the_example_is_what_the_page_says():
    unhex = {name: bytes.fromhex(text) for name, text in VECTOR.items()}
    key = LanKey(NamespaceId(bytes(32)), 1, unhex["lan_key"])
    first = before_proof(unhex["certificate"], unhex["server_nonce"], (1,), unhex["client_nonce"])
    assert first == unhex["before_proof"]
    assert first == hashed(
        [unhex["certificate"], unhex["server_nonce"], [1], unhex["client_nonce"]]
    )
    proof = client_proof(key, first)
    assert proof == unhex["client_proof"] == mac(key.key, "lan-proof-client", first)
    second = before_answer(first, (proof,), 1)
    assert second == unhex["before_answer"] == hashed([first, [proof], 1])
    answer = server_proof(key, second)
    assert answer == unhex["server_proof"] == mac(key.key, "lan-proof-server", second)
    third = before_identity(second, (answer,))
    assert third == unhex["before_identity"] == hashed([second, [answer]])
    body = identity_body(third, True, AccountId(b"a" * 32), DeviceId(b"d" * 32), b"r" * 16)
    assert body == unhex["identity_body"]
    assert body == canonical([third, True, b"a" * 32, b"d" * 32, b"r" * 16])


@given(st.integers(0, 64))
def test_lists_are_filled_up_to_few_lengths_and_sorted(count):
    proofs = [bytes([number]) * 32 for number in range(count)]
    filled = filled_up(proofs, b"f" * 32)
    assert set(proofs) <= set(filled)
    assert list(filled) == sorted(filled)
    assert len(filled) in (8, 16, 32, 64)


def test_more_keys_than_fit_are_a_mistake_here():
    with pytest.raises(LocalProtocolError):
        filled_up([bytes([number]) * 32 for number in range(65)], b"f" * 32)
