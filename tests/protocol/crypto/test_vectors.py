"""The examples under tests/vectors, recomputed. They never change: a new format adds new ones."""

import hashlib
import json
from pathlib import Path

import nacl.bindings
import pytest

from protocol.crypto.blocks import (
    BlockKind,
    block_id,
    open_block,
    padme,
    parse_header,
    read_range,
    seal_block,
)
from protocol.crypto.keys import EpochKeys, commitment, derive
from protocol.crypto.labels import SealedKind, SignedType
from protocol.crypto.password import Argon2Parameters, recovery_keys, stretch
from protocol.crypto.sealing import (
    BoxKey,
    open_secret,
    open_value,
    secret_context,
    value_context,
)
from protocol.crypto.signing import SigningKey, verify
from protocol.ids import ActorId, BlockId, ItemId, NamespaceId
from tests.protocol.crypto.frames import reference_open, reference_seal

VECTORS = Path(__file__).parents[2] / "vectors"
CRYPTO = json.loads((VECTORS / "crypto.json").read_text())
BLOCKS = json.loads((VECTORS / "blocks.json").read_text())

unhex = bytes.fromhex


def expand(content):
    """Content as the vectors describe it: in hexadecimal, repeated, or from SHAKE-256."""
    match content:
        case {"hex": digits}:
            return unhex(digits)
        case {"repeat": digits, "count": count}:
            return unhex(digits) * count
        case {"shake256": text, "length": length}:
            return hashlib.shake_256(text.encode()).digest(length)
        case _:
            raise AssertionError(content)


@pytest.mark.parametrize("vector", CRYPTO["derive"])
def test_derived_keys(vector):
    context = None if vector["context"] is None else unhex(vector["context"])
    assert derive(unhex(vector["key"]), vector["label"], context).hex() == vector["derived"]


@pytest.mark.parametrize("vector", CRYPTO["epoch"])
def test_epoch_keys(vector):
    namespace, secret = NamespaceId(unhex(vector["namespace"])), unhex(vector["secret"])
    keys = EpochKeys.from_secret(namespace, vector["number"], secret)
    for name in ("values", "names", "dedup", "chunker", "lan"):
        assert getattr(keys, name).hex() == vector[name]
    assert commitment(namespace, vector["number"], secret).hex() == vector["commitment"]


@pytest.mark.parametrize("vector", CRYPTO["signature"])
def test_signatures(vector):
    key, body = SigningKey.from_seed(unhex(vector["seed"])), unhex(vector["body"])
    signed_type = SignedType(vector["type"])
    assert key.public.hex() == vector["public"]
    assert key.sign(signed_type, body).hex() == vector["signature"]
    verify(key.public, signed_type, body, unhex(vector["signature"]))


def test_every_signed_type_has_a_vector():
    assert {vector["type"] for vector in CRYPTO["signature"]} == set(SignedType)


@pytest.mark.parametrize("vector", CRYPTO["sealed_value"])
def test_sealed_values(vector):
    place = vector["place"]
    associated = value_context(
        place["format_version"],
        SealedKind.VALUE,
        NamespaceId(unhex(place["namespace"])),
        ItemId(unhex(place["item"])),
        place["register"],
        place["epoch"],
        ActorId(unhex(place["actor"])),
        place["n"],
    )
    assert associated.hex() == vector["associated"]
    key, sealed = unhex(vector["key"]), unhex(vector["sealed"])
    assert open_value(key, sealed, associated).hex() == vector["plaintext"]
    assert _sealed_again(key, sealed, unhex(vector["padded"]), associated) == sealed


@pytest.mark.parametrize("vector", CRYPTO["sealed_secret"])
def test_sealed_secrets(vector):
    parts = [unhex(part) if isinstance(part, str) else part for part in vector["parts"]]
    context = secret_context(SealedKind(vector["kind"]), *parts)
    assert context.hex() == vector["context"]
    key, sealed = unhex(vector["key"]), unhex(vector["sealed"])
    secret = open_secret(key, sealed, context)
    assert secret.hex() == vector["secret"]
    assert _sealed_again(key, sealed, secret, context) == sealed


def _sealed_again(key, sealed, message, associated):
    """With the vector's nonce, which the product would draw at random."""
    nonce = sealed[:24]
    return nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        message, associated, nonce, key
    )


@pytest.mark.parametrize("vector", CRYPTO["box"])
def test_boxes(vector):
    key = BoxKey.from_private(unhex(vector["private"]))
    assert key.public.hex() == vector["public"]
    parts = [unhex(part) if isinstance(part, str) else part for part in vector["parts"]]
    kind = SealedKind(vector["kind"])
    context = secret_context(kind, *parts)
    assert context.hex() == vector["context"]
    assert key.open(kind, context, unhex(vector["sealed"])).hex() == vector["secret"]


@pytest.mark.parametrize("vector", CRYPTO["password"])
def test_passwords(vector):
    parameters = Argon2Parameters(vector["passes"], vector["memory_kib"])
    keys = stretch(vector["password"], unhex(vector["salt"]), parameters)
    assert keys.wrapping.hex() == vector["wrapping"]
    assert keys.login_seed.hex() == vector["login_seed"]


@pytest.mark.parametrize("vector", CRYPTO["recovery"])
def test_recovery(vector):
    keys = recovery_keys(unhex(vector["entropy"]))
    assert keys.wrapping.hex() == vector["wrapping"]
    assert keys.login_seed.hex() == vector["login_seed"]


@pytest.mark.parametrize("vector", BLOCKS["padme"])
def test_padded_lengths(vector):
    assert padme(vector["length"]) == vector["padded"]


def _frame(vector):
    """The frame of a vector that is given in full, or by a writer that compressed nothing."""
    if "frame" in vector:
        return unhex(vector["frame"])
    children = [BlockId(unhex(child)) for child in vector["children"]]
    plain = expand(vector["plain"])
    return seal_block(
        unhex(vector["dedup_key"]), plain, BlockKind[vector["kind"].upper()], children
    ).frame


@pytest.mark.parametrize("vector", BLOCKS["blocks"], ids=lambda v: v["name"])
def test_blocks_open(vector):
    plain, frame, key = expand(vector["plain"]), _frame(vector), unhex(vector["key"])
    assert str(block_id(frame)) == vector["id"]
    assert parse_header(frame).encoded.hex() == vector["header"]
    assert open_block(frame, key, len(plain), BlockId(unhex(vector["id"]))) == plain
    assert read_range(frame, key, len(plain), 3, 70_000) == plain[3:70_003]


@pytest.mark.parametrize("vector", BLOCKS["blocks"], ids=lambda v: v["name"])
def test_blocks_seal(vector):
    """From the payloads on: another zstd may compress differently, and that is no other format."""
    frame, key = _frame(vector), unhex(vector["key"])
    _, payloads = reference_open(frame, key)
    children = [unhex(child) for child in vector["children"]]
    kind = BlockKind[vector["kind"].upper()]
    assert reference_seal(unhex(vector["dedup_key"]), payloads, kind, children) == (frame, key)
    shapes = [[len(payload), compressed] for payload, compressed in payloads]
    assert shapes == vector["segments"]
