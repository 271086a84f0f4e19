"""Sends long writes on their way to the disk before anybody asks, so that a later fsync finds less to do.

The kernel leaves dirty pages in memory until they are a tenth of it; an fsync after a gigabyte then
waits for all of that. Promises nothing: what survives a loss of power is what was synced. Called by
`node.filesystem.open_files`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

import trio

from node.errors import StorageError
from node.sync.workers import RunSync

EARLY_BYTES: Final = 16 * 1024 * 1024
"""Written to a file until it is sent on its way again: a disk of 1 GB/s has 16 ms to do."""


class LongFile(Protocol):
    """What of a staging file is used here."""

    def start_write_out(self) -> None:
        """Begin to put its bytes on the disk; may block for a while. StorageError: it can not."""


class EarlyWriteOut:
    """Files that a program is writing a lot to.

    Concurrency: owned by the node's loop; the disk is waited for in a thread.
    """

    def __init__(self, run_sync: RunSync) -> None:
        self._run_sync = run_sync
        self._written: dict[LongFile, int] = {}
        self._due: dict[LongFile, None] = {}
        self._wake = trio.Event()

    def note(self, file: LongFile, size_bytes: int) -> None:
        """So many bytes were written to a file."""
        written = self._written.get(file, 0) + size_bytes
        if written < EARLY_BYTES:
            self._written[file] = written
            return
        self._written[file] = 0
        self._due[file] = None
        self._wake.set()

    def forget(self, file: LongFile) -> None:
        """The file is no longer written to, or gone."""
        self._written.pop(file, None)
        self._due.pop(file, None)

    async def run(self) -> None:
        """Start what is due, until cancelled; who syncs hears what the disk refuses."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._due:
                file = next(iter(self._due))
                del self._due[file]
                with suppress(StorageError):
                    await self._run_sync(file.start_write_out)
