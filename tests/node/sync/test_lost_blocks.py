"""What a loss of power took for good is written over, with what was there before, and said."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from node.storage.database import Database
from node.sync.lost_blocks import LostBlocks
from protocol.ids import BlockId
from protocol.manifests import Entry, Manifest
from protocol.values import Content, Kind
from protocol.version_vector import Dot
from tests.node.sync.sealed_devices import Account, NoKernel, SealedDevice


@pytest.fixture
def device(tmp_path):
    database = Database(tmp_path / "index.db", bytes(32))
    yield SealedDevice(database, 1, Account())
    database.close()


def write_blocks(device: SealedDevice, path: str, number: int) -> None:
    """Write bytes that are in one block."""
    row = device.row_at(path)
    base = device.registers.content(row.item, row.content)
    entries = (Entry(BlockId(bytes([number]) * 32), bytes(32), 5000),)
    device.now_ns += 10**9
    content = Content(Kind.FILE, 5000, device.now_ns, manifest=Manifest(entries))
    device.edits.write_content(row.item, content, base, is_urgent=False)


def replace_lost(device: SealedDevice, lost, here: Collection[int] = ()) -> None:
    """``here``: the numbers of the blocks that are on the disk."""
    blocks = LostBlocks(
        device.database,
        device.registers,
        device.tree,
        device.journal,
        NoKernel(),
        lambda: device.now_ns,
        lambda block: block[0] in here,
    )
    blocks.replace(lost)


def content_at(device: SealedDevice, path: str) -> Content:
    (version,) = device.registers.contents(device.row_at(path).item)
    return version.value


def test_a_file_holds_what_it_held_before_and_everybody_hears_of_it(device):
    device.make_file("report", "what it held")
    (first,) = device.seal_all()
    device.journal.acknowledge(first.id, 1)
    write_blocks(device, "report", 1)
    (lost,) = device.seal_all()
    replace_lost(device, lost)
    assert content_at(device, "report").inline == b"what it held"
    assert not device.journal.knows(lost.id)
    (record,) = device.seal_all()
    (write,), (before,) = record.record.writes, lost.record.writes
    assert write.context.covers(Dot(lost.record.actor, before.n))
    assert [alarm.kind for alarm in device.journal.alarms()] == ["lost"]
    assert "report" in device.journal.alarms()[0].message


def test_of_what_it_held_the_latest_that_was_not_lost_as_well_comes_back(device):
    device.make_file("report", "first")
    for number in (1, 2, 3):
        write_blocks(device, "report", number)
        (lost,) = device.seal_all()
    replace_lost(device, lost, here=[1])
    manifest = content_at(device, "report").manifest
    assert manifest is not None
    (entry,) = manifest.entries
    assert entry.block == BlockId(b"\1" * 32)


def test_a_new_file_stays_with_its_name_and_mode_and_is_empty(device):
    device.make_file("new")
    device.set_mode("new", 0o640)
    write_blocks(device, "new", 1)
    (lost,) = device.seal_all()
    replace_lost(device, lost)
    assert content_at(device, "new").size == 0
    assert device.row_at("new").mode == 0o640
    assert not device.journal.knows(lost.id)
    (record,) = device.seal_all()
    assert len(record.record.writes) == 3


def test_what_was_written_since_stays(device):
    device.make_file("note", "first")
    write_blocks(device, "note", 1)
    (lost,) = device.seal_all()
    device.write("note", "written since")
    replace_lost(device, lost)
    assert content_at(device, "note").inline == b"written since"
    assert device.journal.alarms() == []


def test_only_what_nobody_else_can_have_is_only_here(device):
    device.make_file("one")
    (mine,) = device.seal_all()
    assert device.journal.is_only_here(mine.id)
    device.journal.send_all_again()
    assert not device.journal.is_only_here(mine.id)
    device.make_file("two")
    (sent,) = device.seal_all()
    device.journal.acknowledge(sent.id, 1)
    assert not device.journal.is_only_here(sent.id)
