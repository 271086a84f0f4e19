import random

import pytest

from node.core.author_heads import BEFORE_THE_FIRST, ChainLink, Head, Verdict, judge
from protocol.ids import RecordId
from protocol.records import NO_RECORD


def record(name):
    return RecordId(name.encode().ljust(32, b"."))


def link(sequence, branch="a", previous_branch="a"):
    previous = NO_RECORD if sequence == 1 else record(f"{previous_branch}{sequence - 1}")
    return ChainLink(sequence, record(f"{branch}{sequence}"), previous)


HEAD = Head(5, record("a5"))
AHEAD = {each.sequence: each for each in (link(8), link(9))}


@pytest.mark.parametrize(
    ("which", "verdict"),
    [
        (link(6), Verdict.NEXT),
        (link(7), Verdict.AHEAD),
        (link(10), Verdict.AHEAD),
        (link(20), Verdict.AHEAD),
        (link(5), Verdict.AGAIN),
        (link(9), Verdict.AGAIN),
        (link(4), Verdict.BEHIND),
        (link(5, "b"), Verdict.FORK),
        (link(9, "b"), Verdict.FORK),
        (link(6, "b", "b"), Verdict.BROKEN),
        (link(10, "b", "b"), Verdict.BROKEN),
        (link(7, "b"), Verdict.BROKEN),
    ],
)
def test_a_record_is_judged_by_its_number_its_predecessor_and_its_successor(which, verdict):
    assert judge(which, HEAD, AHEAD) is verdict


def test_the_first_record_of_an_author_follows_nothing():
    assert judge(link(1), BEFORE_THE_FIRST, {}) is Verdict.NEXT
    assert judge(link(2), BEFORE_THE_FIRST, {}) is Verdict.AHEAD


def test_an_honest_chain_is_never_doubted_in_whatever_order_it_comes():
    for seed in range(200):
        draw = random.Random(seed)
        chain = [link(sequence) for sequence in range(1, 12)]
        draw.shuffle(chain)
        head = BEFORE_THE_FIRST
        ahead: dict[int, ChainLink] = {}
        for each in chain:
            assert judge(each, head, ahead) in (Verdict.NEXT, Verdict.AHEAD)
            ahead[each.sequence] = each
            while (after := ahead.pop(head.sequence + 1, None)) is not None:
                head = Head(after.sequence, after.record)
        assert head == Head(11, record("a11"))
