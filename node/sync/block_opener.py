"""Turns blocks into what they hold: fetches the frame, opens it where it does not hold up the loop.

Owns the second attempt when a cached frame is damaged. Refuses to know what opening means: it is
given a function. Called by `node.sync.manifest_reader` and `node.sync.open_blocks`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from node.errors import StorageError
from node.sync.block_fetcher import BlockFetcher
from node.sync.workers import Workers
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId, NamespaceId

Opened = TypeVar("Opened")


class BlockOpener:
    """Opens blocks.

    Concurrency: shared; callers that ask for the same block at one time each open it.
    """

    def __init__(self, fetcher: BlockFetcher, workers: Workers) -> None:
        self._fetcher = fetcher
        self._workers = workers

    async def open(
        self,
        namespace: NamespaceId,
        block: BlockId,
        opening: Callable[[bytes], Opened],
        *,
        length: int,
        work_bytes: int,
    ) -> Opened:
        """What ``opening`` makes of a block's frame.

        A frame that does not open is fetched once more, past the cache: a cached file may have
        been damaged on the disk.

        Args:
            namespace: of the block.
            block: its id.
            opening: raises `RemoteProtocolError` when the frame is not what it should be; is called
                in a thread when there is much to do.
            length: about how long the frame is, in bytes.
            work_bytes: how many bytes ``opening`` decrypts, or as many as take it equally long.

        Raises:
            ServerError: the block did not arrive.
            StorageError: what arrived is the block, but does not open: its manifest is wrong (EIO).
        """
        try:
            if self._fetcher.is_cached(block):
                # Read and opened in one visit to a thread: a second one takes as long as opening.
                work = partial(self._read_and_open, block, opening)
                opened = await self._workers.call(max(length, work_bytes), work)
                if opened is not None:
                    return opened[0]
            frame = await self._fetcher.get(namespace, block, length)
            return await self._workers.call(work_bytes, partial(opening, frame))
        except RemoteProtocolError:
            frame = await self._fetcher.get_again(namespace, block, length)
        try:
            return await self._workers.call(work_bytes, partial(opening, frame))
        except RemoteProtocolError as error:
            raise StorageError(errno.EIO, f"block {block} can not be opened: {error}") from error

    def _read_and_open(
        self, block: BlockId, opening: Callable[[bytes], Opened]
    ) -> tuple[Opened] | None:
        """What a cached block holds; None when it is gone from the cache, or its disk fails."""
        frame = self._fetcher.cached(block)
        return None if frame is None else (opening(frame),)
