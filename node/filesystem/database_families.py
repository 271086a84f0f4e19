"""Which files here are those of SQLite databases, and which of these are in use.

A database is known by its header, which passes through here when a program opens it: the kernel has
nothing cached that was not read through this run. Called by the drive.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.core.database_family import database_name, family_names
from node.core.record_sealing import OpenedWrite
from node.filesystem.open_files import OpenFiles
from node.storage.tree import Tree
from protocol.ids import ItemId
from protocol.values import Placement


class DatabaseFamilies:
    """The databases of a namespace. Concurrency: owned by the node's loop; no method awaits."""

    def __init__(self, tree: Tree, files: OpenFiles) -> None:
        self._tree = tree
        self._files = files

    def family_of(self, item: ItemId | None) -> list[ItemId]:
        """All files of the database to which a file belongs; none if it belongs to none."""
        if item is None or not self._files.databases:
            return []
        for entry in self._tree.entries_of(item):
            family = self._family_at(entry.parent, database_name(entry.shown))
            if item in family:
                return family
        return []

    def is_in_use(self, writes: Iterable[OpenedWrite]) -> bool:
        """Whether writes of a record concern a database of which a program here has a file open."""
        if not self._files.databases:
            return False
        items = self.in_use()
        if not items:
            return False
        names = {
            (entry.parent, name)
            for item in items
            for entry in self._tree.entries_of(item)
            for name in family_names(database_name(entry.shown))
        }
        return any(self._concerns(write, items, names) for write in writes)

    def in_use(self) -> set[ItemId]:
        """All files of databases of which a program has a file open."""
        if not self._files.databases:
            return set()
        return {
            member
            for file in self._files
            if not file.is_unlinked
            for member in self.family_of(file.item)
        }

    def _family_at(self, folder: ItemId, database: bytes) -> list[ItemId]:
        entries = [self._tree.entry(folder, name) for name in family_names(database)]
        if entries[0] is None or entries[0].item not in self._files.databases:
            return []
        return [entry.item for entry in entries if entry is not None]

    @staticmethod
    def _concerns(write: OpenedWrite, items: set[ItemId], names: set[tuple[ItemId, bytes]]) -> bool:
        value = write.version.value
        return write.item in items or (
            isinstance(value, Placement)
            and any((link.parent, link.name) in names for link in value.links)
        )
