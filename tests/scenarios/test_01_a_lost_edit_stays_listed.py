"""Scenario 1: a device's own lost edit is not buried by its next save, nor by its other handles.

Source: the limit of plain version vectors that dotted version vectors were made for (N. Preguica, C.
Baquero, P. Almeida, V. Fonte, R. Goncalves, "Dotted Version Vectors: Logical Clocks for Optimistic
Replication", 2010, section 3): "my third write but not my second" can not be said, so a later write
of one writer hides its own concurrent sibling. The plausible simpler design that this breaks is one
counter a device: after A's save over the winner, A's counter covers A's earlier, unseen edit too.
Syncthing's conflict copies (`.sync-conflict-*`) avoid it by making another file, which then has no
history and conflicts by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.drives import DriveWorld, drive_world

BASE = b"\0base"  # binary, so that no merge comes in between


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DriveWorld]:
    with drive_world(3, tmp_path) as made:
        yield made


async def shared(world: DriveWorld) -> None:
    await world.devices[0].write_file("file", BASE)
    world.sync()


async def lose(world: DriveWorld) -> None:
    """A's edit loses against a later one by B."""
    a, b, _ = world.devices
    await shared(world)
    await a.write_file("file", b"\0lost by A")
    b.index.now_ns += 10**10
    await b.write_file("file", b"\0won by B")
    world.sync()


async def test_a_loses_opens_the_winner_and_saves_and_its_earlier_edit_is_still_listed(
    world: DriveWorld,
) -> None:
    a, _, _ = world.devices
    await lose(world)
    assert await a.read_file("file") == b"\0won by B"
    handle = await a.open("file")
    await a.save(handle, b"\0won by B, edited by A")
    world.sync()
    for device in world.devices:
        assert await device.read_file("file") == b"\0won by B, edited by A"
        assert device.lost() == [b"\0lost by A"], "the winner was covered, A's own edit was not"


async def test_ten_more_saves_of_the_winner_bury_nothing_and_add_nothing(world: DriveWorld) -> None:
    a, _, _ = world.devices
    await lose(world)
    for number in range(10):
        await a.write_file("file", b"\0save %d" % number)
        if number % 3 == 0:
            world.sync()
    world.sync()
    for device in world.devices:
        assert await device.read_file("file") == b"\0save 9"
        assert device.lost() == [b"\0lost by A"], "no conflict of a conflict"


async def test_two_handles_with_different_bases_on_one_device_cover_what_each_had_opened(
    world: DriveWorld,
) -> None:
    a, b, _ = world.devices
    await shared(world)
    before = await a.open("file")
    await b.write_file("file", b"\0by B")
    world.sync()
    after = await a.open("file")
    assert await a.drive.read(before, 0, 100) == BASE, "a handle keeps the version that it opened"
    assert await a.drive.read(after, 0, 100) == b"\0by B"
    await a.save(before, b"\0by A over the base")
    world.sync()
    assert a.lost() == [b"\0by B"], "what was written over the base does not cover B's edit"
    await a.save(after, b"\0by A over B's")
    world.sync()
    for device in world.devices:
        assert await device.read_file("file") == b"\0by A over B's"
        assert device.lost() == [b"\0by A over the base"]


async def test_whichever_handle_is_saved_last_both_edits_are_there(world: DriveWorld) -> None:
    a, b, _ = world.devices
    await shared(world)
    before = await a.open("file")
    await b.write_file("file", b"\0by B")
    world.sync()
    after = await a.open("file")
    await a.save(after, b"\0by A over B's")
    await a.save(before, b"\0by A over the base")
    world.sync()
    for device in world.devices:
        assert {await device.read_file("file"), *device.lost()} == {
            b"\0by A over the base",
            b"\0by A over B's",
        }


async def test_two_saves_through_one_old_handle_are_one_version(world: DriveWorld) -> None:
    a, b, _ = world.devices
    await shared(world)
    handle = await a.open("file")
    await b.write_file("file", b"\0by B")
    world.sync()
    for number in range(3):
        a.index.now_ns += 10**9
        await a.drive.write(handle, 0, b"\0by A, save %d" % number)
        await a.drive.flush(handle)
        world.sync()
    await a.drive.release(handle)
    for device in world.devices:
        assert {await device.read_file("file"), *device.lost()} == {b"\0by A, save 2", b"\0by B"}


@pytest.mark.parametrize("is_sealed_each", [True, False])
async def test_fifty_edits_made_offline_by_two_devices_are_one_conflict(
    world: DriveWorld, is_sealed_each: bool
) -> None:
    a, b, c = world.devices
    await shared(world)
    for number in range(50):
        for device, name in ((a, b"A"), (b, b"B")):
            await device.write_file("file", b"\0%s %d" % (name, number))
        if is_sealed_each:
            world.world.seal()  # every save is a record by itself, and nobody hears of it
    world.sync()
    if is_sealed_each:
        assert len(world.world.records) > 100
    for device in (a, b, c):
        assert {await device.read_file("file"), *device.lost()} == {b"\0A 49", b"\0B 49"}
        assert len(device.conflicts()) == 1
