"""What folders list, kept incrementally: merged folders, and who shows under which name.

Folders with one name in one folder are shown as one; their entries stand under the one that keeps
the name. Files with one name and the same bytes have one entry. The rules are those of `node.core.tree_view`. Called by the tree after links changed, in a
transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from node.core.tree_view import CONTEST_MARK, Candidate, share_name, shown_names
from node.storage.database import Database
from node.storage.emptiness import Emptiness
from node.storage.hanging import PLACED_LINK_COLUMNS, Slot, placed_link
from protocol.ids import DeviceId, ItemId, LinkId

_Entry = tuple[bytes, bytes, bytes]
"""The name wanted, item and link."""


class _Queue:
    """Slots to look at, each once at a time, first come first served: parents before children."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._waiting = dict.fromkeys(slots)
        self._order = deque(self._waiting)

    def add(self, slot: Slot) -> None:
        if slot not in self._waiting:
            self._waiting[slot] = None
            self._order.append(slot)

    def __bool__(self) -> bool:
        return bool(self._order)

    def take(self) -> Slot:
        slot = self._order.popleft()
        del self._waiting[slot]
        return slot


@dataclass(slots=True)
class Settled:
    """What became of entries.

    Attributes:
        slots: folder and shown name of every entry that changed.
        items: what was or is shown there.
    """

    slots: set[Slot] = field(default_factory=set)
    items: set[ItemId] = field(default_factory=set)

    def note(self, folder: ItemId, shown: bytes, entry: _Entry) -> None:
        """An entry came or went."""
        self.slots.add((folder, shown))
        self.items.add(ItemId(entry[1]))


