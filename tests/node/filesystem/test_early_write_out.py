"""Long writes are sent to the disk on the way; short ones, and those that are over, are left alone."""

from __future__ import annotations

import trio
import trio.testing

from node.errors import StorageError
from node.filesystem.early_write_out import EARLY_BYTES, EarlyWriteOut


class File:
    def __init__(self, error: StorageError | None = None) -> None:
        self.started = 0
        self.error = error

    def start_write_out(self) -> None:
        self.started += 1
        if self.error is not None:
            raise self.error


async def run_sync(work):
    await trio.lowlevel.checkpoint()
    return work()


async def started(early: EarlyWriteOut) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(early.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_file_is_sent_each_time_that_so_much_was_written_to_it():
    early, long, short = EarlyWriteOut(run_sync), File(), File()
    for _ in range(2):
        for _ in range(16):
            early.note(long, EARLY_BYTES // 16)
            early.note(short, 1)
        await started(early)
    assert (long.started, short.started) == (2, 0)


async def test_a_file_that_is_gone_is_not_sent():
    early, file = EarlyWriteOut(run_sync), File()
    early.note(file, EARLY_BYTES)
    early.forget(file)
    early.note(file, EARLY_BYTES - 1)
    await started(early)
    assert file.started == 0


async def test_what_the_disk_refuses_to_one_file_is_sent_of_the_others():
    early = EarlyWriteOut(run_sync)
    failing, file = File(StorageError(5, "no")), File()
    early.note(failing, EARLY_BYTES)
    early.note(file, EARLY_BYTES)
    await started(early)
    assert (failing.started, file.started) == (1, 1)
