"""What becomes of held deletions once somebody decides: they go through, or things are put back.

Called by the control command ``approve``. Each record and each group is one transaction; what was
not reached when the node ends stays held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from node.core.deletion_guard import WINDOW_US, deleted_items
from node.core.record_sealing import OpenedWrite, open_record
from node.core.tree_view import merge_placements
from node.storage.database import Database
from node.storage.held_deletions import HeldDeletions, HeldRecord
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Tree
from node.sync.record_intake import RecordIntake, RemoteChanges
from node.sync.trust import Trust
from protocol.hybrid_clock import tick
from protocol.ids import DeviceId, ItemId
from protocol.records import Register, SignedRecord
from protocol.values import Link, Placement

_AT_ONCE = 64  # items put back in one transaction


class ApprovedChanges(RemoteChanges, Protocol):
    """What the drive does about changes that a decision brings."""

    def wake_publisher(self) -> None:
        """Something may be sealed now."""


@dataclass(frozen=True, slots=True)
class Decided:
    """How many deletions were decided about.

    Attributes:
        here: items deleted on this device.
        elsewhere: items deleted by others.
    """

    here: int
    elsewhere: int


class Approvals:
    """Decides about everything that is held.

    Concurrency: shares the index with everybody on the loop; gives the loop back between records.
    """

    def __init__(
        self,
        *,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        held: HeldDeletions,
        trust: Trust,
        intake: RecordIntake,
        drive: ApprovedChanges,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._held = held
        self._trust = trust
        self._intake = intake
        self._drive = drive
        self._now_ns = now_ns

    async def approve(self) -> Decided:
        """Let everything through that is held."""
        return await self._decide(is_rejected=False)

    async def reject(self) -> Decided:
        """Put back what held deletions took away, here and, by new records, everywhere."""
        return await self._decide(is_rejected=True)

    async def _decide(self, *, is_rejected: bool) -> Decided:
        here = self._held.count_local()
        elsewhere = 0
        began = self._began() if is_rejected else {}
        for group in self._held.held_groups() if is_rejected else ():
            await self._drive.announce(self._put_group_back(group))
            await trio.lowlevel.checkpoint()
        with self._database.transaction():
            self._held.approve_groups()
            self._held.forget(self._registers.author.device)
        self._drive.wake_publisher()
        while (record := self._held.next_record()) is not None:
            elsewhere += record.deletions
            await self._drive.announce(self._release(record, is_rejected=is_rejected))
            await trio.lowlevel.checkpoint()
        for device, time_us in began.items():
            await self._put_back_since(device, time_us)
        self._drive.wake_publisher()
        return Decided(here, elsewhere)

    def _began(self) -> dict[DeviceId, int]:
        """When what is held began, by device: the first deletions went through before."""
        began = self._held.first_held()
        here_us = self._held.first_held_here()
        if here_us is not None:
            began[self._registers.author.device] = here_us
        return {device: time_us - WINDOW_US for device, time_us in began.items()}

    async def _put_back_since(self, device: DeviceId, time_us: int) -> None:
        """Undo what a device deleted before it was too much; a name that was given anew stays so."""
        items = self._held.deleted_since(device, time_us)
        for start in range(0, len(items), _AT_ONCE):
            with self._database.transaction():
                lost = {
                    item: [link]
                    for item in items[start : start + _AT_ONCE]
                    for link in self._former(item)[:1]
                    if not self._tree.link_count(item) and not self._is_taken(link)
                }
                stale = self._put_back(lost)
            await self._drive.announce(stale)
            await trio.lowlevel.checkpoint()

    def _is_taken(self, link: Link) -> bool:
        return self._tree.entry(self._tree.standing_for(link.parent), link.name) is not None

    def _release(self, held: HeldRecord, *, is_rejected: bool) -> list[Any]:
        """Let a record take effect; one that was rejected is covered at once."""
        signed = SignedRecord.from_wire(held.wire)
        writes = open_record(signed, self._trust.epochs)
        lost = {item: self._links(item) for item in deleted_items(writes)}
        with self._database.transaction():
            self._held.drop(held.id)
            self._held.forget(held.device)
            if not self._intake.is_valid(signed):
                return []
            stale = self._intake.apply(signed, writes, held.position, is_undone=is_rejected)
            if is_rejected:
                gone = [item for item, links in lost.items() if links and not self._links(item)]
                stale += self._put_back({item: lost[item] for item in gone})
        return stale

    def _put_group_back(self, group: int) -> list[Any]:
        """Undo the deletions of a group of this device; the rest of it goes on."""
        writes = [
            OpenedWrite(each.item, each.register, each.version)
            for each in self._registers.pending_writes(group)
        ]
        # A deletion remembers where the item hung last.
        former = {item: self._former(item)[:1] for item in deleted_items(writes)}
        with self._database.transaction():
            return self._put_back({item: links for item, links in former.items() if links})

    def _links(self, item: ItemId) -> list[Link]:
        links, _ = merge_placements(self._registers.placements(item))
        return [placed.link for placed in links]

    def _former(self, item: ItemId) -> list[Link]:
        _, former = merge_placements(self._registers.placements(item))
        return [placed.link for placed in former]

    def _put_back(self, lost: Mapping[ItemId, Iterable[Link]]) -> list[Any]:
        """Hang items where they hung, by a write of this device over what took them away."""
        if not lost:
            return []
        self._drive.expect_remote_changes(lost)
        self._tree.take_changes()
        now_ns = self._now_ns()
        before = [version for item in lost for version in self._registers.placements(item)]
        time_us = tick(now_ns // 1000, (version.time_us for version in before))
        group = self._journal.open_group(now_ns // 1000, self._registers.groups_of(lost))
        for item, links in lost.items():
            placement = Placement(tuple(sorted(links, key=lambda link: link.id)))
            self._registers.write_local(item, Register.PLACEMENT, placement, time_us, group)
            for folder in dict.fromkeys(link.parent for link in placement.links):
                self._entries_changed(folder, time_us, group)
            self._tree.refresh(item, now_ns)
        return self._drive.take_remote_changes(self._tree.take_changes())

    def _entries_changed(self, folder: ItemId, time_us: int, group: int) -> None:
        row = self._tree.item(folder)
        self._journal.note_folder(group, folder, time_us, 0 if row is None else row.entries_us)
        self._tree.note_entries_changed(folder, time_us)
