"""Contexts compared with what they stand for: plain sets of dots."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.ids import ActorId
from protocol.limits import MAX_CONTEXT_EXCEPTIONS
from protocol.version_vector import (
    EMPTY_CONTEXT,
    Context,
    Dot,
    Order,
    dot_from_value,
    dot_to_value,
)
from tests.protocol import anything

ACTORS = [ActorId(bytes([number]) * 16) for number in range(3)]
ALL_DOTS = [Dot(actor, n) for actor in ACTORS for n in range(1, 8)]

dots = st.sampled_from(ALL_DOTS)
dot_sets = st.frozensets(dots, max_size=12)


def as_set(context):
    return frozenset(dot for dot in ALL_DOTS if context.covers(dot))


def of(dots):
    return EMPTY_CONTEXT.add(dots)


def check_normal_form(context):
    for actor, top in context.vector.items():
        assert top >= 1
        assert Dot(actor, top) not in context.exceptions
    for dot in context.exceptions:
        assert 1 <= dot.n < context.vector[dot.actor]


@given(st.lists(dots))
def test_adding_dots_in_any_order_gives_the_set_of_them(added):
    context = of(added)
    check_normal_form(context)
    assert as_set(context) == set(added)
    assert context == of(reversed(added))


@given(dot_sets, dot_sets)
def test_join_is_the_union(one, other):
    joined = of(one).join(of(other))
    check_normal_form(joined)
    assert as_set(joined) == one | other
    assert joined == of(one | other)
    event(f"exceptions: {bool(joined.exceptions)}")


@given(dot_sets, dots)
def test_without_takes_one_dot_away(whole, dot):
    context = of(whole).without(dot)
    check_normal_form(context)
    assert as_set(context) == whole - {dot}
    assert context == of(whole - {dot})


@given(dot_sets, dot_sets)
def test_contains_is_inclusion(one, other):
    assert of(one).contains(of(other)) == (one >= other)


@given(dot_sets, st.one_of(dot_sets, st.none()))
def test_compare_is_the_order_of_sets(one, other):
    other = one if other is None else other
    expected = {
        (True, True): Order.EQUAL,
        (True, False): Order.AFTER,
        (False, True): Order.BEFORE,
        (False, False): Order.CONCURRENT,
    }[one >= other, one <= other]
    event(expected.value)
    assert of(one).compare(of(other)) is expected
    assert (of(one) == of(other)) == (expected is Order.EQUAL)


@given(dot_sets)
def test_a_context_travels_unchanged(whole):
    value = of(whole).to_value()
    assert Context.from_value(codec.decode(codec.encode(value), 1 << 20)) == of(whole)


@given(
    st.one_of(
        anything.values,
        dot_sets.map(lambda whole: of(whole).to_value()).flatmap(anything.mutations),
    )
)
def test_any_value_is_a_context_in_normal_form_or_refused(value):
    try:
        context = Context.from_value(value)
    except RemoteProtocolError:
        event("refused")
        return
    event("accepted")
    check_normal_form(context)
    assert codec.encode(context.to_value()) == codec.encode(value)


A, B = ACTORS[:2]


@pytest.mark.parametrize(
    "value",
    [
        [[[B, 1], [A, 1]], []],
        [[[A, 1], [A, 2]], []],
        [[[A, 1], [A, 1]], []],
        [[[A, 0]], []],
        [[[A, 2**63]], []],
        [[[b"short", 1]], []],
        [[[A, 3]], [[A, 2], [A, 1]]],
        [[[A, 3]], [[A, 1], [A, 1]]],
        [[[A, 3]], [[A, 3]]],
        [[[A, 3]], [[A, 4]]],
        [[[A, 3]], [[B, 1]]],
        [[], [[A, 1]]],
        [[], 0],
        [None, []],
        [[], [], []],
    ],
)
def test_what_is_not_in_normal_form_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        Context.from_value(value)


def test_a_gap_that_would_need_too_many_exceptions_is_refused():
    assert of([Dot(A, MAX_CONTEXT_EXCEPTIONS + 1)]).covers(Dot(A, MAX_CONTEXT_EXCEPTIONS + 1))
    with pytest.raises(RemoteProtocolError):
        of([Dot(A, MAX_CONTEXT_EXCEPTIONS + 2)])


@given(st.none() | dots)
def test_a_dot_travels_unchanged(dot):
    assert dot_from_value(codec.decode(codec.encode(dot_to_value(dot)), 100)) == dot


def test_a_context_buries_no_sibling_of_the_same_device():
    """A plain vector would: the device has written 1 and 2, the program had opened only 2."""
    context = of([Dot(A, 2)])
    assert context.covers(Dot(A, 2))
    assert not context.covers(Dot(A, 1))
