import pytest

from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey
from protocol.ids import ROOT_ITEM, BlockId, DeviceId, EventId, NamespaceId, RecordId
from protocol.records import NO_RECORD, FolderChange, Record, RecordWrite, Register, SignedRecord
from protocol.values import Content, ItemAttributes, Kind
from protocol.version_vector import EMPTY_CONTEXT
from tests.node.storage.indexes import item_id, version_of

KEY = SigningKey.from_seed(b"k" * 32)
BLOCKS = tuple(BlockId(bytes([number]) * 32) for number in range(3))
ITEM = item_id(1)


def record(sequence=1, blocks=(), incarnation=b"incarnat"):
    made = Record(
        namespace=NamespaceId(bytes(32)),
        epoch=1,
        device=DeviceId(bytes(32)),
        incarnation=incarnation,
        sequence=sequence,
        previous=NO_RECORD if sequence == 1 else RecordId(b"p" * 32),
        hybrid_time_us=sequence,
        account_head=EventId(bytes(32)),
        namespace_head=EventId(bytes(32)),
        automatic=False,
        folders=(),
        blocks=tuple(blocks),
        writes=(RecordWrite(ITEM, Register.CONTENT, sequence, EMPTY_CONTEXT, b"sealed"),),
    )
    body = made.encode()
    return SignedRecord(made, body, KEY.sign(SignedType.RECORD, body))


@pytest.fixture
def journal(index):
    return index.journal


class TestGroups:
    def test_a_group_is_sealed_when_it_was_left_alone_or_is_old_or_urgent(self, journal):
        settled, old, urgent, fresh = (journal.open_group(time, []) for time in (10, 5, 20, 20))
        journal.open_group(30, [old])
        journal.make_urgent([urgent])
        ready = journal.groups(settled_before_us=10, begun_before_us=5, limit=9)
        assert [group.id for group in ready] == [settled, old, urgent]
        assert [group.is_urgent for group in ready] == [False, False, True]
        assert [group.id for group in journal.groups(10, 5, limit=1)] == [settled]
        assert journal.group(fresh).last_us == 20
        assert journal.count_groups() == 4

    def test_a_group_does_not_wait_for_a_clock_that_went_back(self, journal):
        ahead, fresh = journal.open_group(10**15, []), journal.open_group(20, [])
        ready = journal.groups(settled_before_us=10, begun_before_us=5, limit=9, now_us=20)
        assert [group.id for group in ready] == [ahead]
        assert journal.group(fresh) is not None

    def test_a_change_that_touches_several_groups_joins_them(self, index, journal):
        first, second = journal.open_group(1, []), journal.open_group(2, [])
        index.registers.write_local(ITEM, Register.ATTRIBUTES, ItemAttributes(0), 2, second)
        journal.note_folder(first, ROOT_ITEM, 1, 0)
        journal.note_folder(second, ROOT_ITEM, 2, 1)
        journal.note_folder(second, ITEM, 2, 0)
        journal.make_urgent([second])
        joined = journal.open_group(3, [first, second])
        assert joined == first
        assert journal.group(second) is None
        group = journal.group(first)
        assert (group.first_us, group.last_us, group.is_urgent) == (1, 3, True)
        assert index.registers.items_in_group(first) == [ITEM]
        assert journal.group_folders(first) == (FolderChange(ROOT_ITEM, 2), FolderChange(ITEM, 2))
        assert journal.group_folders(second) == ()

    def test_the_time_of_a_folder_never_falls(self, journal):
        group = journal.open_group(1, [])
        for time in (5, 9, 7):
            journal.note_folder(group, ROOT_ITEM, time, 0)
        assert journal.group_folders(group) == (FolderChange(ROOT_ITEM, 9),)

    def test_a_clock_that_goes_back_takes_no_group_back(self, journal):
        group = journal.open_group(10, [])
        journal.open_group(3, [group])
        assert journal.group(group).last_us == 10

    def test_a_closed_group_is_gone(self, journal):
        group = journal.open_group(1, [])
        journal.note_folder(group, ROOT_ITEM, 1, 0)
        journal.close_group(group)
        assert journal.group(group) is None
        assert journal.group_folders(group) == ()
        assert journal.open_group(2, []) >= group


