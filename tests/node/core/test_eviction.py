"""What a full cache gives up."""

from hypothesis import event, given
from hypothesis import strategies as st

from node.core.eviction import choose_evicted
from protocol.ids import BlockId


def block(number: int) -> BlockId:
    return BlockId(number.to_bytes(32, "big"))


def test_nothing_is_given_up_within_the_limit():
    sizes = {block(1): 60, block(2): 40}
    assert choose_evicted(sizes, sizes, set(), 100) == []


def test_the_longest_unused_go_first_and_a_little_more_than_needed():
    sizes = {block(number): 10 for number in range(11)}
    assert choose_evicted(sizes, sizes, set(), 100) == [block(0), block(1)]


def test_what_exists_nowhere_else_stays_even_above_the_limit():
    sizes = {block(number): 10 for number in range(11)}
    protected = {block(number) for number in range(10)}
    assert choose_evicted(sizes, sizes, protected, 20) == [block(10)]


@given(
    st.lists(st.integers(1, 50), max_size=30),
    st.sets(st.integers(0, 29)),
    st.integers(0, 800),
)
def test_what_is_left_fits_or_is_protected(lengths: list[int], kept: set[int], limit: int):
    sizes = {block(number): length for number, length in enumerate(lengths)}
    protected = {block(number) for number in kept}
    chosen = choose_evicted(sizes, sizes, protected, limit)
    event("evicts" if chosen else "keeps all")
    left = {one: size for one, size in sizes.items() if one not in chosen}
    assert not protected & set(chosen)
    assert sum(left.values()) <= limit or left.keys() <= protected
    unprotected = [one for one in sizes if one not in protected]
    assert chosen == unprotected[: len(chosen)]
