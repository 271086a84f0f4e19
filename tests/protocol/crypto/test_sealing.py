"""Sealed values, wrapped secrets and boxes open in their place only."""

from typing import Any

import nacl.bindings
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec
from protocol.crypto.contexts import epoch_to_account_context, generation_to_device_context
from protocol.crypto.labels import SealedKind
from protocol.crypto.sealing import (
    ENVELOPE_BYTES,
    BoxKey,
    open_secret,
    open_value,
    padded_length,
    seal_secret,
    seal_to,
    seal_value,
    secret_context,
    value_context,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import AccountId, ActorId, DeviceId, ItemId, NamespaceId

KEY = bytes(range(32))
BOX = BoxKey.from_private(bytes(range(1, 33)))
PURPOSE = SealedKind.EPOCH_TO_ACCOUNT
PLACE: dict[str, Any] = {
    "format_version": 1,
    "kind": SealedKind.VALUE,
    "namespace": NamespaceId(bytes(32)),
    "item": ItemId(bytes(16)),
    "register": 2,
    "epoch": 1,
    "actor": ActorId(bytes(16)),
    "n": 7,
}


@given(plaintext=st.binary(max_size=300), associated=st.binary(max_size=50))
def test_any_value_opens_again(plaintext, associated):
    assert open_value(KEY, seal_value(KEY, plaintext, associated), associated) == plaintext


@given(secret=st.binary(max_size=64), context=st.binary(max_size=50))
def test_any_secret_opens_again(secret, context):
    sealed = seal_secret(KEY, secret, context)
    assert len(sealed) == len(secret) + ENVELOPE_BYTES
    assert open_secret(KEY, sealed, context) == secret


@given(length=st.integers(0, 5000))
def test_a_values_length_shows_only_its_power_of_two(length):
    padded = len(seal_value(KEY, bytes(length), b"")) - ENVELOPE_BYTES
    assert padded in {32 << shift for shift in range(10)}
    assert length < padded
    assert padded == 32 or padded <= 2 * length
    assert padded == padded_length(length)


@given(plaintext=st.binary(max_size=100), data=st.data())
def test_any_flipped_bit_of_a_value_is_refused(plaintext, data):
    sealed = bytearray(seal_value(KEY, plaintext, b"place"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        open_value(KEY, bytes(sealed), b"place")


@given(sealed=st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_value_a_secret_and_a_box(sealed):
    with pytest.raises(RemoteProtocolError):
        open_value(KEY, sealed, b"")
    with pytest.raises(RemoteProtocolError):
        open_secret(KEY, sealed, b"")
    with pytest.raises(RemoteProtocolError):
        BOX.open(PURPOSE, b"", sealed)


def _with_zeros(text, length):
    return (text + b"\x80").ljust(length, b"\0")


@given(
    padded=st.one_of(
        st.binary(max_size=70),
        st.builds(_with_zeros, st.binary(max_size=40), st.sampled_from([31, 32, 33, 64, 96, 128])),
    )
)
def test_padding_that_the_writer_would_not_make_is_refused(padded):
    nonce = bytes(24)
    sealed = nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        padded, b"place", nonce, KEY
    )
    try:
        plaintext = open_value(KEY, sealed, b"place")
    except RemoteProtocolError:
        event("refused")
    else:
        event("accepted")
        zeros = bytes(padded_length(len(plaintext)) - len(plaintext) - 1)
        assert plaintext + b"\x80" + zeros == padded


def test_a_value_sealed_twice_looks_different():
    assert seal_value(KEY, b"same", b"") != seal_value(KEY, b"same", b"")


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("format_version", 2),
        ("kind", SealedKind.DEVICE_NAME),
        ("namespace", NamespaceId(b"\1" * 32)),
        ("item", ItemId(b"\1" * 16)),
        ("register", 1),
        ("epoch", 2),
        ("actor", ActorId(b"\1" * 16)),
        ("n", 8),
    ],
)
def test_a_value_opens_in_no_other_place(part, other):
    sealed = seal_value(KEY, b"value", value_context(**PLACE))
    assert open_value(KEY, sealed, value_context(**PLACE)) == b"value"
    with pytest.raises(RemoteProtocolError):
        open_value(KEY, sealed, value_context(**{**PLACE, part: other}))


def test_a_value_opens_with_no_other_key():
    sealed = seal_value(KEY, b"value", b"")
    with pytest.raises(RemoteProtocolError):
        open_value(bytes(32), sealed, b"")


@pytest.mark.parametrize("use", [seal_value, open_value, seal_secret, open_secret])
def test_a_key_of_another_length_is_our_mistake(use):
    with pytest.raises(LocalProtocolError):
        use(KEY[:31], bytes(100), b"")


def test_contexts_are_canonical():
    assert codec.decode(value_context(**PLACE), 200)[1] == "value"
    assert codec.decode(secret_context(PURPOSE, b"x", 5), 200) == [1, "epoch-to-account", b"x", 5]


@given(secret=st.binary(max_size=64), context=st.binary(max_size=200))
def test_a_box_opens_for_its_holder(secret, context):
    assert BOX.open(PURPOSE, context, seal_to(BOX.public, PURPOSE, context, secret)) == secret


@given(data=st.data())
def test_any_flipped_bit_of_a_box_is_refused(data):
    sealed = bytearray(seal_to(BOX.public, PURPOSE, b"place", bytes(32)))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        BOX.open(PURPOSE, b"place", bytes(sealed))


def test_a_box_opens_for_no_other_purpose_place_or_holder():
    context = epoch_to_account_context(NamespaceId(bytes(32)), 1, AccountId(bytes(32)), 1)
    sealed = seal_to(BOX.public, PURPOSE, context, bytes(32))
    with pytest.raises(RemoteProtocolError, match="not made as"):
        BOX.open(SealedKind.LAN_TO_ACCOUNT, context, sealed)
    elsewhere = epoch_to_account_context(NamespaceId(bytes(32)), 2, AccountId(bytes(32)), 1)
    with pytest.raises(RemoteProtocolError, match="not made as"):
        BOX.open(PURPOSE, elsewhere, sealed)
    with pytest.raises(RemoteProtocolError, match="does not open"):
        BoxKey.generate().open(PURPOSE, context, sealed)


@given(
    inside=st.one_of(
        st.binary(max_size=80),
        st.builds(
            codec.encode, st.lists(st.one_of(st.none(), st.just("epoch-to-account"), st.just(b"x")))
        ),
    )
)
def test_any_inside_of_a_box_gives_bytes_or_a_remote_error(inside):
    sealed = nacl.bindings.crypto_box_seal(inside, BOX.public)
    try:
        secret = BOX.open(PURPOSE, b"x", sealed)
    except RemoteProtocolError:
        event("refused")
    else:
        event("opened")
        assert codec.encode(["epoch-to-account", b"x", secret]) == inside


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes(31), b""])
def test_nothing_is_sealed_for_a_malformed_public_key(public):
    with pytest.raises(RemoteProtocolError):
        seal_to(public, PURPOSE, b"", bytes(32))


def test_a_box_has_a_bound():
    with pytest.raises(LocalProtocolError):
        seal_to(BOX.public, PURPOSE, bytes(1000), bytes(32))


def test_a_real_box_fits_its_bound_with_room():
    context = generation_to_device_context(AccountId(b"\xff" * 32), 2**63 - 1, DeviceId(bytes(32)))
    sealed = seal_to(BOX.public, SealedKind.GENERATION_TO_DEVICE, context, bytes(32))
    assert len(sealed) < 300


def test_private_bytes_make_the_same_box_key_again():
    generated = BoxKey.generate()
    assert BoxKey.from_private(generated.private).public == generated.public
    assert generated.private.hex() not in repr(generated)
    with pytest.raises(LocalProtocolError):
        BoxKey.from_private(bytes(31))
