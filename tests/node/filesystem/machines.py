"""A device with a whole drive but no kernel: programs' system calls, by paths, one after the other.

`Machine` keeps what a kernel keeps: which inode number it has cached for which name. A name that it
moved or made shows the number that it knows, and the drive must agree with that.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import trio

from node.drive import Attributes, StaleEntry
from node.errors import DriveError
from node.filesystem.values import AttributeChanges
from node.storage.tree import ROOT_INODE
from protocol.ids import ItemId
from protocol.values import Kind
from tests.node.drives import DriveDevice
from tests.node.storage.indexes import Index, SentRecord, World

CALL_NS = 2_000_000  # what a system call takes on a mount


class Machine:
    """One device's drive, with the system calls of its programs."""

    def __init__(self, index: Index, folder: Path) -> None:
        self.index = index
        self._folder = folder
        self._start()

    def _start(self) -> None:
        device = DriveDevice(self.index, self._folder)
        self.drive, self.files = device.drive, device.files
        self._cached: dict[tuple[int, bytes], int] = {}

    def crash(self) -> None:
        """The node dies and starts anew: what was registered is there, handles are not."""
        self._start()
        self.files.recover()

    def wait(self, seconds: float) -> None:
        self.index.now_ns += int(seconds * 10**9)

    # System calls

    def create(self, path: str, mode: int = 0o644) -> int:
        """``open(O_CREAT | O_EXCL | O_WRONLY)``."""
        parent, name = self._split(path)
        handle, attributes = self.drive.create_file(parent, name, mode, 1000, 1000)
        self._learn(parent, name, attributes)
        return handle

    def open(self, path: str, *, writable: bool = False, truncate: bool = False) -> int:
        return now(self.drive.open_file(self._inode(path), writable=writable, truncate=truncate))

    def write(self, handle: int, data: bytes, offset: int = 0) -> None:
        self._tick()
        assert now(self.drive.write(handle, offset, data)) == len(data)

    def pread(self, handle: int) -> bytes:
        return now(self.drive.read(handle, 0, 1 << 20))

    def close(self, handle: int) -> None:
        self._tick()
        now(self.drive.flush(handle))
        now(self.drive.release(handle))

    def fsync(self, handle: int) -> None:
        trio.run(self.drive.fsync, handle)

    def sync_folder(self, path: str) -> None:
        trio.run(self.drive.fsync_folder, self._inode(path))

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Create, write and close."""
        handle = self.create(path, mode)
        self.write(handle, data)
        self.close(handle)

    def overwrite(self, path: str, data: bytes) -> None:
        """``open(O_TRUNC)``, write and close."""
        handle = self.open(path, writable=True, truncate=True)
        self.write(handle, data)
        self.close(handle)

    def read(self, path: str) -> bytes:
        handle = self.open(path)
        data = self.pread(handle)
        now(self.drive.release(handle))
        return data

    def rename(self, source: str, target: str) -> None:
        old, new = self._split(source), self._split(target)
        moved = self._known(*old)
        is_same = self.exists(target) and self._known(*new) == moved
        self.drive.rename(*old, *new)
        if not is_same:
            self._cached[new] = self._cached.pop(old)
        self._take_stale()

    def exchange(self, first: str, second: str) -> None:
        old, new = self._split(first), self._split(second)
        one, other = self._known(*old), self._known(*new)
        self.drive.rename(*old, *new, exchange=True)
        self._cached[old], self._cached[new] = other, one
        self._take_stale()

    def unlink(self, path: str) -> None:
        parent, name = self._split(path)
        self._known(parent, name)
        self.drive.unlink(parent, name)
        self._cached.pop((parent, name), None)
        self._take_stale()

    def link(self, source: str, target: str) -> None:
        parent, name = self._split(target)
        self._learn(parent, name, self.drive.make_link(self._inode(source), parent, name))

    def mkdir(self, path: str) -> None:
        parent, name = self._split(path)
        self._learn(parent, name, self.drive.make_folder(parent, name, 0o755, 1000, 1000))

    def rmdir(self, path: str) -> None:
        parent, name = self._split(path)
        self.drive.remove_folder(parent, name)
        self._cached.pop((parent, name), None)
        self._take_stale()

    def symlink(self, target: str, path: str) -> None:
        parent, name = self._split(path)
        made = self.drive.make_symlink(parent, name, target.encode(), 1000, 1000)
        self._learn(parent, name, made)

    def readlink(self, path: str) -> str:
        return self.drive.read_symlink(self._inode(path)).decode()

    def chmod(self, path: str, mode: int) -> None:
        inode = self._inode(path)
        now(self.drive.set_attributes(inode, AttributeChanges(mode=mode)))

    def truncate(self, path: str, size: int) -> None:
        now(self.drive.set_attributes(self._inode(path), AttributeChanges(size=size)))

    def utime(self, path: str, mtime_ns: int) -> None:
        inode = self._inode(path)
        now(self.drive.set_attributes(inode, AttributeChanges(mtime_ns=mtime_ns)))

    def stat(self, path: str) -> Attributes:
        """What a program sees: attributes of the number that the kernel has for the name."""
        return self.drive.attributes(self._inode(path))

    def exists(self, path: str) -> bool:
        try:
            self._inode(path)
        except DriveError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def names(self, path: str = "") -> list[str]:
        handle = self.drive.open_folder(self._inode(path))
        names = [entry.name.decode() for entry in self.drive.read_folder(handle, 0)]
        self.drive.release_folder(handle)
        return sorted(names)

    def tree(self) -> dict[str, tuple[Kind, bytes, int]]:
        """Every path with its kind, bytes (or target) and mode."""
        return dict(self._below(""))

    def _below(self, folder: str) -> Iterator[tuple[str, tuple[Kind, bytes, int]]]:
        for name in self.names(folder):
            path = f"{folder}/{name}".lstrip("/")
            found = self.stat(path)
            data = b""
            if found.kind is Kind.FILE:
                data = self.read(path)
            elif found.kind is Kind.SYMLINK:
                data = self.readlink(path).encode()
            yield path, (found.kind, data, stat.S_IMODE(found.mode))
            if found.kind is Kind.DIRECTORY:
                yield from self._below(path)

    # What travels

    def item(self, path: str) -> ItemId:
        return self.index.row_at(path).item

    def conflicts(self, path: str) -> int:
        return self.index.row_at(path).conflicts

    def receive(self, record: SentRecord) -> None:
        """As the puller does it."""
        tree, drive = self.index.tree, self.drive
        drive.expect_remote_changes([write.item for write in record.writes])
        tree.take_changes()
        self.index.receive(record)
        for stale in drive.take_remote_changes(tree.take_changes()):
            if isinstance(stale, StaleEntry):
                self._cached.pop((stale.parent, stale.name), None)

    # The kernel

    def _tick(self) -> None:
        self.index.now_ns += CALL_NS

    def _split(self, path: str) -> tuple[int, bytes]:
        self._tick()
        folder, _, name = path.rpartition("/")
        return self._walk(folder), name.encode()

    def _inode(self, path: str) -> int:
        self._tick()
        return self._walk(path)

    def _walk(self, path: str) -> int:
        inode = ROOT_INODE
        for name in filter(None, path.split("/")):
            inode = self._known(inode, name.encode())
        return inode

    def _known(self, parent: int, name: bytes) -> int:
        if (parent, name) not in self._cached:
            self._learn(parent, name, self.drive.lookup(parent, name))
        return self._cached[parent, name]

    def _learn(self, parent: int, name: bytes, attributes: Attributes) -> None:
        self.drive.remember(attributes.inode)
        self._cached[parent, name] = attributes.inode
        self._take_stale()

    def _take_stale(self) -> None:
        while True:
            try:
                stale = self.drive.invalidations.receive_nowait()
            except trio.WouldBlock:
                return
            if isinstance(stale, StaleEntry):
                self._cached.pop((stale.parent, stale.name), None)

    def check_names(self) -> None:
        """What the kernel has cached is what the drive would answer."""
        for (parent, name), inode in list(self._cached.items()):
            try:
                shown = self.drive.lookup(parent, name).inode
            except DriveError:
                shown = None
            assert shown == inode, (
                f"{name!r} is inode {inode} for the kernel, {shown} for the drive"
            )


class Syncing:
    """Machines and what travels between them."""

    def __init__(self, world: World, *machines: Machine) -> None:
        self.world, self.machines = world, machines

    def __call__(self) -> None:
        self.world.seal()
        for machine in self.machines:
            for record in self.world.missing(machine.index):
                machine.receive(record)
        latest = max(machine.index.now_ns for machine in self.machines)
        for machine in self.machines:
            machine.index.now_ns = latest


def now(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of a call that must not wait."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
