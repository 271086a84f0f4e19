"""Lets changes take effect that had waited while a database was open here.

A task of the node's sync; what waits is in the index and survives its end. Called by the assembly.
"""

from __future__ import annotations

from typing import Any, Protocol

import trio

from node.storage.database import Database
from node.storage.deferred_records import DeferredRecords
from node.sync.record_intake import RecordIntake


class ClosedFiles(Protocol):
    """What of the drive is used here."""

    async def wait_closed(self) -> None:
        """Return when a program closed a file."""

    async def announce(self, stale: list[Any]) -> None:
        """Tell the kernel."""


class DeferredChanges:
    """Concurrency: shares the index with everybody on the loop; one record is one transaction."""

    def __init__(
        self,
        database: Database,
        deferred: DeferredRecords,
        intake: RecordIntake,
        drive: ClosedFiles,
    ) -> None:
        self._database = database
        self._deferred = deferred
        self._intake = intake
        self._drive = drive

    async def run(self) -> None:
        """Look when the node starts and whenever a file was closed, until cancelled."""
        while True:
            await self.resume()
            await self._drive.wait_closed()

    async def resume(self) -> None:
        """Apply what can take effect now."""
        if not self._deferred.count():
            return
        for position, signed in self._deferred.all():
            with self._database.transaction():
                self._deferred.drop(signed.id)
                # It may have to wait on: then it is put back.
                stale = self._intake.resume(signed, position)
            await self._drive.announce(stale)
            await trio.lowlevel.checkpoint()
