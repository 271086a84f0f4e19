"""Publishes again, under another author, what the server refuses because its place is taken.

Two nodes that continue one run, as after a machine's snapshot was resumed, both seal records; what
the slower one wrote must reach the others all the same, beside what the faster one wrote. Called by
the publisher within the transaction in which it hears of the refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.storage.author_heads import AuthorHeads
from node.storage.database import Database
from node.storage.forked_branch import ForkedBranches
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Tree
from protocol.ids import BlockId
from protocol.records import SignedRecord


@dataclass(frozen=True, slots=True)
class Reissued:
    """A group that is to be sealed at once: its record needs these blocks at the server."""

    group: int
    blocks: tuple[BlockId, ...]


class Reissue:
    """Turns refused records into groups.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        now_ns: Callable[[], int],
    ) -> None:
        self._branches = ForkedBranches(database, registers)
        self._heads = AuthorHeads(database)
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._now_ns = now_ns

    def take_back(self, refused: SignedRecord) -> list[Reissued]:
        """Take back a refused record and what its author sealed here after it.

        The present run must be another one than the record's by now. The other branch is read with
        the journal, from its start.
        """
        first = refused.record
        branch = self._branches.records(first.actor, first.sequence)
        blocks = {signed.id: self._journal.blocks_of(signed.id) for signed in branch}
        groups = {}
        for signed in branch:
            record = signed.record
            group = groups[signed.id] = self._journal.open_group(record.hybrid_time_us, [])
            for change in record.folders:
                self._journal.note_folder(group, change.folder, change.time_us, change.time_us)
        self._branches.loosen(branch, groups)
        self._branches.forget_rejected(first.actor, first.sequence)
        self._heads.cut_back(first.actor, first.device, first.sequence - 1, first.previous)
        self._journal.read_again()
        for item in {write.item for signed in branch for write in signed.record.writes}:
            self._tree.refresh(item, self._now_ns())
        return [Reissued(group, blocks[record]) for record, group in groups.items()]
