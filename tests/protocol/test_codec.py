import enum

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import LinkId
from protocol.limits import MAX_DEPTH
from tests.protocol import anything


@given(anything.values)
def test_what_is_encoded_is_decoded(value):
    assert codec.decode(codec.encode(value), 1 << 20) == value


@given(st.one_of(st.binary(max_size=200), anything.values.flatmap(anything.mutated_encodings)))
def test_any_bytes_are_the_encoding_of_a_value_or_refused(data):
    try:
        value = codec.decode(data, 1 << 20)
    except RemoteProtocolError:
        event("refused")
        return
    event("decoded")
    assert codec.encode(value) == data


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "nothing"),
        (b"\x00\x00", "trailing bytes"),
        (b"\xcc\x01", "an integer in more bytes than it needs"),
        (b"\xd0\x01", "a positive integer as a signed one"),
        (b"\xc5\x00\x01a", "a byte string with a longer length"),
        (b"\xd9\x01a", "a text with a longer length"),
        (b"\xdc\x00\x01\x00", "a list with a longer length"),
        (b"\xa1\xff", "a text that is not UTF-8"),
        (b"\xa3\xed\xa0\x80", "a text with half a surrogate"),
        (b"\x80", "a map"),
        (b"\x81\xa1a\x01", "a map with a key"),
        (b"\x91\x80", "a map within a list"),
        (b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "a float"),
        (b"\xc7\x01\x05a", "an extension"),
        (b"\xd6\xff\x00\x00\x00\x00", "a timestamp"),
        (b"\xc1", "a byte that msgpack never uses"),
        (b"\xdd\xff\xff\xff\xff", "a list that is announced and missing"),
        (b"\xc6\x7f\xff\xff\xff", "a byte string that is announced and missing"),
        (b"\x91" * 2000 + b"\x00", "a nesting beyond what msgpack itself bears"),
    ],
    ids=lambda part: part if isinstance(part, str) else "x",
)
def test_decode_refuses(data, what):
    with pytest.raises(RemoteProtocolError):
        codec.decode(data, 1 << 20)


def test_decode_refuses_what_is_longer_than_allowed():
    assert codec.decode(codec.encode(b"12345678"), 10) == b"12345678"
    with pytest.raises(RemoteProtocolError, match="at most 9"):
        codec.decode(codec.encode(b"12345678"), 9)


def nested(depth):
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_ends_at_the_same_depth_both_ways():
    assert codec.decode(codec.encode(nested(MAX_DEPTH)), 100) == nested(MAX_DEPTH)
    with pytest.raises(LocalProtocolError):
        codec.encode(nested(MAX_DEPTH + 1))
    with pytest.raises(RemoteProtocolError, match="nested"):
        codec.decode(b"\x91" * MAX_DEPTH + b"\x90", 100)


@pytest.mark.parametrize("value", [{}, [{}], 1.5, object(), 2**64, -(2**63) - 1, {1}, ["\ud800"]])
def test_encode_refuses_what_is_outside_the_subset(value):
    with pytest.raises(LocalProtocolError):
        codec.encode(value)


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


def test_tuples_ids_and_enumerations_are_encoded_as_what_they_are():
    assert codec.encode((LinkId(bytes(8)), Colour.RED, Word.YES, True)) == codec.encode(
        [bytes(8), 1, "yes", True]
    )


bodies = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(), st.text())
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(bodies)
def test_bodies_may_hold_maps_and_floats(body):
    assert codec.unpack_body(codec.pack_body(body)) == body


@given(st.binary(max_size=100))
def test_any_bytes_are_a_body_or_refused(data):
    try:
        codec.unpack_body(data, 80)
    except RemoteProtocolError:
        event("refused")


def test_a_body_has_string_keys():
    with pytest.raises(RemoteProtocolError):
        codec.unpack_body(b"\x81\x01\x02")


CHECKS = [
    lambda value: codec.as_int(value, 0, 10, "it"),
    lambda value: codec.as_bytes(value, "it", 2, 4),
    lambda value: codec.as_str(value, "it", 4),
    lambda value: codec.as_bool(value, "it"),
    lambda value: codec.as_list(value, "it", 2),
    lambda value: codec.as_tuple(value, "it", 2),
]


@given(anything.values)
def test_each_check_gives_the_value_itself_or_refuses_it(value):
    accepted = 0
    for check in CHECKS:
        try:
            assert check(value) is value
            accepted += 1
        except RemoteProtocolError:
            pass
    event(f"accepted by {accepted}")
    assert accepted <= 2


def test_a_boolean_is_no_integer_and_an_integer_no_boolean():
    with pytest.raises(RemoteProtocolError):
        codec.as_int(True, 0, 1, "it")
    with pytest.raises(RemoteProtocolError):
        codec.as_bool(1, "it")
