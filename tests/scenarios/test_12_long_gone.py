"""Scenario 12: a device comes back that never heard of deletions which nobody remembers any more.

Source: Cassandra's tombstones and their ``gc_grace_seconds`` (a replica that was down for longer
brings deleted rows back to life as "zombies"). The plausible simpler designs that this breaks drop
tombstones when they are old, or keep them for ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.filesystem.conflict_folder import NAME
from node.storage.tree import ROOT_INODE, iterate_folder
from protocol.ids import ROOT_ITEM
from tests.node.assembled import AssembledNode, running
from tests.node.enrolled import create, login
from tests.server.running import run_command, running_process

AT_ONCE = 1e-9  # of a day: whatever was deleted may be buried
DAYS = 1000.0


@dataclass
class Homes:
    """State directories, and where the server keeps its data."""

    present: Path
    other: Path
    away: Path
    server: Path
    listen: str

    @property
    def newcomer(self) -> Path:
        return self.present.with_name("newcomer")


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    present, other, away, server = (tmp_path / n for n in ("present", "other", "away", "server"))
    return Homes(present, other, away, server, listen)


@asynccontextmanager
async def serving(homes: Homes) -> AsyncIterator[str]:
    with running_process(
        homes.server, open_registration=True, requests_per_second=1000, listen=homes.listen
    ) as process:
        yield process.url


def collect(homes: Homes) -> None:
    """The server's nightly round; it does not run meanwhile."""
    collected = run_command("collect", "--data", str(homes.server))
    assert collected.returncode == 0, collected.stderr


async def synced(*nodes: AssembledNode) -> None:
    for node in (*nodes, *nodes):
        await node.synced()


def make_folder(node: AssembledNode, path: str) -> None:
    parent, _, name = path.rpartition("/")
    folder = node.parts.drive.lookup(ROOT_INODE, parent.encode()).inode if parent else ROOT_INODE
    node.parts.drive.make_folder(folder, name.encode(), 0o700, os.getuid(), os.getgid())


def move(node: AssembledNode, source: str, folder: str, name: str) -> None:
    target = node.parts.drive.lookup(ROOT_INODE, folder.encode()).inode
    node.parts.drive.rename(ROOT_INODE, source.encode(), target, name.encode())


def remove_folder(node: AssembledNode, name: str) -> None:
    node.parts.drive.remove_folder(ROOT_INODE, name.encode())


async def aside(node: AssembledNode, *path: str) -> dict[str, bytes]:
    """What is kept in ``.atoll/aside``, read as programs do."""
    drive = node.parts.drive
    inode = drive.lookup(ROOT_INODE, NAME).inode
    for name in ("aside", *path):
        inode = drive.lookup(inode, name.encode()).inode
    found: dict[str, bytes] = {}
    folder = drive.open_folder(inode)
    for entry in drive.read_folder(folder, 0):
        here = "/".join((*path, entry.name.decode()))
        if entry.attributes.mode == 0o700:
            found |= await aside(node, *path, entry.name.decode())
            continue
        handle = await drive.open_file(entry.attributes.inode, writable=False, truncate=False)
        found[here] = await drive.read(handle, 0, 1 << 20)
        await drive.release(handle)
    drive.release_folder(folder)
    return found


async def grow_old(homes: Homes, *, is_collected: bool = True) -> None:
    """Files on three devices; one goes away, the others delete some, and nobody remembers it."""
    async with serving(homes) as url:
        await create(homes.present, url)
        for home in (homes.other, homes.away):
            await login(home, url)
        async with (
            running(homes.present, tombstone_days=AT_ONCE) as present,
            running(homes.other, tombstone_days=DAYS) as other,
        ):
            for name in ("stays", "gone", "edited"):
                await present.write(name, b"first")
            make_folder(present, "folder")
            await present.write("folder/in it", b"first")
            async with running(homes.away) as away:
                await synced(present, other, away)
            for name in ("gone", "edited", "folder/in it"):
                present.remove(name)
            remove_folder(present, "folder")
            await synced(present, other)
            await present.parts.burying.bury_due()
            await other.parts.burying.go_round(was_away=False)
            assert present.tree() == other.tree() == {"stays": b"first"}
            for node in (present, other):
                assert not node.parts.tree.burials.waiting()
                rows = node.parts.database.execute("SELECT count(DISTINCT item) FROM versions")
                assert rows == [(1,)]  # of what stays; nothing of the rest is kept
    if is_collected:
        collect(homes)


