"""Where a floor may be."""

from node.core.compaction_floor import CompactionTimes, Mark, floor_position, marks_kept

TIMES = CompactionTimes(seen_by_all_s=30, absent_s=180)
MARKS = [Mark(10, 0), Mark(20, 50), Mark(30, 100), Mark(40, 195)]
LIVE = {b"a", b"b"}


def test_a_floor_is_where_all_have_been_and_old_enough():
    acknowledged = {b"a": 40, b"b": 25}
    assert floor_position(MARKS, acknowledged, LIVE, 130, TIMES) == 20
    assert floor_position(MARKS, {b"a": 40, b"b": 40}, LIVE, 130, TIMES) == 30
    assert floor_position(MARKS, {b"a": 40, b"b": 40}, LIVE, 200, TIMES) == 30, "40 is too young"


def test_who_has_acknowledged_nothing_holds_it_back_until_long_after():
    acknowledged = {b"a": 40}
    assert floor_position(MARKS, acknowledged, LIVE, 179, TIMES) == 0
    assert floor_position(MARKS, acknowledged, LIVE, 180, TIMES) == 10
    assert floor_position(MARKS, acknowledged, LIVE, 240, TIMES) == 20


def test_a_revoked_device_holds_nothing_back():
    assert floor_position(MARKS, {b"a": 40}, {b"a"}, 130, TIMES) == 30


def test_nobody_means_no_floor_before_the_long_time():
    assert floor_position(MARKS, {}, set(), 130, TIMES) == 0
    assert floor_position([], {b"a": 9, b"b": 9}, LIVE, 1000, TIMES) == 0


def test_marks_go_below_the_floor_and_when_a_clock_was_ahead():
    assert marks_kept(MARKS, 20, 150) == [Mark(30, 100)]
