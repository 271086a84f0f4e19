"""Derivation and the keys of an epoch."""

import pytest

from protocol.crypto.keys import EpochKeys, check_commitment, commitment, derive
from protocol.crypto.labels import Label
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import NamespaceId

NAMESPACE = NamespaceId(bytes(range(32)))
SECRET = bytes(range(32, 64))


def test_every_label_gives_another_key():
    assert len({derive(SECRET, label) for label in Label}) == len(Label)


def test_every_context_gives_another_key():
    contexts = [None, b"", b"\0", b"a", b"ab"]
    assert len({derive(SECRET, Label.EPOCH_LAN, context) for context in contexts}) == 5


def test_a_label_can_not_run_into_its_context():
    assert derive(SECRET, "ab", b"c") != derive(SECRET, "a", b"bc")


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_derives_nothing(length):
    with pytest.raises(LocalProtocolError):
        derive(bytes(length), Label.EPOCH_LAN)


def test_the_keys_of_an_epoch_all_differ():
    keys = EpochKeys.from_secret(NAMESPACE, 1, SECRET)
    assert len({keys.values, keys.names, keys.dedup, keys.chunker, keys.lan, SECRET}) == 6


def test_the_keys_of_an_epoch_depend_on_namespace_and_number():
    keys = EpochKeys.from_secret(NAMESPACE, 1, SECRET)
    assert keys.values != EpochKeys.from_secret(NAMESPACE, 2, SECRET).values
    assert keys.values != EpochKeys.from_secret(NamespaceId(bytes(32)), 1, SECRET).values


def test_printing_epoch_keys_shows_no_key():
    keys = EpochKeys.from_secret(NAMESPACE, 1, SECRET)
    assert keys.values.hex() not in repr(keys)
    assert repr(keys.values) not in repr(keys)


def test_the_secret_that_was_committed_to_is_accepted():
    check_commitment(NAMESPACE, 3, SECRET, commitment(NAMESPACE, 3, SECRET))


@pytest.mark.parametrize(
    ("namespace", "number", "secret"),
    [
        (NAMESPACE, 3, bytes(32)),
        (NAMESPACE, 4, SECRET),
        (NamespaceId(bytes(32)), 3, SECRET),
        (NAMESPACE, 3, SECRET[:31]),
    ],
)
def test_any_other_secret_is_refused(namespace, number, secret):
    expected = commitment(NAMESPACE, 3, SECRET)
    with pytest.raises(RemoteProtocolError):
        check_commitment(namespace, number, secret, expected)
