"""Replaces what can never be sent because its bytes are gone from this disk and were never elsewhere.

A loss of power may leave the index with a record that nobody synced, and take the blocks that it
refers to. Other devices never heard of that record; this one must not wait for ever to send it, nor
show a file that nobody can read. Called by the publisher, once the server said that it lacks the
blocks as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from node.core.content_merge import choose_base, side_of
from node.core.tree_view import Version
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Tree
from node.sync.record_intake import RemoteChanges
from protocol.hybrid_clock import tick
from protocol.ids import BlockId, ItemId
from protocol.records import Register, SignedRecord
from protocol.values import Content, Kind
from protocol.version_vector import Dot


class LostBlocks:
    """Writes over what a record wrote.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        drive: RemoteChanges,
        now_ns: Callable[[], int],
        is_here: Callable[[BlockId], bool],
    ) -> None:
        """``is_here``: whether this disk has a block."""
        self._is_here = is_here
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._drive = drive
        self._now_ns = now_ns

    def replace(self, lost: SignedRecord) -> tuple[int, list[Any]]:
        """Give the files of a record the contents that they had before; all else of it stays.

        A file that had none is empty. The record is given up, since what it wrote is covered, and an
        alarm names the files.

        Returns:
            The group of the new writes, to be sealed, and what the kernel must be told.
        """
        items = list(dict.fromkeys(write.item for write in lost.record.writes))
        with self._database.transaction():
            self._drive.expect_remote_changes(items)
            self._tree.take_changes()
            group = self._write_over(lost)
            for item in items:
                self._tree.refresh(item, self._now_ns())
            self._journal.give_up_dead(lost.id)
            return group, self._drive.take_remote_changes(self._tree.take_changes())

    def _write_over(self, lost: SignedRecord) -> int:
        actor = lost.record.actor
        now_us = self._now_ns() // 1000
        time_us = tick(now_us, [lost.record.hybrid_time_us])
        group = self._journal.open_group(time_us, [])
        for write in lost.record.writes:
            versions: Sequence[Version[Any]] = _live(self._registers, write.item, write.register)
            version = next((v for v in versions if v.dot == Dot(actor, write.n)), None)
            if version is None:
                continue  # covered since
            value = version.value
            if write.register is Register.CONTENT and value.manifest is not None:
                value = self._former(write.item, version)
                self._tell(write.item, now_us)
            self._registers.write_local(
                write.item, write.register, value, time_us, group, [version]
            )
        for change in lost.record.folders:
            self._journal.note_folder(group, change.folder, change.time_us, change.time_us)
        return group

    def _former(self, item: ItemId, lost: Version[Content]) -> Content:
        side = side_of(lost)
        # What was written between the last sync and the loss of power is gone like the latest.
        known = [old for old in self._registers.history(item) if old.dot != lost.dot]
        here = [old for old in known if all(map(self._is_here, old.value.blocks))]
        base = choose_base(side, side, here) or choose_base(side, side, known)
        if base is None:
            return Content(Kind.FILE, mtime_ns=lost.value.mtime_ns)
        return replace(base.value, origin=base.value.origin or base.dot)

    def _tell(self, item: ItemId, now_us: int) -> None:
        path = self._tree.path(item)
        shown = os.fsdecode(path) if path is not None else str(item)
        self._journal.raise_alarm(
            "lost",
            f"the loss of power took the latest bytes of {shown}, which no program had synced and no "
            "other device has; it holds what it held before",
            now_us,
        )


def _live(registers: Registers, item: ItemId, register: Register) -> Sequence[Version[Any]]:
    return registers.all_versions(item)[register]
