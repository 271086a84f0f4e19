"""The laws of a register's state, over histories that honest devices can write."""

from dataclasses import dataclass

from hypothesis import event, given
from hypothesis import strategies as st

from protocol.ids import ActorId
from protocol.lattice import RegisterState
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot


@dataclass(frozen=True)
class Write:
    dot: Dot
    context: Context


@st.composite
def histories(draw):
    """Writes of three actors; each sees some of what is there, as programs do."""
    writes: list[Write] = []
    counts = dict.fromkeys(range(3), 0)
    for _ in range(draw(st.integers(0, 7))):
        number = draw(st.sampled_from(sorted(counts)))
        counts[number] += 1
        context = EMPTY_CONTEXT
        for seen in draw(st.lists(st.sampled_from(writes), max_size=3) if writes else st.just([])):
            context = context.join(seen.context).add([seen.dot])
        writes.append(Write(Dot(ActorId(bytes([number]) * 16), counts[number]), context))
    return writes


def state_of(writes):
    state: RegisterState[str] = RegisterState()
    for write in writes:
        state = state.apply(write.dot, write.context, f"value of {write.dot}")
    return state


def shuffled(writes):
    return st.permutations(writes)


@given(st.data())
def test_any_order_and_any_repetition_give_one_state(data):
    writes = data.draw(histories())
    expected = state_of(writes)
    event(f"siblings: {len(expected.live)}")
    order = data.draw(shuffled(writes))
    again = data.draw(st.lists(st.sampled_from(writes)) if writes else st.just([]))
    assert state_of([*order, *again]) == expected


@given(histories())
def test_a_value_lives_until_a_write_that_saw_it(writes):
    state = state_of(writes)
    for write in writes:
        is_covered = any(other.context.covers(write.dot) for other in writes)
        assert (write.dot in state.live) != is_covered
        assert state.knows(write.dot)
        assert state.seen.covers(write.dot)
    assert not any(state.covered.covers(dot) for dot in state.live)


subsets = st.data()


def draw_parts(data, count):
    writes = data.draw(histories())
    return [
        state_of(
            data.draw(
                st.lists(st.sampled_from(writes), unique_by=lambda write: write.dot)
                if writes
                else st.just([])
            )
        )
        for _ in range(count)
    ]


@given(st.data())
def test_merge_is_commutative(data):
    one, other = draw_parts(data, 2)
    assert one.merge(other) == other.merge(one)


@given(st.data())
def test_merge_is_associative(data):
    one, two, three = draw_parts(data, 3)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))


@given(st.data())
def test_merge_is_idempotent(data):
    one, two = draw_parts(data, 2)
    assert one.merge(one) == one
    assert one.merge(two).merge(two) == one.merge(two)


@given(st.data())
def test_merging_states_is_applying_the_writes_of_both(data):
    writes = data.draw(histories())
    choices = (
        st.lists(st.sampled_from(writes), unique_by=lambda write: write.dot)
        if writes
        else st.just([])
    )
    one, two = data.draw(choices), data.draw(choices)
    assert state_of(one).merge(state_of(two)) == state_of([*one, *two])


def test_a_known_dot_keeps_the_value_that_came_first():
    dot = Dot(ActorId(bytes(16)), 1)
    empty: RegisterState[str] = RegisterState()
    state = empty.apply(dot, EMPTY_CONTEXT, "first")
    assert state.apply(dot, EMPTY_CONTEXT, "second").live == {dot: "first"}
