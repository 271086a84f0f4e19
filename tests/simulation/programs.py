"""Programs of a simulation: what they do to a drive, call by call, and what they leave in the ledger.

A program is a kernel as well: it looks names up before it uses them, and forgets inodes later.
Called by the devices.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from node.drive import AttributeChanges, Attributes, Drive
from node.errors import DriveError, ServerError
from node.storage.tree import ROOT_INODE
from protocol.values import Kind
from tests.simulation.ledger import Ledger, marks_in
from tests.simulation.plan import Step

NAMES = (b"a.txt", b"b.txt", b"notes.md", b"d", b"e", b"f", b"Report.txt", b"report.txt", b"x.bin")
_LINES = b"".join(b"line %d of a text that everybody knows\n" % number for number in range(12))
_BIG = bytes(range(256)) * 40
_REFUSALS = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EINVAL,
    errno.EPERM,
    errno.EMLINK,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
MAX_READ = 1 << 20


class ChangedError(Exception):
    """Something changed while a program was looking at it."""


@dataclass(frozen=True)
class Place:
    """A name in a folder."""

    parent: int
    name: bytes
    attributes: Attributes
    path: bytes


class Programs:
    """The programs of one run of one device.

    Attributes:
        is_over: the device has died; what a step still does until its next await does not count.
    """

    def __init__(self, device: int, drive: Drive, ledger: Ledger, counts: Counter[str]) -> None:
        self._device = device
        self._drive = drive
        self._ledger = ledger
        self._counts = counts
        self._known: Counter[int] = Counter()
        self.is_over = False
        self._does: dict[str, Callable[[Step, list[Place]], Awaitable[None]]] = {
            "create": self._create,
            "edit": self._edit,
            "append": self._append,
            "overwrite": self._overwrite,
            "truncate": self._truncate,
            "big": self._big,
            "rename": self._rename,
            "move folder": self._move_folder,
            "remove": self._remove,
            "remove all": self._remove_all,
            "mkdir": self._mkdir,
            "change case": self._change_case,
            "link": self._link,
            "symlink": self._symlink,
            "chmod": self._chmod,
            "unpack": self._unpack,
            "save by rename": self._save_by_rename,
            "save with backup": self._save_with_backup,
            "save by delete": self._save_by_delete,
            "hold open": self._hold_open,
            "exchange": self._exchange,
            "set xattr": self._set_xattr,
        }

    async def perform(self, number: int, step: Step) -> None:
        """Carry one step out; what is refused as any file system would is left."""
        self._mark = b"<%d.%d>" % (self._device, number)
        places = [*self.walk()]
        try:
            await self._does[step.action](step, places)
            self._counts[step.action] += 1
        except DriveError as error:
            if error.errno not in _REFUSALS:
                raise
            self._counts["refused by the drive"] += 1
        except ChangedError:
            self._counts["changed meanwhile"] += 1
        except ServerError:
            self._counts["bytes not to be had"] += 1
        if step.numbers[2] % 3:
            for inode, lookups in self._known.items():
                self._drive.forget(inode, lookups)
            self._known.clear()

    def walk(self) -> list[Place]:
        """Every shown name, folders before what is in them."""
        places: list[Place] = []
        unread = [(ROOT_INODE, b"")]
        while unread:
            inode, path = unread.pop(0)
            for name, attributes in self._listed(inode):
                shown = path + b"/" + name if path else name
                places.append(Place(inode, name, attributes, shown))
                if attributes.kind is Kind.DIRECTORY:
                    unread.append((attributes.inode, shown))
        return places

    def _listed(self, inode: int) -> list[tuple[bytes, Attributes]]:
        handle = self._drive.open_folder(inode)
        entries = [(entry.name, entry.attributes) for entry in self._drive.read_folder(handle, 0)]
        self._drive.release_folder(handle)
        return entries

    # Choosing

    def _lookup(self, parent: int, name: bytes) -> Attributes:
        found = self._drive.lookup(parent, name)
        self._drive.remember(found.inode)
        self._known[found.inode] += 1
        return found

    def _file(self, step: Step, places: list[Place]) -> Place:
        return _nth([p for p in places if p.attributes.kind is Kind.FILE], step.numbers[0])

    def _folder(self, number: int, places: list[Place]) -> int:
        folders = [p.attributes.inode for p in places if p.attributes.kind is Kind.DIRECTORY]
        return [ROOT_INODE, *folders][number % (len(folders) + 1)]

    def _place(self, step: Step, places: list[Place]) -> tuple[int, bytes]:
        return self._folder(step.numbers[0], places), NAMES[step.numbers[1] % len(NAMES)]

    # Bytes

    async def _read(self, inode: int) -> bytes:
        handle = await self._drive.open_file(inode, writable=False, truncate=False)
        try:
            return await self._drive.read(handle, 0, MAX_READ)
        finally:
            await self._release(handle)

    async def _release(self, handle: int) -> None:
        with trio.CancelScope(shield=True):
            await self._drive.release(handle)

    async def _finish(self, step: Step, handle: int) -> None:
        """Close a file as programs do; from here on the write is owed."""
        is_synced = step.numbers[2] % 4 == 0
        if is_synced:
            await self._drive.fsync(handle)
        else:
            await self._drive.flush(handle)
        if not self.is_over:
            self._ledger.written(self._device, self._mark, is_synced=is_synced)
        self._counts["fsync"] += is_synced
        await self._release(handle)

    async def _write_new(self, step: Step, parent: int, name: bytes, data: bytes) -> None:
        handle, found = self._drive.create_file(parent, name, 0o644, os.getuid(), os.getgid())
        self._drive.remember(found.inode)
        self._known[found.inode] += 1
        await self._drive.write(handle, 0, data)
        await self._finish(step, handle)

    async def _change(
        self, step: Step, place: Place, change: Callable[[bytes], tuple[int, bytes, int]]
    ) -> None:
        """Open a file, read it, write to it in place, close it.

        ``change`` gives an offset, what to write there, and the size in the end.
        """
        found = self._lookup(place.parent, place.name)
        handle = await self._drive.open_file(found.inode, writable=True, truncate=False)
        before = await self._drive.read(handle, 0, MAX_READ)
        offset, data, size = change(before)
        after = (before[:offset] + data + before[offset + len(data) :])[:size]
        self._ledger.removed(marks_in(before) - marks_in(after))
        if size < len(before):
            await self._drive.set_attributes(found.inode, AttributeChanges(size=size))
        if data:
            await self._drive.write(handle, offset, data)
        if self._drive.attributes(found.inode).nlink == 0:
            await self._release(handle)
            return
        await self._finish(step, handle)

    def _versions(self, place: Place) -> list[tuple[Any, ...]]:
        """What this device knows of the files that are shown under a name."""
        drive = self._drive
        folder = drive._tree.item_of_inode(place.parent)
        if folder is None:
            return []
        entry = drive._tree.entry(folder.merged_into or folder.item, place.name)
        if entry is None:
            return []
        items = [entry.item, *(other.item for other in drive._tree.entries_behind(entry))]
        return [
            (item, version.dot) for item in items for version in drive._registers.contents(item)
        ]

    async def _see(self, place: Place) -> None:
        """Look at all versions of a file that is to go.

        Raises:
            ChangedError: something changed while it was read: better leave it.
        """
        if place.attributes.kind is not Kind.FILE:
            return
        versions = self._versions(place)
        found = self._lookup(place.parent, place.name)
        marks = marks_in(await self._read(found.inode))
        for inode in self._conflicts_of(place.path):
            marks |= marks_in(await self._read(inode))
        present = self._drive.lookup(place.parent, place.name)
        if versions != self._versions(place) or present.inode != found.inode:
            raise ChangedError
        if present.nlink <= 1:
            self._ledger.removed(marks)

    def _conflicts_of(self, path: bytes) -> list[int]:
        try:
            found = self._drive.lookup(ROOT_INODE, b".atoll")
            for name in (b"conflicts", *path.split(b"/")):
                found = self._drive.lookup(found.inode, name)
        except DriveError:
            return []
        return [entry.inode for _, entry in self._listed(found.inode) if entry.kind is Kind.FILE]

    # What programs do

    async def _create(self, step: Step, places: list[Place]) -> None:
        parent, name = self._place(step, places)
        await self._write_new(step, parent, name, _LINES + self._mark + b"\n")

    async def _unpack(self, step: Step, places: list[Place]) -> None:
        self._mark = b"<u.%d>" % (step.numbers[1] % 3)
        parent, name = self._place(step, places)
        await self._write_new(step, parent, name, _LINES + self._mark + b"\n")

    async def _big(self, step: Step, places: list[Place]) -> None:
        parent, name = self._place(step, places)
        await self._write_new(step, parent, name, self._mark + _BIG * (1 + step.numbers[0] % 8))

    async def _edit(self, step: Step, places: list[Place]) -> None:
        await self._change(step, self._file(step, places), self._inserted(step))

    def _inserted(self, step: Step) -> Callable[[bytes], tuple[int, bytes, int]]:
        def insert(before: bytes) -> tuple[int, bytes, int]:
            lines = before.splitlines(keepends=True)
            at = step.numbers[1] % (len(lines) + 1)
            data = b"".join([*lines[:at], self._mark + b"\n", *lines[at:]])
            return 0, data, len(data)

        return insert

    async def _append(self, step: Step, places: list[Place]) -> None:
        def change(before: bytes) -> tuple[int, bytes, int]:
            data = self._mark + b"\n"
            return len(before), data, len(before) + len(data)

        await self._change(step, self._file(step, places), change)

    async def _overwrite(self, step: Step, places: list[Place]) -> None:
        def change(_before: bytes) -> tuple[int, bytes, int]:
            data = b"anew\n" + _LINES + self._mark
            return 0, data, len(data)

        await self._change(step, self._file(step, places), change)

    async def _truncate(self, step: Step, places: list[Place]) -> None:
        def change(before: bytes) -> tuple[int, bytes, int]:
            size = step.numbers[1] % (len(before) + 1)
            return size, self._mark, size + len(self._mark)

        await self._change(step, self._file(step, places), change)

    async def _hold_open(self, step: Step, places: list[Place]) -> None:
        """Read through a while in which others may replace the file, then write."""
        place = self._file(step, places)
        found = self._lookup(place.parent, place.name)
        handle = await self._drive.open_file(found.inode, writable=True, truncate=False)
        before = await self._drive.read(handle, 0, MAX_READ)
        await trio.sleep(step.numbers[1] % 20)
        if await self._drive.read(handle, 0, MAX_READ) != before:
            raise AssertionError("a reader saw two versions through one handle")
        await self._drive.write(handle, len(before), self._mark + b"\n")
        if self._drive.attributes(found.inode).nlink == 0:
            await self._release(handle)
            return
        await self._finish(step, handle)

    async def _rename(self, step: Step, places: list[Place]) -> None:
        source = _nth(places, step.numbers[2])
        parent, name = self._place(step, places)
        await self._move(source, parent, name, places)

    async def _move(self, source: Place, parent: int, name: bytes, places: list[Place]) -> None:
        for place in places:
            if (place.parent, place.name) == (parent, name):
                await self._see(place)
        self._drive.rename(source.parent, source.name, parent, name)

    async def _move_folder(self, step: Step, places: list[Place]) -> None:
        folders = [p for p in places if p.attributes.kind is Kind.DIRECTORY]
        source = _nth(folders, step.numbers[2])
        parent = self._folder(step.numbers[0], places)
        self._drive.rename(source.parent, source.name, parent, source.name)

    async def _change_case(self, step: Step, places: list[Place]) -> None:
        source = _nth(places, step.numbers[0])
        name = source.name.swapcase()
        self._drive.rename(source.parent, source.name, source.parent, name, exclusive=True)

    async def _remove(self, step: Step, places: list[Place]) -> None:
        place = _nth(
            [p for p in places if p.attributes.kind is not Kind.DIRECTORY], step.numbers[0]
        )
        await self._see(place)
        self._drive.unlink(place.parent, place.name)

    async def _remove_all(self, step: Step, places: list[Place]) -> None:
        folders = [p for p in places if p.attributes.kind is Kind.DIRECTORY]
        top = _nth(folders, step.numbers[0])
        below = [p for p in places if p.path.startswith(top.path + b"/")]
        for place in [*reversed(below), top]:
            if place.attributes.kind is Kind.DIRECTORY:
                self._drive.remove_folder(place.parent, place.name)
            else:
                await self._see(place)
                self._drive.unlink(place.parent, place.name)

    async def _mkdir(self, step: Step, places: list[Place]) -> None:
        parent, name = self._place(step, places)
        self._drive.make_folder(parent, name, 0o755, os.getuid(), os.getgid())

    async def _link(self, step: Step, places: list[Place]) -> None:
        source = self._file(step, places)
        found = self._lookup(source.parent, source.name)
        parent = self._folder(step.numbers[1], places)
        name = NAMES[step.numbers[2] % len(NAMES)]
        self._drive.make_link(found.inode, parent, name)

    async def _symlink(self, step: Step, places: list[Place]) -> None:
        parent, name = self._place(step, places)
        self._drive.make_symlink(parent, name, b"to/" + name, os.getuid(), os.getgid())

    async def _chmod(self, step: Step, places: list[Place]) -> None:
        place = _nth(places, step.numbers[0])
        mode = (0o600, 0o644, 0o755, 0o700)[step.numbers[1] % 4]
        found = self._lookup(place.parent, place.name)
        await self._drive.set_attributes(found.inode, AttributeChanges(mode=mode))

    async def _exchange(self, step: Step, places: list[Place]) -> None:
        """As ``renameat2(RENAME_EXCHANGE)``: both stay, under each other's name."""
        one, other = _nth(places, step.numbers[0]), _nth(places, step.numbers[1])
        self._drive.rename(one.parent, one.name, other.parent, other.name, exchange=True)

    async def _set_xattr(self, step: Step, places: list[Place]) -> None:
        place = _nth(places, step.numbers[0])
        found = self._lookup(place.parent, place.name)
        value = b"%d" % (step.numbers[1] % 3)
        self._drive.set_xattr(found.inode, b"user.colour", value, create=False, replace=False)

    # How programs save

    async def _text_of(self, step: Step, place: Place) -> bytes:
        """What an editor would save: the text that it reads now with one more line."""
        found = self._lookup(place.parent, place.name)
        before = await self._read(found.inode)
        _, data, _ = self._inserted(step)(before)
        return data

    async def _save_by_rename(self, step: Step, places: list[Place]) -> None:
        place = self._file(step, places)
        data = await self._text_of(step, place)
        await self._write_new(step, place.parent, b".tmp-save", data)
        await self._see(place)
        self._drive.rename(place.parent, b".tmp-save", place.parent, place.name)

    async def _save_with_backup(self, step: Step, places: list[Place]) -> None:
        place = self._file(step, places)
        data = await self._text_of(step, place)
        backup = place.name + b"~"
        for other in places:
            if (other.parent, other.name) == (place.parent, backup):
                await self._see(other)
        self._drive.rename(place.parent, place.name, place.parent, backup)
        await self._write_new(step, place.parent, place.name, data)
        if step.numbers[0] % 2:
            saved = [p for p in self.walk() if (p.parent, p.name) == (place.parent, backup)]
            for each in saved:
                await self._see(each)
                self._drive.unlink(each.parent, each.name)

    async def _save_by_delete(self, step: Step, places: list[Place]) -> None:
        place = self._file(step, places)
        data = await self._text_of(step, place)
        await self._see(place)
        self._drive.unlink(place.parent, place.name)
        await self._write_new(step, place.parent, place.name, data)


def _nth(places: list[Place], number: int) -> Place:
    if not places:
        raise DriveError(errno.ENOENT)
    return places[number % len(places)]
