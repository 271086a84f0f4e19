"""The tree view on disk, kept incrementally: items, links, entries.

After registers of an item changed, `refresh` brings the view up to date: an ordinary change costs a
few statements. The rules are those of `node.core.tree_view`; this module only finds what a change
touches. Called by the drive and the puller inside their transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from node.core.tree_view import (
    Candidate,
    ItemView,
    Move,
    PlacedLink,
    contested_name,
    cut_cycles,
    share_name,
    view_item,
)
from node.storage.database import Database
from node.storage.registers import Registers
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, LinkId
from protocol.values import Kind, Link
from protocol.version_vector import Dot

ROOT_INODE = 1

_INODES_AT_ONCE = 1024  # numbers reserved by one write; a restart skips what is left of them


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item as the view shows it; columns as in schema.sql."""

    inode: int
    item: ItemId
    kind: Kind
    mode: int
    uid: int | None
    gid: int | None
    size: int
    mtime_ns: int
    ctime_ns: int
    device_number: int
    xattr_count: int
    content: Dot
    explicit_ns: int | None
    explicit_set_us: int | None
    entries_us: int
    conflicts: int
    merged_into: ItemId | None

    @property
    def shown_mtime_ns(self) -> int:
        """Of a folder: the explicit time, unless entries changed after it was set."""
        if self.kind is not Kind.DIRECTORY:
            return self.mtime_ns
        if self.explicit_ns is not None and (self.explicit_set_us or 0) >= self.entries_us:
            return self.explicit_ns
        return self.entries_us * 1000


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One name in a folder."""

    parent: ItemId
    shown: bytes
    name: bytes
    item: ItemId
    link: LinkId


@dataclass(slots=True)
class Changes:
    """What a round of refreshing changed in what the kernel may have cached."""

    entries: set[tuple[ItemId, bytes]] = field(default_factory=set)
    items: set[ItemId] = field(default_factory=set)
    contents: set[ItemId] = field(default_factory=set)


_ITEM_COLUMNS = (
    "inode, item, kind, mode, uid, gid, size, mtime_ns, ctime_ns, device_number, xattr_count, "
    "content_actor, content_n, explicit_ns, explicit_set_us, entries_us, conflicts, merged_into"
)
_ENTRY_COLUMNS = "parent, shown, name, item, link"


class Tree:
    """The view of one namespace.

    Concurrency: owned by the node's loop; no method awaits. Writers hold a transaction.
    """

    def __init__(self, database: Database, registers: Registers) -> None:
        self._database = database
        self._registers = registers
        self._device_names: dict[DeviceId, str] = {}
        self._next_free_inode = self._reserved_inodes = 0
        self.changes = Changes()
        if self.item(ROOT_ITEM) is None:
            self._database.execute(
                f"INSERT INTO items ({_ITEM_COLUMNS}) "
                "VALUES (?,?,?,448,NULL,NULL,0,0,0,0,0,?,0,NULL,NULL,0,0,NULL)",
                (ROOT_INODE, ROOT_ITEM, int(Kind.DIRECTORY), bytes(16)),
            )

    def take_changes(self) -> Changes:
        """What was changed since the last call."""
        taken, self.changes = self.changes, Changes()
        return taken

    # Reading

    def item(self, item: ItemId) -> ItemRow | None:
        """The row of an item, shown or not."""
        row = self._database.row(f"SELECT {_ITEM_COLUMNS} FROM items WHERE item = ?", (item,))
        return None if row is None else _item_row(row)

    def item_of_inode(self, inode: int) -> ItemRow | None:
        """The row of the item that has this inode number now."""
        row = self._database.row(f"SELECT {_ITEM_COLUMNS} FROM items WHERE inode = ?", (inode,))
        return None if row is None else _item_row(row)

    def entry(self, parent: ItemId, shown: bytes) -> EntryRow | None:
        """The entry of a folder under its shown name."""
        row = self._database.row(
            f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE parent = ? AND shown = ?", (parent, shown)
        )
        return None if row is None else _entry_row(row)

    def lookup(self, parent: ItemId, shown: bytes) -> ItemRow | None:
        """The item under a shown name."""
        row = self._database.row(
            f"SELECT {_LOOKUP_COLUMNS} FROM entries AS e JOIN items AS i ON i.item = e.item "
            "WHERE e.parent = ? AND e.shown = ?",
            (parent, shown),
        )
        return None if row is None else _item_row(row)

    def list_folder(
        self, parent: ItemId, after: bytes, limit: int
    ) -> list[tuple[bytes, ItemRow]]:
        """Up to ``limit`` entries of a folder whose shown names follow ``after``, by name."""
        rows = self._database.execute(
            f"SELECT e.shown, {_LOOKUP_COLUMNS} FROM entries AS e JOIN items AS i "
            "ON i.item = e.item WHERE e.parent = ? AND e.shown > ? ORDER BY e.shown LIMIT ?",
            (parent, after, limit),
        )
        return [(shown, _item_row(row)) for shown, *row in rows]

    def has_entries(self, parent: ItemId) -> bool:
        """Whether a folder shows anything."""
        return (
            self._database.row("SELECT 1 FROM entries WHERE parent = ? LIMIT 1", (parent,))
            is not None
        )

    def link_count(self, item: ItemId) -> int:
        """How many names an item has."""
        row = self._database.row("SELECT count(*) FROM links WHERE item = ?", (item,))
        return int(row[0]) if row else 0

    def entries_of(self, item: ItemId) -> list[EntryRow]:
        """Every name under which an item is shown."""
        rows = self._database.execute(
            f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE item = ?", (item,)
        )
        return [_entry_row(row) for row in rows]

    def path(self, item: ItemId) -> bytes | None:
        """The first path of an item from the namespace's root, without a leading slash."""
        parts: list[bytes] = []
        while item != ROOT_ITEM:
            entries = self.entries_of(item)
            if not entries or len(parts) > 4096:
                return None
            parts.append(entries[0].shown)
            item = entries[0].parent
        return b"/".join(reversed(parts))

    def merged_folders(self, folder: ItemId) -> list[ItemId]:
        """The folder and those that are shown as one with it."""
        rows = self._database.execute("SELECT item FROM items WHERE merged_into = ?", (folder,))
        return [folder, *(ItemId(item) for (item,) in rows)]

    def standing_for(self, folder: ItemId) -> ItemId:
        """The folder that stands for all that are merged with this one."""
        row = self._database.row("SELECT merged_into FROM items WHERE item = ?", (folder,))
        return ItemId(row[0]) if row is not None and row[0] is not None else folder

    def conflicts(self) -> list[ItemRow]:
        """Shown items that have conflict versions."""
        rows = self._database.execute(
            f"SELECT {_ITEM_COLUMNS} FROM items WHERE conflicts > 0 ORDER BY inode"
        )
        return [_item_row(row) for row in rows]

    def device_name(self, device: DeviceId) -> str:
        """A device's name from its account's log; the head of its id while that is not known."""
        name = self._device_names.get(device)
        if name is None:
            row = self._database.row("SELECT name FROM devices WHERE device = ?", (device,))
            if row is None:
                return str(device)[:12]
            name = self._device_names[device] = str(row[0])
        return name

    def totals(self) -> tuple[int, int]:
        """Items shown and the sum of their sizes in bytes."""
        row = self._database.row(
            "SELECT count(*), coalesce(sum(size), 0) FROM items "
            "WHERE EXISTS (SELECT 1 FROM links WHERE links.item = items.item)"
        )
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    # Keeping

    def note_entries_changed(self, folder: ItemId, time_us: int) -> None:
        """A folder's entries changed at that time; its shown time follows."""
        self._database.execute(
            "UPDATE items SET entries_us = ? WHERE item = ? AND entries_us < ?",
            (time_us, folder, time_us),
        )
        if not self._database.changes and self.item(folder) is None:
            # The folder's own record may arrive later: keep the time for it.
            key = f"entries_us/{folder.hex()}"
            self._database.set_meta(key, max(time_us, self._database.meta(key) or 0))
        self.changes.items.add(folder)

    def new_inode(self, item: ItemId) -> int:
        """Give an item another inode number; the old one is left to those who hold it."""
        inode = self._next_inode()
        self._database.execute("UPDATE items SET inode = ? WHERE item = ?", (inode, item))
        return inode

    def refresh(self, item: ItemId, now_ns: int) -> None:
        """Bring the view up to date after registers of ``item`` changed."""
        view = self._view(item)
        if view.content is None:
            return
        self._store_item(item, view, now_ns)
        if item != ROOT_ITEM:
            self._place(item, view)

    def remove(self, item: ItemId) -> None:
        """Take an item out of the view of which no register is left."""
        self._set_links(item, (), is_folder=False)
        self._database.execute("DELETE FROM items WHERE item = ?", (item,))

    def _view(self, item: ItemId) -> ItemView:
        registers = self._registers
        return view_item(
            registers.placements(item), registers.attributes(item), registers.contents(item)
        )

    def _store_item(self, item: ItemId, view: ItemView, now_ns: int) -> None:
        assert view.content is not None
        content = view.content.value
        attributes = view.attributes.value if view.attributes is not None else None
        explicit = attributes.explicit_time if attributes is not None else None
        is_folder = content.kind is Kind.DIRECTORY
        values = (
            int(content.kind),
            attributes.mode if attributes is not None else (0o700 if is_folder else 0o600),
            attributes.uid if attributes is not None else None,
            attributes.gid if attributes is not None else None,
            content.size,
            content.mtime_ns,
            content.device_number,
            len(attributes.xattrs) if attributes is not None else 0,
            view.content.dot.actor,
            view.content.dot.n,
            explicit.mtime_ns if explicit is not None else None,
            explicit.set_time_us if explicit is not None else None,
            0 if is_folder else len(view.conflicts),
        )
        old = self._database.row(
            f"SELECT {_STORED_COLUMNS} FROM items WHERE item = ?", (item,)
        )
        if old == values:
            return
        self.changes.items.add(item)
        if old is None or old[8:10] != values[8:10]:
            self.changes.contents.add(item)
        if old is None:
            key = f"entries_us/{item.hex()}"
            entries_us = (self._database.meta(key) or 0) if is_folder else 0
            if entries_us:
                self._database.execute("DELETE FROM meta WHERE key = ?", (key,))
            self._database.execute(
                f"INSERT INTO items (inode, item, ctime_ns, entries_us, {_STORED_COLUMNS}) "
                "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (self._next_inode(), item, now_ns, entries_us, *values),
            )
        else:
            assignments = ", ".join(f"{name} = ?" for name in _STORED_COLUMNS.split(", "))
            self._database.execute(
                f"UPDATE items SET ctime_ns = ?, {assignments} WHERE item = ?",
                (now_ns, *values, item),
            )

    def _next_inode(self) -> int:
        if self._next_free_inode == self._reserved_inodes:
            self._next_free_inode = int(self._database.meta("next_inode") or ROOT_INODE + 1)
            self._reserved_inodes = self._next_free_inode + _INODES_AT_ONCE
            self._database.set_meta("next_inode", self._reserved_inodes)
        self._next_free_inode += 1
        return self._next_free_inode - 1

    def _place(self, item: ItemId, view: ItemView) -> None:
        links = self._wanted_links(item, view)
        if view.is_folder:
            self._check_cycles(item, links)
            links = self._after_cuts(item, links)
        self._set_links(item, links, is_folder=view.is_folder)

    def _wanted_links(self, item: ItemId, view: ItemView) -> tuple[PlacedLink, ...]:
        if view.links or not view.is_folder or not view.former:
            return view.links
        child = self._database.row("SELECT 1 FROM links WHERE parent = ? LIMIT 1", (item,))
        return view.former[:1] if child is not None else ()

    def _after_cuts(self, item: ItemId, links: tuple[PlacedLink, ...]) -> tuple[PlacedLink, ...]:
        row = self._database.row("SELECT parent FROM cuts WHERE folder = ?", (item,))
        if row is None:
            return links
        return tuple(
            replace(placed, link=replace(placed.link, parent=ItemId(row[0]))) for placed in links
        )

    def _check_cycles(self, item: ItemId, links: tuple[PlacedLink, ...]) -> None:
        has_cuts = self._database.row("SELECT 1 FROM cuts LIMIT 1") is not None
        if not has_cuts and not self._closes_cycle(item, links):
            return
        moves: dict[ItemId, Move] = {}
        folders = [
            ItemId(row[0])
            for row in self._database.execute("SELECT DISTINCT item FROM links WHERE is_folder = 1")
        ]
        for folder in {*folders, item}:
            view = self._view(folder)
            for placed in self._wanted_links(folder, view):
                former = tuple(place.link.parent for place in view.former)
                moves[folder] = Move(placed.link.parent, former, placed.rank)
        wanted = cut_cycles(moves)
        present = {
            ItemId(folder): ItemId(parent)
            for folder, parent in self._database.execute("SELECT folder, parent FROM cuts")
        }
        self._database.execute("DELETE FROM cuts")
        for folder, parent in wanted.items():
            self._database.execute("INSERT INTO cuts VALUES (?,?)", (folder, parent))
        for folder in sorted(set(wanted) | set(present)):
            if folder != item and wanted.get(folder) != present.get(folder):
                links_now = self._wanted_links(folder, self._view(folder))
                self._set_links(folder, self._after_cuts(folder, links_now), is_folder=True)

    def _closes_cycle(self, item: ItemId, links: tuple[PlacedLink, ...]) -> bool:
        for placed in links:
            folder = placed.link.parent
            met: set[ItemId] = set()
            while folder != ROOT_ITEM and folder not in met:
                if folder == item:
                    return True
                met.add(folder)
                row = self._database.row("SELECT parent FROM links WHERE item = ?", (folder,))
                if row is None:
                    break
                folder = ItemId(row[0])
        return False

    def _set_links(
        self, item: ItemId, links: tuple[PlacedLink, ...], *, is_folder: bool
    ) -> None:
        old = {
            placed.link.id: placed
            for placed in (
                _placed_link(row)
                for row in self._database.execute(
                    "SELECT link, parent, name, time_us, actor, n, device FROM links "
                    "WHERE item = ?",
                    (item,),
                )
            )
        }
        new = {placed.link.id: placed for placed in links}
        if old == new:
            return
        self.changes.items.add(item)
        slots: dict[tuple[ItemId, bytes], None] = {}
        for link_id, placed in old.items():
            if new.get(link_id) != placed:
                slots[(placed.link.parent, placed.link.name)] = None
                self._database.execute(
                    "DELETE FROM links WHERE item = ? AND link = ?", (item, link_id)
                )
        for link_id, placed in new.items():
            if old.get(link_id) != placed:
                slots[(placed.link.parent, placed.link.name)] = None
                link = placed.link
                self._database.execute(
                    "INSERT INTO links VALUES (?,?,?,?,?,?,?,?,?)",
                    (
                        item,
                        link_id,
                        link.parent,
                        link.name,
                        placed.time_us,
                        placed.dot.actor,
                        placed.dot.n,
                        placed.device,
                        int(is_folder),
                    ),
                )
        for parent, name in slots:
            self._share(self.standing_for(parent), name)
        if is_folder and not new:
            self._merge_into(item, None)
        for parent in {placed.link.parent for placed in (*old.values(), *new.values())}:
            self._check_haunted(parent)

    def _check_haunted(self, folder: ItemId) -> None:
        """A deleted folder is shown exactly while something lives in it."""
        if folder == ROOT_ITEM:
            return
        row = self._database.row(
            "SELECT EXISTS (SELECT 1 FROM links WHERE parent = ?1), "
            "EXISTS (SELECT 1 FROM links WHERE item = ?1)",
            (folder,),
        )
        assert row is not None
        has_children, is_shown = row
        if has_children == is_shown:
            return
        view = self._view(folder)
        if view.is_folder and not view.links:
            self._place(folder, view)

    def _share(self, parent: ItemId, name: bytes) -> None:
        """Decide anew who shows under a name in a folder."""
        members = self.merged_folders(parent)
        marks = ",".join("?" * len(members))
        candidates = [
            Candidate(ItemId(row[0]), _placed_link(row[2:]), bool(row[1]))
            for row in self._database.execute(
                "SELECT item, is_folder, link, parent, name, time_us, actor, n, device "
                f"FROM links WHERE parent IN ({marks}) AND name = ?",
                (*members, name),
            )
        ]
        slot = share_name(candidates)
        gone = [
            shown
            for (shown,) in self._database.execute(
                "SELECT shown FROM entries WHERE parent = ?1 AND shown = ?2 AND name = ?2 "
                "UNION SELECT shown FROM entries WHERE parent = ?1 AND name = ?2 AND shown <> name",
                (parent, name),
            )
        ]
        for shown in gone:
            self._database.execute(
                "DELETE FROM entries WHERE parent = ? AND shown = ?", (parent, shown)
            )
            self.changes.entries.add((parent, shown))
        self.changes.entries.add((parent, name))
        displaced: bytes | None = None
        if slot.keeper is not None:
            occupant = self.entry(parent, name)
            if occupant is not None:
                displaced = occupant.name
                self._database.execute(
                    "DELETE FROM entries WHERE parent = ? AND shown = ?", (parent, name)
                )
            self._insert_entry(parent, name, slot.keeper)
            if slot.keeper.is_folder:
                self._merge_into(slot.keeper.item, None)
            for candidate in slot.merged:
                self._merge_into(candidate.item, slot.keeper.item)
        for candidate in slot.renamed:
            shown = contested_name(
                name,
                self.device_name(candidate.placed.device),
                candidate.placed.time_us,
                lambda shown: self._is_free(members, parent, shown),
            )
            self._insert_entry(parent, shown, candidate)
            if candidate.is_folder:
                self._merge_into(candidate.item, None)
        if displaced is not None and displaced != name:
            self._share(parent, displaced)

    def _insert_entry(self, parent: ItemId, shown: bytes, candidate: Candidate) -> None:
        link = candidate.placed.link
        self._database.execute(
            "INSERT INTO entries VALUES (?,?,?,?,?)",
            (parent, shown, link.name, candidate.item, link.id),
        )
        self.changes.entries.add((parent, shown))

    def _is_free(self, members: list[ItemId], parent: ItemId, shown: bytes) -> bool:
        if self.entry(parent, shown) is not None:
            return False
        marks = ",".join("?" * len(members))
        row = self._database.row(
            f"SELECT 1 FROM links WHERE parent IN ({marks}) AND name = ? LIMIT 1",
            (*members, shown),
        )
        return row is None

    def _merge_into(self, folder: ItemId, keeper: ItemId | None) -> None:
        """Show a folder's entries in another's, or (None) in its own again."""
        row = self._database.row("SELECT merged_into FROM items WHERE item = ?", (folder,))
        if row is None or row[0] == keeper:
            return
        before = ItemId(row[0]) if row[0] is not None else folder
        self._database.execute(
            "UPDATE items SET merged_into = ? WHERE item = ?", (keeper, folder)
        )
        self._database.execute(
            "UPDATE items SET merged_into = ? WHERE merged_into = ? AND item <> ?",
            (keeper, folder, folder),
        )
        after = keeper if keeper is not None else folder
        names = [
            name
            for (name,) in self._database.execute(
                "SELECT DISTINCT name FROM links WHERE parent = ?", (folder,)
            )
        ]
        for name in names:
            self._share(before, name)
            self._share(after, name)


