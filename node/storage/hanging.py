"""Where items hang, kept incrementally: their links, with revived folders and cut cycles.

A deleted folder hangs at its former place while something lives in it; a folder in a cycle hangs
where `cut_cycles` puts it. This module finds which items a change of one item touches; the rules
are those of `node.core.tree_view`. Called by the tree, in a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from node.core.tree_view import ItemView, Move, PlacedLink, cut_cycles, outside_graves
from node.storage.database import Database
from node.storage.emptiness import Emptiness
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, LinkId
from protocol.values import Link
from protocol.version_vector import Dot

Slot = tuple[ItemId, bytes]
"""A name in a folder, as links want it: the folder's own id, also when it is merged into another."""

PLACED_LINK_COLUMNS = "link, parent, name, time_us, actor, n, device"


@dataclass(slots=True)
class Touched:
    """What hanging an item anew has changed."""

    items: set[ItemId] = field(default_factory=set)
    slots: dict[Slot, None] = field(default_factory=dict)


class Hanging:
    """The tables ``links`` and ``cuts``.

    Concurrency: owned by the node's loop; no method awaits. Writers hold a transaction.
    """

    def __init__(
        self,
        database: Database,
        view: Callable[[ItemId], ItemView],
        is_buried: Callable[[ItemId], bool],
    ) -> None:
        self._database = database
        self._is_buried = is_buried
        self._are_none_cut = Emptiness(database, "SELECT 1 FROM cuts LIMIT 1")
        self._view = view

    def hang(self, item: ItemId, view: ItemView | None) -> Touched:
        """Hang an item where its registers say; None takes it out of the view."""
        touched = Touched()
        folders: set[ItemId] = set()
        views = {item: view}
        unsettled = [item]
        while unsettled:
            current = unsettled.pop()
            present = views.pop(current) if current in views else self._view(current)
            if present is not None and present.content is None:
                present = None
            is_folder = present is not None and present.is_folder
            links = () if present is None else self._wanted(current, present)
            before, was_folder = self._wanted_before(current)
            if links == before and (is_folder == was_folder or not links):
                continue
            if is_folder or was_folder:
                folders.add(current)
            self._forget_cut(current)
            self._store(current, links, is_folder, touched)
            parents = {placed.link.parent for placed in (*before, *links)}
            unsettled.extend(parent for parent in sorted(parents) if self._may_turn(parent))
        if self._wanted_parent(item) is not None:
            folders.add(item)  # its former places may be others now
        self._cut(folders, touched)
        return touched

    def add(self, item: ItemId, placed: PlacedLink, *, is_folder: bool) -> None:
        """Hang an item that was just made in a shown folder."""
        self._insert(item, placed, is_folder=is_folder)

    def retime(self, item: ItemId, dot: Dot, time_us: int) -> None:
        """The write that hung an item has another time."""
        self._database.execute(
            "UPDATE links SET time_us = ? WHERE item = ? AND actor = ? AND n = ?",
            (time_us, item, dot.actor, dot.n),
        )

    def _wanted(self, item: ItemId, view: ItemView) -> tuple[PlacedLink, ...]:
        """Where an item hangs as far as no cycle keeps it from there."""
        if view.links or not view.is_folder or not view.former:
            links = view.links
        else:
            links = view.former[:1] if self._holds_life(item) else ()
        return tuple(outside_graves(links, self._is_buried))

    def _wanted_before(self, item: ItemId) -> tuple[tuple[PlacedLink, ...], bool]:
        links = self._links(item)
        if (parent := self._wanted_parent(item)) is not None:
            links = [(_below(placed, parent), is_folder) for placed, is_folder in links]
        ordered = sorted((placed for placed, _ in links), key=lambda placed: placed.link.id)
        return tuple(ordered), any(is_folder for _, is_folder in links)

    def _links(self, item: ItemId) -> list[tuple[PlacedLink, bool]]:
        rows = self._database.execute(
            f"SELECT is_folder, {PLACED_LINK_COLUMNS} FROM links WHERE item = ?", (item,)
        )
        return [(placed_link(row[1:]), bool(row[0])) for row in rows]

    def _holds_life(self, folder: ItemId) -> bool:
        """Whether a living item wants to hang in a folder, be it below other deleted folders.

        It looks for life instead of counting children: deleted folders that hang in each other
        would keep each other alive.
        """
        met = {folder}
        unread = [folder]
        while unread:
            parent = unread.pop()
            if self._has_child(parent, "is_folder = 0"):
                return True
            for (child,) in list(
                self._database.execute(
                    "SELECT item FROM links WHERE parent = ?1 AND is_folder = 1 "
                    "AND NOT EXISTS (SELECT 1 FROM cuts WHERE folder = item) "
                    "UNION SELECT folder FROM cuts WHERE wanted = ?1",
                    (parent,),
                )
            ):
                if child in met:
                    continue
                if self._view(ItemId(child)).links:
                    return True
                met.add(ItemId(child))
                unread.append(ItemId(child))
        return False

    def _may_turn(self, folder: ItemId) -> bool:
        """Whether a change of a folder's children may show or hide the folder itself."""
        if folder == ROOT_ITEM:
            return False
        is_shown = self._database.row("SELECT 1 FROM links WHERE item = ?", (folder,)) is not None
        # Deleted folders hang in each other only in a cycle; then the number of children says little.
        return is_shown != self._has_child(folder, "1") or not self._are_none_cut

    def _has_child(self, folder: ItemId, condition: str) -> bool:
        if self._are_none_cut:
            child = f"SELECT 1 FROM links WHERE parent = ? AND {condition} LIMIT 1"
            return self._database.row(child, (folder,)) is not None
        row = self._database.row(
            f"SELECT EXISTS (SELECT 1 FROM links WHERE parent = ?1 AND {condition} "
            "AND NOT EXISTS (SELECT 1 FROM cuts WHERE folder = item)) "
            "OR EXISTS (SELECT 1 FROM cuts JOIN links ON item = folder "
            f"WHERE wanted = ?1 AND {condition})",
            (folder,),
        )
        return row is not None and bool(row[0])

    def _wanted_parent(self, folder: ItemId) -> ItemId | None:
        """Where a folder wants to hang that a cycle keeps from there."""
        if self._are_none_cut:
            return None
        row = self._database.row("SELECT wanted FROM cuts WHERE folder = ?", (folder,))
        return None if row is None else ItemId(row[0])

    def _forget_cut(self, folder: ItemId) -> None:
        if not self._are_none_cut:
            self._database.execute("DELETE FROM cuts WHERE folder = ?", (folder,))

    def _cut(self, changed: Iterable[ItemId], touched: Touched) -> None:
        """Keep the cuts right after folders changed where they want to hang."""
        folders = sorted(changed)
        if not folders and self._are_none_cut:
            return
        present = {
            ItemId(folder): ItemId(parent)
            for folder, parent in self._database.execute("SELECT folder, parent FROM cuts")
        }
        if not folders or (not present and not any(map(self._closes_cycle, folders))):
            return
        cuts = cut_cycles([*folders, *sorted(present)], self._move_of)
        for folder in sorted(present.keys() | cuts.keys()):
            if cuts.get(folder) == present.get(folder):
                continue
            wanted, _ = self._wanted_before(folder)
            self._forget_cut(folder)
            parent = cuts.get(folder)
            if parent is not None:
                (placed,) = wanted
                self._are_none_cut.end()
                self._database.execute(
                    "INSERT INTO cuts VALUES (?,?,?)", (folder, parent, placed.link.parent)
                )
                wanted = (_below(placed, parent),)
            self._store(folder, wanted, True, touched)

    def _closes_cycle(self, folder: ItemId) -> bool:
        if not self._has_child(folder, "is_folder = 1"):
            return False  # and whoever makes deep trees does not make every new folder walk up
        parent = folder
        met: set[ItemId] = set()
        while parent not in met:
            met.add(parent)
            row = self._database.row(
                "SELECT parent FROM links WHERE item = ? AND is_folder = 1", (parent,)
            )
            if row is None or row[0] == ROOT_ITEM:
                return False
            parent = ItemId(row[0])
        return parent == folder

    def _move_of(self, folder: ItemId) -> Move | None:
        wanted, is_folder = self._wanted_before(folder)
        if not is_folder:
            return None
        (placed,) = wanted
        view = self._view(folder)
        former = tuple(place.link.parent for place in view.former)
        return Move(placed.link.parent, former, placed.rank, not view.links)

    def _store(
        self, item: ItemId, links: tuple[PlacedLink, ...], is_folder: bool, touched: Touched
    ) -> None:
        old = set(self._links(item))
        new = {(placed, is_folder) for placed in links}
        if old == new:
            return
        touched.items.add(item)
        for placed, _ in sorted(old - new, key=_by_id):
            touched.slots[(placed.link.parent, placed.link.name)] = None
            self._database.execute(
                "DELETE FROM links WHERE item = ? AND link = ?", (item, placed.link.id)
            )
        for placed, _ in sorted(new - old, key=_by_id):
            link = placed.link
            touched.slots[(link.parent, link.name)] = None
            self._insert(item, placed, is_folder=is_folder)

    def _insert(self, item: ItemId, placed: PlacedLink, *, is_folder: bool) -> None:
        link = placed.link
        self._database.execute(
            "INSERT INTO links VALUES (?,?,?,?,?,?,?,?,?)",
            (
                item,
                link.id,
                link.parent,
                link.name,
                placed.time_us,
                placed.dot.actor,
                placed.dot.n,
                placed.device,
                int(is_folder),
            ),
        )


def placed_link(row: Any) -> PlacedLink:
    """A link from the columns of `PLACED_LINK_COLUMNS`."""
    link, parent, name, time_us, actor, n, device = row
    return PlacedLink(
        Link(LinkId(link), ItemId(parent), name),
        time_us,
        Dot(ActorId(actor), n),
        DeviceId(device),
    )


def _by_id(entry: tuple[PlacedLink, bool]) -> LinkId:
    return entry[0].link.id


def _below(placed: PlacedLink, parent: ItemId) -> PlacedLink:
    return replace(placed, link=replace(placed.link, parent=parent))
