"""Local changes of the tree under which a name keeps its item, however a program saves.

Programs write a new file and rename it over the old one, move the old one away and write it anew,
remove it first, or exchange the two. What is shown then is what any file system shows; but the item
of the name, with its history and the base of merges, goes on: it takes over what the new file holds.
Where the old file stays as a backup, the backup is the new item. `node.core.save_patterns` decides;
this module carries it out, each change in one transaction. Called by the drive.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from node.core.save_patterns import (
    RECENT_NS,
    Former,
    Newcomer,
    is_backup_name,
    is_fresh,
    keeps_item,
)
from node.core.staged_content import StagedContent
from node.core.tree_view import Version
from node.filesystem.edits import Edits, Moved, Shown
from node.filesystem.save_memory import Departure, SaveMemory
from node.filesystem.values import checked_name
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import EntryRow, ItemRow, Tree
from protocol.ids import ItemId, LinkId
from protocol.records import Register
from protocol.values import Content, ItemAttributes, Kind, Link, Placement

_SAVED = (Kind.FILE, Kind.SYMLINK)


@dataclass(frozen=True, slots=True)
class Restored:
    """A name that was left and has its item again.

    Attributes:
        row: of the item, with a new inode number; it shows the former content until it is written.
        base: the version that the name showed when it was left.
        shown: the inode that the item had, if that is still shown somewhere.
    """

    row: ItemRow
    base: Version[Content]
    shown: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class _Keeper:
    """The item that a name keeps.

    Attributes:
        link: under which it has, or had, the name.
        base: the version that a program which saves there has seen.
        backup: the other place where it is shown now, for the newcomer to take.
        replaced: who had that place before, and was replaced.
    """

    row: ItemRow
    link: LinkId
    base: Version[Content]
    backup: EntryRow | None
    replaced: ItemId | None = None


class Saves(Edits):
    """`Edits`, with the memory of what was just done to names.

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
        super().__init__(database, registers, tree, journal, now_ns, token_bytes)
        self._lately = SaveMemory()

    def create(
        self, parent: ItemRow, name: bytes, content: Content, attributes: ItemAttributes
    ) -> ItemRow:
        """As `Edits.create`."""
        row = super().create(parent, name, content, attributes)
        if content.kind in _SAVED:
            self._lately.made(row.item, self._now_ns())
        self._lately.came_back((parent.merged_into or parent.item, name))
        return row

    def link(self, row: ItemRow, parent: ItemRow, name: bytes) -> ItemRow:
        """As `Edits.link`."""
        linked = super().link(row, parent, name)
        entry = self._tree.entry(parent.merged_into or parent.item, name)
        if entry is not None:
            self._lately.linked(entry.link, self._now_ns())
            self._lately.came_back((entry.parent, name))
        return linked

    def unlink(self, parent: ItemRow, entry: EntryRow) -> bool:
        """As `Edits.unlink`; the name remembers its item for a moment."""
        row = self._tree.item(entry.item)
        is_last = super().unlink(parent, entry)
        saved = self._lately.saved_before(entry.item, self._now_ns())
        if saved is not None:
            self.make_urgent(saved)
        if is_last and row is not None and self._tree.item(entry.item) is not None:
            self._left(entry, row, None)
        else:
            self._lately.came_back((entry.parent, entry.shown))
        return is_last

    def restore(
        self, parent: ItemRow, name: bytes, kind: Kind, attributes: ItemAttributes
    ) -> Restored | None:
        """Give a new file the item that had its name until a moment ago; its content is not written.

        Returns:
            None if nobody left the name, so that it is to be created.
        """
        folder = parent.merged_into or parent.item
        keeper = self._who_left(folder, name)
        if (
            keeper is None
            or self._taking(parent) != folder
            or kind not in _SAVED
            or keeper.row.kind is not kind
        ):
            return None
        item = keeper.row.item
        contested = [] if keeper.backup is None else self._contested(keeper.backup)
        touched = [item, *filter(None, [keeper.replaced]), *(other.item for other in contested)]
        shown = None
        with self._database.transaction():
            time_us = self._time_us(
                *map(self._registers.placements, touched), *map(self._registers.contents, touched)
            )
            group = self._open_group([*touched, *self._haunted(folder)])
            self._keep_names(contested, time_us, group)
            self._keep_folder(folder, time_us, group)
            self._place(keeper, folder, name, time_us, group)
            if keeper.backup is not None:
                shown = self._leave_behind(keeper, time_us, group)
            self._set_own_attributes(item, lambda *_: attributes, [item])
            self._entries_changed(folder, time_us, group)
            self._tree.new_inode(item)
            if shown is not None:
                self._tree.give_inode(shown.item, keeper.row.inode)
                self._lately.saved(item, shown.item, self._now_ns())
        self._lately.came_back((folder, name))
        row = self._tree.item(item)
        assert row is not None
        return Restored(row, keeper.base, () if shown is None else (shown,))

    def move(
        self,
        source_parent: ItemRow,
        source: EntryRow,
        target_parent: ItemRow,
        target_name: bytes,
        target: EntryRow | None,
    ) -> Moved:
        """As `Edits.move`; the name keeps its item when a new file comes to it."""
        checked_name(target_name)
        into = self._taking(target_parent)
        row = self._tree.item(source.item)
        assert row is not None
        keeper = None
        if row.kind in _SAVED:
            newcomer = self._newcomer(source, row)
            if is_fresh(newcomer):
                keeper = self._keeper(newcomer, into, target_name, target)
        if keeper is not None and keeper.row.item != source.item:
            return self._take_over(source_parent, source, into, target_name, keeper)
        replaced = self._tree.item(target.item) if target is not None else None
        moved = super().move(source_parent, source, target_parent, target_name, target)
        self._lately.came_back((into, target_name))
        if is_backup_name(source.shown, target_name) and self._tree.link_count(row.item) == 1:
            is_kept = moved.is_last and replaced is not None and replaced.kind is row.kind
            self._left(source, row, replaced.item if is_kept and replaced is not None else None)
        else:
            self._lately.came_back((source.parent, source.shown))
        return moved

    def exchange(
        self, first_parent: ItemRow, first: EntryRow, second_parent: ItemRow, second: EntryRow
    ) -> tuple[Shown, ...]:
        """As `Edits.exchange`; of a new file and another, both names keep their items."""
        if (first.parent, first.name) == (second.parent, second.name):
            # Rivals for one name are written as one as soon as they hold the same bytes, which a
            # trade of contents passes through: they change places instead.
            return super().exchange(first_parent, first, second_parent, second)
        now_ns = self._now_ns()
        ways = [(first, second), (second, first)]
        ages = {way: self._lately.age_ns(way[0].item, now_ns) for way in ways}
        ways.sort(key=lambda way: RECENT_NS + 1 if (age := ages[way]) is None else age)
        for new, old in ways:  # of two new files the later one has the new version
            row, old_row = self._tree.item(new.item), self._tree.item(old.item)
            assert row is not None
            assert old_row is not None
            base = self._registers.content(old.item, old_row.content)
            is_saved = old_row.kind is row.kind and self._tree.link_count(old.item) == 1
            if is_saved and base is not None and is_fresh(self._newcomer(new, row)):
                keeper = _Keeper(old_row, old.link, base, None)
                return self._swap(new, keeper, (first_parent.item, second_parent.item))
        return super().exchange(first_parent, first, second_parent, second)

    def note_replaced(self, item: ItemId, version: Version[Content]) -> None:
        """A file showed this version until something arrived from elsewhere."""
        self._lately.replaced(item, version, self._now_ns())

    def is_mid_save(self, item: ItemId) -> bool:
        """Whether a backup of a file's former version was made just now, and may go at once."""
        backup = self._lately.backup_of(item, self._now_ns())
        return backup is not None and self._tree.link_count(backup) > 0

    # Who is who

    def _newcomer(self, entry: EntryRow, row: ItemRow) -> Newcomer:
        return Newcomer(
            row.kind,
            entry.shown,
            links=self._tree.link_count(row.item) + len(self._tree.entries_behind(entry)),
            is_own=self._registers.is_own(row.item),
            age_ns=self._lately.age_ns(row.item, self._now_ns()),
        )

    def _keeper(
        self, newcomer: Newcomer, folder: ItemId, name: bytes, target: EntryRow | None
    ) -> _Keeper | None:
        """Who keeps a name to which a new file comes; None if that keeps its own identity."""
        if target is None:
            keeper = self._who_left(folder, name)
            links = 0 if keeper is None or keeper.backup is None else 1
            former = None if keeper is None else Former(keeper.row.kind, links, 0)
        else:
            keeper, former = self._who_has(target, newcomer)
        if keeper is None or former is None or not keeps_item(newcomer, former):
            return None
        return keeper

    def _who_has(
        self, target: EntryRow, newcomer: Newcomer
    ) -> tuple[_Keeper | None, Former | None]:
        row = self._tree.item(target.item)
        assert row is not None
        base = self._registers.content(row.item, row.content)
        if row.kind not in _SAVED or base is None:
            return None, None
        now_ns = self._now_ns()
        others = [link for link in self._shown_links(row.item) if link.id != target.link]
        steps = [link for link in others if self._lately.is_step(link.id, now_ns)]
        shown = {entry.link: entry for entry in self._tree.entries_of(row.item)}
        backup = shown.get(steps[0].id) if steps else None
        if newcomer.age_ns is not None:
            base = self._lately.shown_at(row.item, newcomer.age_ns, now_ns) or base
        lasting = len(others) - (backup is not None)
        former = Former(row.kind, int(backup is not None), lasting)
        return _Keeper(row, target.link, base, backup), former

    def _who_left(self, folder: ItemId, name: bytes) -> _Keeper | None:
        """The item that had a name until a moment ago and has at most the name of a backup now."""
        departure = self._lately.who_left((folder, name), self._now_ns())
        row = self._tree.item(departure.item) if departure is not None else None
        if departure is None or row is None:
            return None
        base = self._registers.content(row.item, departure.version) or next(
            (old for old in self._registers.history(row.item) if old.dot == departure.version), None
        )
        links = self._shown_links(row.item)
        entries = {entry.link: entry for entry in self._tree.entries_of(row.item)}
        backup = entries.get(departure.link)
        if base is None or any(link.id != departure.link for link in links):
            return None
        if links and (backup is None or self._tree.entries_behind(backup)):
            return None
        replaced = departure.replaced
        if replaced is not None and (
            self._tree.item(replaced) is None or self._tree.link_count(replaced)
        ):
            replaced = None
        return _Keeper(row, departure.link, base, backup, replaced)

    def _left(self, entry: EntryRow, row: ItemRow, replaced: ItemId | None) -> None:
        departure = Departure(entry.item, entry.link, row.content, replaced)
        self._lately.left((entry.parent, entry.shown), departure, self._now_ns())

    # Carrying it out

    def _take_over(
        self, source_parent: ItemRow, source: EntryRow, into: ItemId, name: bytes, keeper: _Keeper
    ) -> Moved:
        """Let a name's item take over what the file holds that comes to the name."""
        newcomer = self._tree.item(source.item)
        assert newcomer is not None
        item, backup = keeper.row.item, keeper.backup
        is_there = self._tree.entry(into, name) is not None
        # A name that is taken over where it is keeps its placement, and with it its precedence.
        placed_anew = [item] if backup is not None else []
        contested = self._contested(source, *filter(None, [backup]), placed_anew=placed_anew)
        held = self._held_by(newcomer)
        together = self._contents.together(item, held[0].value)
        touched = [source.item, *together, *(entry.item for entry in contested)]
        with self._database.transaction():
            time_us = self._time_us(
                *map(self._registers.placements, touched), *map(self._registers.contents, touched)
            )
            group = self._open_group([*touched, *self._haunted(into)])
            self._keep_names(contested, time_us, group)
            self._keep_folder(into, time_us, group)
            if not is_there or backup is not None:
                self._place(keeper, into, name, time_us, group)
            if backup is None:
                self._give_up(newcomer, time_us, group)
                left = None
            else:
                left = self._hand_on(newcomer, source, keeper, time_us, group)
            version = self._take(keeper, *held, group)
            self._tree.give_inode(item, newcomer.inode)
            if left is not None:
                self._tree.give_inode(source.item, keeper.row.inode)
                self._lately.saved(item, source.item, self._now_ns())
            else:
                self._journal.make_urgent([group])
            self._entries_changed(source_parent.item, time_us, group)
            self._entries_changed(into, time_us, group)
        self._lately.came_back((into, name))
        shown = Shown(newcomer.inode, version, item)
        return Moved(is_there and backup is None, (shown,) if left is None else (shown, left))

    def _swap(
        self, new: EntryRow, keeper: _Keeper, parents: tuple[ItemId, ItemId]
    ) -> tuple[Shown, ...]:
        """Exchange what two items hold, and their inode numbers, instead of their places."""
        newcomer = self._tree.item(new.item)
        assert newcomer is not None
        item = keeper.row.item
        held = self._held_by(newcomer)
        touched = [new.item, *self._contents.together(item, held[0].value)]
        with self._database.transaction():
            time_us = self._time_us(*map(self._registers.contents, touched))
            group = self._open_group(touched)
            left = self._receive(newcomer, keeper, time_us, group)
            version = self._take(keeper, *held, group)
            self._tree.give_inode(item, newcomer.inode)
            self._tree.give_inode(new.item, keeper.row.inode)
            for parent in parents:
                self._entries_changed(parent, time_us, group)
        self._lately.saved(item, new.item, self._now_ns())
        return (Shown(newcomer.inode, version, item), left)

    def _held_by(self, row: ItemRow) -> tuple[Version[Content], ItemAttributes]:
        content = self._registers.content(row.item, row.content)
        assert content is not None
        versions = self._registers.attributes(row.item)
        latest = max(versions, key=lambda version: version.rank, default=None)
        return content, latest.value if latest is not None else ItemAttributes(row.mode)

    def _place(
        self, keeper: _Keeper, folder: ItemId, name: bytes, time_us: int, group: int
    ) -> None:
        """Give an item the one name that it keeps."""
        item = keeper.row.item
        present = self._shown_links(item)
        link = next((one for one in present if one.id == keeper.link), None)
        if link is None or keeper.backup is None or keeper.backup.link == keeper.link:
            link = Link(keeper.link, folder, name)
        self._write_links(item, [link], [one for one in present if one != link], time_us, group)
        self._tree.refresh(item, self._now_ns())

    def _take(
        self,
        keeper: _Keeper,
        held: Version[Content],
        attributes: ItemAttributes,
        group: int,
    ) -> Version[Content]:
        """Write what another item held over the version that the saving program had seen."""
        base = keeper.base
        is_same = held.value.has_same_bytes(base.value)
        content = replace(held.value, origin=base.value.origin or base.dot if is_same else None)
        item = keeper.row.item
        version = self.write_content(item, content, base, is_urgent=False, group=group)
        self.set_attributes(item, lambda *_: attributes)
        return version

    def _give_up(self, newcomer: ItemRow, time_us: int, group: int) -> None:
        """Delete a file whose bytes another item has now; waiting ones are not published twice."""
        item = newcomer.item
        version = self._registers.content(item, newcomer.content)
        assert version is not None
        if isinstance(version.value, StagedContent) and self._registers.was_sealed(item):
            self._registers.write_local(
                item, Register.CONTENT, Content(newcomer.kind), time_us, group, [version]
            )
        self._delete(item, time_us, group)

    def _hand_on(
        self, newcomer: ItemRow, source: EntryRow, keeper: _Keeper, time_us: int, group: int
    ) -> Shown:
        """Make the new file's item that of the backup, which holds what the name's item held."""
        backup = keeper.backup
        assert backup is not None
        link = Link(source.link, backup.parent, backup.shown)
        present = self._shown_links(newcomer.item)
        self._write_links(newcomer.item, [link], present, time_us, group)
        self._tree.refresh(newcomer.item, self._now_ns())
        return self._receive(newcomer, keeper, time_us, group)

    def _receive(self, newcomer: ItemRow, keeper: _Keeper, time_us: int, group: int) -> Shown:
        """Write what the name's item showed into the new file's item."""
        own, _ = self._held_by(newcomer)
        shown, attributes = self._held_by(keeper.row)
        version = self._write_alone(newcomer.item, shown.value, [own], time_us, group)
        self._tree.refresh_values(newcomer.item, self._now_ns())
        self._set_own_attributes(newcomer.item, lambda *_: attributes, [newcomer.item])
        return Shown(keeper.row.inode, version, newcomer.item)

    def _leave_behind(self, keeper: _Keeper, time_us: int, group: int) -> Shown:
        """Show what an item held in the place of its backup, as another item."""
        backup = keeper.backup
        assert backup is not None
        content, attributes = self._held_by(keeper.row)
        value = replace(content.value, origin=None)
        item = keeper.replaced or ItemId(self._token_bytes(ItemId.size_bytes))
        if keeper.replaced is not None:
            former = self._registers.placements(item)[0].value.former
            link_id = former[0].id if former else LinkId(self._token_bytes(LinkId.size_bytes))
            link = Link(link_id, backup.parent, backup.shown)
            self._write_links(item, [link], [], time_us, group)
            version = self._write_alone(item, value, None, time_us, group)
            self._set_own_attributes(item, lambda *_: attributes, [item])
        else:
            link = Link(LinkId(self._token_bytes(LinkId.size_bytes)), backup.parent, backup.shown)
            write = self._registers.write_first
            write(item, Register.PLACEMENT, Placement((link,)), time_us, group)
            write(item, Register.ATTRIBUTES, attributes, time_us, group)
            version = write(item, Register.CONTENT, value, time_us, group)
        self._tree.refresh(item, self._now_ns())
        return Shown(keeper.row.inode, version, item)

    def _write_alone(
        self,
        item: ItemId,
        value: Content,
        bases: list[Version[Content]] | None,
        time_us: int,
        group: int,
    ) -> Version[Content]:
        """Write a content into one item only, though others may have the same bytes."""
        content = replace(value, origin=None)
        dot = self._registers.write_local(item, Register.CONTENT, content, time_us, group, bases)
        version = self._registers.content(item, dot)
        assert version is not None
        return version
