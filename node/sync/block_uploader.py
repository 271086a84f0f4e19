"""Brings sealed blocks from the cache to the server: only those it lacks, pages after their children.

Owns the questions to the server, what it is known to hold, the parallelism and the order. Refuses
to retry (the publisher does), to seal and to know HTTP. Called by ``node.sync.publisher``, for the
blocks of a record, and while a long file is still being sealed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from node.errors import NodeError, StorageError
from node.storage.block_cache import BlockCache
from protocol.crypto.blocks import parse_header
from protocol.ids import BlockId, NamespaceId


class BlockClient(Protocol):
    """What of the server's client is used here."""

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId]
    ) -> Collection[BlockId]:
        """Which of the blocks the server lacks; it keeps the others for a day (a lease)."""
        ...

    async def put_block(self, namespace: NamespaceId, block: BlockId, frame: bytes) -> None:
        """Returns when the server has stored the block durably."""
        ...


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What the uploader may use.

    Attributes:
        parallel: blocks sent at one time, over all uploads. Each holds one frame of at most 4 MiB.
        batch: block ids in one question to the server.
        known: blocks remembered to be on the server; some 200 bytes of memory each.
        known_for_s: how long that is believed. The server's lease is 24 h; half of it leaves time
            to commit the record.
    """

    parallel: int = 4
    batch: int = 256
    known: int = 65_536
    known_for_s: float = 12 * 3600


_NextBatch = Callable[[], Awaitable[list[BlockId]]]


class BlockUploader:
    """Uploads blocks.

    Concurrency: shared; uploads may overlap, and the bound on blocks sent at one time is common to
    all. A cancelled upload leaves blocks on the server that the next one finds there.

    Attributes:
        blocks_sent: blocks that the server acknowledged.
        bytes_sent: their lengths in bytes.
    """

    def __init__(
        self, client: BlockClient, cache: BlockCache, limits: UploadLimits = UploadLimits()
    ) -> None:
        self.blocks_sent = 0
        self.bytes_sent = 0
        self._client = client
        self._cache = cache
        self._limits = limits
        self._sending = trio.CapacityLimiter(limits.parallel)
        # When the server was last known to hold a block, the oldest knowledge first.
        self._known: OrderedDict[tuple[NamespaceId, BlockId], float] = OrderedDict()

    async def upload(self, namespace: NamespaceId, blocks: Iterable[BlockId]) -> None:
        """Returns when the server has acknowledged every one of the blocks.

        Raises:
            ServerError: the server could not be reached or refused a block.
            StorageError: a block that the server lacks is not in the cache, or can not be read.
        """
        remaining = iter(blocks)

        async def next_batch() -> list[BlockId]:
            return list(itertools.islice(remaining, self._limits.batch))

        await self._carry_out(namespace, next_batch)

    async def upload_stream(
        self, namespace: NamespaceId, blocks: trio.MemoryReceiveChannel[BlockId]
    ) -> None:
        """As `upload`, for blocks that become known one after the other.

        Returns when the channel's senders are closed and every block is acknowledged. The channel
        is closed when this ends, so that a sender notices a failure.
        """

        async def next_batch() -> list[BlockId]:
            return await _receive_batch(blocks, self._limits.batch)

        async with blocks:
            await self._carry_out(namespace, next_batch)

    def forget(self, namespace: NamespaceId) -> None:
        """Ask about every block of a namespace again: the server said that it lacks one."""
        for key in [key for key in self._known if key[0] == namespace]:
            del self._known[key]

    async def _carry_out(self, namespace: NamespaceId, next_batch: _NextBatch) -> None:
        """Sends data blocks as they come, then the pages level by level."""
        pages: dict[BlockId, frozenset[BlockId]] = {}

        async def feed(send: trio.MemorySendChannel[BlockId]) -> None:
            while batch := await next_batch():
                for block in await self._ask(namespace, batch):
                    await send.send(block)

        async def send_or_defer(block: BlockId) -> None:
            children = await self._send(namespace, block, with_children=False)
            if children:
                pages[block] = children

        await self._in_parallel(feed, send_or_defer)
        while pages:
            ready = [block for block, below in pages.items() if pages.keys().isdisjoint(below)]
            assert ready, "a page can not be its own descendant: ids are hashes"
            await self._send_pages(namespace, ready)
            for block in ready:
                del pages[block]

    async def _send_pages(self, namespace: NamespaceId, ready: list[BlockId]) -> None:
        async def feed(send: trio.MemorySendChannel[BlockId]) -> None:
            for block in ready:
                await send.send(block)

        async def send_one(block: BlockId) -> None:
            await self._send(namespace, block, with_children=True)

        await self._in_parallel(feed, send_one)

    async def _in_parallel(
        self,
        feed: Callable[[trio.MemorySendChannel[BlockId]], Awaitable[None]],
        work: Callable[[BlockId], Awaitable[None]],
    ) -> None:
        """Does the work for every block that is fed; the first error ends all and is raised."""
        failures: list[NodeError] = []
        send, receive = trio.open_memory_channel[BlockId](0)

        async def feed_all() -> None:
            with send:
                await feed(send)

        async def work_on_all() -> None:
            async for block in receive:
                await work(block)

        async def guarded(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except NodeError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, feed_all)
            for _ in range(self._limits.parallel):
                nursery.start_soon(guarded, work_on_all)
        if failures:
            raise failures[0]

    async def _ask(self, namespace: NamespaceId, batch: list[BlockId]) -> list[BlockId]:
        """Those of the batch that the server lacks, each once, in their order."""
        unsure = [block for block in dict.fromkeys(batch) if not self._is_known(namespace, block)]
        if not unsure:
            return []
        missing = frozenset(await self._client.missing_blocks(namespace, unsure))
        for block in unsure:
            if block not in missing:
                self._remember(namespace, block)
        return [block for block in unsure if block in missing]

    async def _send(
        self, namespace: NamespaceId, block: BlockId, *, with_children: bool
    ) -> frozenset[BlockId]:
        """Sends one block, unless it has children and is not to be sent yet; gives the children."""
        async with self._sending:
            frame = self._cache.get(block)
            if frame is None:
                raise StorageError(
                    errno.ENOENT, f"block {block} is to be uploaded and is not in the cache"
                )
            children = frozenset(parse_header(frame).children)
            if with_children or not children:
                await self._client.put_block(namespace, block, frame)
                self.blocks_sent += 1
                self.bytes_sent += len(frame)
                self._remember(namespace, block)
        return children

    def _is_known(self, namespace: NamespaceId, block: BlockId) -> bool:
        since = self._known.get((namespace, block))
        return since is not None and trio.current_time() - since < self._limits.known_for_s

    def _remember(self, namespace: NamespaceId, block: BlockId) -> None:
        self._cache.is_safe_elsewhere(block)
        self._known[namespace, block] = trio.current_time()
        self._known.move_to_end((namespace, block))
        if len(self._known) > self._limits.known:
            self._known.popitem(last=False)


async def _receive_batch(blocks: trio.MemoryReceiveChannel[BlockId], most: int) -> list[BlockId]:
    """What has arrived, at least one block; nothing when the senders are closed."""
    batch: list[BlockId] = []
    with contextlib.suppress(trio.EndOfChannel, trio.WouldBlock):
        batch.append(await blocks.receive())
        while len(batch) < most:
            batch.append(blocks.receive_nowait())
    return batch
