"""Settles conflicts in the index: one content stands for siblings, in one record.

Decides nothing: what stands for what is said by the merger or by a user. Called by the drive, which
sees to inodes and the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from node.core.content_merge import Settlement
from node.core.tree_view import Version, contested_name
from node.filesystem.content_writes import ContentWrites
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import EntryRow, Tree
from protocol.ids import ItemId, LinkId
from protocol.records import Register
from protocol.values import Content, Link, Placement


class Settlements:
    """Writes settlements.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        now_ns: Callable[[], int],
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._now_ns = now_ns
        self._token_bytes = token_bytes
        self._contents = ContentWrites(registers, tree, journal, now_ns)

    def write(self, item: ItemId, settlement: Settlement) -> list[ItemId]:
        """Let one content stand for several siblings.

        Returns:
            The files that were made beside.

        Raises:
            StorageError: the index can not be written; nothing has changed.
        """
        covered = settlement.covered
        entries = self._tree.entries_of(item) if settlement.beside else []
        with self._database.transaction():
            written = self._contents.write(
                item,
                settlement.content,
                covered,
                later_than=settlement.beside,
                automatic=settlement.is_automatic,
            )
            made = [
                self._place_beside(item, entries[0], version, written.time_us, written.group)
                for version in settlement.beside
            ]
            if not settlement.is_automatic:
                self._journal.make_urgent([written.group])
        return made

    def _place_beside(
        self, item: ItemId, entry: EntryRow, version: Version[Content], time_us: int, group: int
    ) -> ItemId:
        """Make a file of its own out of a version, with the attributes of the one that it is of."""
        name = contested_name(
            entry.shown,
            self._tree.device_name(version.device),
            version.time_us,
            lambda name: self._tree.entry(entry.parent, name) is None,
        )
        new_item = ItemId(self._token_bytes(ItemId.size_bytes))
        link = Link(LinkId(self._token_bytes(LinkId.size_bytes)), entry.parent, name)
        write = self._registers.write_first
        write(new_item, Register.PLACEMENT, Placement((link,)), time_us, group)
        write(new_item, Register.CONTENT, replace(version.value, origin=None), time_us, group)
        attributes = self._registers.attributes(item)
        if attributes:
            latest = max(attributes, key=lambda each: each.rank).value
            write(new_item, Register.ATTRIBUTES, latest, time_us, group)
        folder = self._tree.item(entry.parent)
        before_us = folder.entries_us if folder is not None else 0
        self._journal.note_folder(group, entry.parent, time_us, before_us)
        self._tree.note_entries_changed(entry.parent, time_us)
        self._tree.refresh(new_item, self._now_ns())
        return new_item