_LOOKUP_COLUMNS = ", ".join(f"i.{name}" for name in _ITEM_COLUMNS.split(", "))
_STORED_COLUMNS = (
    "kind, mode, uid, gid, size, mtime_ns, device_number, xattr_count, content_actor, content_n, "
    "explicit_ns, explicit_set_us, conflicts"
)


def _item_row(row: Any) -> ItemRow:
    return ItemRow(
        inode=row[0],
        item=ItemId(row[1]),
        kind=Kind(row[2]),
        mode=row[3],
        uid=row[4],
        gid=row[5],
        size=row[6],
        mtime_ns=row[7],
        ctime_ns=row[8],
        device_number=row[9],
        xattr_count=row[10],
        content=Dot(ActorId(row[11]), row[12]),
        explicit_ns=row[13],
        explicit_set_us=row[14],
        entries_us=row[15],
        conflicts=row[16],
        merged_into=None if row[17] is None else ItemId(row[17]),
    )


def _entry_row(row: Any) -> EntryRow:
    return EntryRow(ItemId(row[0]), row[1], row[2], ItemId(row[3]), LinkId(row[4]))


def _placed_link(row: Any) -> PlacedLink:
    link, parent, name, time_us, actor, n, device = row
    return PlacedLink(
        Link(LinkId(link), ItemId(parent), name),
        time_us,
        Dot(ActorId(actor), n),
        DeviceId(device),
    )


def iterate_folder(tree: Tree, folder: ItemId) -> Iterator[tuple[bytes, ItemRow]]:
    """Every entry of a folder by name, read in pages so that a change between them does no harm."""
    after = b""
    while page := tree.list_folder(folder, after, 1024):
        yield from page
        after = page[-1][0]
