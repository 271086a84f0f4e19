"""The bytes of files that are open here: what was read at opening, what was written since.

A file that is open keeps the version that it was opened with, whatever arrives meanwhile. Writes go
to memory while the file fits into a record, else to sealed staging; `register` hands them to the
index as a version over the one that was opened. Called by the drive.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from node.core.database_family import HEADER
from node.core.save_patterns import is_temporary_name
from node.core.staged_content import StagedContent, staged_content
from node.core.tree_view import Version
from node.errors import DriveError, StorageError
from node.filesystem.early_write_out import EarlyWriteOut
from node.filesystem.edits import Shown
from node.filesystem.saves import Saves
from node.filesystem.values import drive_error
from node.storage.registers import Registers
from node.storage.staging import StagingStore
from node.storage.staging_file import StagingFile
from node.storage.staging_pieces import BaseRange, StagedBytes
from node.storage.staging_snapshot import StagingSnapshot
from node.storage.tree import ItemRow, Tree
from node.sync.content_sealer import StagedSource
from node.sync.workers import RunSync
from protocol.ids import ItemId
from protocol.limits import INLINE_BYTES, MAX_FILE_BYTES
from protocol.records import Register
from protocol.values import Content, Kind


class ContentSource(Protocol):
    """Where the bytes of sealed contents come from."""

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""

    def is_here(self, content: Content) -> bool:
        """Whether all its bytes are on this disk, as far as its first manifest page tells."""


@dataclass(slots=True, eq=False)
class OpenFile:
    """One file, shared by all handles on its inode.

    Attributes:
        item: None once it was deleted before anybody else knew of it.
        version: the base of the next version written.
        base: what ranges come from that were not written; never staged.
        small: all bytes, while they are held in memory; then `staging` is None.
        staging: what was written; None while nothing was, or in memory.
        is_dirty: something was written that the index does not know of.
        left: staging that it went on without, to be removed when no version refers to it.
        has_privileged_mode: set-user-id or set-group-id is set, which a write takes away.
        is_unlinked: no name is left: nothing of it is published any more.
    """

    inode: int
    item: ItemId | None
    version: Version[Content] | None
    base: Content
    size: int
    mtime_ns: int
    small: bytearray | None = None
    staging: StagingFile | None = None
    is_dirty: bool = False
    is_unlinked: bool = False
    has_privileged_mode: bool = False
    handles: int = 0
    written_ns: int = 0
    left: list[StagingFile] = field(default_factory=list)


class OpenFiles:
    """All open files of a namespace, by inode.

    Concurrency: owned by the node's loop. Only `read` and `sync` await; they take a piece list or a
    snapshot first, so that writes meanwhile do them no harm.
    """

    def __init__(
        self,
        registers: Registers,
        tree: Tree,
        edits: Saves,
        staging: StagingStore,
        source: ContentSource,
        now_ns: Callable[[], int],
        quiet_s: float,
        run_sync: RunSync,
    ) -> None:
        """``quiet_s``: an open file that nobody wrote to for so long is published as it is."""
        self._run_sync = run_sync
        self.early_write_out = EarlyWriteOut(run_sync)
        self._quiet_ns = int(quiet_s * 1_000_000_000)
        self._registers = registers
        self._tree = tree
        self._edits = edits
        self._staging = staging
        self._source = source
        self._now_ns = now_ns
        self._files: dict[int, OpenFile] = {}
        self._staged_files: dict[str, StagingFile] = {}
        self._synced: set[str] = set()
        self.databases: set[ItemId] = set()  # files whose header, as it was met last, is SQLite's

    def recover(self) -> list[str]:
        """Find the staging files of a former run; what no version refers to is removed.

        Call it in a transaction.

        Returns:
            What is damaged, in sentences for the user.

        Raises:
            StorageError: the staging directory can not be read.
        """
        recovery = self._staging.open_all()
        troubles = [
            f"the staged changes in {path} are damaged and were left aside"
            for path in recovery.damaged
        ]
        for staging in recovery.files:
            name = staging.identity.hex()
            if not self._is_referred_to(staging):
                staging.discard()
                continue
            self._staged_files[name] = staging
            self._synced.add(name)  # as far as anybody remembers
            if staging.unreadable_slots:
                item = ItemId(staging.label)
                path = self._tree.path(item)
                shown = os.fsdecode(path) if path is not None else str(item)
                troubles.append(
                    f"the disk damaged {staging.unreadable_slots} pieces of the latest changes of "
                    f"{shown}: compare it with another copy"
                )
        return troubles + self._give_up_lost()

    def _give_up_lost(self) -> list[str]:
        """Let files whose staged bytes are gone hold what they held before; what to tell the user.

        A loss of power takes staging that no program had synced, while the index may survive. Kept
        as it is, the version could never be published, nor anything that waits with it.
        """
        troubles = []
        for item in self._registers.items_in_staging():
            for version in self._registers.contents(item):
                value = version.value
                if not isinstance(value, StagedContent) or value.staging in self._staged_files:
                    continue
                base = value.base if value.base.size else self._latest_here(item, value.base)
                self._registers.replace_value(item, Register.CONTENT, version.dot, base)
                path = self._tree.path(item)
                shown = os.fsdecode(path) if path is not None else str(item)
                troubles.append(
                    f"the latest changes of {shown} were not on the disk when the device lost "
                    "power; the file holds what it held before"
                )
            self._tree.refresh_values(item, self._now_ns())
        self._tree.take_changes()
        return troubles

    def _latest_here(self, item: ItemId, other: Content) -> Content:
        """The latest former bytes of a file that are on this disk; ``other`` if there are none.

        Who saves a file anew empties it first: the bytes that a program had synced before are better
        than nothing.
        """
        former = [old for old in self._registers.history(item) if self._source.is_here(old.value)]
        latest = max(former, key=lambda old: old.rank, default=None)
        if latest is None:
            return other
        return replace(latest.value, origin=latest.value.origin or latest.dot)

    def __iter__(self) -> Iterator[OpenFile]:
        return iter(list(self._files.values()))

    def get(self, inode: int) -> OpenFile | None:
        """The open file of an inode, if any handle is on it."""
        return self._files.get(inode)

    def of_item(self, item: ItemId) -> list[OpenFile]:
        """Every open file of an item: several when older versions are still held."""
        return [file for file in self._files.values() if file.item == item]

    def overlay(self, row: ItemRow) -> ItemRow:
        """The row with the size and time of what was written but not yet registered."""
        file = self._files.get(row.inode)
        if file is None or not (file.is_dirty or file.is_unlinked):
            return row
        return row._replace(size=file.size, mtime_ns=file.mtime_ns)

    def open(self, row: ItemRow, version: Version[Content] | None = None) -> OpenFile:
        """Take a handle on an inode.

        Args:
            version: what an inode shows that was replaced meanwhile; None for the present one.
        """
        file = self._files.get(row.inode)
        if file is None:
            shown = version or self._registers.content(row.item, row.content)
            if shown is None:
                raise drive_error(errno.ENOENT)
            file = self._load(row, shown)
            file.has_privileged_mode = bool(row.mode & (stat.S_ISUID | stat.S_ISGID))
            self._files[row.inode] = file
        file.handles += 1
        return file

    def open_anew(self, row: ItemRow, base: Version[Content]) -> OpenFile:
        """Take a handle on a file that is written anew, over a version that its name had shown."""
        file = OpenFile(row.inode, row.item, base, Content(Kind.FILE), 0, 0, bytearray())
        self._touch(file)
        self._files[row.inode] = file
        file.handles += 1
        return file

    def now_show(self, shown: Iterable[Shown]) -> None:
        """Inodes belong to other items now, which have the same bytes."""
        for one in shown:
            file = self._files.get(one.inode)
            if file is not None:
                file.item, file.version = one.item, one.version

    def _load(self, row: ItemRow, version: Version[Content]) -> OpenFile:
        content = version.value
        file = OpenFile(row.inode, row.item, version, content, content.size, content.mtime_ns)
        if isinstance(content, StagedContent):
            file.base = content.base
            file.staging = self._staged_files.get(content.staging)
            if file.staging is None:
                raise DriveError(
                    errno.EIO, f"the staged bytes of inode {row.inode} are gone from this disk"
                )
        elif content.manifest is None:
            file.small = bytearray(content.inline)
        return file

    async def read(self, file: OpenFile, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""
        if file.small is not None:
            return bytes(file.small[offset : offset + size])
        size = min(size, file.size - offset)
        if size <= 0:
            return b""
        data = await self._read(file, offset, size)
        if offset == 0:
            self._note_header(file, data)
        return data

    async def _read(self, file: OpenFile, offset: int, size: int) -> bytes:
        if file.staging is None:
            return await self._source.read(file.base, offset, size)
        pieces = file.staging.read(offset, size)
        if len(pieces) == 1 and isinstance(pieces[0], StagedBytes):
            return bytes(pieces[0].data)
        result = bytearray(size)
        base = file.base
        for piece in pieces:
            start = piece.offset - offset
            if isinstance(piece, StagedBytes):
                result[start : start + len(piece.data)] = piece.data
            elif isinstance(piece, BaseRange):
                data = await self._source.read(base, piece.offset, piece.size)
                result[start : start + len(data)] = data
        return bytes(result)

    def write(self, file: OpenFile, offset: int, data: bytes) -> int:
        """Write all of ``data``; it is the file's from now on, and survives a crash once registered.

        Raises:
            DriveError: EFBIG.
            StorageError: staging can not grow; the file is as it was.
        """
        end = offset + len(data)
        if end > MAX_FILE_BYTES:
            raise drive_error(errno.EFBIG)
        if file.small is not None and end <= INLINE_BYTES:
            if offset > len(file.small):
                file.small.extend(bytes(offset - len(file.small)))
            file.small[offset:end] = data
        else:
            staging = self._staged(file)
            staging.write(offset, data)
            self.early_write_out.note(staging, len(data))
        file.size = max(file.size, end)
        if offset == 0:
            self._note_header(file, data)
        self._touch(file)
        return len(data)

    def _note_header(self, file: OpenFile, data: bytes) -> None:
        if file.item is None:
            return
        if data.startswith(HEADER):
            self.databases.add(file.item)
        else:
            self.databases.discard(file.item)

    def truncate(self, file: OpenFile, size: int) -> None:
        """Cut the file or let it grow by zeros.

        Raises:
            DriveError: EFBIG.
            StorageError: staging can not be written.
        """
        if size > MAX_FILE_BYTES:
            raise drive_error(errno.EFBIG)
        if size == 0 and file.small is None:
            self._drop_staging(file)
            file.small = bytearray()
        if file.small is not None and size <= INLINE_BYTES:
            del file.small[size:]
            file.small.extend(bytes(size - len(file.small)))
        else:
            self._staged(file).truncate(size)
        file.size = size
        self._touch(file)

    def set_mtime(self, file: OpenFile, mtime_ns: int) -> None:
        """Set the time that the next version carries."""
        file.mtime_ns = mtime_ns
        file.is_dirty = True

    def register(self, file: OpenFile, *, is_urgent: bool) -> None:
        """Hand what was written to the index: it survives the death of the node from here on.

        Raises:
            StorageError: the disk refused; the file stays dirty and can be registered again.
        """
        if not file.is_dirty or file.is_unlinked or file.item is None:
            return
        content: Content
        if file.small is not None:
            content = Content(Kind.FILE, len(file.small), file.mtime_ns, inline=bytes(file.small))
        elif file.staging is not None:
            file.staging.flush()
            content = staged_content(
                file.base, file.staging.identity.hex(), file.size, file.mtime_ns
            )
        else:
            assert file.version is not None
            origin = file.version.value.origin or file.version.dot
            content = replace(file.base, mtime_ns=file.mtime_ns, origin=origin)
        file.version = self._edits.write_content(
            file.item, content, file.version, is_urgent=is_urgent
        )
        file.is_dirty = False
        self._drop_left(file)

    def stage(self, item: ItemId, data: bytes, mtime_ns: int) -> Content:
        """A content with these bytes for a version of an item: in the record, or staged.

        What is staged goes with the next start of the node unless a version refers to it.

        Raises:
            StorageError: staging can not be written; nothing is left.
        """
        if len(data) <= INLINE_BYTES:
            return Content(Kind.FILE, len(data), mtime_ns, inline=data)
        staging = self._staging.create(0, bytes(item))
        try:
            staging.write(0, data)
            staging.flush()
        except StorageError:
            staging.discard()
            raise
        self._staged_files[staging.identity.hex()] = staging
        return staged_content(Content(Kind.FILE), staging.identity.hex(), len(data), mtime_ns)

    def goes_at_once(self, file: OpenFile) -> bool:
        """Whether a closed file is published without the settle time: not if its name is a step."""
        if file.item is None or self._edits.is_mid_save(file.item):
            return False
        entries = self._tree.entries_of(file.item)
        return not entries or not all(is_temporary_name(entry.shown) for entry in entries)

    async def sync(self, file: OpenFile) -> None:
        """Make what was registered survive the loss of power, as far as staging is concerned.

        Raises:
            StorageError: the disk refused.
        """
        staging = file.staging
        if staging is None:
            return
        self._synced.add(staging.identity.hex())
        try:
            await self._run_sync(staging.sync)
        except StorageError:
            if file.staging is staging:
                raise
            # Sealed meanwhile: the bytes are in blocks now.

    async def sync_content(self, content: Content) -> None:
        """As `sync`, for a content that no open file is on."""
        if not isinstance(content, StagedContent):
            return
        staging = self._staged_files.get(content.staging)
        if staging is None:
            return  # sealed meanwhile: the bytes are in blocks now
        self._synced.add(content.staging)
        try:
            await self._run_sync(staging.sync)
        except StorageError:
            if content.staging in self._staged_files:
                raise

    def close(self, file: OpenFile) -> None:
        """Give back a handle; with the last one, what only the open file needed is dropped."""
        file.handles -= 1
        if file.handles:
            return
        del self._files[file.inode]
        staging = file.staging
        if staging is not None:
            self.early_write_out.forget(staging)
            if not self._is_referred_to(staging):
                self._discard(staging)
        self._drop_left(file)

    def unlinked(self, row: ItemRow, version: Version[Content] | None) -> None:
        """No name shows an inode any more.

        Args:
            version: what it shows.
        """
        file = self._files.get(row.inode)
        if file is not None:
            file.is_unlinked = True
            if self._tree.item(row.item) is None:
                file.item = None  # nobody else knew it, and the index has dropped it
        elif version is not None and isinstance(version.value, StagedContent):
            staging = self._staged_files.get(version.value.staging)
            if staging is not None and not self._is_referred_to(staging):
                self._discard(staging)

    def staged_snapshot(self, name: str) -> StagingSnapshot:
        """A staging file as it is now, to be sealed; must be closed.

        Raises:
            StorageError: it is gone, or can not be flushed.
        """
        staging = self._staged_files.get(name)
        if staging is None:
            raise StorageError(errno.EIO, f"the staging file {name} is gone from this disk")
        return staging.snapshot()

    def was_synced(self, name: str) -> bool:
        """Whether a program was told that a staging file survives the loss of power."""
        return name in self._synced

    def sealed(self, name: str, source: StagedSource, content: Content) -> None:
        """The version in a staging file is ``content`` by now: its blocks are what it is read from.

        What was written to the file since is kept, over the sealed content.
        """
        staging = self._staged_files.get(name)
        if staging is None or self._is_referred_to(staging):
            return  # registered again meanwhile: it is sealed again, over the base that it has
        assert isinstance(source, StagingSnapshot)
        for file in self:
            if file.staging is not staging:
                continue
            if file.version is not None:
                file.version = replace(file.version, value=content)
            if not staging.is_unchanged_since(source):
                staging.rebase(source, self._label(file))
                file.base = content
                return
            file.base, file.staging = content, None
            if content.manifest is None:
                file.small = bytearray(content.inline)
        self._discard(staging)

    def quiet(self) -> list[OpenFile]:
        """Open files that were written to, but not lately."""
        limit_ns = self._now_ns() - self._quiet_ns
        return [file for file in self if file.is_dirty and file.written_ns <= limit_ns]

    def _staged(self, file: OpenFile) -> StagingFile:
        """The file's staging, made from what is in memory when there was none."""
        if file.staging is None:
            if file.small is not None:
                staging = self._staging.create(0, self._label(file))
                if file.small:
                    staging.write(0, bytes(file.small))
                file.small, file.base = None, Content(Kind.FILE)
            else:
                staging = self._staging.create(file.size, self._label(file))
            self._staged_files[staging.identity.hex()] = staging
            file.staging = staging
        return file.staging

    @staticmethod
    def _label(file: OpenFile) -> bytes:
        return bytes(file.item) if file.item is not None else b""

    def _drop_staging(self, file: OpenFile) -> None:
        staging, file.staging = file.staging, None
        if staging is not None:
            file.left.append(staging)

    def _drop_left(self, file: OpenFile) -> None:
        """Remove staging files that the file went on without, once no version refers to them."""
        for staging in file.left:
            if not self._is_referred_to(staging):
                self._discard(staging)
        file.left.clear()

    def _discard(self, staging: StagingFile) -> None:
        del self._staged_files[staging.identity.hex()]
        self.early_write_out.forget(staging)
        self._synced.discard(staging.identity.hex())
        staging.discard()

    def _is_referred_to(self, staging: StagingFile) -> bool:
        """Whether a version in the index, of whatever item, has its bytes in a staging file."""
        return self._registers.refers_to_staging(staging.identity.hex())

    def _touch(self, file: OpenFile) -> None:
        now_ns = self._now_ns()
        file.mtime_ns = now_ns
        file.written_ns = now_ns
        file.is_dirty = True
