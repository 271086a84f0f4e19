"""Local changes of the tree: each is one transaction that writes registers and refreshes the view.

Knows links, placements and groups; knows no handles, no bytes of files and no network. Called by
the drive. Every method is synchronous and leaves nothing half done.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.core.save_patterns import is_backup_name
from node.core.tree_view import MAX_FOLDER_DEPTH, Version, merge_placements, view_item
from node.filesystem.content_writes import ContentWrites
from node.filesystem.values import checked_name, drive_error
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import EntryRow, ItemRow, Tree
from protocol.hybrid_clock import tick
from protocol.ids import ROOT_ITEM, ItemId, LinkId
from protocol.limits import MAX_FORMER_LINKS, MAX_LINKS
from protocol.records import Register
from protocol.values import Content, ItemAttributes, Kind, Link, Placement


@dataclass(frozen=True, slots=True)
class Shown:
    """What an inode shows after its item handed its place on to another."""

    inode: int
    version: Version[Content]
    item: ItemId


@dataclass(frozen=True, slots=True)
class Moved:
    """What a rename did to the file that had the name.

    Attributes:
        is_last: what its inode showed has no name left (False when there was none).
        shown: inodes that belong to other items now, with the same bytes.
    """

    is_last: bool
    shown: tuple[Shown, ...] = ()


class Edits:
    """The writing side of one namespace.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        now_ns: Callable[[], int],
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._now_ns = now_ns
        self._token_bytes = token_bytes
        self._contents = ContentWrites(registers, tree, journal, now_ns)

    def create(
        self, parent: ItemRow, name: bytes, content: Content, attributes: ItemAttributes
    ) -> ItemRow:
        """Make a new item in a folder.

        Raises:
            DriveError: EEXIST, ENOENT when the folder was deleted, or the name can not be given.
            StorageError: the index can not be written; nothing was made.
        """
        checked_name(name)
        folder = self._taking(parent)
        if self._tree.entry(folder, name) is not None:
            raise drive_error(errno.EEXIST)
        if content.kind is Kind.DIRECTORY:
            self._check_depth(folder, 0)
        item = ItemId(self._token_bytes(ItemId.size_bytes))
        time_us = self._time_us()
        link = Link(LinkId(self._token_bytes(LinkId.size_bytes)), folder, name)
        placement = Placement((link,))
        haunted = self._haunted(folder)
        with self._database.transaction():
            group = self._open_group(haunted)
            if haunted:
                self._keep_folder(folder, time_us, group)
            write = self._registers.write_first
            view = view_item(
                [write(item, Register.PLACEMENT, placement, time_us, group)],
                [write(item, Register.ATTRIBUTES, attributes, time_us, group)],
                [write(item, Register.CONTENT, content, time_us, group)],
            )
            self._entries_changed(folder, time_us, group)
            if haunted:
                self._tree.refresh(item, self._now_ns())
            else:
                self._tree.add(item, view, self._now_ns())
        row = self._tree.item(item)
        assert row is not None
        return row

    def link(self, row: ItemRow, parent: ItemRow, name: bytes) -> ItemRow:
        """Give an item one more name.

        Raises:
            DriveError: EEXIST; EPERM for a folder; EMLINK; ENOENT when the item or the folder was
                deleted.
        """
        checked_name(name)
        if row.kind is Kind.DIRECTORY:
            raise drive_error(errno.EPERM)
        folder = self._taking(parent)
        if self._tree.entry(folder, name) is not None:
            raise drive_error(errno.EEXIST)
        count = len(self._shown_links(row.item))
        if not count:
            raise drive_error(errno.ENOENT)
        if count >= MAX_LINKS:
            raise drive_error(errno.EMLINK)
        contested = self._contested(placed_anew=[row.item])
        touched = [row.item, *(entry.item for entry in contested)]
        added = Link(LinkId(self._token_bytes(LinkId.size_bytes)), folder, name)
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.placements, touched))
            group = self._open_group([*touched, *self._haunted(folder)])
            self._keep_names(contested, time_us, group)
            self._keep_folder(folder, time_us, group)
            present = self._shown_links(row.item)
            self._write_links(row.item, [*present, added], [], time_us, group)
            self._entries_changed(folder, time_us, group)
            self._tree.refresh(row.item, self._now_ns())
        return self._tree.item(row.item) or row

    def unlink(self, parent: ItemRow, entry: EntryRow) -> bool:
        """Take one name away; the last one deletes the item.

        Returns:
            Whether the item has no name left.
        """
        contested = self._contested(entry)
        entries = self._as_one(entry)
        touched = [other.item for other in (*entries, *contested)]
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.placements, touched))
            group = self._open_group([*touched, *self._haunted(parent.item)])
            self._keep_names(contested, time_us, group)
            self._keep_folder(parent.item, time_us, group)
            is_last = self._remove_links(entries, time_us, group)
            self._entries_changed(parent.item, time_us, group)
            self._settle_empty_group(group)
        return is_last

    def remove_folder(self, parent: ItemRow, entry: EntryRow) -> None:
        """Delete an empty folder, with those merged into it.

        Raises:
            DriveError: ENOTEMPTY.
        """
        if self._tree.has_entries(entry.item):
            raise drive_error(errno.ENOTEMPTY)
        folders = self._as_one(entry)
        contested = self._contested(entry)
        touched = [other.item for other in (*folders, *contested)]
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.placements, touched))
            group = self._open_group([*touched, *self._haunted(parent.item)])
            self._keep_names(contested, time_us, group)
            self._keep_folder(parent.item, time_us, group)
            self._remove_links(folders, time_us, group)
            self._entries_changed(parent.item, time_us, group)
            self._settle_empty_group(group)

    def move(
        self,
        source_parent: ItemRow,
        source: EntryRow,
        target_parent: ItemRow,
        target_name: bytes,
        target: EntryRow | None,
    ) -> Moved:
        """Rename; an entry that is there already is replaced in the same record."""
        checked_name(target_name)
        into = self._taking(target_parent)
        self._check_moved_depth(source, into)
        moved = self._as_one(source)
        replaced = self._as_one(target) if target is not None else []
        contested = self._contested(source, *replaced)
        touched = [entry.item for entry in (*moved, *replaced, *contested)]
        is_last = False
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.placements, touched))
            haunted = [*self._haunted(source_parent.item), *self._haunted(into)]
            group = self._open_group([*touched, *haunted])
            self._keep_names(contested, time_us, group)
            self._keep_folder(source_parent.item, time_us, group)
            if target is not None:
                is_last = self._remove_links(replaced, time_us, group)
                if not is_backup_name(source.shown, target_name):  # else the name is to come back
                    self._journal.make_urgent([group])
            self._keep_folder(into, time_us, group)
            self._move_links(moved, into, target_name, time_us, group)
            self._entries_changed(source_parent.item, time_us, group)
            self._entries_changed(into, time_us, group)
        return Moved(is_last)

    def exchange(
        self, first_parent: ItemRow, first: EntryRow, second_parent: ItemRow, second: EntryRow
    ) -> tuple[Shown, ...]:
        """Swap two entries in one record."""
        firsts, seconds = self._as_one(first), self._as_one(second)
        contested = self._contested(first, second)
        touched = [entry.item for entry in (*firsts, *seconds, *contested)]
        parents = (first_parent.item, second_parent.item)
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.placements, touched))
            haunted = [folder for parent in parents for folder in self._haunted(parent)]
            group = self._open_group([*touched, *haunted])
            self._keep_names(contested, time_us, group)
            for parent in parents:
                self._keep_folder(parent, time_us, group)
            self._move_links(firsts, second_parent.item, second.shown, time_us, group)
            self._move_links(seconds, first_parent.item, first.shown, time_us, group)
            self._entries_changed(first_parent.item, time_us, group)
            self._entries_changed(second_parent.item, time_us, group)
        return ()

    def set_attributes(
        self, item: ItemId, change: Callable[[ItemAttributes, int], ItemAttributes]
    ) -> None:
        """Write an item's attributes: ``change`` gets the present ones and the write's time."""
        with self._database.transaction():
            together = self._contents.together(item)
            for each in together:
                self._set_own_attributes(each, change, together)

    def _set_own_attributes(
        self,
        item: ItemId,
        change: Callable[[ItemAttributes, int], ItemAttributes],
        together: Iterable[ItemId],
    ) -> None:
        versions = self._registers.attributes(item)
        time_us = self._time_us(versions)
        latest = max(versions, key=lambda version: version.rank, default=None)
        present = latest.value if latest is not None else ItemAttributes(0o700)
        if len(versions) == 1 and change(present, time_us) == present:
            return  # programs that copy files set again what is set already
        group = self._open_group(together)
        self._registers.write_local(
            item, Register.ATTRIBUTES, change(present, time_us), time_us, group
        )
        self._tree.refresh_values(item, self._now_ns())

    def write_content(
        self,
        item: ItemId,
        content: Content,
        base: Version[Content] | None,
        *,
        is_urgent: bool,
        group: int | None = None,
    ) -> Version[Content]:
        """Write an item's content over ``base``, the version that the writer had opened.

        Siblings with the same bytes were seen with it.

        Args:
            group: the record that it is to be in, with what waits already.

        Returns:
            The version that was written: the base of what is written next.
        """
        with self._database.transaction():
            rivals = self._rivals(item)
            bases = None if base is None else [base]
            written = self._contents.write(item, content, bases, group=group)
            self._keep_lost_names(item, rivals)
            if is_urgent:
                self._journal.make_urgent(self._registers.groups_of([item]))
        version = self._registers.content(item, written.dot)
        assert version is not None
        return version

    def keep_together(self, items: Iterable[ItemId]) -> None:
        """What waits for any of these items travels in one record."""
        groups = self._registers.groups_of(items)
        if len(groups) > 1:
            with self._database.transaction():
                self._journal.open_group(self._now_ns() // 1000, groups)

    def make_urgent(self, item: ItemId, *, but: Iterable[ItemId] = ()) -> None:
        """Publish what waits for this item, or for entries of this folder, at once.

        Args:
            but: items whose changes wait on.
        """
        with self._database.transaction():
            groups = [*self._registers.groups_of([item]), *self._journal.groups_changing(item)]
            waiting = self._registers.groups_of(but)
            self._journal.make_urgent(group for group in groups if group not in waiting)

    def _time_us(self, *covered: Iterable[Version[Any]]) -> int:
        times = (version.time_us for versions in covered for version in versions)
        return tick(self._now_ns() // 1000, times)

    def _open_group(self, items: Iterable[ItemId]) -> int:
        # By the clock, not by hybrid time: over a version from a device whose clock was years ahead
        # a change would else not settle for years.
        return self._journal.open_group(self._now_ns() // 1000, self._registers.groups_of(items))

    def _is_folder(self, item: ItemId) -> bool:
        row = self._tree.item(item)
        return row is not None and row.kind is Kind.DIRECTORY

    def _entries_changed(self, folder: ItemId, time_us: int, group: int) -> None:
        row = self._tree.item(folder)
        before_us = row.entries_us if row is not None else 0
        self._journal.note_folder(group, folder, time_us, before_us)
        self._tree.note_entries_changed(folder, time_us)

    def _shown_links(self, item: ItemId) -> list[Link]:
        links, former = merge_placements(self._registers.placements(item))
        if not links and former and self._tree.link_count(item):
            return [former[0].link]
        return [placed.link for placed in links]

    def _keep_folder(self, folder: ItemId, time_us: int, group: int) -> None:
        """A folder that is shown only because something lives in it is put back by a change."""
        if self._haunted(folder):
            for entry in self._tree.entries_of(folder):
                link = Link(entry.link, entry.parent, entry.shown)
                self._write_links(folder, [link], [], time_us, group)
                self._tree.refresh(folder, self._now_ns())

    def _haunted(self, folder: ItemId) -> list[ItemId]:
        """The folder, if it is deleted and shown only because something lives in it."""
        if folder == ROOT_ITEM:
            return []
        links, former = merge_placements(self._registers.placements(folder))
        return [folder] if former and not links else []

    def _taking(self, parent: ItemRow) -> ItemId:
        """The folder that takes new entries for this one; ENOENT when it was deleted."""
        folder = parent.merged_into or parent.item
        if folder != ROOT_ITEM and not self._tree.link_count(folder):
            raise drive_error(errno.ENOENT)
        return folder

    def _check_depth(self, folder: ItemId, height: int) -> None:
        """Refuse (ENAMETOOLONG) what would hang too deep in a folder."""
        if self._tree.depth(folder) + 1 + height > MAX_FOLDER_DEPTH:
            raise drive_error(errno.ENAMETOOLONG)

    def _check_moved_depth(self, source: EntryRow, into: ItemId) -> None:
        is_deeper = into != source.parent and self._is_folder(source.item)
        if is_deeper and self._tree.depth(into) > self._tree.depth(source.parent):
            self._check_depth(into, self._tree.height(source.item))

    def _contested(self, *leaving: EntryRow, placed_anew: Iterable[ItemId] = ()) -> list[EntryRow]:
        """Entries that would be shown under other names once these leave theirs.

        Args:
            placed_anew: further items whose placement is written. The names that stay with an item
                are written with those that leave, and come later in their contests from then on.
        """
        links = {(entry.item, entry.link) for entry in leaving}
        items = dict.fromkeys([*(entry.item for entry in leaving), *placed_anew])
        staying = [
            entry
            for item in items
            for entry in self._tree.entries_of(item)
            if (entry.item, entry.link) not in links
        ]
        others = [
            behind
            for entry in (*leaving, *staying)
            for other in self._tree.renamed_entries(entry.parent, entry.name)
            if (other.item, other.link) not in links
            for behind in self._as_one(other)
        ]
        return list(dict.fromkeys(others))

    def _as_one(self, entry: EntryRow) -> list[EntryRow]:
        """The entry and what it stands for as well: whatever is done to it is done to all."""
        return [entry, *self._tree.entries_behind(entry)]

    def _rivals(self, item: ItemId) -> list[EntryRow]:
        """Entries under other names than they want, of names that an item wants as well."""
        return [
            entry
            for parent, name in self._tree.names_shared(item)
            for rival in self._tree.renamed_entries(self._tree.standing_for(parent), name)
            for entry in self._as_one(rival)
        ]

    def _keep_lost_names(self, written: ItemId, rivals: Iterable[EntryRow]) -> None:
        """No entry goes because a write here made its bytes those of another: it is a copy now."""
        lost = [rival for rival in rivals if self._tree.entry(rival.parent, rival.shown) is None]
        if lost:
            items = [rival.item for rival in lost]
            time_us = self._time_us(*map(self._registers.placements, items))
            self._keep_names(lost, time_us, self._open_group([written, *items]))

    def _keep_names(self, contested: Iterable[EntryRow], time_us: int, group: int) -> None:
        """What is shown under a name that it did not want wants it from now on.

        So no file slides under a name while a program saves another one there.
        """
        for entry in contested:
            self._move_link(entry.item, entry.link, None, entry.shown, time_us, group)

    def _move_links(
        self, entries: Iterable[EntryRow], parent: ItemId, name: bytes, time_us: int, group: int
    ) -> None:
        """Move one name with all that is shown as one under it."""
        for entry in entries:
            self._move_link(entry.item, entry.link, parent, name, time_us, group)

    def _move_link(
        self,
        item: ItemId,
        link_id: LinkId,
        parent: ItemId | None,
        name: bytes,
        time_us: int,
        group: int,
    ) -> None:
        """Move one link of an item; without a parent it stays in its folder."""
        present = self._shown_links(item)
        kept = [link for link in present if link.id != link_id]
        moved = [link for link in present if link.id == link_id]
        renamed = [replace(link, parent=parent or link.parent, name=name) for link in moved]
        self._write_links(item, [*kept, *renamed], moved, time_us, group)
        self._tree.refresh(item, self._now_ns())

    def _remove_links(self, entries: Sequence[EntryRow], time_us: int, group: int) -> bool:
        """Take away one name with all that is shown as one under it.

        Returns:
            Whether the first of them has no name left.
        """
        gone: set[ItemId] = set()
        for entry in entries:
            if self._is_folder(entry.item):
                self._delete(entry.item, time_us, group)
            elif self._remove_link(entry, time_us, group):
                gone.add(entry.item)
        return entries[0].item in gone

    def _remove_link(self, entry: EntryRow, time_us: int, group: int) -> bool:
        present = self._shown_links(entry.item)
        kept = [link for link in present if link.id != entry.link]
        if not kept:
            self._delete(entry.item, time_us, group)
            return True
        removed = [link for link in present if link.id == entry.link]
        self._write_links(entry.item, kept, removed, time_us, group)
        self._tree.refresh(entry.item, self._now_ns())
        return False

    def _delete(self, item: ItemId, time_us: int, group: int) -> None:
        if not self._registers.was_sealed(item):
            self._registers.forget_item(item)
            self._tree.remove(item)
            return
        present = self._shown_links(item)
        self._write_links(item, [], present, time_us, group)
        self._tree.refresh(item, self._now_ns())

    def _write_links(
        self,
        item: ItemId,
        links: Iterable[Link],
        left: Iterable[Link],
        time_us: int,
        group: int,
    ) -> None:
        _, former = merge_placements(self._registers.placements(item))
        former_links = dict.fromkeys([*left, *(placed.link for placed in former)])
        sorted_links = tuple(sorted(links, key=lambda link: link.id))
        placement = Placement(
            sorted_links,
            tuple(former_links)[:MAX_FORMER_LINKS],
        )
        if not sorted_links:
            placement = replace(placement, seen=self._registers.seen(item, Register.CONTENT))
        self._registers.write_local(item, Register.PLACEMENT, placement, time_us, group)

    def _settle_empty_group(self, group: int) -> None:
        """A group whose items were all taken back before anybody saw them sends nothing.

        Its folders get back the times that they have on every other device.
        """
        if not self._registers.items_in_group(group):
            for folder, time_us, before_us in self._journal.folders_without(group):
                self._tree.take_back_entries_change(folder, time_us, before_us)
            self._journal.close_group(group)
