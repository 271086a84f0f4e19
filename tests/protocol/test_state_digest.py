"""Digests of a state: what they tell apart, and that they follow every change."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol.ids import ActorId, ItemId, RecordId
from protocol.lattice import RegisterState
from protocol.records import Register
from protocol.state_digest import DIGEST_BYTES, LiveWrite, StateDigest
from protocol.version_vector import Dot
from tests.protocol.state_model import Device, ModelRecord

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/state.json").read_text())

PLACES = [
    (ItemId(bytes([first, second]) + bytes(14)), register)
    for first in (0, 7)
    for second in (0, 1)
    for register in Register
]

writes = st.builds(
    LiveWrite,
    st.binary(min_size=16, max_size=16).map(ItemId),
    st.sampled_from(Register),
    st.builds(Dot, st.just(ActorId(bytes(16))), st.integers(1, 2**63 - 1)),
    st.binary(min_size=32, max_size=32).map(RecordId),
)


def test_the_documented_examples():
    digest = StateDigest()
    for known in VECTORS["writes"]:
        write = LiveWrite(
            ItemId(bytes.fromhex(known["item"])),
            Register(known["register"]),
            Dot(ActorId(bytes.fromhex(known["actor"])), known["n"]),
            RecordId(bytes.fromhex(known["record"])),
        )
        assert write.element().to_bytes(DIGEST_BYTES, "big").hex() == known["element"]
        digest.add(write)
    for prefix, expected in VECTORS["digests"].items():
        assert digest.digest(bytes.fromhex(prefix)).hex() == expected


@given(st.lists(writes, unique=True), st.data())
def test_it_depends_on_what_is_in_and_not_on_how_it_came_there(known, data):
    kept = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    digest = StateDigest(data.draw(st.permutations(known)))
    for write in known:
        if write not in kept:
            digest.remove(write)
    expected = StateDigest(kept)
    assert digest.digest() == expected.digest()
    assert digest.count() == len(kept)
    for prefix in {b"", *(write.item[:length] for write in known for length in (1, 2))}:
        assert digest.children(prefix[:1]) == expected.children(prefix[:1])
        assert digest.count(prefix) == expected.count(prefix)


@given(st.sets(writes, max_size=8), st.sets(writes, max_size=8))
def test_other_sets_have_other_digests(one, two):
    assert (StateDigest(one).digest() == StateDigest(two).digest()) is (one == two)


@pytest.mark.parametrize("changed", ["register", "dot", "record"])
def test_every_part_of_a_write_counts(changed):
    write = LiveWrite(
        ItemId(bytes(16)), Register.CONTENT, Dot(ActorId(bytes(16)), 1), RecordId(bytes(32))
    )
    other = {
        "register": Register.PLACEMENT,
        "dot": Dot(ActorId(bytes(16)), 2),
        "record": RecordId(b"x" * 32),
    }
    values = {name: getattr(write, name) for name in ("item", "register", "dot", "record")}
    assert LiveWrite(**{**values, changed: other[changed]}).element() != write.element()


def test_nothing_is_zeros():
    assert StateDigest().digest() == bytes(DIGEST_BYTES)
    assert StateDigest().children(b"") == {}


def test_what_was_never_added_is_not_taken_away():
    with pytest.raises(ValueError, match="never added"):
        StateDigest().remove(
            LiveWrite(
                ItemId(bytes(16)), Register.CONTENT, Dot(ActorId(bytes(16)), 1), RecordId(bytes(32))
            )
        )


@given(st.integers(0, 2**32), st.data())
def test_devices_with_the_same_live_writes_have_seen_the_same(seed, data):
    """Why covered writes need no element: any subsets of records, in any order."""
    draw = Random(seed)
    devices = [Device(number) for number in range(3)]
    records: list[ModelRecord] = []
    for _ in range(draw.randrange(12)):
        device = draw.choice(devices)
        if records and draw.random() < 0.5:
            device.apply(draw.choice(records))
        else:
            records.append(device.write(draw.sample(PLACES[:2], draw.choice((1, 2))), draw))
    pair = []
    for _ in range(2):
        device = Device(9)
        chosen = data.draw(st.permutations(records))[: data.draw(st.integers(0, len(records)))]
        for record in chosen:
            device.apply(record)
        pair.append(device)
    one, two = pair
    is_equal = one.digest(b"") == two.digest(b"")
    event(f"equal: {is_equal}")
    if is_equal:
        for place in PLACES:
            empty: RegisterState[RecordId] = RegisterState()
            assert one.state.get(place, empty) == two.state.get(place, empty)
