"""Devices with a whole drive each, over indexes that tell each other what they did.

A mounted file system without a mount: programs are calls of the drive, the kernel is whoever
remembers inodes. Contents are short and inline; nothing is sealed and nothing is sent.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trio

from node.core.content_merge import Settlement
from node.drive import Drive
from node.filesystem.conflict_folder import ConflictFolder, ConflictVersion
from node.filesystem.open_files import OpenFiles
from node.filesystem.saves import Saves
from node.filesystem.settlements import Settlements
from node.filesystem.values import Attributes, Invalidation, Owner
from node.filesystem.xattrs import Xattrs
from node.storage.aside import Aside
from node.storage.staging import StagingStore
from node.storage.standing import Standing
from node.storage.tree import ROOT_INODE
from protocol.values import Content
from tests.node.storage import indexes
from tests.node.storage.indexes import DatabasePool, Index, SentRecord, World, repeatable_ids

OWNER = Owner(1000, 100)


class NoBlocks:
    """Where blocks would come from."""

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        raise AssertionError("everything is inline here")

    def is_here(self, content: Content) -> bool:
        return True


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """In place of a thread."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


class DriveDevice:
    """One device: programs read and write through its drive."""

    def __init__(self, index: Index, home: Path, *, is_beside: bool = False) -> None:
        self.index = index
        home.mkdir(parents=True, exist_ok=True)

        def now_ns() -> int:
            return index.now_ns

        edits = Saves(
            index.database,
            index.registers,
            index.tree,
            index.journal,
            now_ns,
            lambda size: indexes.draw_id(size),
        )
        index.edits = edits
        staging = StagingStore(home, bytes(32))
        self.files = OpenFiles(
            index.registers,
            index.tree,
            edits,
            staging,
            NoBlocks(),
            now_ns,
            quiet_s=5,
            run_sync=inline,
        )
        self.aside = Aside(index.database)
        self.conflict_folder = ConflictFolder(
            index.tree, index.registers, self.aside, OWNER, is_beside=is_beside
        )
        self.drive = Drive(
            database=index.database,
            registers=index.registers,
            tree=index.tree,
            edits=edits,
            settlements=Settlements(
                index.database,
                index.registers,
                index.tree,
                index.journal,
                now_ns,
                random.Random(index.number).randbytes,
            ),
            files=self.files,
            conflicts=self.conflict_folder,
            aside=self.aside,
            release_blocks=lambda _: None,
            xattrs=Xattrs(index.registers, edits, Standing(index.database), lambda _: 100),
            owner=OWNER,
            home=home,
            sync_disk=lambda: None,
            now_ns=now_ns,
            run_sync=inline,
        )

    def receive(self, record: SentRecord) -> list[Invalidation]:
        """Take in a record as the puller does; what the kernel is told."""
        self.drive.expect_remote_changes([write.item for write in record.writes])
        self.index.tree.take_changes()
        self.index.receive(record)
        return self.drive.take_remote_changes(self.index.tree.take_changes())

    # Programs

    def stat(self, path: str) -> Attributes:
        """Look a path up as the kernel does: it knows the inode from then on."""
        found = self.drive.attributes(ROOT_INODE)
        for name in filter(None, path.split("/")):
            found = self.drive.lookup(found.inode, name.encode())
            self.drive.remember(found.inode)
        return found

    async def open(self, path: str, *, truncate: bool = False, writable: bool = True) -> int:
        return await self.drive.open_file(
            self.stat(path).inode, writable=writable, truncate=truncate
        )

    async def write_file(self, path: str, data: bytes) -> None:
        """As ``printf ... > path``: open with O_TRUNC, write, close; make it if it is not there."""
        self.index.now_ns += 10**9
        parent, _, name = path.rpartition("/")
        folder = self.stat(parent)
        names = [entry for entry, _ in self.listed(parent)]
        if name.encode() in names:
            handle = await self.open(path, truncate=True)
        else:
            handle, _ = self.drive.create_file(folder.inode, name.encode(), 0o600, 1000, 100)
        await self.save(handle, data)

    async def save(self, handle: int, data: bytes) -> None:
        """Write all of a handle's file and close it."""
        self.index.now_ns += 10**9
        await self.drive.write(handle, 0, data)
        await self.drive.flush(handle)
        await self.drive.release(handle)

    async def read_file(self, path: str) -> bytes:
        handle = await self.open(path, writable=False)
        data = await self.drive.read(handle, 0, 1 << 20)
        await self.drive.release(handle)
        return data

    def make_folder(self, path: str) -> None:
        parent, name = self._place(path)
        self.drive.make_folder(parent, name, 0o700, 1000, 100)

    def rename(self, source: str, target: str) -> None:
        self.drive.rename(*self._place(source), *self._place(target))

    def remove(self, path: str) -> None:
        self.drive.unlink(*self._place(path))

    def remove_folder(self, path: str) -> None:
        self.drive.remove_folder(*self._place(path))

    def _place(self, path: str) -> tuple[int, bytes]:
        self.index.now_ns += 10**9
        parent, _, name = path.rpartition("/")
        return self.stat(parent).inode, name.encode()

    def listed(self, path: str) -> list[tuple[bytes, Attributes]]:
        handle = self.drive.open_folder(self.stat(path).inode)
        entries = [(entry.name, entry.attributes) for entry in self.drive.read_folder(handle, 0)]
        self.drive.release_folder(handle)
        return entries

    def conflicts(self) -> list[ConflictVersion]:
        return self.conflict_folder.versions()

    def lost(self) -> list[bytes]:
        """The bytes of all conflict versions."""
        return sorted(conflict.version.value.inline for conflict in self.conflicts())

    def settle(self, path: str, content: Content) -> list[Invalidation]:
        """Let a content stand for all versions of a file."""
        item = self.index.row_at(path).item
        covered = tuple(self.index.registers.contents(item))
        stale, _ = self.drive.settle(item, Settlement(covered, content))
        return stale


class DriveWorld:
    """Devices with drives."""

    def __init__(self, world: World, folder: Path, *, is_beside: bool = False) -> None:
        self.world = world
        self.devices = [
            DriveDevice(index, folder / str(index.number), is_beside=is_beside)
            for index in world.indexes
        ]

    def sync(self) -> None:
        """Everything reaches everybody; clocks meet."""
        self.world.seal()
        for device in self.devices:
            for record in self.world.missing(device.index):
                device.receive(record)
        latest_ns = max(device.index.now_ns for device in self.devices)
        for device in self.devices:
            device.index.now_ns = latest_ns


_seeds = itertools.count()


@contextmanager
def drive_world(count: int, folder: Path, *, is_beside: bool = False) -> Iterator[DriveWorld]:
    """Devices with empty drives, for a test."""
    with ExitStack() as stack:
        pool = DatabasePool()
        stack.callback(pool.close)
        databases = stack.enter_context(pool.borrow(count))
        stack.enter_context(repeatable_ids(b"drives%d" % next(_seeds)))
        yield DriveWorld(World(databases), folder, is_beside=is_beside)


Devices = Sequence[DriveDevice]
