"""Passwords and recovery phrases become keys, at a cost that nobody may lower."""

import pytest

from protocol.crypto import password as password_module
from protocol.crypto.password import (
    Argon2Parameters,
    keys_of_stretched,
    recovery_keys,
    stretch,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

FLOOR = Argon2Parameters()


@pytest.fixture
def cheap(monkeypatch):
    """Lowers the floor, so that a test of something else than the cost costs nothing."""
    monkeypatch.setattr(password_module, "MIN_PASSES", 1)
    monkeypatch.setattr(password_module, "MIN_MEMORY_KIB", 8)
    return Argon2Parameters(passes=1, memory_kib=8)


@pytest.mark.parametrize(("passes", "memory_kib"), [(2, 262_144), (3, 262_143), (0, 0), (-1, 8)])
def test_an_offer_below_the_floor_is_refused_with_a_sentence(passes, memory_kib):
    with pytest.raises(RemoteProtocolError, match="do not log in"):
        Argon2Parameters(passes, memory_kib)


@pytest.mark.parametrize(("passes", "memory_kib"), [(65, 262_144), (3, 2**21 + 1), (2**40, 2**40)])
def test_an_offer_that_would_freeze_the_device_is_refused(passes, memory_kib):
    with pytest.raises(RemoteProtocolError, match="more than"):
        Argon2Parameters(passes, memory_kib)


def test_the_floor_is_three_passes_over_256_mebibytes():
    assert (FLOOR.passes, FLOOR.memory_kib) == (3, 256 * 1024)


def test_password_salt_and_cost_each_change_the_keys(cheap):
    keys = stretch("secret", bytes(16), cheap)
    others = [
        stretch("Secret", bytes(16), cheap),
        stretch("secret", b"\1" * 16, cheap),
        stretch("secret", bytes(16), Argon2Parameters(2, 8)),
        stretch("secret", bytes(16), Argon2Parameters(1, 16)),
    ]
    assert keys == stretch("secret", bytes(16), cheap)
    assert all(keys != other for other in others)
    assert keys.wrapping != keys.login_seed


def test_a_password_is_the_same_from_every_keyboard(cheap):
    composed = stretch("caf\u00e9 \u00fc", bytes(16), cheap)
    decomposed = stretch("cafe\u0301\u00a0u\u0308", bytes(16), cheap)
    assert composed == decomposed


@pytest.mark.parametrize("password", ["", "\udcff", "x" * 4097])
def test_what_is_no_password_is_refused(password, cheap):
    with pytest.raises(LocalProtocolError):
        stretch(password, bytes(16), cheap)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_salt_of_another_length_is_refused(length, cheap):
    with pytest.raises(RemoteProtocolError):
        stretch("secret", bytes(length), cheap)


def test_password_and_recovery_give_different_keys_from_the_same_bytes():
    stretched, recovered = keys_of_stretched(bytes(32)), recovery_keys(bytes(32))
    assert (
        len({stretched.wrapping, stretched.login_seed, recovered.wrapping, recovered.login_seed})
        == 4
    )


@pytest.mark.parametrize("length", [0, 16, 33])
def test_recovery_entropy_has_32_bytes(length):
    with pytest.raises(LocalProtocolError):
        recovery_keys(bytes(length))


def test_printing_the_keys_shows_none():
    assert repr(recovery_keys(bytes(32))) == "PasswordKeys()"
