import random

import pytest

from node.storage.author_heads import AuthorHeads
from node.sync import record_intake
from node.sync.record_intake import parse_received
from tests.node.sync.sealed_devices import EPOCH


def write_files(device, *names):
    """One record for each file."""
    records = []
    for name in names:
        device.make_file(name)
        records += device.seal_all()
    return records


async def test_records_take_effect_in_whatever_order_they_come_and_the_head_follows(devices):
    writer = devices(1)
    records = write_files(writer, *"abcdef")
    for seed in range(10):
        reader = devices(2)
        mixed = random.Random(seed).sample(records, len(records))
        for position, record in enumerate(mixed, 1):
            reader.take([record], position)
        assert reader.paths() == set("abcdef")
        assert reader.alarm_kinds == []
        head = AuthorHeads(reader.database).head(writer.author.actor)
        assert (head.sequence, head.record) == (6, records[-1].id)
        assert not list(reader.database.execute("SELECT * FROM heads_ahead"))


async def test_the_cursor_stands_behind_what_was_taken_in_and_no_further(devices, monkeypatch):
    """A node that dies between two steps of a page reads the rest of it again."""
    monkeypatch.setattr(record_intake, "_STEP_S", -1)  # so that a step is one record
    records, reader = write_files(devices(1), *"abc"), devices(2)
    received = [
        parse_received(number, record.to_wire()) for number, record in enumerate(records, 1)
    ]
    for taken in (1, 2, 3):
        count, _ = reader.intake.take_some(received[taken - 1 :], EPOCH)
        assert count == 1
        assert reader.journal.cursor == (EPOCH, taken)
        assert reader.paths() == set("abc"[:taken])


async def test_a_fork_is_an_alarm_with_both_records_and_the_later_one_has_no_effect(devices):
    original, clone, reader = devices(1), devices(1), devices(2)
    (first,) = write_files(original, "a")
    clone.take([first])
    (known,) = write_files(original, "b")
    clone.sequence, clone.previous = 1, first.id
    forged = write_files(clone, "c", "d")
    (other,) = write_files(devices(3), "e")
    reader.take([first, known, *forged, other])
    assert reader.paths() == {"a", "b", "e"}
    (alarm,) = reader.journal.alarms()
    assert alarm.kind == "fork"
    assert alarm.evidence == (known.to_wire(), forged[0].to_wire())
    assert reader.rejected == {record.id for record in forged}
    reader.take([first, known, *forged, other])
    assert len(reader.journal.alarms()) == 1


async def test_what_follows_a_rejected_record_is_rejected_even_beyond_the_known_head(devices):
    original, clone, reader = devices(1), devices(1), devices(2)
    (known,) = write_files(original, "a")
    forged = write_files(clone, "b", "c", "d")
    reader.take([known, *forged])
    assert reader.paths() == {"a"}
    assert reader.rejected == {record.id for record in forged}


async def test_another_record_at_a_place_long_passed_is_found_by_what_it_writes(devices):
    original, clone, reader = devices(1), devices(1), devices(2)
    records = write_files(original, "a", "b", "c")
    (forged,) = write_files(clone, "x")
    reader.take([*records, forged])
    assert reader.paths() == {"a", "b", "c"}
    assert reader.alarm_kinds == ["fork"]


async def test_records_that_come_again_after_they_were_covered_and_dropped_are_no_fork(devices):
    writer, reader = devices(1), devices(2)
    records = write_files(writer, "a", "b")
    writer.write("a", "new")
    records += writer.seal_all()
    reader.take(records)
    writer.unlink("b")
    records += writer.seal_all()
    reader.take(records)
    reader.take(records[::-1])
    assert reader.paths() == {"a"}
    assert reader.alarm_kinds == []


async def test_two_values_for_one_dot_undo_the_whole_record_and_leave_the_rest(devices):
    writer, forger, reader = devices(1), devices(1), devices(2)
    (made,) = write_files(writer, "a")
    forger.take([made])
    writer.write("a", "one")
    (known,) = writer.seal_all()
    forger.sequence, forger.previous = 2, known.id  # its chain is right, only the dot is not
    forger.make_file("new")
    forger.write("a", "two")
    forged = forger.seal_all()
    (other,) = write_files(devices(3), "e")
    reader.take([made, known, *forged, other])
    assert reader.paths() >= {"a", "e"}
    content = reader.registers.content(reader.row_at("a").item, reader.row_at("a").content)
    assert content.value.inline == b"one"
    assert reader.alarm_kinds == ["fork"]
    assert known.to_wire() in reader.journal.alarms()[0].evidence
    assert not reader.journal.knows(forged[-1].id)


async def test_heads_of_a_transaction_that_was_taken_back_are_forgotten(devices):
    writer, reader = devices(1), devices(2)
    records = write_files(writer, "a", "b")
    heads = AuthorHeads(reader.database)

    def fail():
        with reader.database.transaction():
            heads.take(records[0])
            heads.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    reader.take(records)
    assert AuthorHeads(reader.database).head(writer.author.actor).sequence == 2


async def test_links_beyond_a_gap_that_never_closes_are_bounded(devices, monkeypatch):
    monkeypatch.setattr("node.storage.author_heads._KEPT_AHEAD", 8)
    writer, reader = devices(1), devices(2)
    records = write_files(writer, *(f"f{number}" for number in range(30)))
    reader.take(records[1:])
    (kept,) = reader.database.row("SELECT count(*) FROM heads_ahead")
    assert kept <= 10
    assert len(reader.paths()) == 29
    reader.take(records)
    assert len(reader.paths()) == 30
    assert reader.alarm_kinds == []


async def test_a_record_with_a_bad_signature_does_not_stand_in_the_way_of_the_real_one(devices):
    writer, reader = devices(1), devices(2)
    first, second = write_files(writer, "a", "b")
    forged = type(first)(first.record, first.body, bytes(64))
    reader.take([forged, second, first])
    assert reader.paths() == {"a", "b"}
    assert reader.alarm_kinds == ["record"]
