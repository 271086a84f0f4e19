"""The exchange between two devices: it ends with both knowing the same, and costs what differs."""

from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from protocol.ids import ItemId
from protocol.records import Register
from protocol.state_exchange import LIST_WRITES
from tests.protocol.state_model import Device, Traffic, exchange, is_same


def place(number):
    """Item ids spread over buckets, as random ones are."""
    head = (number * 40_503 % 65_536).to_bytes(2, "big")
    return ItemId(head + number.to_bytes(14, "big")), Register(number % 3)


def perturb(devices, draw, count, places):
    for _ in range(count):
        device = draw.choice(devices)
        some = draw.sample(range(places), draw.choice((1, 1, 3)))
        device.write(map(place, some), draw)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_any_two_states_meet(seed):
    draw = Random(seed)
    one, two = Device(1), Device(2)
    for _ in range(draw.randrange(1, 4)):
        perturb([one, two], draw, draw.randrange(1, 60), draw.choice((3, 30, 400)))
        first, second = draw.sample([one, two], 2)
        exchange(first, second)
        assert is_same(one, two)
    event("many" if one.count(b"") > LIST_WRITES else "few")


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_a_link_that_breaks_anywhere_costs_nothing_that_arrived(seed):
    draw = Random(seed)
    one, two, three = devices = [Device(number) for number in range(1, 4)]
    perturb(devices, draw, 80, draw.choice((5, 60, 300)))
    for _ in range(6):
        first, second = draw.sample(devices, 2)
        exchange(first, second, draw.randrange(1, 40))
        perturb(devices, draw, draw.randrange(3), 60)
    exchange(one, two)
    exchange(two, three)
    exchange(three, one)
    assert is_same(one, two)
    assert is_same(two, three)


def test_equals_exchange_one_message():
    draw = Random(1)
    one, two = Device(1), Device(2)
    assert exchange(one, two) == Traffic(1, 0)
    perturb([one, two], draw, 300, 1000)
    exchange(one, two)
    assert exchange(one, two) == exchange(two, one) == Traffic(1, 0)


def test_one_change_in_a_large_state_costs_a_few_messages_and_one_record():
    draw = Random(2)
    one, two = Device(1), Device(2)
    for start in range(0, 3000, 100):
        one.write(map(place, range(start, start + 100)), draw)
    exchange(one, two)
    two.write([place(1234)], draw)
    traffic = exchange(one, two)
    assert is_same(one, two)
    assert traffic.records == 1
    assert traffic.messages <= 8


def test_what_the_other_has_covered_is_not_handed_over():
    draw = Random(3)
    one, two = Device(1), Device(2)
    one.write([place(1)], draw)
    exchange(one, two)
    for _ in range(50):
        two.write([place(1)], draw)
    assert exchange(one, two).records == 1
    assert is_same(one, two)


def test_a_record_that_writes_items_of_many_buckets_is_handed_over_once():
    draw = Random(4)
    one, two = Device(1), Device(2)
    one.write(map(place, range(500)), draw)
    two.write(map(place, range(1000, 1500)), draw)
    assert exchange(one, two).records == 2
    assert is_same(one, two)
