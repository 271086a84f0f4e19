"""What changed between two sequences: nothing is missing, nothing crosses, the work is bounded."""

import itertools

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from node.core import line_diff
from node.core.line_diff import TooMuchWorkError, WorkBudget, line_changes

# Few distinct values: repeated lines are what anchors do not help with.
SEQUENCES = st.lists(st.integers(0, 6), max_size=24)


def changed(before, after, steps=100_000):
    return line_changes(before, after, WorkBudget(steps))


def applied(before, after, changes):
    result, position = [], 0
    for change in changes:
        result += before[position : change.start] + after[change.new_start : change.new_end]
        position = change.end
    return result + before[position:]


@given(SEQUENCES, SEQUENCES)
def test_the_changes_make_one_out_of_the_other(before, after):
    changes = changed(before, after)
    event(f"{min(len(changes), 4)} changes")
    assert applied(before, after, changes) == after
    for one, next_one in itertools.pairwise(changes):
        assert one.end < next_one.start, "between two changes a line stays"
        assert one.new_end < next_one.new_start


def longest_common(one, other):
    lengths = [0] * (len(other) + 1)
    for left in one:
        former = lengths[:]
        for column, right in enumerate(other, 1):
            lengths[column] = (
                former[column - 1] + 1
                if left == right
                else max(former[column], lengths[column - 1])
            )
    return lengths[-1]


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_without_anchors_as_much_as_possible_stays(before, after):
    gap = line_diff._Gap(0, len(before), 0, len(after))
    matches = line_diff._shortest_edit(before, after, gap, WorkBudget(100_000))
    assert sum(count for _, _, count in matches) == longest_common(before, after)
    for line, new_line, count in matches:
        assert before[line : line + count] == after[new_line : new_line + count]


def test_lines_that_occur_once_keep_their_neighbours_together():
    before = [0, 1, 9, 0, 2, 9]
    after = [0, 1, 9, 0, 5, 9, 0, 2, 9]
    (change,) = changed(before, after)
    assert change.start == change.end
    assert change.new_end - change.new_start == 3


def test_what_differs_too_much_is_given_up_after_counted_work():
    before, after = [0, 1] * 2000, [1, 2] * 2000
    with pytest.raises(TooMuchWorkError):
        changed(before, after, steps=50_000)


def test_long_files_with_few_changes_are_cheap():
    before = list(range(100_000))
    after = [*before[:500], -1, *before[501:70_000], -2, *before[70_000:]]
    assert len(changed(before, after, steps=400_000)) == 2
