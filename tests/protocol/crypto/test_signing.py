"""Signatures say who, what type, and which bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import LocalProtocolError, RemoteProtocolError

KEY = SigningKey.from_seed(bytes(range(32)))


@given(body=st.binary(max_size=200), signed_type=st.sampled_from(SignedType))
def test_any_body_verifies_as_its_type_only(body, signed_type):
    signature = KEY.sign(signed_type, body)
    verify(KEY.public, signed_type, body, signature)
    for other in set(SignedType) - {signed_type}:
        with pytest.raises(RemoteProtocolError):
            verify(KEY.public, other, body, signature)


@given(body=st.binary(min_size=1, max_size=100), data=st.data())
def test_any_flipped_bit_is_refused(body, data):
    signature = KEY.sign(SignedType.RECORD, body)
    whole = bytearray(KEY.public + signature + body)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        verify(bytes(whole[:32]), SignedType.RECORD, bytes(whole[96:]), bytes(whole[32:96]))


@given(public=st.binary(max_size=40), signature=st.binary(max_size=70), body=st.binary(max_size=9))
def test_any_bytes_are_refused_as_a_signature(public, signature, body):
    with pytest.raises(RemoteProtocolError):
        verify(public, SignedType.LOGIN, body, signature)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_key_of_low_order_verifies_nothing(public):
    for signature in (bytes(64), public + bytes(32)):
        with pytest.raises(RemoteProtocolError):
            verify(public, SignedType.LOGIN, b"body", signature)


def test_a_seed_makes_the_same_key_again():
    generated = SigningKey.generate()
    again = SigningKey.from_seed(generated.seed)
    assert again.public == generated.public
    assert again.sign(SignedType.RECORD, b"x") == generated.sign(SignedType.RECORD, b"x")
    assert SigningKey.generate().seed != generated.seed


def test_a_seed_of_another_length_is_refused():
    with pytest.raises(LocalProtocolError):
        SigningKey.from_seed(bytes(31))


def test_printing_a_key_shows_only_its_public_half():
    assert KEY.seed.hex() not in repr(KEY)
    assert KEY.public.hex() in repr(KEY)
