"""A slot is used again only when no crash, snapshot or loss of power can need it."""

from node.storage.staging_slots import EXCESS_SLOTS, SlotSpace


def test_a_replaced_slot_is_free_as_soon_as_the_newer_write_is_in_the_file():
    space = SlotSpace()
    assert [space.allocate(), space.allocate()] == [0, 1]
    space.written(2)
    space.retire(0, sequence=1, by=2)
    assert space.allocate() == 0


def test_a_slot_that_a_truncation_dropped_waits_until_the_truncation_is_in_the_file():
    space = SlotSpace()
    space.allocate()
    space.written(1)
    space.retire(0, sequence=1, by=2)
    assert space.allocate() == 1
    space.written(3)
    assert space.allocate() == 0


def test_a_synced_slot_waits_until_its_replacement_is_synced():
    space = SlotSpace()
    space.allocate()
    space.written(1)
    space.end_sync(space.begin_sync())
    assert space.allocate() == 1
    space.written(2)
    space.retire(0, sequence=1, by=2)
    assert space.allocate() == 2
    space.end_sync(space.begin_sync())
    assert space.allocate() == 0


def test_a_slot_replaced_while_its_sync_is_under_way_waits_for_the_next_sync():
    space = SlotSpace()
    space.allocate()
    space.written(1)
    mark = space.begin_sync()
    space.allocate()
    space.written(2)
    space.retire(0, sequence=1, by=2)
    assert space.allocate() == 2
    space.end_sync(mark)
    assert space.allocate() == 3
    space.end_sync(space.begin_sync())
    assert space.allocate() == 0


def test_a_failed_sync_frees_nothing():
    space = SlotSpace()
    space.allocate()
    space.written(1)
    space.begin_sync()
    space.written(2)
    space.retire(0, sequence=1, by=2)
    assert space.allocate() == 1


def test_a_slot_waits_for_the_snapshots_that_saw_it_and_for_no_other():
    space = SlotSpace()
    for _ in range(3):
        space.allocate()
    space.written(3)
    space.pin(2)
    space.pin(2)
    space.retire(0, sequence=1, by=3)
    space.written(4)
    space.retire(1, sequence=3, by=4)
    assert space.allocate() == 1
    space.unpin(2)
    assert space.allocate() == 3
    space.unpin(2)
    assert space.allocate() == 0


def test_a_found_file_reuses_nothing_before_its_first_sync():
    space = SlotSpace(3, free=[1], promised=7)
    space.retire(0, sequence=5, by=7)
    assert [space.allocate(), space.allocate()] == [1, 3]
    space.end_sync(space.begin_sync())
    assert space.allocate() == 0


def test_many_free_slots_at_the_end_are_given_back_and_come_anew():
    space = SlotSpace()
    for _ in range(EXCESS_SLOTS + 2):
        space.allocate()
    for slot in range(2, EXCESS_SLOTS + 2):
        assert space.take_excess() is None
        space.give_back(slot)
    assert space.take_excess() == 2
    assert [space.allocate(), space.allocate()] == [2, 3]
    space.give_back(2)
    assert [space.allocate(), space.allocate()] == [2, 4]
