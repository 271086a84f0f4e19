"""What changed between two sequences of lines: patience anchors, then the shortest edit. Pure.

Lines that occur once on both sides anchor the comparison, which keeps whole paragraphs together;
what lies between anchors gets the shortest edit script. The work is counted, not timed, so that
every device comes to the same end. Knows no bytes: lines are numbers. Called by `text_merge`.

Source: patience diff by Bram Cohen (described 2010); E. Myers, "An O(ND) difference algorithm and
its variations" (1986).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


class TooMuchWorkError(Exception):
    """The sequences differ in more than the budget allows to compare."""


class WorkBudget:
    """Elementary comparisons that are left, over everything that shares the budget."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps off.

        Raises:
            TooMuchWorkError: so many are not left.
        """
        self._left -= steps
        if self._left < 0:
            raise TooMuchWorkError


@dataclass(frozen=True, slots=True)
class Change:
    """``before[start:end]`` became ``after[new_start:new_end]``; one of them may be empty."""

    start: int
    end: int
    new_start: int
    new_end: int


@dataclass(frozen=True, slots=True)
class _Gap:
    """Ranges of both sides that are still to be compared."""

    start: int
    end: int
    new_start: int
    new_end: int


_Match = tuple[int, int, int]  # where before, where after, how many lines


def line_changes(before: Sequence[int], after: Sequence[int], budget: WorkBudget) -> list[Change]:
    """What turns ``before`` into ``after``, ascending; between two changes at least one line stays.

    Raises:
        TooMuchWorkError: the budget does not suffice.
    """
    matches: list[_Match] = []
    gaps = [_Gap(0, len(before), 0, len(after))]
    while gaps:
        gap = _trimmed(before, after, gaps.pop(), matches)
        if gap.start == gap.end or gap.new_start == gap.new_end:
            continue
        budget.spend(gap.end - gap.start + gap.new_end - gap.new_start)
        anchors = _anchors(before, after, gap)
        if anchors:
            matches += ((line, new_line, 1) for line, new_line in anchors)
            gaps += _between(gap, anchors)
        else:
            matches += _shortest_edit(before, after, gap, budget)
    matches.sort()
    return _changes(matches, len(before), len(after))


def _trimmed(before: Sequence[int], after: Sequence[int], gap: _Gap, matches: list[_Match]) -> _Gap:
    """The gap without what is equal at its start and at its end, which is added to the matches."""
    start, end, new_start, new_end = gap.start, gap.end, gap.new_start, gap.new_end
    while start < end and new_start < new_end and before[start] == after[new_start]:
        start, new_start = start + 1, new_start + 1
    while start < end and new_start < new_end and before[end - 1] == after[new_end - 1]:
        end, new_end = end - 1, new_end - 1
    if start > gap.start:
        matches.append((gap.start, gap.new_start, start - gap.start))
    if end < gap.end:
        matches.append((end, new_end, gap.end - end))
    return _Gap(start, end, new_start, new_end)


def _anchors(before: Sequence[int], after: Sequence[int], gap: _Gap) -> list[tuple[int, int]]:
    """Lines that occur once on both sides of the gap, as many as stand in the same order."""
    counts = Counter(before[gap.start : gap.end])
    new_counts = Counter(after[gap.new_start : gap.new_end])
    places = {
        after[new_line]: new_line
        for new_line in range(gap.new_start, gap.new_end)
        if new_counts[after[new_line]] == 1
    }
    pairs = [
        (line, places[before[line]])
        for line in range(gap.start, gap.end)
        if counts[before[line]] == 1 and before[line] in places
    ]
    return _longest_ascending(pairs)


def _longest_ascending(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of pairs, not needing to be neighbours, whose second numbers ascend."""
    tops: list[int] = []
    top_pairs: list[int] = []
    former: list[int] = []
    for index, (_, new_line) in enumerate(pairs):
        pile = bisect_left(tops, new_line)
        former.append(top_pairs[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(new_line)
            top_pairs.append(index)
        else:
            tops[pile], top_pairs[pile] = new_line, index
    found: list[tuple[int, int]] = []
    index = top_pairs[-1] if top_pairs else -1
    while index >= 0:
        found.append(pairs[index])
        index = former[index]
    return found[::-1]


def _between(gap: _Gap, anchors: list[tuple[int, int]]) -> list[_Gap]:
    gaps = []
    start, new_start = gap.start, gap.new_start
    for line, new_line in [*anchors, (gap.end, gap.new_end)]:
        gaps.append(_Gap(start, line, new_start, new_line))
        start, new_start = line + 1, new_line + 1
    return gaps


def _shortest_edit(
    before: Sequence[int], after: Sequence[int], gap: _Gap, budget: WorkBudget
) -> list[_Match]:
    """The matches of Myers' greedy algorithm inside a gap."""
    rounds = _furthest_reaches(before, after, gap, budget)
    matches: list[_Match] = []
    line, diagonal = gap.end - gap.start, gap.end - gap.start - (gap.new_end - gap.new_start)
    for edits in range(len(rounds) - 1, -1, -1):
        former, former_line, start = 0, 0, 0
        if edits:
            former, start = _step(rounds[edits - 1], diagonal, edits)
            former_line = rounds[edits - 1][former]
        if line > start:
            matches.append((gap.start + start, gap.new_start + start - diagonal, line - start))
        line, diagonal = former_line, former
    return matches


def _step(reaches: dict[int, int], diagonal: int, edits: int) -> tuple[int, int]:
    """The best way onto a diagonal by one more edit: the former diagonal, and the line reached."""
    if diagonal == -edits or (diagonal != edits and reaches[diagonal - 1] < reaches[diagonal + 1]):
        return diagonal + 1, reaches[diagonal + 1]  # an insertion
    return diagonal - 1, reaches[diagonal - 1] + 1  # a removal


def _furthest_reaches(
    before: Sequence[int], after: Sequence[int], gap: _Gap, budget: WorkBudget
) -> list[dict[int, int]]:
    """Per number of edits, how far each diagonal gets; the last one reaches both ends."""
    length, new_length = gap.end - gap.start, gap.new_end - gap.new_start
    rounds: list[dict[int, int]] = []
    reaches: dict[int, int] = {1: 0}
    for edits in range(length + new_length + 1):
        reached: dict[int, int] = {}
        for diagonal in range(-edits, edits + 1, 2):
            _, first = _step(reaches, diagonal, edits)
            line = first
            new_line = line - diagonal
            while (
                line < length
                and new_line < new_length
                and before[gap.start + line] == after[gap.new_start + new_line]
            ):
                line, new_line = line + 1, new_line + 1
            budget.spend(1 + line - first)
            reached[diagonal] = line
            if line >= length and new_line >= new_length:
                rounds.append(reached)
                return rounds
        rounds.append(reached)
        reaches = reached
    raise AssertionError("so many edits turn anything into anything")


def _changes(matches: list[_Match], length: int, new_length: int) -> list[Change]:
    changes = []
    start = new_start = 0
    for line, new_line, count in [*matches, (length, new_length, 0)]:
        if line > start or new_line > new_start:
            changes.append(Change(start, line, new_start, new_line))
        start, new_start = line + count, new_line + count
    return changes
