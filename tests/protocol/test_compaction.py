"""What may be dropped: pure laws over small journals."""

from __future__ import annotations

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from protocol.compaction import (
    Acknowledged,
    Floor,
    JournalRecord,
    compaction_plan,
    is_late,
)
from protocol.ids import ActorId, ItemId
from protocol.records import FolderChange, RecordWrite, Register
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

A, B = ActorId(b"a" * 16), ActorId(b"b" * 16)
X, Y, FOLDER = (ItemId(bytes([n]) * 16) for n in (1, 2, 3))


def write(item, n, *seen, register=Register.CONTENT):
    return RecordWrite(item, register, n, EMPTY_CONTEXT.add(seen), b"sealed")


def record(position, *writes, actor=A, folders=(), counts=True):
    return JournalRecord(position, actor, folders, writes, counts)


def test_what_is_covered_goes_and_what_covers_stays():
    first = record(1, write(X, 1))
    second = record(2, write(X, 2, Dot(A, 1)))
    assert compaction_plan([first, second], 2, ()).positions == {1}
    assert compaction_plan([first, second], 1, ()).positions == frozenset(), "covered lately"


def test_a_sibling_stays():
    records = [record(1, write(X, 1)), record(2, write(X, 1), actor=B)]
    assert compaction_plan(records, 2, ()).positions == frozenset()


def test_a_dead_item_leaves_no_trace():
    records = [
        record(1, write(X, 1), write(X, 1, register=Register.PLACEMENT)),
        record(2, write(X, 2, Dot(A, 1), register=Register.PLACEMENT)),
        record(3, write(Y, 1)),
    ]
    plan = compaction_plan(records, 3, [X])
    assert plan.positions == {1, 2}
    assert plan.items == {X}


def test_an_item_stays_dead_and_known_where_a_record_of_it_has_to_stay():
    """Else its creation would come back without its deletion."""
    records = [
        record(1, write(X, 1, register=Register.PLACEMENT), write(Y, 1)),
        record(2, write(X, 2, Dot(A, 1), register=Register.PLACEMENT)),
    ]
    plan = compaction_plan(records, 2, [X])
    assert plan.items == frozenset()
    assert plan.positions == frozenset()


def test_a_write_above_the_floor_keeps_an_item():
    records = [record(1, write(X, 1)), record(5, write(X, 1), actor=B)]
    assert compaction_plan(records, 3, [X]) == compaction_plan(records, 3, [])


def test_the_time_of_a_folder_is_not_lost():
    change = FolderChange(FOLDER, 100)
    deletion = record(1, write(X, 1), folders=(change,))
    assert compaction_plan([deletion], 9, [X]).positions == frozenset()
    later = record(2, write(Y, 1), folders=(FolderChange(FOLDER, 101),))
    assert compaction_plan([deletion, later], 9, [X]).positions == {1}
    assert compaction_plan([deletion], 9, [X], {FOLDER: 100}).positions == {1}
    assert compaction_plan([deletion], 9, [X], {FOLDER: 99}).positions == frozenset()
    inside_dead = compaction_plan([deletion, record(3, write(FOLDER, 1))], 9, [X, FOLDER])
    assert inside_dead.positions == {1, 3}


def test_an_invalid_record_covers_nothing_and_stays():
    records = [record(1, write(X, 1)), record(2, write(X, 1, Dot(A, 1)), actor=B, counts=False)]
    assert compaction_plan(records, 2, ()).positions == frozenset()
    assert compaction_plan(records, 2, [X]).positions == frozenset()


def test_a_record_goes_only_if_what_it_covers_stays_covered():
    """A writer that did not pass on what it had seen: its record is needed for that."""
    records = [
        record(1, write(X, 1), write(Y, 1)),
        record(2, write(X, 1, Dot(A, 1)), actor=B),
        record(3, RecordWrite(X, Register.CONTENT, 2, Context({B: 1}), b""), actor=A),
    ]
    assert compaction_plan(records, 3, ()).positions == frozenset()


@st.composite
def journals(draw):
    """Writers that each had seen some of what was there."""
    counts: dict = {}
    contexts: dict = {}
    records = []
    for position in range(1, draw(st.integers(1, 12)) + 1):
        actor = draw(st.sampled_from([A, B]))
        writes = []
        for item in draw(st.lists(st.sampled_from([X, Y, FOLDER]), min_size=1, unique=True)):
            register = draw(st.sampled_from([Register.PLACEMENT, Register.CONTENT]))
            place = (item, register)
            seen = EMPTY_CONTEXT
            for dot, context in contexts.get(place, {}).items():
                if dot.actor == actor or draw(st.booleans()):
                    seen = seen.join(context).add([dot])
            n = counts[(*place, actor)] = counts.get((*place, actor), 0) + 1
            contexts.setdefault(place, {})[Dot(actor, n)] = seen
            writes.append(RecordWrite(item, register, n, seen, b""))
        folders = draw(
            st.lists(st.builds(FolderChange, st.sampled_from([X, FOLDER]), st.integers(1, 9)))
        )
        records.append(JournalRecord(position, actor, folders, writes))
    return records


def state(records, without=()):
    covered: dict = {}
    written = set()
    folders: dict = {}
    for each in records:
        for write in each.writes:
            if write.item not in without:
                place = (write.item, write.register)
                covered[place] = covered.get(place, EMPTY_CONTEXT).join(write.context)
                written.add((place, Dot(each.actor, write.n)))
        for change in each.folders:
            if change.folder not in without:
                folders[change.folder] = max(folders.get(change.folder, 0), change.time_us)
    live = {(place, dot) for place, dot in written if not covered[place].covers(dot)}
    seen = {
        place: covered[place].add(dot for other, dot in written if other == place)
        for place in covered
    }
    return live, seen, folders


@given(journals(), st.integers(0, 12), st.sets(st.sampled_from([X, Y, FOLDER])))
def test_the_state_is_the_same_but_for_dead_items(records, floor, dead):
    plan = compaction_plan(records, floor, dead)
    hypothesis.event(f"drops {min(len(plan.positions), 3)}, dead {len(plan.items)}")
    kept = [each for each in records if each.position not in plan.positions]
    assert plan.items <= dead
    assert all(position <= floor for position in plan.positions)
    assert state(kept, plan.items) == state(records, plan.items)
    assert not any(write.item in plan.items for each in kept for write in each.writes)


def test_who_has_acknowledged_a_floor_is_not_late():
    floor = Floor("e", 10, bytes(32))
    assert not is_late([], None)
    assert is_late([floor], None)
    assert not is_late([floor], Acknowledged("e", 10))
    assert is_late([floor], Acknowledged("e", 9))
    assert is_late([floor], Acknowledged("former", 99))
    assert is_late([floor, Floor("e", 12, bytes(32))], Acknowledged("e", 11))
