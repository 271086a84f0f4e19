"""Keeps the index's write-ahead log short, beside the loop. Called by the node's assembly."""

from __future__ import annotations

from pathlib import Path

import trio

from node.errors import NodeError
from node.storage.database import Database
from node.sync.workers import RunSync

_AFTER_FAILURE_S = 30.0  # the disk is full or fails; commits stay in the log meanwhile


class Checkpointer:
    """Opens the index, and makes its checkpoints in a thread.

    Concurrency: owned by the node's loop, which goes on committing while a checkpoint runs.
    """

    def __init__(self, path: Path, key: bytes, run_sync: RunSync) -> None:
        """As `Database`, with what it raises."""
        self._run_sync = run_sync
        self._wake, self._woken = trio.open_memory_channel[None](1)
        self.database = Database(path, key, on_long_log=self._note)

    async def run(self) -> None:
        """Make checkpoints until cancelled; what fails is tried again, and shows at the next write."""
        async for _ in self._woken:
            try:
                await self._run_sync(self.database.checkpoint)
            except NodeError:
                await trio.sleep(_AFTER_FAILURE_S)

    def _note(self) -> None:
        try:
            self._wake.send_nowait(None)
        except trio.WouldBlock:
            return  # one is due already