class TestOutbox:
    def test_records_leave_in_the_order_of_their_making(self, journal):
        made = [record(3), record(1), record(2)]
        for signed in made:
            journal.add_own(signed, [])
        assert [entry.id for entry in journal.outbox(9)] == [made[1].id, made[2].id, made[0].id]
        assert [entry.id for entry in journal.outbox(1, skip=1)] == [made[2].id]
        assert journal.outbox(1)[0].wire == made[1].to_wire()

    def test_blocks_are_needed_until_the_record_is_acknowledged(self, journal):
        signed = record(1, BLOCKS[:1])
        journal.add_own(signed, BLOCKS[:2] + BLOCKS[:1])
        assert set(journal.outbox(1)[0].blocks) == set(BLOCKS[:2])
        assert set(journal.unsent_blocks()) == set(BLOCKS[:2])
        assert journal.needs_block(BLOCKS[1])
        assert not journal.needs_block(BLOCKS[2])
        assert not journal.is_sent(signed.id)
        journal.acknowledge(signed.id, 7)
        assert journal.count_outbox() == 0
        assert journal.unsent_blocks() == []
        assert journal.is_sent(signed.id)

    def test_an_acknowledged_record_is_kept_while_a_write_of_it_lives(self, index, journal):
        signed = record(1)
        index.registers.apply_remote(
            ITEM, Register.CONTENT, version_of(Content(Kind.FILE)), signed.id
        )
        journal.add_own(signed, [])
        journal.acknowledge(signed.id, 7)
        assert journal.knows(signed.id)
        later = record(2)
        index.registers.apply_remote(
            ITEM,
            Register.CONTENT,
            version_of(Content(Kind.FILE), n=2, seen=[version_of(Content(Kind.FILE)).dot]),
            later.id,
        )
        assert not journal.knows(signed.id)

    def test_an_unsent_record_is_kept_though_nothing_of_it_lives(self, journal):
        signed = record(1)
        journal.add_own(signed, [])
        journal.drop_if_dead(signed.id)
        assert journal.knows(signed.id)
        journal.acknowledge(signed.id, 7)
        assert not journal.knows(signed.id)

    def test_a_received_record_is_kept_once(self, journal):
        signed = record(1)
        for position in (4, 5):
            journal.add_received(signed, position)
        assert journal.knows(signed.id)
        assert journal.count_outbox() == 0

    def test_an_own_record_that_comes_back_is_acknowledged(self, journal):
        signed = record(1, BLOCKS[:1])
        journal.add_own(signed, BLOCKS[:1])
        journal.add_received(signed, 4)
        assert journal.count_outbox() == 0

    def test_a_new_server_is_sent_everything_again_with_its_blocks(self, journal):
        own, received = record(1), record(1, BLOCKS[:2], b"anothers")
        journal.add_own(own, [])
        journal.add_received(received, 3)
        journal.send_all_again()
        assert journal.count_outbox() == 2
        assert set(journal.unsent_blocks()) == set(BLOCKS[:2])

    def test_only_what_the_new_journal_lacks_is_sent_again(self, journal):
        had, lost, waiting = (record(number) for number in (1, 2, 3))
        journal.add_received(had, 1)
        journal.add_received(lost, 2)
        journal.add_own(waiting, [])
        journal.send_all_again()
        assert [each.id for each in journal.outbox(9)] == [waiting.id]
        journal.add_received(had, 1)
        journal.end_reading()
        assert [each.id for each in journal.outbox(9)] == [lost.id, waiting.id]


def test_the_cursor_is_kept(journal):
    assert journal.cursor == ("", 0)
    journal.set_cursor("epoch", 12)
    assert journal.cursor == ("epoch", 12)


def test_the_same_alarm_is_raised_once(journal):
    for time in (1, 2):
        journal.raise_alarm("dot", "two values", time)
    journal.raise_alarm("dot", "other", 3)
    assert [(alarm.message, alarm.time_us) for alarm in journal.alarms()] == [
        ("two values", 1),
        ("other", 3),
    ]


def test_a_rejected_record_is_kept_with_the_reason(index, journal):
    signed = record(1)
    journal.reject(signed.id, signed.to_wire(), "first")
    journal.reject(signed.id, signed.to_wire(), "second")
    rows = list(index.database.execute("SELECT record, reason, wire FROM rejected"))
    assert rows == [(bytes(signed.id), "second", signed.to_wire())]
