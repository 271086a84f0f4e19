"""A drive whose one file can never be read, and is always said to have changed."""

from __future__ import annotations

import trio

from node.drive import StaleInode
from tests.fusefs.memory_drive import ROOT_INODE, MemoryDrive


class StuckDrive(MemoryDrive):
    """Brings the kernel to wait: for a page that a reader has locked until it is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.remote_create(ROOT_INODE, b"stuck", b"x" * 1_000_000, is_announced=False)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        self._announce.send_nowait(StaleInode(self.inode_of(b"stuck"), data=True))
        await trio.sleep_forever()
        raise AssertionError
