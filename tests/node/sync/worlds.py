"""What the tests of content share: a server in memory that obeys the contract, and contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import trio

from node.errors import NodeError, ServerError
from protocol.crypto.blocks import block_id, parse_header
from protocol.crypto.keys import EpochKeys
from protocol.ids import BlockId, NamespaceId

NAMESPACE = NamespaceId(bytes(range(32)))
OTHER_NAMESPACE = NamespaceId(bytes(32))
KEYS = EpochKeys.from_secret(NAMESPACE, 1, b"s" * 32)


class MemoryServer:
    """The block part of a server: takes a page only after its children, and verifies every id.

    Attributes:
        asked, put, got: how often each block was asked about, sent and fetched.
        under_way: requests at this moment, and the most there were.
        failures: of the next requests, one each; None lets one pass.
        gate: while set, requests for blocks wait here.
    """

    def __init__(self) -> None:
        self.blocks: dict[NamespaceId, dict[BlockId, bytes]] = {}
        self.asked: Counter[BlockId] = Counter()
        self.questions = 0
        self.put: list[BlockId] = []
        self.got: Counter[BlockId] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.failures: list[NodeError | None] = []
        self.gate: trio.Event | None = None

    def store(self, namespace: NamespaceId) -> dict[BlockId, bytes]:
        return self.blocks.setdefault(namespace, {})

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId]
    ) -> frozenset[BlockId]:
        assert len(blocks) == len(set(blocks)) > 0
        self.asked.update(blocks)
        self.questions += 1
        await trio.lowlevel.checkpoint()
        self._fail()
        return frozenset(blocks) - self.store(namespace).keys()

    async def put_block(self, namespace: NamespaceId, block: BlockId, frame: bytes) -> None:
        await self._pass_gate()
        if block_id(frame) != block:
            raise ServerError("block_mismatch", "other bytes")
        if not self.store(namespace).keys() >= set(parse_header(frame).children):
            raise ServerError("blocks_missing", "a page before its children")
        self.store(namespace)[block] = bytes(frame)
        self.put.append(block)

    async def get_block(self, namespace: NamespaceId, block: BlockId) -> bytes:
        self.got[block] += 1
        await self._pass_gate()
        frame = self.store(namespace).get(block)
        if frame is None:
            raise ServerError("not_found", f"no block {block}")
        return frame

    async def _pass_gate(self) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
            self._fail()
        finally:
            self.under_way -= 1

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
