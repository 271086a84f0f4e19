"""Bytes and values that nobody should have sent, for the parsers of canonical msgpack."""

from hypothesis import strategies as st

from protocol import codec
from protocol.limits import MAX_COUNTER

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, 2, 3, 4, 6, 7, 2**32, MAX_COUNTER, MAX_COUNTER + 1]),
    st.binary(max_size=40),
    st.sampled_from([bytes(8), bytes(16), bytes(32), bytes(64)]),
    st.text(max_size=8),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=30)


@st.composite
def mutations(draw, sample):
    """A valid value with one part replaced, removed, repeated or moved."""
    path: list[int] = []
    here = sample
    while isinstance(here, list) and here and (not path or draw(st.booleans())):
        path.append(draw(st.integers(0, len(here) - 1)))
        here = here[path[-1]]
    return _changed(
        sample, path, draw(st.sampled_from(["replace", "drop", "repeat"])), draw(values)
    )


def _changed(value, path, action, other):
    if not path:
        return other
    copy = list(value)
    position, *rest = path
    if rest:
        copy[position] = _changed(copy[position], rest, action, other)
    elif action == "replace":
        copy[position] = other
    elif action == "drop":
        del copy[position]
    else:
        copy.insert(position, copy[position])
    return copy


@st.composite
def mutated_bytes(draw, sample: bytes):
    """Valid bytes with a few changed, cut or added."""
    data = bytearray(sample)
    for _ in range(draw(st.integers(1, 3))):
        action = draw(st.sampled_from(["set", "cut", "add"]))
        position = draw(st.integers(0, len(data)))
        if action == "set" and position < len(data):
            data[position] = draw(st.integers(0, 255))
        elif action == "cut":
            del data[position:]
        else:
            data[position:position] = draw(st.binary(max_size=4))
    return bytes(data)


def mutated_encodings(value):
    """Encodings of something close to a valid value, and bytes close to its encoding."""
    return st.one_of(mutations(value).map(codec.encode), mutated_bytes(codec.encode(value)))
