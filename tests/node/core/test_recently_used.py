from hypothesis import event, given
from hypothesis import strategies as st

from node.core.recently_used import RecentlyUsed


def test_what_was_used_longest_ago_goes_first():
    kept = RecentlyUsed[str, bytes](2, len)
    kept.put("a", b"1")
    kept.put("b", b"2")
    assert kept.get("a") == b"1"
    kept.put("c", b"3")
    assert kept.get("b") is None
    assert kept.get("a") == b"1"
    assert kept.get("c") == b"3"


def test_a_value_heavier_than_the_limit_is_not_kept_and_pushes_nothing_out():
    kept = RecentlyUsed[str, bytes](3, len)
    kept.put("a", b"123")
    kept.put("b", b"1234")
    assert kept.get("a") == b"123"
    assert kept.get("b") is None


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=8))), st.integers(0, 20))
def test_the_weight_is_that_of_the_values_and_within_the_limit(puts, limit):
    kept = RecentlyUsed[int, bytes](limit, len)
    for key, value in puts:
        kept.put(key, value)
    held = [kept.get(key) for key in range(10)]
    assert kept.weight == sum(len(value) for value in held if value is not None) <= limit
    event(f"pushed out: {len(dict(puts)) > len(kept)}")