@pytest.mark.parametrize("is_collected", [True, False])
async def test_a_new_device_never_sees_what_was_buried(homes: Homes, is_collected: bool) -> None:
    await grow_old(homes, is_collected=is_collected)
    async with serving(homes) as url:
        await login(homes.newcomer, url)
        async with running(homes.newcomer) as newcomer:
            await newcomer.synced()
            assert newcomer.tree() == {"stays": b"first"}
            assert newcomer.parts.aside.count() == 0
            assert not newcomer.alarm_kinds
            rows = newcomer.parts.database.execute("SELECT count(DISTINCT item) FROM versions")
            assert rows == [(1,)]


async def test_nothing_comes_back_and_what_only_the_late_device_had_is_kept_aside(
    homes: Homes,
) -> None:
    await grow_old(homes)
    async with running(homes.away, is_cut_off=True) as away:
        await away.write("edited", b"by the late device")
        await away.write("folder/new", b"new in a folder that is gone")
        move(away, "stays", "folder", "moved there")
        await away.settled()
    async with (
        serving(homes),
        running(homes.present) as present,
        running(homes.other) as other,
        running(homes.away) as away,
    ):
        await synced(away, present, other)
        await away.parts.burying.go_round(was_away=True)
        await synced(away, present, other)
        shown = {"new": b"new in a folder that is gone", "moved there": b"first"}
        for node in (present, other, away):
            assert node.tree() == shown
            assert not node.alarm_kinds
        assert await aside(away) == {
            "gone": b"first",
            "edited": b"by the late device",
            "folder/in it": b"first",
        }
        for node in (present, other):
            assert node.parts.aside.count() == 0
            rows = node.parts.database.execute("SELECT count(DISTINCT item) FROM versions")
            assert rows == [(len(shown),)]  # what the late device wrote to buried items is nothing


async def test_what_is_kept_aside_goes_when_its_user_removes_it_and_stays_until_then(
    homes: Homes,
) -> None:
    await grow_old(homes)
    async with serving(homes), running(homes.away) as away:
        await away.synced()
        await away.parts.burying.go_round(was_away=True)
    async with running(homes.away, is_cut_off=True) as away:
        drive = away.parts.drive
        assert set(await aside(away)) == {"gone", "edited", "folder/in it"}
        top = drive.lookup(drive.lookup(ROOT_INODE, NAME).inode, b"aside").inode
        folder = drive.lookup(top, b"folder").inode
        drive.unlink(folder, b"in it")
        drive.remove_folder(top, b"folder")  # as rm -r does
        drive.unlink(top, b"gone")
        assert set(await aside(away)) == {"edited"}


async def test_a_device_that_was_in_step_does_not_believe_that_its_files_are_gone(
    homes: Homes,
) -> None:
    """The key of a device in other hands must not empty all the others."""
    async with serving(homes) as url:
        await create(homes.present, url)
        await login(homes.other, url)
        async with running(homes.present) as present, running(homes.other) as other:
            for number in range(210):
                await present.write(f"file {number}", b"here")
            await synced(present, other)
            items = [row.item for _, row in iterate_folder(present.parts.tree, ROOT_ITEM)]
            await present.parts.burying._bury(sorted(items))
            await other.parts.burying.go_round(was_away=False)
            assert len(other.tree()) == 210
            assert "burial" in other.alarm_kinds
