"""The tree view on disk, kept incrementally: items, links, entries.

After registers of an item changed, `refresh` brings the view up to date: an ordinary change costs a
few statements. The rules are those of `node.core.tree_view`; where items hang and what folders list
is kept by `hanging` and `folder_entries`. Called by the drive and the puller inside their
transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from node.core.tree_view import CONTEST_MARK, ItemView, Version, twin_identity, view_item
from node.storage.burials import Burials
from node.storage.database import Database
from node.storage.folder_entries import FolderEntries
from node.storage.hanging import Hanging, Slot
from node.storage.registers import Registers
from node.storage.revisions import Revisions
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, LinkId, RecordId
from protocol.values import Content, Kind, Placement
from protocol.version_vector import EMPTY_CONTEXT, Dot

ROOT_INODE = 1

# The root is there without a record: it has attributes, but neither placement nor content.
_ROOT_CONTENT = Version(
    Dot(ActorId(bytes(16)), 0), 0, DeviceId(bytes(32)), EMPTY_CONTEXT, Content(Kind.DIRECTORY)
)

_INODES_AT_ONCE = 1024  # numbers reserved by one write; a restart skips what is left of them


class ItemRow(NamedTuple):
    """One item as the view shows it; columns as in schema.sql.

    A tuple, because each request makes one or two: a frozen dataclass takes 8 us longer.
    """

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
_KINDS = {int(kind): kind for kind in Kind}
_KEPT_ROWS = 256


class Tree:
    """The view of one namespace.

    Attributes:
        burials: the items that are no part of it any more.
        revisions: the changes of what folders list.

    Concurrency: owned by the node's loop; no method awaits. Writers hold a transaction.
    """

    def __init__(self, database: Database, registers: Registers) -> None:
        self._database = database
        self._registers = registers
        self._device_names: dict[DeviceId, str] = {}
        self._next_free_inode = self._reserved_inodes = self._reserved_at = 0
        self.burials = Burials(database)
        self._hanging = Hanging(database, self._view, self.burials.holds)
        self._entries = FolderEntries(database, self.device_name)
        self.changes = Changes()
        self._rows: dict[int, ItemRow] = {}  # by inode, until anything changes
        self._rows_state = -1, -1  # revision and rollbacks when they were read
        self.revisions = Revisions()
        self.unsettled: set[ItemId] = set()
        if self.item(ROOT_ITEM) is None:
            self._database.execute(
                f"INSERT INTO items ({_ITEM_COLUMNS}) "
                "VALUES (?,?,?,448,NULL,NULL,0,0,0,0,0,?,0,NULL,NULL,0,0,NULL)",
                (ROOT_INODE, ROOT_ITEM, int(Kind.DIRECTORY), bytes(16)),
            )

        if self._database.meta("twins_unknown"):
            self._find_twins()

    def take_changes(self) -> Changes:
        """What was changed since the last call."""
        taken, self.changes = self.changes, Changes()
        return taken

    def take_unsettled(self) -> set[ItemId]:
        """Items that were refreshed and have conflict versions, since the last call."""
        taken, self.unsettled = self.unsettled, set()
        return taken

    # Reading

    def item(self, item: ItemId) -> ItemRow | None:
        """The row of an item, shown or not."""
        row = self._database.row(f"SELECT {_ITEM_COLUMNS} FROM items WHERE item = ?", (item,))
        return None if row is None else _item_row(row)

    def inode(self, item: ItemId) -> int | None:
        """The inode number of an item, shown or not."""
        row = self._database.row("SELECT inode FROM items WHERE item = ?", (item,))
        return None if row is None else int(row[0])

    def item_of_inode(self, inode: int) -> ItemRow | None:
        """The row of the item that has this inode number now."""
        # Each lookup asks for its folder again.
        state = self.revisions.number, self._database.rollbacks
        if state != self._rows_state or len(self._rows) > _KEPT_ROWS:
            self._rows.clear()
            self._rows_state = state
        known = self._rows.get(inode)
        if known is None:
            row = self._database.row(f"SELECT {_ITEM_COLUMNS} FROM items WHERE inode = ?", (inode,))
            if row is None:
                return None
            known = self._rows[inode] = _item_row(row)
        return known

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
    ) -> list[tuple[bytes, int, ItemRow]]:
        """Up to ``limit`` entries of a folder whose shown names follow ``after``, by name.

        Returns:
            Shown name, under how many names the item is found, and the item.
        """
        rows = self._database.execute(
            "SELECT e.shown, (SELECT count(*) FROM entries AS o WHERE o.item = e.item), "
            f"{_LOOKUP_COLUMNS} FROM entries AS e JOIN items AS i "
            "ON i.item = e.item WHERE e.parent = ? AND e.shown > ? ORDER BY e.shown LIMIT ?",
            (parent, after, limit),
        )
        return [(shown, names, _item_row(row)) for shown, names, *row in rows]

    def has_entries(self, parent: ItemId) -> bool:
        """Whether a folder shows anything."""
        return (
            self._database.row("SELECT 1 FROM entries WHERE parent = ? LIMIT 1", (parent,))
            is not None
        )

    def link_count(self, item: ItemId) -> int:
        """How many links an item has; none when it is deleted."""
        row = self._database.row("SELECT count(*) FROM links WHERE item = ?", (item,))
        return int(row[0]) if row else 0

    def name_count(self, item: ItemId) -> int:
        """Under how many names programs find an item: links that want one name are one.

        One that stands behind another item of the same bytes everywhere counts as found once.
        """
        row = self._database.row("SELECT count(*) FROM entries WHERE item = ?", (item,))
        return (int(row[0]) if row else 0) or min(1, self.link_count(item))

    def entries_of(self, item: ItemId) -> list[EntryRow]:
        """Every name under which an item is shown."""
        rows = self._database.execute(
            f"SELECT {_ENTRY_COLUMNS} FROM entries WHERE item = ?", (item,)
        )
        return [_entry_row(row) for row in rows]

    def renamed_entries(self, parent: ItemId, name: bytes) -> list[EntryRow]:
        """Entries of a folder that want a name and are shown under others."""
        rows = self._database.execute(
            # Left to itself, SQLite reads the whole folder.
            f"SELECT {_ENTRY_COLUMNS} FROM entries INDEXED BY entries_by_name "
            "WHERE parent = ? AND name = ? AND shown <> name",
            (parent, name),
        )
        return [_entry_row(row) for row in rows]

    def entries_behind(self, entry: EntryRow) -> list[EntryRow]:
        """What is shown as one with an entry: merged folders, or files with the same bytes."""
        links = self._entries.of_one_name(entry.parent, entry.name, entry.item)
        return [
            replace(entry, item=item, link=link)
            for item, link in links
            if (item, link) != (entry.item, entry.link)
        ]

    def names_shared(self, item: ItemId) -> list[Slot]:
        """The names of an item that others want as well."""
        rows = self._database.execute("SELECT parent, name FROM links WHERE item = ?", (item,))
        slots = [(ItemId(parent), name) for parent, name in rows]
        return [slot for slot in slots if not self._entries.is_alone(*slot)]

    def twins(self, item: ItemId) -> list[ItemId]:
        """The item and all that stand with it, or with one of those, under one shown name."""
        found = [item]
        for twin in found:
            for parent, name in self.names_shared(twin):
                others = self._entries.of_one_name(parent, name, twin)
                found += dict.fromkeys(other for other, _ in others if other not in found)
        return found

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

    def depth(self, folder: ItemId) -> int:
        """How many folders a folder hangs in."""
        row = self._database.row(
            "WITH RECURSIVE up (folder, depth) AS (SELECT ?1, 0 UNION ALL "
            "SELECT parent, depth + 1 FROM up JOIN links ON item = folder WHERE is_folder = 1) "
            "SELECT max(depth) FROM up",
            (folder,),
        )
        return int(row[0]) if row else 0

    def height(self, folder: ItemId) -> int:
        """How many folders hang in each other below a folder, at most."""
        row = self._database.row(
            "WITH RECURSIVE down (folder, depth) AS (SELECT ?1, 0 UNION ALL SELECT item, depth + 1 "
            "FROM down JOIN links INDEXED BY links_of_folders ON parent = folder "
            "WHERE is_folder = 1) SELECT max(depth) FROM down",
            (folder,),
        )
        return int(row[0]) if row else 0

    def merged_folders(self, folder: ItemId) -> list[ItemId]:
        """The folder and those that are shown as one with it."""
        return self._entries.merged_folders(folder)

    def standing_for(self, folder: ItemId) -> ItemId:
        """The folder that stands for all that are merged with this one."""
        return self._entries.standing_for(folder)

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
        row = self._database.row("SELECT items, bytes FROM totals")
        assert row is not None
        return int(row[0]), int(row[1])

    # Keeping

    def note_entries_changed(self, folder: ItemId, time_us: int) -> None:
        """A folder's entries changed at that time; its shown time follows."""
        self.revisions.note({folder})
        self._database.execute(
            "UPDATE items SET entries_us = ? WHERE item = ? AND entries_us < ?",
            (time_us, folder, time_us),
        )
        if not self._database.changes and self.item(folder) is None:
            # The folder's own record may arrive later: keep the time for it.
            key = f"entries_us/{folder.hex()}"
            self._database.set_meta(key, max(time_us, self._database.meta(key) or 0))
        self.changes.items.add(folder)

    def take_back_entries_change(self, folder: ItemId, time_us: int, before_us: int) -> None:
        """A change of a folder's entries came to nothing before anybody else could see it."""
        self.revisions.note({folder})
        self._database.execute(
            "UPDATE items SET entries_us = ? WHERE item = ? AND entries_us = ?",
            (before_us, folder, time_us),
        )
        self.changes.items.add(folder)

    def new_inode(self, item: ItemId) -> int:
        """Give an item another inode number; the old one is left to those who hold it."""
        self.revisions.note({item})
        inode = self._next_inode()
        self._database.execute("UPDATE items SET inode = ? WHERE item = ?", (inode, item))
        return inode

    def give_inode(self, item: ItemId, inode: int) -> None:
        """Give an item a number that another item had; that one gets a new number."""
        row = self.item_of_inode(inode)
        if row is not None:
            self.new_inode(row.item)
        self.revisions.note({item})
        self._database.execute("UPDATE items SET inode = ? WHERE item = ?", (inode, item))

    def refresh(self, item: ItemId, now_ns: int, *, is_placed_anew: bool = True) -> None:
        """Bring the view up to date after registers of ``item`` changed.

        Args:
            is_placed_anew: whether its placement is among them. Other changes move nothing that
                hangs where its placement says.
        """
        self.revisions.note({item})
        placements, attributes, contents = self._registers.all_versions(item)
        view = view_item(placements, attributes, contents)
        if item == ROOT_ITEM:
            self._store_item(item, replace(view, content=_ROOT_CONTENT, conflicts=()), now_ns)
        elif view.content is None:
            self.remove(item)
        elif is_placed_anew or not self._hangs_as_placed(item, placements):
            is_other = self._store_item(item, view, now_ns)
            self._hang(item, view, self.names_shared(item) if is_other else ())
        elif self._store_item(item, view, now_ns):
            self._settle((), self.names_shared(item))

    def _hangs_as_placed(self, item: ItemId, placements: Iterable[Version[Placement]]) -> bool:
        """Whether an item is shown, and not only because something revives it."""
        return (
            any(placement.value.links for placement in placements)
            and self._database.row("SELECT 1 FROM links WHERE item = ?", (item,)) is not None
        )

    def add(self, item: ItemId, view: ItemView, now_ns: int) -> None:
        """As `refresh`, for an item that was just made here in a shown folder.

        Nothing can be shown under its name yet (the caller looked), and nothing hangs below it, so
        that most of what `refresh` asks has a known answer.
        """
        (placed,) = view.links
        link = placed.link
        self.revisions.note({item, link.parent})
        if CONTEST_MARK in link.name:
            self.refresh(item, now_ns)
            return
        self._store_item(item, view, now_ns, is_new=True)
        self._hanging.add(item, placed, is_folder=view.is_folder)
        self._database.execute(
            "INSERT INTO entries VALUES (?,?,?,?,?)",
            (link.parent, link.name, link.name, item, link.id),
        )
        self.changes.entries.add((link.parent, link.name))

    def refresh_values(self, item: ItemId, now_ns: int) -> None:
        """As `refresh`, after a local write of attributes or content, which moves no shown item."""
        self.revisions.note({item})
        if self._database.row("SELECT 1 FROM links WHERE item = ?", (item,)) is None:
            self.refresh(item, now_ns)
            return
        registers = self._registers
        view = view_item((), registers.attributes(item), registers.contents(item))
        if self._store_item(item, view, now_ns):
            self._settle((), self.names_shared(item))

    def retime(
        self, item: ItemId, placement: Version[Placement] | None, time_us: int, now_ns: int
    ) -> None:
        """As `refresh`, after waiting writes of an item were sealed: only their time has changed.

        Args:
            placement: if it is among them, as it was before.
            time_us: the record's time.
        """
        row = self.item(item)
        if row is None:
            return
        if self._registers.has_siblings(item) or (
            placement is not None and not self._may_retime(row, placement)
        ):
            self.refresh(item, now_ns)
        elif placement is not None and placement.time_us != time_us:
            self._hanging.retime(item, placement.dot, time_us)

    def _may_retime(self, row: ItemRow, placement: Version[Placement]) -> bool:
        """Whether nobody else wants the one name of a file, so that its time decides nothing."""
        links = placement.value.links
        if row.kind is Kind.DIRECTORY or len(links) != 1:
            return False
        return all(self._entries.is_alone(link.parent, link.name) for link in links)

    def remove(self, item: ItemId) -> None:
        """Take an item out of the view of which no content is left."""
        self.revisions.note({item})
        self._hang(item, None)
        self._database.execute("DELETE FROM items WHERE item = ?", (item,))

    def bury(self, item: ItemId, now_ns: int) -> list[RecordId]:
        """Forget a buried item; what hangs in it goes to the root.

        Returns:
            The records that carried what was written to it.
        """
        self.remove(item)
        records = self.burials.finish(item)
        for child in self.hanging_in(item):
            self.refresh(child, now_ns)
        return records

    def hanging_in(self, folder: ItemId) -> list[ItemId]:
        """What hangs in a folder as its links say."""
        rows = self._database.execute("SELECT DISTINCT item FROM links WHERE parent = ?", (folder,))
        return [ItemId(child) for (child,) in rows]

    def _hang(self, item: ItemId, view: ItemView | None, names: Iterable[Slot] = ()) -> None:
        """Hang an item anew; ``names`` are decided anew in any case."""
        touched = self._hanging.hang(item, view)
        slots = dict.fromkeys([*touched.slots, *names])
        if slots:
            self.changes.items |= touched.items
            self._settle(touched.items, slots)

    def _settle(self, items: Iterable[ItemId], slots: Iterable[Slot]) -> None:
        settled = self._entries.settle(items, slots)
        self.changes.entries |= settled.slots
        self.revisions.note(settled.items | {folder for folder, _ in settled.slots})

    def _find_twins(self) -> None:
        """Fill the column of an index that an older release made."""
        with self._database.transaction():
            items = list(
                self._database.execute(
                    "SELECT item FROM items WHERE kind IN (?,?)",
                    (int(Kind.FILE), int(Kind.SYMLINK)),
                )
            )
            for (item,) in items:
                view = self._view(ItemId(item))
                self._database.execute(
                    "UPDATE items SET twin = ? WHERE item = ?", (twin_identity(view), item)
                )
            for (item,) in items:
                self._entries.settle((), self.names_shared(ItemId(item)))
            self._database.execute("DELETE FROM meta WHERE key = 'twins_unknown'")

    def _view(self, item: ItemId) -> ItemView:
        return view_item(*self._registers.all_versions(item))

    def _store_item(
        self, item: ItemId, view: ItemView, now_ns: int, *, is_new: bool = False
    ) -> bool:
        """Write an item's row.

        Returns:
            Whether the item was there and shows other bytes, so that others may be its twins now.
        """
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
            twin_identity(view),
        )
        if view.conflicts and not is_folder:
            self.unsettled.add(item)
        old = None
        if not is_new:
            old = self._database.row(f"SELECT {_STORED_COLUMNS} FROM items WHERE item = ?", (item,))
        if old == values:
            return False
        if old is not None and old[:-1] == values[:-1]:
            # The same bytes at another place: sealing them is no change that programs may see.
            self._database.execute("UPDATE items SET twin = ? WHERE item = ?", (values[-1], item))
            return True
        self.changes.items.add(item)
        if old is None or old[8:10] != values[8:10]:
            self.changes.contents.add(item)
        if old is None:
            key = f"entries_us/{item.hex()}"
            entries_us = (self._database.meta(key) or 0) if is_folder and not is_new else 0
            if entries_us:
                self._database.execute("DELETE FROM meta WHERE key = ?", (key,))
            self._database.execute(
                f"INSERT INTO items (inode, item, ctime_ns, entries_us, {_STORED_COLUMNS}) "
                "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (self._next_inode(), item, now_ns, entries_us, *values),
            )
            return False
        assignments = ", ".join(f"{name} = ?" for name in _STORED_COLUMNS.split(", "))
        self._database.execute(
            f"UPDATE items SET ctime_ns = ?, {assignments} WHERE item = ?",
            (now_ns, *values, item),
        )
        return bool(old[-1] != values[-1])

    def _next_inode(self) -> int:
        if (
            self._next_free_inode == self._reserved_inodes
            or self._reserved_at != self._database.rollbacks
        ):
            stored = int(self._database.meta("next_inode") or ROOT_INODE + 1)
            self._next_free_inode = max(stored, self._next_free_inode)
            self._reserved_at = self._database.rollbacks
            self._reserved_inodes = self._next_free_inode + _INODES_AT_ONCE
            self._database.set_meta("next_inode", self._reserved_inodes)
        self._next_free_inode += 1
        return self._next_free_inode - 1


_LOOKUP_COLUMNS = ", ".join(f"i.{name}" for name in _ITEM_COLUMNS.split(", "))
_STORED_COLUMNS = (
    "kind, mode, uid, gid, size, mtime_ns, device_number, xattr_count, content_actor, content_n, "
    "explicit_ns, explicit_set_us, conflicts, twin"
)


def _item_row(row: Any) -> ItemRow:
    """A row of `_ITEM_COLUMNS`, of which two make the dot."""
    into = None if row[17] is None else ItemId(row[17])
    dot = Dot(ActorId(row[11]), row[12])
    return ItemRow._make(
        (row[0], ItemId(row[1]), _KINDS[row[2]], *row[3:11], dot, *row[13:17], into)
    )


def _entry_row(row: Any) -> EntryRow:
    return EntryRow(ItemId(row[0]), row[1], row[2], ItemId(row[3]), LinkId(row[4]))


def iterate_folder(tree: Tree, folder: ItemId) -> Iterator[tuple[bytes, ItemRow]]:
    """Every entry of a folder by name, read in pages so that a change between them does no harm."""
    after = b""
    while page := tree.list_folder(folder, after, 1024):
        yield from ((name, row) for name, _, row in page)
        after = page[-1][0]