class FolderEntries:
    """The table ``entries`` and the column ``items.merged_into``.

    Concurrency: owned by the node's loop; no method awaits. Writers hold a transaction.
    """

    def __init__(self, database: Database, device_name: Callable[[DeviceId], str]) -> None:
        self._database = database
        self._are_none_merged = Emptiness(
            database, "SELECT 1 FROM items WHERE merged_into IS NOT NULL LIMIT 1"
        )
        self._device_name = device_name

    def merged_folders(self, folder: ItemId) -> list[ItemId]:
        """The folder and those that are shown as one with it."""
        if self._are_none_merged:
            return [folder]
        rows = self._database.execute("SELECT item FROM items WHERE merged_into = ?", (folder,))
        return [folder, *(ItemId(item) for (item,) in rows)]

    def standing_for(self, folder: ItemId) -> ItemId:
        """The folder that stands for all that are merged with this one."""
        if self._are_none_merged:
            return folder
        row = self._database.row("SELECT merged_into FROM items WHERE item = ?", (folder,))
        return ItemId(row[0]) if row is not None and row[0] is not None else folder

    def settle(self, items: Iterable[ItemId], slots: Iterable[Slot]) -> Settled:
        """Bring merges and entries up to date.

        Args:
            items: those whose links changed.
            slots: the names that they left or came to.

        Returns:
            The entries that changed.
        """
        # A folder that stops being merged may have stood for the parent of a link that is gone.
        queue = _Queue(
            slot
            for parent, name in slots
            for slot in ((parent, name), (self.standing_for(parent), name))
        )
        for item in () if self._are_none_merged else items:
            if not self._hangs_as_folder(item):
                self._merge(item, None, queue)
        dirty: dict[Slot, None] = {}
        while queue:
            parent, name = queue.take()
            standing = self.standing_for(parent)
            dirty[(parent, name)] = dirty[(standing, name)] = None
            folders = self._candidates(standing, name, "is_folder = 1")
            keeper = share_name(folders).keeper
            for candidate in folders:
                assert keeper is not None
                is_keeper = candidate.item == keeper.item
                self._merge(candidate.item, None if is_keeper else keeper.item, queue)
        changed = Settled()
        names: dict[ItemId, set[bytes]] = {}
        for parent, name in dirty:
            names.setdefault(parent, set()).add(name)
        for parent, wanted in names.items():
            if self.standing_for(parent) != parent:
                self._write(parent, self._entries(parent, wanted), {}, changed)
            else:
                self._share(parent, wanted, changed)
        return changed

    def is_alone(self, folder: ItemId, name: bytes) -> bool:
        """Whether at most one item wants a name in a folder that is merged with no other."""
        if self.standing_for(folder) != folder or len(self.merged_folders(folder)) > 1:
            return False
        row = self._database.row(
            "SELECT count(*) FROM links WHERE parent = ? AND name = ?", (folder, name)
        )
        return row is None or row[0] <= 1

    def of_one_name(self, folder: ItemId, name: bytes, item: ItemId) -> list[tuple[ItemId, LinkId]]:
        """The links that are shown as one with an item's under a name, its own among them.

        They are those of folders that are merged into it, or of files with its bytes.
        """
        members = self.merged_folders(self.standing_for(folder))
        marks = ",".join("?" * len(members))
        rows = self._database.execute(
            "SELECT links.item, link FROM links JOIN items ON items.item = links.item "
            f"WHERE parent IN ({marks}) AND name = ? "
            "AND (twin = (SELECT twin FROM items WHERE item = ?) OR links.item = ? "
            "OR merged_into = ?)",
            (*members, name, item, item, item),
        )
        return [(ItemId(other), LinkId(link)) for other, link in rows]

    def _hangs_as_folder(self, item: ItemId) -> bool:
        return (
            self._database.row("SELECT 1 FROM links WHERE item = ? AND is_folder = 1", (item,))
            is not None
        )

    def _merge(self, folder: ItemId, keeper: ItemId | None, queue: _Queue) -> None:
        """Show a folder's entries in another's, or (None) in its own."""
        if keeper is None and self._are_none_merged:
            return
        self._are_none_merged.end()
        row = self._database.row("SELECT merged_into FROM items WHERE item = ?", (folder,))
        if row is None or row[0] == keeper:
            return
        self._database.execute("UPDATE items SET merged_into = ? WHERE item = ?", (keeper, folder))
        holders = [folder, *([ItemId(row[0])] if row[0] is not None else [])]
        if keeper is not None:
            holders.append(keeper)
        for (name,) in self._database.execute(
            "SELECT DISTINCT name FROM links WHERE parent = ?", (folder,)
        ):
            for holder in holders:
                queue.add((holder, name))

    def _share(self, folder: ItemId, names: set[bytes], changed: Settled) -> None:
        """Decide anew who shows under each of these names in a folder."""
        if any(CONTEST_MARK in name for name in names):
            # One of the names may be what a renamed entry shows, or would show if it were free.
            rows = self._database.execute(
                "SELECT name FROM entries WHERE parent = ? AND shown <> name", (folder,)
            )
            names = names | {name for (name,) in rows}
        new: dict[bytes, _Entry] = {}
        for name in names:
            slot = share_name(self._candidates(folder, name, "1"))
            for shown, candidate in shown_names(
                slot, name, self._device_name, lambda wanted: self._is_wanted(folder, wanted)
            ):
                new[shown] = (name, candidate.item, candidate.placed.link.id)
        self._write(folder, self._entries(folder, names), new, changed)

    def _candidates(self, folder: ItemId, name: bytes, condition: str) -> list[Candidate]:
        members = self.merged_folders(folder)
        marks = ",".join("?" * len(members))
        rows = self._database.execute(
            f"SELECT (SELECT twin FROM items WHERE items.item = links.item), item, is_folder, "
            f"{PLACED_LINK_COLUMNS} FROM links "
            f"WHERE parent IN ({marks}) AND name = ? AND {condition}",
            (*members, name),
        )
        return [
            Candidate(ItemId(item), placed_link(placed), bool(is_folder), twin)
            for twin, item, is_folder, *placed in rows
        ]

    def _is_wanted(self, folder: ItemId, name: bytes) -> bool:
        members = self.merged_folders(folder)
        marks = ",".join("?" * len(members))
        row = self._database.row(
            f"SELECT 1 FROM links WHERE parent IN ({marks}) AND name = ? LIMIT 1",
            (*members, name),
        )
        return row is not None

    def _entries(self, folder: ItemId, names: Iterable[bytes]) -> dict[bytes, _Entry]:
        found: dict[bytes, _Entry] = {}
        for wanted in names:
            rows = self._database.execute(
                "SELECT shown, name, item, link FROM entries "
                "WHERE parent = ?1 AND shown = ?2 AND name = ?2 "
                # Left to itself, SQLite reads the whole folder for the second part.
                "UNION ALL SELECT shown, name, item, link FROM entries INDEXED BY entries_by_name "
                "WHERE parent = ?1 AND name = ?2 AND shown <> name",
                (folder, wanted),
            )
            found.update((shown, (name, item, link)) for shown, name, item, link in rows)
        return found

    def _write(
        self,
        folder: ItemId,
        old: dict[bytes, _Entry],
        new: dict[bytes, _Entry],
        changed: Settled,
    ) -> None:
        for shown, entry in old.items():
            if new.get(shown) != entry:
                changed.note(folder, shown, entry)
                self._database.execute(
                    "DELETE FROM entries WHERE parent = ? AND shown = ?", (folder, shown)
                )
        for shown, entry in new.items():
            if old.get(shown) != entry:
                changed.note(folder, shown, entry)
                self._database.execute(
                    "INSERT INTO entries VALUES (?,?,?,?,?)", (folder, shown, *entry)
                )
