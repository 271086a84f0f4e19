"""A block that several reads need at one time is opened once, and by somebody who still lives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import trio
import trio.testing

from node.errors import ServerError
from node.sync.block_opener import BlockOpener
from node.sync.open_blocks import OpenBlocks
from protocol.crypto.blocks import seal_block
from protocol.manifests import Entry
from tests.node.sync.worlds import KEYS, NAMESPACE, OTHER_NAMESPACE

SEALED = seal_block(KEYS.dedup, b"content")
ENTRY = Entry.of_block(SEALED)


class GatedOpener:
    """Opens the one block there is, when it is allowed to."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.calls = 0
        self.failure: ServerError | None = None

    async def open(self, namespace, block, opening, *, length, work_bytes) -> Any:
        self.calls += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return opening(SEALED.frame)


@pytest.fixture
def opener():
    return GatedOpener()


def open_blocks(opener: GatedOpener, limit_bytes: int = 100) -> OpenBlocks:
    return OpenBlocks(cast("BlockOpener", opener), limit_bytes)


async def collect(blocks: OpenBlocks, results: list) -> None:
    try:
        results.append(await blocks.open(NAMESPACE, ENTRY))
    except ServerError as error:
        results.append(error)


@pytest.mark.parametrize("limit_bytes", [100, 0])
async def test_all_who_need_a_block_at_one_time_share_one_opening(opener, limit_bytes):
    blocks = open_blocks(opener, limit_bytes)
    results: list = []
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(collect, blocks, results)
        await trio.testing.wait_all_tasks_blocked()
        opener.gate.set()
    assert results == [b"content"] * 8
    assert opener.calls == 1


async def test_an_open_block_is_not_opened_again(opener):
    opener.gate.set()
    blocks = open_blocks(opener)
    assert blocks.kept(NAMESPACE, ENTRY) is None
    await blocks.open(NAMESPACE, ENTRY)
    assert await blocks.open(NAMESPACE, ENTRY) == blocks.kept(NAMESPACE, ENTRY) == b"content"
    assert opener.calls == 1


async def test_neither_another_key_nor_another_namespace_finds_an_open_block(opener):
    opener.gate.set()
    blocks = open_blocks(opener)
    await blocks.open(NAMESPACE, ENTRY)
    assert blocks.kept(NAMESPACE, replace(ENTRY, key=bytes(32))) is None
    assert blocks.kept(OTHER_NAMESPACE, ENTRY) is None


async def test_when_the_opener_is_cancelled_another_takes_over(opener):
    blocks = open_blocks(opener)
    results: list = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as first:
                first.start_soon(blocks.open, NAMESPACE, ENTRY)
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(3):
                    nursery.start_soon(collect, blocks, results)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel()
        await trio.testing.wait_all_tasks_blocked()
        opener.gate.set()
    assert results == [b"content"] * 3
    assert opener.calls == 2


async def test_a_failure_is_everybodys_and_the_next_may_try_again(opener):
    opener.failure = ServerError("unreachable", "no route", is_transient=True)
    blocks = open_blocks(opener)
    results: list = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(collect, blocks, results)
        await trio.testing.wait_all_tasks_blocked()
        opener.gate.set()
    assert results == [opener.failure] * 3
    assert opener.calls == 1
    opener.failure = None
    assert await blocks.open(NAMESPACE, ENTRY) == b"content"
