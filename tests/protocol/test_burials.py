import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.burials import MAX_BURIAL_ITEMS, Burial, SignedBurial
from protocol.crypto.signing import SigningKey
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import ROOT_ITEM, AccountId, DeviceId, ItemId, NamespaceId
from tests.protocol.test_vectors import VECTORS, canonical, plain

KEY = SigningKey.from_seed(bytes(range(32)))
ITEMS = tuple(ItemId(bytes([number]) * 16) for number in range(1, 5))
BURIAL = Burial(
    NamespaceId(b"n" * 32), AccountId(b"a" * 32), DeviceId(b"d" * 32), 1_780_000_000_000_000, ITEMS
)
BURIALS = json.loads((Path(VECTORS) / "burials.json").read_text())["burials"]


@pytest.mark.parametrize("vector", BURIALS)
def test_the_vectors(vector):
    value = plain(vector["value"])
    body = bytes.fromhex(vector["body"])
    assert canonical(value) == body
    burial = Burial.decode(body)
    signed = burial.sign(SigningKey.from_seed(bytes.fromhex(vector["seed"])))
    assert (signed.body, signed.signature.hex()) == (body, vector["signature"])


@given(st.sets(st.binary(min_size=16, max_size=16), min_size=1, max_size=20))
def test_what_was_signed_is_read_again(items):
    items.discard(bytes(ROOT_ITEM))
    burial = replace(BURIAL, items=tuple(sorted(map(ItemId, items or {b"i" * 16}))))
    signed = SignedBurial.from_wire(burial.sign(KEY).to_wire())
    signed.verify(KEY.public)
    assert signed.burial == burial


def test_the_largest_is_read():
    items = tuple(ItemId(number.to_bytes(16, "big")) for number in range(1, MAX_BURIAL_ITEMS + 1))
    wire = replace(BURIAL, items=items).sign(KEY).to_wire()
    assert SignedBurial.from_wire(wire).burial.items == items


@pytest.mark.parametrize(
    "items",
    [
        (),
        (ITEMS[1], ITEMS[0]),
        (ITEMS[0], ITEMS[0]),
        (ROOT_ITEM,),
        tuple(ItemId(number.to_bytes(16, "big")) for number in range(1, MAX_BURIAL_ITEMS + 2)),
    ],
)
def test_lists_that_nobody_may_sign(items):
    body = replace(BURIAL, items=items).encode()
    with pytest.raises(RemoteProtocolError):
        Burial.decode(body)


@pytest.mark.parametrize(
    "body", [b"", b"\xc0", b"\x90", codec.encode([1, b"n"]), BURIAL.encode()[:-1]]
)
def test_what_is_no_burial(body):
    with pytest.raises(RemoteProtocolError):
        SignedBurial.from_wire(codec.encode([body, bytes(64)]))


def test_another_version_is_told_from_rubbish():
    fields = codec.decode(BURIAL.encode(), 1 << 16)
    with pytest.raises(UnsupportedFormatError):
        Burial.decode(codec.encode([2, *fields[1:]]))


def test_a_change_breaks_the_signature():
    signed = BURIAL.sign(KEY)
    other = SignedBurial.from_wire(
        codec.encode([replace(BURIAL, time_us=1).encode(), signed.signature])
    )
    with pytest.raises(RemoteProtocolError):
        other.verify(KEY.public)
