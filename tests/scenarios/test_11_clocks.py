"""Scenario 11: a device whose clock says 2100, one that says 1999, one that jumps back every hour.

Sources: Kulkarni et al., "Logical Physical Clocks" (2014), for times that never run behind their causes;
Dropbox, "Rewriting the heart of our sync engine" (2020), and Syncthing's rule of version vectors before
modification times, for why a wrong clock must decide nothing but which of two versions, written by
people who had not seen each other's, has the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.limits import CLOCK_LEAD_US
from tests.node.drives import DriveDevice, DriveWorld, drive_world

DAY_NS = 24 * 3600 * 10**9
YEAR_NS = 365 * DAY_NS
HOUR_NS = 3600 * 10**9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DriveWorld]:
    with drive_world(3, tmp_path) as made:
        yield made


def meet(world: DriveWorld) -> None:
    """Everything reaches everybody; every clock goes on as it is."""
    world.world.seal()
    for device in world.devices:
        for record in world.world.missing(device.index):
            device.receive(record)


async def everything(device: DriveDevice) -> dict[bytes, bytes]:
    """Names and bytes of the root's files, and of conflict versions by number."""
    found = {name: await device.read_file(name.decode()) for name, _ in device.listed("")}
    return found | {b"lost %d" % number: data for number, data in enumerate(device.lost())}


async def same_everywhere(world: DriveWorld) -> dict[bytes, bytes]:
    first, *others = [await everything(device) for device in world.devices]
    for other in others:
        assert other == first
    return first


async def test_who_has_seen_a_version_from_2100_writes_over_it(world: DriveWorld) -> None:
    future, right, _ = world.devices
    future.index.now_ns += 74 * YEAR_NS
    await future.write_file("note", b"from 2100")
    meet(world)
    await right.write_file("note", b"seen and changed today")
    meet(world)
    assert await same_everywhere(world) == {b"note": b"seen and changed today"}
    await future.write_file("note", b"seen and changed in 2100")
    meet(world)
    assert await same_everywhere(world) == {b"note": b"seen and changed in 2100"}


async def test_who_writes_in_1999_loses_nothing_that_he_has_seen_and_changed(
    world: DriveWorld,
) -> None:
    right, past, _ = world.devices
    past.index.now_ns -= 27 * YEAR_NS
    await right.write_file("note", b"today")
    meet(world)
    await past.write_file("note", b"seen and changed in 1999")
    meet(world)
    assert await same_everywhere(world) == {b"note": b"seen and changed in 1999"}


async def test_between_wrong_clocks_no_edit_made_apart_is_lost(world: DriveWorld) -> None:
    future, past, right = world.devices
    await right.write_file("note", b"base")
    meet(world)
    future.index.now_ns += 74 * YEAR_NS
    past.index.now_ns -= 27 * YEAR_NS
    for device, data in ((future, b"2100"), (past, b"1999"), (right, b"today")):
        await device.write_file("note", data)
    meet(world)
    found = await same_everywhere(world)
    assert found[b"note"] == b"2100"
    assert sorted(found.values()) == [b"1999", b"2100", b"today"]


async def test_a_clock_in_2100_drags_no_other_clock_along(world: DriveWorld) -> None:
    future, right, _ = world.devices
    future.index.now_ns += 74 * YEAR_NS
    await future.write_file("note", b"from 2100")
    meet(world)
    before_us = right.index.now_ns // 1000
    await right.write_file("note", b"over it")
    await right.write_file("other", b"nothing to do with it")
    for name in ("note", "other"):
        row = right.index.row_at(name)
        version = right.index.registers.content(row.item, row.content)
        assert version is not None
        assert version.time_us < before_us + CLOCK_LEAD_US


async def test_a_clock_that_jumps_back_an_hour_every_hour_keeps_the_order_of_its_edits(
    world: DriveWorld,
) -> None:
    jumping, right, _ = world.devices
    await jumping.write_file("note", b"edit 0")
    for number in range(1, 6):
        jumping.index.now_ns += HOUR_NS
        jumping.index.now_ns -= HOUR_NS + 60 * 10**9
        await jumping.write_file("note", b"edit %d" % number)
        jumping.rename("note", "note.tmp")
        jumping.rename("note.tmp", "note")
        meet(world)
        assert await same_everywhere(world) == {b"note": b"edit %d" % number}
    await right.write_file("note", b"by the other")
    meet(world)
    assert await same_everywhere(world) == {b"note": b"by the other"}


async def test_a_deletion_in_1999_deletes_what_it_saw_and_not_what_it_did_not(
    world: DriveWorld,
) -> None:
    right, past, _ = world.devices
    for name in ("seen", "edited"):
        await right.write_file(name, b"base")
    meet(world)
    past.index.now_ns -= 27 * YEAR_NS
    past.remove("seen")
    past.remove("edited")
    await right.write_file("edited", b"edited meanwhile")
    meet(world)
    assert await same_everywhere(world) == {b"edited": b"edited meanwhile"}
