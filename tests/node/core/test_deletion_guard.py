import pytest

from node.core.deletion_guard import GuardLimits, Window, count_deletions, deleted_items, must_hold
from node.core.record_sealing import OpenedWrite
from protocol.ids import ROOT_ITEM
from protocol.records import Register
from protocol.values import Content, Kind, Placement
from tests.node.storage.indexes import item_id, link_to, version_of

LIMITS = GuardLimits(share=0.5, minimum=200)


@pytest.mark.parametrize(
    ("deletions", "window", "is_held"),
    [
        (0, Window(0, 10_000, 0), False),
        (199, Window(0, 0, 199), False),
        (200, Window(0, 0, 200), True),
        (500, Window(0, 0, 1000), False),
        (501, Window(0, 0, 1000), True),
        (1, Window(500, 0, 500), True),
        (1, Window(499, 0, 501), False),
        (1, Window(0, 500, 1000), True),
    ],
    ids=str,
)
def test_deletions_are_held_beyond_the_share_of_what_was_there_when_they_began(
    deletions, window, is_held
):
    assert must_hold(deletions, window, LIMITS) is is_held


def test_a_share_of_one_turns_the_guard_off():
    assert not must_hold(10_000, Window(0, 0, 10_000), GuardLimits(1, 1))


def test_only_writes_that_leave_no_name_are_deletions():
    link = link_to(1, ROOT_ITEM, b"name")
    writes = [
        OpenedWrite(item_id(1), Register.PLACEMENT, version_of(Placement((), (link,)))),
        OpenedWrite(item_id(2), Register.PLACEMENT, version_of(Placement((link,)))),
        OpenedWrite(item_id(3), Register.CONTENT, version_of(Content(Kind.FILE))),
    ]
    assert deleted_items(writes) == [item_id(1)]


def test_twins_that_were_shown_under_one_name_are_one_deletion():
    def deletion(number, name):
        placement = Placement((), (link_to(number, ROOT_ITEM, name),))
        return OpenedWrite(item_id(number), Register.PLACEMENT, version_of(placement))

    writes = [deletion(1, b"a"), deletion(2, b"a"), deletion(3, b"b")]
    assert count_deletions(writes) == 2
