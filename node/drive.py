"""The drive: a namespace as a file system. The one door for the mount.

It knows inodes, handles and errno; what a change means for registers is in `node.filesystem.edits`,
bytes are in `node.filesystem.open_files`. Metadata methods are synchronous and answer from the
index; nothing here waits for the network except `read`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from node.core.content_merge import Settlement
from node.core.record_sealing import OpenedWrite
from node.core.tree_view import Version
from node.filesystem.conflict_folder import NAME as ATOLL_NAME
from node.filesystem.conflict_folder import ConflictFolder, ConflictVersion
from node.filesystem.database_families import DatabaseFamilies
from node.filesystem.listings import Listing, Listings
from node.filesystem.open_files import OpenFile, OpenFiles
from node.filesystem.saves import Saves
from node.filesystem.settlements import Settlements
from node.filesystem.values import (
    AttributeChanges,
    Attributes,
    FolderEntry,
    Invalidation,
    Owner,
    StaleEntry,
    StaleInode,
    Statistics,
    attributes_of,
    checked_name,
    drive_error,
)
from node.filesystem.xattrs import Xattrs
from node.storage.aside import Aside, AsideFile
from node.storage.database import Database
from node.storage.registers import Registers
from node.storage.tree import ROOT_INODE, Changes, EntryRow, ItemRow, Tree
from node.sync.workers import RunSync
from protocol.ids import BlockId, ItemId
from protocol.limits import MAX_NAME_BYTES, MAX_SYMLINK_BYTES
from protocol.records import Register
from protocol.values import Content, ExplicitTime, ItemAttributes, Kind

__all__ = [
    "AttributeChanges",
    "Attributes",
    "Drive",
    "FolderEntry",
    "Invalidation",
    "StaleEntry",
    "StaleInode",
    "Statistics",
]

_BESIDE_COOKIES = 1 << 40  # cookies of conflict versions beside files follow all others
_IDLE_S = 60  # a change that did not say so is looked for after so long
_INVALIDATION_BUFFER = 4096  # a puller that outruns the kernel waits


@dataclass(slots=True)
class _Held:
    """An inode number that its item no longer has, kept while the kernel or a handle knows it."""

    row: ItemRow
    version: Version[Content] | None
    is_unlinked: bool


class Drive:
    """One namespace as a file system.

    Concurrency: owned by the node's loop. Synchronous methods are atomic; asynchronous ones take
    what they need before their first await.
    """

    def __init__(
        self,
        *,
        database: Database,
        registers: Registers,
        tree: Tree,
        edits: Saves,
        settlements: Settlements,
        files: OpenFiles,
        conflicts: ConflictFolder,
        aside: Aside,
        release_blocks: Callable[[Iterable[BlockId]], None],
        xattrs: Xattrs,
        owner: Owner,
        home: Path,
        sync_disk: Callable[[], None],
        now_ns: Callable[[], int],
        run_sync: RunSync,
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._edits = edits
        self._settlements = settlements
        self._files = files
        self._conflicts = conflicts
        self._aside = aside
        self._release_blocks = release_blocks
        self._xattrs = xattrs
        self._owner = owner
        self._home = home
        self._sync_disk = sync_disk  # blocks until sealed blocks and the index are on the disk
        self._now_ns = now_ns
        self._run_sync = run_sync
        self._families = DatabaseFamilies(tree, files)
        self._lookups: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._shown_before: dict[int, Version[Content]] = {}
        self._handles: dict[int, tuple[OpenFile, bool]] = {}
        self._listings = Listings(tree, self._listed_attributes)
        self._folders: dict[int, tuple[int, Listing | None]] = {}
        self._next_handle = 1
        self._published = trio.Event()
        self._closed = trio.Event()
        self._unsettled = trio.Event()
        self._stirred = trio.Event()
        self._untold: dict[Invalidation, None] = {}
        self._announce, self.invalidations = trio.open_memory_channel[Invalidation](
            _INVALIDATION_BUFFER
        )

    # Names

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """The entry of a folder; ENOENT, ENOTDIR."""
        if self._conflicts.holds(parent):
            return self._conflicts.lookup(parent, name)
        if parent == ROOT_INODE and name == ATOLL_NAME:
            return self._conflicts.root()
        folder = self._folder(parent)
        row = self._tree.lookup(folder.item, name)
        if row is None and (beside := self._conflicts.beside(folder.item, name)) is not None:
            return beside[0]
        if row is None:
            raise drive_error(errno.ENAMETOOLONG if len(name) > MAX_NAME_BYTES else errno.ENOENT)
        return self._attributes(row)

    def attributes(self, inode: int) -> Attributes:
        """What `stat` shows of an inode; ENOENT."""
        if self._conflicts.holds(inode):
            return self._conflicts.attributes(inode)
        held = self._held.get(inode)
        if held is not None:
            row = self._files.overlay(held.row)
            return attributes_of(row, 0 if held.is_unlinked else 1, self._owner)
        return self._attributes(self._row(inode))

    def _listed_attributes(self, row: ItemRow, links: int) -> Attributes:
        return attributes_of(self._files.overlay(row), links, self._owner)

    def _attributes(self, row: ItemRow) -> Attributes:
        nlink = 1 if row.kind is Kind.DIRECTORY else self._tree.name_count(row.item)
        return attributes_of(self._files.overlay(row), nlink, self._owner)

    def open_folder(self, inode: int) -> int:
        """A handle to read a folder's entries; ENOENT, ENOTDIR."""
        listing = None
        if not self._conflicts.holds(inode):
            listing = self._listings.open(self._folder(inode).item)
        handle = self._new_handle()
        self._folders[handle] = (inode, listing)
        return handle

    def read_folder(self, handle: int, after_cookie: int) -> Iterator[FolderEntry]:
        """Entries after a cookie (0: from the start), without ``.`` and ``..``."""
        inode, listing = self._folders[handle]
        if listing is None:
            entries = self._conflicts.list_folder(inode)
            for cookie, (name, attributes) in enumerate(entries, 1):
                if cookie > after_cookie:
                    yield FolderEntry(name, cookie, attributes)
            return
        if after_cookie >= _BESIDE_COOKIES:
            yield from self._entries_beside(listing.folder, after_cookie)
            return
        if after_cookie == 0:  # the first read, or a rewind, which shows what changed meanwhile
            listing = self._listings.open(listing.folder)
            self._folders[handle] = (inode, listing)
        for entry in self._listings.read(listing, after_cookie):
            if self._files.get(entry.attributes.inode) is None:
                yield entry
            else:
                # Written to meanwhile, maybe: the kernel would believe an old size.
                yield entry._replace(attributes=self.attributes(entry.attributes.inode))
        yield from self._entries_beside(listing.folder, 0)

    def _entries_beside(self, folder: ItemId, after_cookie: int) -> Iterator[FolderEntry]:
        besides = self._conflicts.list_beside(folder)
        for cookie, (name, attributes) in enumerate(besides, _BESIDE_COOKIES):
            if cookie > after_cookie:
                yield FolderEntry(name, cookie, attributes)

    def release_folder(self, handle: int) -> None:
        """Give a folder's handle back."""
        del self._folders[handle]

    def remember(self, inode: int) -> None:
        """The kernel was handed an entry with this inode."""
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    def forget(self, inode: int, lookups: int) -> None:
        """The kernel gave back so many of the entries that it was handed."""
        left = self._lookups.get(inode, 0) - lookups
        if left > 0:
            self._lookups[inode] = left
            return
        self._lookups.pop(inode, None)
        self._let_go(inode)

    # Changes of the tree

    def make_folder(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        """Make a folder; EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG, EROFS in ``.atoll``."""
        return self._make(parent, name, Content(Kind.DIRECTORY), mode, uid, gid)

    def make_node(
        self, parent: int, name: bytes, kind: Kind, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        """Make an empty file, FIFO, socket or device node."""
        content = Content(kind, mtime_ns=self._now_ns(), device_number=rdev)
        return self._make(parent, name, content, mode, uid, gid)

    def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> Attributes:
        """Make a symlink; ENAMETOOLONG for a target of over 4,095 bytes."""
        if len(target) > MAX_SYMLINK_BYTES:
            raise drive_error(errno.ENAMETOOLONG)
        content = Content(Kind.SYMLINK, len(target), self._now_ns(), inline=target)
        return self._make(parent, name, content, 0o777, uid, gid)

    def read_symlink(self, inode: int) -> bytes:
        """A symlink's target; EINVAL for anything else."""
        row = self._row(inode)
        version = self._registers.content(row.item, row.content)
        if row.kind is not Kind.SYMLINK or version is None:
            raise drive_error(errno.EINVAL)
        return bytes(version.value.inline)

    def make_link(self, inode: int, new_parent: int, new_name: bytes) -> Attributes:
        """Give a file one more name; EPERM for folders, EEXIST, EMLINK."""
        parent = self._changeable_folder(new_parent, new_name)
        row = self._row(inode)
        with self._told((parent.item, new_name)):
            row = self._edits.link(row, parent, new_name)
        return self._attributes(row)

    def create_file(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> tuple[int, Attributes]:
        """Make a file and open it for writing."""
        content = Content(Kind.FILE, mtime_ns=self._now_ns())
        row, base = self._create(parent, name, content, mode, uid, gid)
        file = self._files.open(row) if base is None else self._files.open_anew(row, base)
        return self._add_handle(file, writable=True), self._attributes(row)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name that is no folder's; EISDIR, ENOENT.

        Of a conflict version that is shown beside its file: drop that version. Of a file that is kept
        aside: give it up.
        """
        if (aside := self._conflicts.kept_aside(parent, name)) is not None:
            self._give_up_aside(aside)
            return
        folder = self._changeable_folder(parent, name)
        if self._tree.entry(folder.item, name) is None:
            beside = self._conflicts.beside(folder.item, name)
            if beside is not None:
                self._drop_conflict(beside[1])
                return
            if self._conflicts.was_beside(folder.item, name):
                return
        entry, row = self._entry(folder, name)
        if row.kind is Kind.DIRECTORY:
            raise drive_error(errno.EISDIR)
        with self._told((folder.item, name)):
            behind = self._rows_behind(entry)
            version = self._version(row)
            family = self._families.family_of(row.item)
            is_last = self._edits.unlink(folder, entry)
            self._edits.keep_together(family)
        if is_last:
            self._hold_unlinked(row, version)
        self._hold_unlinked_twins(behind)

    def _give_up_aside(self, file: AsideFile) -> None:
        with self._database.transaction():
            self._aside.remove(file.id)
        self._stirred.set()
        self._release_blocks(file.blocks)

    def _drop_conflict(self, conflict: ConflictVersion) -> None:
        """What is shown stands for a conflict version from now on."""
        row = conflict.row
        siblings = self._registers.contents(row.item)
        shown = next(version for version in siblings if version.dot == row.content)
        covered = tuple(
            version
            for version in siblings
            if version.value.has_same_bytes(shown.value)
            or version.value.has_same_bytes(conflict.version.value)
        )
        content = replace(shown.value, origin=shown.value.origin or shown.dot)
        stale, _ = self.settle(row.item, Settlement(covered, content))
        for invalidation in stale:
            self._tell(invalidation)

    def remove_folder(self, parent: int, name: bytes) -> None:
        """Remove an empty folder; ENOTDIR, ENOTEMPTY, ENOENT."""
        if self._conflicts.was_aside(parent, name):
            return
        folder = self._changeable_folder(parent, name)
        entry, row = self._entry(folder, name)
        if row.kind is not Kind.DIRECTORY:
            raise drive_error(errno.ENOTDIR)
        with self._told((folder.item, name)):
            self._edits.remove_folder(folder, entry)
        self._hold_unlinked(row, None)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        exclusive: bool = False,
        exchange: bool = False,
    ) -> None:
        """Rename as `renameat2` does.

        Raises:
            DriveError: ENOENT, EEXIST (exclusive), EISDIR, ENOTDIR, ENOTEMPTY, EINVAL for a folder
                into itself, EXDEV into or out of ``.atoll``.
        """
        source_folder = self._changeable_folder(parent, name)
        target_folder = self._changeable_folder(new_parent, new_name)
        source, source_row = self._entry(source_folder, name)
        target = self._tree.entry(target_folder.item, checked_name(new_name))
        self._refuse_loop(source_row, target_folder)
        if exchange:
            self._exchange(source_folder, source, target_folder, target)
            return
        target_row: ItemRow | None = None
        if target is not None:
            if exclusive:
                raise drive_error(errno.EEXIST)
            target_row = self._tree.item(target.item)
            assert target_row is not None
            if target.item == source.item:
                return
            self._refuse_replace(source_row, target_row)
        self._register_before_move(source_row)
        version = self._version(target_row)
        with self._told((source_folder.item, name), (target_folder.item, new_name)):
            behind = self._rows_behind(target) if target is not None else []
            moved = self._edits.move(source_folder, source, target_folder, new_name, target)
        self._files.now_show(moved.shown)
        if target_row is not None and (moved.is_last or target_row.kind is Kind.DIRECTORY):
            self._hold_unlinked(target_row, version)
        self._hold_unlinked_twins(behind)

    def _register_before_move(self, row: ItemRow) -> None:
        """What was written to a file that is still open moves along with it."""
        file = self._files.get(row.inode)
        if file is not None:
            self._register(file)

    def _exchange(
        self,
        first_folder: ItemRow,
        first: EntryRow,
        second_folder: ItemRow,
        second: EntryRow | None,
    ) -> None:
        if second is None:
            raise drive_error(errno.ENOENT)
        second_row = self._tree.item(second.item)
        assert second_row is not None
        self._refuse_loop(second_row, first_folder)
        if first.item != second.item:
            first_row = self._tree.item(first.item)
            for row in (first_row, second_row):
                if row is not None:
                    self._register_before_move(row)
            with self._told((first_folder.item, first.shown), (second_folder.item, second.shown)):
                shown = self._edits.exchange(first_folder, first, second_folder, second)
            self._files.now_show(shown)

    def _refuse_replace(self, source: ItemRow, target: ItemRow) -> None:
        if target.kind is Kind.DIRECTORY:
            if source.kind is not Kind.DIRECTORY:
                raise drive_error(errno.EISDIR)
            if self._tree.has_entries(target.item):
                raise drive_error(errno.ENOTEMPTY)
        elif source.kind is Kind.DIRECTORY:
            raise drive_error(errno.ENOTDIR)

    def _refuse_loop(self, moved: ItemRow, into: ItemRow) -> None:
        if moved.kind is not Kind.DIRECTORY:
            return
        folder = into.item
        while True:
            if folder == moved.item:
                raise drive_error(errno.EINVAL)
            entries = self._tree.entries_of(folder)
            if not entries:
                return
            folder = entries[0].parent

    async def set_attributes(self, inode: int, changes: AttributeChanges) -> Attributes:
        """Set what `chmod`, `chown`, `truncate` and `utimens` set; EROFS in ``.atoll``."""
        if self._conflicts.holds(inode):
            raise drive_error(errno.EROFS)
        row = self._held[inode].row if inode in self._held else self._row(inode)
        if changes.size is not None:
            self._truncate(row, changes.size)
        if self._changes_attributes(row, changes):
            self._set_item_attributes(row, changes)
        if changes.mtime_ns is not None and row.kind is not Kind.DIRECTORY:
            self._set_mtime(row, changes.mtime_ns)
        return self.attributes(inode)

    def _changes_attributes(self, row: ItemRow, changes: AttributeChanges) -> bool:
        """Whether anything is set anew: programs that copy files set again what is set already."""
        return (
            (changes.mode is not None and changes.mode != row.mode)
            or (changes.uid is not None and self._foreign_uid(changes.uid) != row.uid)
            or (changes.gid is not None and self._foreign_gid(changes.gid) != row.gid)
            or (changes.mtime_ns is not None and row.kind is Kind.DIRECTORY)
        )

    def _set_item_attributes(self, row: ItemRow, changes: AttributeChanges) -> None:
        held = self._held.get(row.inode)
        if held is not None and held.is_unlinked:
            uid = held.row.uid if changes.uid is None else changes.uid
            gid = held.row.gid if changes.gid is None else changes.gid
            mode = held.row.mode if changes.mode is None else changes.mode
            held.row = held.row._replace(mode=mode, uid=uid, gid=gid)
            return

        def changed(present: ItemAttributes, time_us: int) -> ItemAttributes:
            explicit = present.explicit_time
            if changes.mtime_ns is not None and row.kind is Kind.DIRECTORY:
                explicit = ExplicitTime(changes.mtime_ns, time_us)
            mode = present.mode if changes.mode is None else changes.mode
            is_given_away = changes.uid is not None or changes.gid is not None
            if is_given_away and changes.mode is None and row.kind is Kind.FILE:
                mode = _unprivileged(mode)
            return replace(
                present,
                mode=mode,
                uid=present.uid if changes.uid is None else self._foreign_uid(changes.uid),
                gid=present.gid if changes.gid is None else self._foreign_gid(changes.gid),
                explicit_time=explicit,
            )

        with self._told():
            self._edits.set_attributes(row.item, changed)

    def _set_mtime(self, row: ItemRow, mtime_ns: int) -> None:
        file = self._files.get(row.inode)
        if file is not None:
            self._files.set_mtime(file, mtime_ns)
            self._stirred.set()
            if not any(writable for other, writable in self._handles.values() if other is file):
                self._files.register(file, is_urgent=False)
            return
        if row.inode in self._held:
            self._held[row.inode].row = row._replace(mtime_ns=mtime_ns)
            return
        version = self._registers.content(row.item, row.content)
        assert version is not None
        content = replace(
            version.value, mtime_ns=mtime_ns, origin=version.value.origin or version.dot
        )
        with self._told():
            self._edits.write_content(row.item, content, version, is_urgent=False)

    def _truncate(self, row: ItemRow, size: int) -> None:
        if row.kind is Kind.DIRECTORY:
            raise drive_error(errno.EISDIR)
        if row.kind is not Kind.FILE:
            raise drive_error(errno.EINVAL)
        has_handle = self._files.get(row.inode) is not None
        held = self._held.get(row.inode)
        file = self._files.open(row, held.version if held is not None else None)
        try:
            self._files.truncate(file, size)
            self._stirred.set()
            if file.has_privileged_mode:
                self._drop_privileged_mode(file)
            if not has_handle:
                with self._told():
                    self._files.register(file, is_urgent=True)
        finally:
            self._files.close(file)

    # Bytes

    async def open_file(self, inode: int, *, writable: bool, truncate: bool) -> int:
        """A handle on a file; EISDIR, ENOENT, EROFS when writing in ``.atoll``."""
        if self._conflicts.holds(inode):
            return self._open_conflict(inode, writable=writable)
        held = self._held.get(inode)
        row = held.row if held is not None else self._row(inode)
        if row.kind is Kind.DIRECTORY:
            raise drive_error(errno.EISDIR)
        file = self._files.open(row, held.version if held is not None else None)
        if truncate:
            self._files.truncate(file, 0)
            self._stirred.set()
        return self._add_handle(file, writable=writable)

    def _open_conflict(self, inode: int, *, writable: bool) -> int:
        if writable:
            raise drive_error(errno.EROFS)
        conflict = self._conflicts.open(inode)
        row = conflict.row._replace(inode=inode)
        return self._add_handle(self._files.open(row, conflict.version), writable=False)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file.

        Raises:
            StorageError, ServerError: a block is neither here nor to be had within the deadline.
        """
        file, _ = self._handles[handle]
        return await self._files.read(file, offset, size)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write all of ``data``; EBADF for a handle that only reads, ENOSPC, EFBIG."""
        file, writable = self._handles[handle]
        if not writable:
            raise drive_error(errno.EBADF)
        written = self._files.write(file, offset, data)
        self._stirred.set()
        if file.has_privileged_mode:
            self._drop_privileged_mode(file)
        return written

    def _drop_privileged_mode(self, file: OpenFile) -> None:
        """A file that was written to no longer runs as its owner or group."""
        file.has_privileged_mode = False
        if file.item is not None and not file.is_unlinked:
            with self._told():
                self._edits.set_attributes(
                    file.item, lambda present, _: replace(present, mode=_unprivileged(present.mode))
                )
            self._tell(StaleInode(file.inode, data=False))

    async def flush(self, handle: int) -> None:
        """What was written survives the death of the node when this returns."""
        file, writable = self._handles[handle]
        if writable:
            self._register(file)

    async def fsync(self, handle: int) -> None:
        """What was written survives the loss of power when this returns; it is published at once."""
        file, _ = self._handles[handle]
        self._register(file)
        if file.item is not None and not self._is_part_of_more(file.item):
            self._edits.make_urgent(file.item)
            self._published.set()
        await self._files.sync(file)
        await self._run_sync(self._sync_disk)

    async def fsync_folder(self, inode: int) -> None:
        """The folder's entries survive the loss of power; its waiting changes are published."""
        if not self._conflicts.holds(inode):
            self._edits.make_urgent(self._folder(inode).item, but=self._families.in_use())
            self._published.set()
        await self._run_sync(self._sync_disk)

    async def release(self, handle: int) -> None:
        """The last use of a handle; what was written is registered."""
        file, writable = self._handles.pop(handle)
        try:
            if writable:
                self._register(file)
        finally:
            self._files.close(file)
            if file.handles == 0:
                self._let_go(file.inode)
                self._closed.set()

    def _register(self, file: OpenFile) -> None:
        if not file.is_dirty:
            return
        family = self._families.family_of(file.item)
        together = [each for each in self._files if each is file or each.item in family]
        with self._told(), self._database.transaction():
            for each in together:
                self._files.register(each, is_urgent=not family and self._files.goes_at_once(each))
            self._edits.keep_together(family)
        for each in together:
            self._tell_of_new_version(each)

    def _is_part_of_more(self, item: ItemId) -> bool:
        """Whether a file's changes are half of something that goes a moment later, as a whole."""
        return self._edits.is_mid_save(item) or bool(self._families.family_of(item))

    def _tell_of_new_version(self, file: OpenFile) -> None:
        if file.inode in self._held and file.item is not None and not file.is_unlinked:
            row = self._tree.item(file.item)
            if row is not None:
                self._tell(StaleInode(row.inode, data=True))

    def register_all(self) -> None:
        """Register every open file that was written to: the node is about to end."""
        for file in self._files:
            self._register(file)

    async def run(self) -> None:
        """Publish long-open files after a quiet period, until cancelled. Idle, it does nothing."""
        while True:
            if not self._untold and not any(file.is_dirty for file in self._files):
                self._stirred = trio.Event()
                with trio.move_on_after(_IDLE_S):
                    await self._stirred.wait()
            await trio.sleep(1)
            untold, self._untold = self._untold, {}
            await self.announce([*untold, *self._conflicts.take_stale()])
            for file in self._files.quiet():
                self._register(file)

    # Extended attributes and the whole

    def get_xattr(self, inode: int, name: bytes) -> bytes:
        """The value of an extended attribute; ENODATA, EOPNOTSUPP."""
        if self._conflicts.holds(inode):
            raise drive_error(errno.ENODATA)
        return self._xattrs.get(self._row_or_held(inode), name)

    def set_xattr(self, inode: int, name: bytes, value: bytes, create: bool, replace: bool) -> None:
        """Set an extended attribute; EEXIST, ENODATA, EPERM for ``user.atoll.*``, ENOSPC, ERANGE."""
        if self._conflicts.holds(inode):
            raise drive_error(errno.EROFS)
        with self._told():
            self._xattrs.set(self._row_or_held(inode), name, value, create=create, replace=replace)

    def list_xattrs(self, inode: int) -> list[bytes]:
        """Names of the extended attributes, with Atoll's own."""
        if self._conflicts.holds(inode):
            return []
        return self._xattrs.names(self._row_or_held(inode))

    def remove_xattr(self, inode: int, name: bytes) -> None:
        """Remove an extended attribute; ENODATA, EPERM for ``user.atoll.*``."""
        if self._conflicts.holds(inode):
            raise drive_error(errno.EROFS)
        with self._told():
            self._xattrs.remove(self._row_or_held(inode), name)

    def statistics(self) -> Statistics:
        """Room in the file system that holds the node's home: what is written goes there first."""
        disk = os.statvfs(self._home)
        return Statistics(disk.f_frsize, disk.f_blocks, disk.f_bavail, disk.f_files, disk.f_favail)

    # What came from elsewhere

    async def wait_closed(self) -> None:
        """Return when a file was closed for good."""
        await self._closed.wait()
        self._closed = trio.Event()

    def is_open(self, item: ItemId) -> bool:
        """Whether a program has a file open."""
        return any(file.item == item for file in self._files)

    def is_in_use(self, writes: Iterable[OpenedWrite]) -> bool:
        """Whether writes change a database of which a program has a file open: they must wait."""
        return self._families.is_in_use(writes)

    def expect_remote_changes(self, items: Iterable[ItemId]) -> None:
        """Remember what inodes show that the kernel knows, before these items are changed."""
        for item in items:
            if self._tree.inode(item) not in self._lookups:
                continue
            row = self._tree.item(item)
            if row is not None and row.kind is Kind.FILE:
                version = self._registers.content(item, row.content)
                if version is not None:
                    self._shown_before[row.inode] = version

    def take_remote_changes(self, changes: Changes) -> list[Invalidation]:
        """Make inodes fit for what the index just took in.

        An inode that the kernel knows keeps its bytes: a name whose content was replaced gets a new
        inode number. Call it in the same step as the refresh, then `announce` what it returns.
        """
        stale: list[Invalidation] = []
        for item in changes.contents:
            inode = self._tree.inode(item)
            if inode not in self._lookups and (inode is None or self._files.get(inode) is None):
                continue
            row = self._tree.item(item)
            if row is None or row.kind is Kind.DIRECTORY:
                continue
            for parent, shown in self._replace_inode(row):
                stale.append(StaleEntry(parent, shown))
        for parent_item, shown in changes.entries:
            parent_inode = self._tree.inode(parent_item)
            if parent_inode is not None:
                stale.append(StaleEntry(parent_inode, shown))
        for item in changes.items:
            inode = self._tree.inode(item)
            if inode is not None and (inode in self._lookups or inode == ROOT_INODE):
                stale.append(StaleInode(inode, data=False))
        self._shown_before.clear()
        self._stirred.set()
        if self._tree.unsettled:
            self._unsettled.set()
        return stale

    async def announce(self, stale: list[Invalidation]) -> None:
        """Hand invalidations to the mount; waits while it lags behind."""
        for invalidation in stale:
            await self._announce.send(invalidation)

    def wake_publisher(self) -> None:
        """Something that waits may be published now."""
        self._published.set()

    async def wait_published(self) -> None:
        """Return when a local change was made that should go out."""
        await self._published.wait()
        self._published = trio.Event()

    # Conflicts

    async def wait_unsettled(self) -> None:
        """Return when files got conflict versions, or other ones, since the last call."""
        await self._unsettled.wait()
        self._unsettled = trio.Event()

    def is_being_written(self, item: ItemId) -> bool:
        """Whether something was written to a file of which no record is made yet."""
        return self._registers.is_waiting(item, Register.CONTENT) or any(
            file.is_dirty for file in self._files.of_item(item)
        )

    def settle(
        self, item: ItemId, settlement: Settlement
    ) -> tuple[list[Invalidation], list[ItemId]]:
        """Let one content stand for conflict versions.

        As a change that came from elsewhere: who has the file open keeps the version it opened.

        Returns:
            What to `announce`, and the files that were made beside.

        Raises:
            StorageError: the index can not be written; nothing has changed.
        """
        self.expect_remote_changes([item])
        self._tree.take_changes()
        row = self._tree.item(item)
        shown = None if row is None else self._registers.content(item, row.content)
        made = self._settlements.write(item, settlement)
        self._published.set()
        changes = self._tree.take_changes()
        if shown is not None and shown.value.has_same_bytes(settlement.content):
            changes.contents.discard(item)  # what the kernel has of it stays true
        stale = self.take_remote_changes(changes)
        return [*stale, *self._conflicts.take_stale()], made

    def publish_soon(self, item: ItemId) -> None:
        """Do not let what waits of an item wait for the settle time."""
        self._edits.make_urgent(item)
        self._published.set()

    async def sync_content(self, content: Content) -> None:
        """A content that was settled on survives the loss of power when this returns.

        Raises:
            StorageError: the disk refused.
        """
        await self._files.sync_content(content)
        await self._run_sync(self._sync_disk)

    def stage(self, item: ItemId, data: bytes, after_ns: int) -> Content:
        """The content of a file with these bytes, changed now, to be settled on at once.

        Args:
            after_ns: the latest time of what it is made of: programs that compare times, such as
                make and rsync, must see that it is another one, also by a clock that is behind.

        Raises:
            StorageError: staging can not be written.
        """
        return self._files.stage(item, data, max(self._now_ns(), after_ns + 1))

    def _replace_inode(self, row: ItemRow) -> list[tuple[int, bytes]]:
        file = self._files.get(row.inode)
        if row.inode not in self._lookups and file is None:
            return []
        version = file.version if file is not None else self._shown_before.get(row.inode)
        if version is not None:
            self._edits.note_replaced(row.item, version)
        before = row if version is None else _row_of(row, version)
        self._held[row.inode] = _Held(before, version, is_unlinked=False)
        with self._database.transaction():
            self._tree.new_inode(row.item)
        places = []
        for entry in self._tree.entries_of(row.item):
            parent = self._tree.item(entry.parent)
            if parent is not None:
                places.append((parent.inode, entry.shown))
        return places

    # Inside

    def _row(self, inode: int) -> ItemRow:
        row = self._tree.item_of_inode(inode)
        if row is None:
            raise drive_error(errno.ENOENT)
        return row

    def _row_or_held(self, inode: int) -> ItemRow:
        held = self._held.get(inode)
        return held.row if held is not None else self._row(inode)

    def _folder(self, inode: int) -> ItemRow:
        row = self._row_or_held(inode)
        if row.kind is not Kind.DIRECTORY:
            raise drive_error(errno.ENOTDIR)
        if row.merged_into is not None:
            return self._tree.item(row.merged_into) or row
        return row

    def _changeable_folder(self, inode: int, name: bytes) -> ItemRow:
        if self._conflicts.holds(inode) or (inode == ROOT_INODE and name == ATOLL_NAME):
            raise drive_error(errno.EROFS)
        held = self._held.get(inode)
        if held is not None and held.is_unlinked:
            raise drive_error(errno.ENOENT)
        return self._folder(inode)

    def _entry(self, folder: ItemRow, name: bytes) -> tuple[EntryRow, ItemRow]:
        entry = self._tree.entry(folder.item, name)
        row = self._tree.item(entry.item) if entry is not None else None
        if entry is None or row is None:
            is_beside = self._conflicts.beside(folder.item, name) is not None
            raise drive_error(errno.EPERM if is_beside else errno.ENOENT)
        return entry, row

    def _make(
        self, parent: int, name: bytes, content: Content, mode: int, uid: int, gid: int
    ) -> Attributes:
        row, base = self._create(parent, name, content, mode, uid, gid)
        if base is not None:
            with self._told():
                self._edits.write_content(row.item, content, base, is_urgent=False)
        return self.attributes(row.inode)

    def _create(
        self, parent: int, name: bytes, content: Content, mode: int, uid: int, gid: int
    ) -> tuple[ItemRow, Version[Content] | None]:
        """Make an item, or give a name its item back.

        Returns:
            With an item that is back, the version over which its content is to be written.
        """
        folder = self._changeable_folder(parent, name)
        group = self._foreign_gid(gid)
        if folder.mode & stat.S_ISGID:
            group = folder.gid
            if content.kind is Kind.DIRECTORY:
                mode |= stat.S_ISGID
        attributes = ItemAttributes(mode & 0o7777, self._foreign_uid(uid), group)
        with self._told((folder.item, name)):
            restored = self._edits.restore(folder, name, content.kind, attributes)
            if restored is None:
                return self._edits.create(folder, name, content, attributes), None
            self._files.now_show(restored.shown)
        return restored.row, restored.base

    def _foreign_uid(self, uid: int) -> int | None:
        return None if uid == self._owner.uid else uid

    def _foreign_gid(self, gid: int) -> int | None:
        return None if gid == self._owner.gid else gid

    def _add_handle(self, file: OpenFile, *, writable: bool) -> int:
        handle = self._new_handle()
        self._handles[handle] = (file, writable)
        return handle

    def _new_handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    def _version(self, row: ItemRow | None) -> Version[Content] | None:
        return None if row is None else self._registers.content(row.item, row.content)

    def _hold_unlinked(self, row: ItemRow, version: Version[Content] | None) -> None:
        """Keep an inode whose last name is gone for whoever has it open or cached."""
        self._files.unlinked(row, version)
        if row.inode in self._lookups or self._files.get(row.inode) is not None:
            self._held[row.inode] = _Held(row, version, is_unlinked=True)

    def _rows_behind(self, entry: EntryRow) -> list[ItemRow]:
        """Files that are shown as one with an entry: programs may still have them open."""
        rows = [self._tree.item(behind.item) for behind in self._tree.entries_behind(entry)]
        return [row for row in rows if row is not None and row.kind is not Kind.DIRECTORY]

    def _hold_unlinked_twins(self, rows: Iterable[ItemRow]) -> None:
        for row in rows:
            if not self._tree.link_count(row.item):
                self._hold_unlinked(row, self._version(row))

    def _let_go(self, inode: int) -> None:
        if inode not in self._lookups and self._files.get(inode) is None:
            self._held.pop(inode, None)

    @contextmanager
    def _told(self, *expected: tuple[ItemId, bytes]) -> Iterator[None]:
        """Run a local change; tell the publisher, and the kernel of side effects it can not know."""
        yield
        changes = self._tree.take_changes()
        self._published.set()
        self._stirred.set()
        if self._tree.unsettled:
            self._unsettled.set()
        if len(changes.entries) <= len(expected):
            return
        for parent, shown in changes.entries.difference(expected):
            row = self._tree.item(parent)
            if row is not None:
                self._tell(StaleEntry(row.inode, shown))

    def _tell(self, invalidation: Invalidation) -> None:
        """Announce from a step that can not wait; what finds no room is announced by `run`."""
        try:
            self._announce.send_nowait(invalidation)
        except trio.WouldBlock:
            self._untold[invalidation] = None
            self._stirred.set()


def _unprivileged(mode: int) -> int:
    """The mode without set-user-id, and without set-group-id where the group may execute."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


def _row_of(row: ItemRow, version: Version[Content]) -> ItemRow:
    return row._replace(
        size=version.value.size, mtime_ns=version.value.mtime_ns, content=version.dot
    )
