"""Takes the effect from records that a revocation made invalid after they were taken in.

A revocation names the last valid records of a device. Whether somebody took in a later one before
the revocation was known is chance, and must not decide what is shown: the registers that such
records may have touched are emptied, and the server's journal is read again with the new rule, which
keeps the invalid ones aside. Called by the puller whenever the logs grew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.storage.author_traces import AuthorTraces
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.tree import Tree
from node.sync.record_intake import RemoteChanges
from node.sync.trust import Trust
from protocol.ids import ActorId
from protocol.logs import DeviceEntry

_DONE = "withdrawn/"


class Withdrawal:
    """Looks at each revoked device once.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        database: Database,
        tree: Tree,
        journal: Journal,
        trust: Trust,
        drive: RemoteChanges,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._traces = AuthorTraces(database)
        self._tree = tree
        self._journal = journal
        self._trust = trust
        self._drive = drive
        self._now_ns = now_ns

    def carry_out(self) -> list[Any]:
        """Withdraw what the logs say now.

        Returns:
            What the kernel must be told.
        """
        stale: list[Any] = []
        for device, entry in self._trust.account.devices.items():
            if entry.is_revoked and self._database.meta(_DONE + device.hex()) is None:
                with self._database.transaction():
                    self._database.set_meta(_DONE + device.hex(), 1)
                    stale += self._withdraw(self._beyond_cuts(entry))
        return stale

    def _beyond_cuts(self, entry: DeviceEntry) -> list[ActorId]:
        cuts = {cut.actor: cut.sequence for cut in entry.cuts or ()}
        actors = self._traces.actors_of(entry.id)
        return [actor for actor in actors if self._traces.reach(actor) > cuts.get(actor, 0)]

    def _withdraw(self, actors: list[ActorId]) -> list[Any]:
        if not actors:
            return []
        items = self._traces.touched_items(actors)
        self._drive.expect_remote_changes(items)
        self._tree.take_changes()
        for item in items:
            self._traces.empty(item)
            self._tree.refresh(item, self._now_ns())
        self._journal.read_again()
        return self._drive.take_remote_changes(self._tree.take_changes())
