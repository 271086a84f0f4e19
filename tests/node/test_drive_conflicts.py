"""What the drive makes of settled conflicts: inodes, open files, versions beside their file."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.core.staged_content import StagedContent
from node.errors import DriveError
from node.filesystem.values import StaleEntry
from node.storage.tree import ROOT_INODE
from protocol.values import Content, Kind
from tests.node.drives import DriveWorld, drive_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DriveWorld]:
    with drive_world(2, tmp_path, is_beside=True) as made:
        yield made


@pytest.fixture
async def conflict(world: DriveWorld) -> None:
    """The file ``a.txt`` with A's version beside the shown one of B."""
    a, b = world.devices
    await a.write_file("a.txt", b"base")
    world.sync()
    await a.write_file("a.txt", b"by A")
    b.index.now_ns += 10**10
    await b.write_file("a.txt", b"by B")
    world.sync()


def content(data: bytes) -> Content:
    return Content(Kind.FILE, len(data), inline=data)


async def test_who_has_the_file_open_keeps_its_version_through_a_settlement(
    world: DriveWorld, conflict: None
) -> None:
    a, _ = world.devices
    before = a.stat("a.txt").inode
    handle = await a.open("a.txt")
    stale = a.settle("a.txt", content(b"settled"))
    assert StaleEntry(ROOT_INODE, b"a.txt") in stale
    assert a.stat("a.txt").inode != before
    assert await a.drive.read(handle, 0, 100) == b"by B"
    assert await a.read_file("a.txt") == b"settled"
    await a.save(handle, b"over by B")
    assert {await a.read_file("a.txt"), *a.lost()} == {b"settled", b"over by B"}


async def test_a_settlement_on_what_is_shown_changes_no_inode(
    world: DriveWorld, conflict: None
) -> None:
    a, _ = world.devices
    before = a.stat("a.txt").inode
    handle = await a.open("a.txt")
    a.settle("a.txt", content(b"by B"))
    assert a.stat("a.txt").inode == before
    assert a.lost() == []
    await a.save(handle, b"next")
    assert a.lost() == [], "the handle had opened the bytes that were kept"


async def test_versions_beside_are_listed_after_all_others_and_read_only(
    world: DriveWorld, conflict: None
) -> None:
    a, _ = world.devices
    await a.write_file("z", b"")
    names = [name for name, _ in a.listed("")]
    assert names[:2] == [b"a.txt", b"z"]
    (beside,) = names[2:]
    shown = beside.decode()
    assert await a.read_file(shown) == b"by A"
    inode = a.stat(shown).inode
    with pytest.raises(DriveError) as refused:
        await a.open(shown)
    assert refused.value.errno == errno.EROFS
    with pytest.raises(DriveError) as refused:
        a.drive.rename(ROOT_INODE, beside, ROOT_INODE, b"other")
    assert refused.value.errno == errno.EPERM
    handle = a.drive.open_folder(ROOT_INODE)
    entries = list(a.drive.read_folder(handle, 0))
    for place, entry in enumerate(entries):
        rest = [other.name for other in a.drive.read_folder(handle, entry.cookie)]
        assert rest == names[place + 1 :], "reading goes on after any cookie"
    assert a.stat(shown).inode == inode


async def test_removing_a_version_beside_drops_it_on_every_device(
    world: DriveWorld, conflict: None
) -> None:
    a, b = world.devices
    beside = a.listed("")[1][0]
    a.drive.unlink(ROOT_INODE, beside)
    assert [name for name, _ in a.listed("")] == [b"a.txt"]
    world.sync()
    for device in (a, b):
        assert device.lost() == []
        assert await device.read_file("a.txt") == b"by B"


async def test_removing_all_that_was_listed_succeeds_though_versions_go_with_their_file(
    world: DriveWorld, conflict: None
) -> None:
    a, b = world.devices
    a.conflict_folder.take_stale()  # as the drive's task does every second
    for name in [name for name, _ in a.listed("")]:
        a.drive.unlink(ROOT_INODE, name)
    with pytest.raises(DriveError):
        a.drive.unlink(ROOT_INODE, b"never there")
    world.sync()
    assert a.listed("") == b.listed("") == []


async def test_a_save_over_a_merge_covers_its_double(world: DriveWorld) -> None:
    """Two devices settle alike at once; who edits one result has seen both."""
    a, b = world.devices
    await a.write_file("a.txt", b"base")
    world.sync()
    await a.write_file("a.txt", b"by A")
    await b.write_file("a.txt", b"by B")
    world.sync()
    for device in (a, b):
        device.settle("a.txt", content(b"both"))
    world.sync()
    item = a.index.row_at("a.txt").item
    assert len(a.index.registers.contents(item)) == 2
    assert a.lost() == []
    await b.write_file("a.txt", b"both and more")
    world.sync()
    for device in (a, b):
        assert await device.read_file("a.txt") == b"both and more"
        assert device.lost() == []


async def test_a_long_settlement_survives_in_staging_once_it_is_synced(
    world: DriveWorld, conflict: None
) -> None:
    a, _ = world.devices
    data = b"a line of text\n" * 20_000
    item = a.index.row_at("a.txt").item
    staged = a.drive.stage(item, data, 7)
    assert isinstance(staged, StagedContent)
    a.settle("a.txt", staged)
    await a.drive.sync_content(staged)
    assert a.files.was_synced(staged.staging), "what refers to its blocks will be synced too"
    assert await a.read_file("a.txt") == data
    await a.write_file("a.txt", b"shorter")
    assert await a.read_file("a.txt") == b"shorter"


async def test_merged_bytes_have_a_time_of_their_own_whatever_the_clock_says(
    world: DriveWorld, conflict: None
) -> None:
    a, _ = world.devices
    item = a.index.row_at("a.txt").item
    assert a.drive.stage(item, b"x", 5).mtime_ns == a.index.now_ns
    ahead_ns = a.index.now_ns + 10**18
    assert a.drive.stage(item, b"x", ahead_ns).mtime_ns == ahead_ns + 1


async def test_rivals_for_one_name_that_are_exchanged_hold_what_they_held(
    world: DriveWorld,
) -> None:
    """Found by the simulation: the trade of contents by which a save keeps its item lost one."""
    a, b = world.devices
    await a.write_file("a.txt", b"by A")
    await b.write_file("a.txt", b"by B")
    world.sync()
    shown, rival = sorted(name.decode() for name, _ in a.listed("") if name != b".atoll")
    before = {name: await a.read_file(name) for name in (shown, rival)}
    a.drive.rename(ROOT_INODE, shown.encode(), ROOT_INODE, rival.encode(), exchange=True)
    world.sync()
    for device in world.devices:
        found = {name: await device.read_file(name) for name in (shown, rival)}
        assert found == {shown: before[rival], rival: before[shown]}


async def test_two_links_of_one_file_that_want_one_name_are_one_name(world: DriveWorld) -> None:
    a, b = world.devices
    await a.write_file("first", b"data")
    world.sync()
    a.rename("first", "second")
    b.drive.make_link(b.stat("first").inode, ROOT_INODE, b"second")
    world.sync()
    for device in (a, b):
        assert device.stat("second").nlink == 1
        assert [(name, found.nlink) for name, found in device.listed("")] == [(b"second", 1)]
    b.remove("second")
    world.sync()
    assert a.listed("") == b.listed("") == []
