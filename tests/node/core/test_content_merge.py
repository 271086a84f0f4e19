"""Which version is the base, which side yields, and who waits for whom."""

import pytest

from node.core.content_merge import choose_base, distinct_sides, settled, side_of, wait_s
from node.core.tree_view import Version
from protocol.ids import ActorId, DeviceId
from protocol.values import Content, Kind
from protocol.version_vector import EMPTY_CONTEXT, Dot


def device(number):
    return DeviceId(bytes([number]) * 32)


def written(number, n, data, *over, time_us=None):
    """A version by a device over others: it has seen them and what they had seen."""
    seen = EMPTY_CONTEXT
    for version in over:
        seen = seen.join(version.context).add([version.dot])
    if time_us is None:
        time_us = 1 + max((version.time_us for version in over), default=0)
    content = Content(Kind.FILE, len(data), time_us * 1000, inline=data)
    return Version(Dot(ActorId(bytes([number]) * 16), n), time_us, device(number), seen, content)


FIRST = written(1, 1, b"first")
SECOND = written(1, 2, b"second", FIRST)
OURS = written(1, 3, b"ours", SECOND)
THEIRS = written(2, 1, b"theirs", SECOND)


def base(one, other, *known):
    return choose_base(side_of(one), side_of(other), known)


def test_the_base_is_the_newest_version_that_both_have_seen():
    assert base(OURS, THEIRS, FIRST, SECOND, OURS, THEIRS) == SECOND


def test_a_version_that_only_one_has_seen_is_no_base():
    later = written(1, 4, b"later", OURS)
    assert base(later, THEIRS, FIRST, SECOND, OURS) == SECOND


def test_without_a_common_version_there_is_no_base():
    assert base(written(1, 1, b"a"), written(2, 1, b"b"), FIRST) is None
    assert base(OURS, THEIRS) is None, "history was pruned"


def test_a_clock_that_ran_ahead_makes_nothing_newer():
    ahead = written(3, 1, b"2100", time_us=10**15)
    after = written(1, 1, b"after", ahead, time_us=5)
    one, other = written(1, 2, b"x", after, time_us=6), written(2, 1, b"y", after, time_us=7)
    assert base(one, other, ahead, after) == after


def test_siblings_with_the_same_bytes_are_one_side_with_the_later_time():
    other = written(2, 1, b"ours", SECOND, time_us=99)
    sides = distinct_sides([other, THEIRS, OURS])
    found = [[version.dot for version in side.versions] for side in sides]
    assert sorted(found) == sorted([[OURS.dot, other.dot], [THEIRS.dot]])
    alike = next(side for side in sides if len(side.versions) == 2)
    assert alike.content == other.value
    assert alike.mtime_ns == other.value.mtime_ns
    assert alike.context.covers(OURS.dot)
    assert alike.context.covers(other.dot)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_side_that_equals_the_base_yields(is_first):
    same = written(2, 1, b"second", SECOND)
    one, other = (OURS, same) if is_first else (same, OURS)
    joined = settled(side_of(one), side_of(other), [FIRST, SECOND])
    assert joined is not None
    assert joined.content == OURS.value


def test_going_back_to_what_both_had_left_is_a_change():
    back = written(2, 1, b"first", SECOND)
    assert settled(side_of(OURS), side_of(back), [FIRST, SECOND]) is None


def test_a_second_merge_of_the_same_yields_to_an_edit_of_the_first():
    """Two devices merge at once; somebody edits one result before the other arrives."""
    merge_1 = written(1, 4, b"both", OURS, THEIRS)
    merge_2 = written(2, 2, b"both", OURS, THEIRS)
    edit = written(3, 1, b"both and more", merge_1)
    joined = settled(side_of(merge_2), side_of(edit), [FIRST, SECOND, OURS, THEIRS, merge_1])
    assert joined is not None
    assert joined.content == edit.value


def test_what_is_published_names_the_write_that_brought_the_bytes():
    same = written(2, 1, b"second", SECOND)
    joined = settled(side_of(OURS), side_of(same), [SECOND])
    assert joined is not None
    automatic = joined.published(is_automatic=True)
    assert automatic is not None
    assert automatic.origin == OURS.dot
    by_hand = joined.published(is_automatic=False)
    assert by_hand is not None
    assert by_hand.origin is None, "a user's choice lives beside a deletion"


def test_the_smallest_author_merges_at_once_and_the_others_wait():
    siblings = [OURS, THEIRS]
    for drawn in (0.0, 0.5, 1.0):
        waits = [wait_s(siblings, device(number), iter([drawn]).__next__) for number in (1, 2, 3)]
        assert waits[0] == 0.5
        assert waits[0] + 2 <= waits[1] < waits[2]
        assert waits[2] >= 30
