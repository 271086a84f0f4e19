"""Gives up records and blocks that nothing needs any more.

Owns the order and the times: what nobody needs is condemned, and goes an hour later if it is still
not needed. A question whether a block is missing, and an upload of it, acquit it in between: who was
told that the server has a block may count on it for as long as the lease says. Every step is short,
so that requests come in between. Knows no SQL and no files; started by ``server.main``.
"""

from dataclasses import dataclass
from typing import Final

import anyio

from protocol.crypto.block_header import MAX_BLOCK_FRAME_BYTES, parse_header
from protocol.errors import ProtocolError
from protocol.ids import BlockId
from protocol.records import SignedRecord
from server.blobs.port import BlockStore
from server.errors import BlockNotFoundError
from server.services.block_locks import BlockLocks
from server.services.ports import Surroundings
from server.services.record_checks import covers_of
from server.stores.port import BlockOfNamespace, MetadataStore, Retention, StoredRecord

RETENTION_S: Final = 30 * 24 * 3600
"""Covered versions are kept so long: a device that was away may need them to merge, and a revocation
may have to take the effect from what covered them."""

GRACE_S: Final = 3600
"""Between condemning a block and giving it up."""

INTERVAL_S: Final = 6 * 3600
"""Between rounds: a block that nobody needs costs room, and nothing else."""

_AT_ONCE: Final = 500
"""Blocks or records in one step: some milliseconds of the database's writer."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round gave up."""

    blocks: int = 0
    size_bytes: int = 0


class Collector:
    """Collects blocks.

    Concurrency: one round at a time; requests go on meanwhile.
    """

    def __init__(
        self,
        store: MetadataStore,
        blobs: BlockStore,
        locks: BlockLocks,
        surroundings: Surroundings,
        retention_s: int = RETENTION_S,
        grace_s: int = GRACE_S,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._locks = locks
        self._surroundings = surroundings
        self._retention_s = retention_s
        self._grace_s = grace_s

    async def run(self) -> None:
        """Collect now and then, until cancelled.

        Raises:
            StoreError: a store failed; a later call goes on where this one ended.
        """
        while True:
            await self.collect()
            await anyio.sleep(INTERVAL_S)

    async def collect(self) -> Collected:
        """One round: condemn what nothing needs by now, give up what was condemned before.

        Raises:
            StoreError: a store failed. What was given up is gone, and nothing else.
        """
        await self._index_records()
        await self._drop_writes()
        await self._index_blocks()
        await self._condemn()
        return await self._drop()

    async def remove_strays(self) -> int:
        """Remove bytes that no namespace holds, as a crash may leave them; how many blocks."""
        removed = 0
        async for block in self._blobs.stored():
            removed += await self._remove(block)
        return removed

    def _retention(self) -> Retention:
        now_s = self._surroundings.now_s()
        return Retention(now_s, now_s - self._retention_s)

    async def _index_records(self) -> None:
        while records := await self._store.records_not_indexed(_AT_ONCE):
            for record in records:
                await self._index_record(record)

    async def _index_record(self, stored: StoredRecord) -> None:
        record = SignedRecord.from_wire(stored.wire).record
        await self._store.index_record(
            stored, record.blocks, covers_of(record), self._surroundings.now_s()
        )

    async def _drop_writes(self) -> None:
        while await self._store.drop_writes(_AT_ONCE, self._retention()) == _AT_ONCE:
            pass

    async def _index_blocks(self) -> None:
        while blocks := await self._store.blocks_not_indexed(_AT_ONCE):
            for held in blocks:
                await self._store.index_block(held, await self._children(held.block))

    async def _children(self, block: BlockId) -> tuple[BlockId, ...]:
        """What a block's header lists; a block that is not readable lists nothing any more."""
        try:
            async with self._blobs.open(block) as stored:
                return parse_header(await stored.read(0, MAX_BLOCK_FRAME_BYTES)).children
        except (BlockNotFoundError, ProtocolError):
            return ()

    async def _condemn(self) -> None:
        place: BlockOfNamespace | None = None
        while True:
            place = await self._store.condemn_blocks(place, _AT_ONCE, self._retention())
            if place is None:
                return

    async def _drop(self) -> Collected:
        total = Collected()
        while True:
            retention = self._retention()
            dropped = await self._store.drop_condemned(
                retention.now_s - self._grace_s, _AT_ONCE, retention
            )
            if not dropped:
                return total
            for collected in dropped:
                await self._remove(collected.block)
            total = Collected(
                total.blocks + len(dropped),
                total.size_bytes + sum(each.size_bytes for each in dropped),
            )

    async def _remove(self, block: BlockId) -> bool:
        async with self._locks.of(block):
            if await self._store.is_held(block):
                return False
            await self._blobs.remove(block)
            return True
