"""What every block store does: the one on disk, and the fake in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol.ids import BlockId
from server.blobs.disk import DiskBlockStore
from server.blobs.port import BlockStore
from server.errors import BlockError, BlockNotFoundError
from tests.server.client import some_block
from tests.server.fakes.memory_blobs import MemoryBlockStore

Test = Callable[[BlockStore], Awaitable[None]]
DATA = some_block(1_500_000)
PAGE = some_block(70_000, (some_block(1).id, some_block(2).id))


def on_every_store(test: Test):
    @pytest.mark.parametrize("kind", ["disk", "memory"])
    def run(kind, tmp_path):
        async def with_store():
            await test(MemoryBlockStore() if kind == "memory" else DiskBlockStore(tmp_path, 0))

        asyncio.run(with_store())

    run.__name__ = test.__name__
    return run


async def put(store: BlockStore, block: BlockId, frame: bytes, size: int = 100_000) -> int:
    async with store.receive(block) as incoming:
        for start in range(0, len(frame), size):
            await incoming.write(frame[start : start + size])
        incoming.header()
        return await incoming.keep()


async def content(store: BlockStore, block: BlockId) -> bytes:
    async with store.open(block) as stored:
        return await stored.read(0, stored.size_bytes)


@on_every_store
async def test_a_block_reads_back_whole_and_in_part(store):
    assert await put(store, DATA.id, DATA.frame) == len(DATA.frame)
    async with store.open(DATA.id) as stored:
        assert stored.size_bytes == len(DATA.frame)
        assert await stored.read(0, len(DATA.frame)) == DATA.frame
        assert await stored.read(1_000_000, 5) == DATA.frame[1_000_000:1_000_005]
        assert await stored.read(len(DATA.frame) - 3, 100) == DATA.frame[-3:]
    assert await store.is_ready()


@on_every_store
async def test_storing_again_is_storing_once(store):
    await put(store, DATA.id, DATA.frame)
    await asyncio.gather(put(store, DATA.id, DATA.frame), put(store, DATA.id, DATA.frame))
    assert await content(store, DATA.id) == DATA.frame


@on_every_store
async def test_the_header_tells_the_children(store):
    async with store.receive(PAGE.id) as incoming:
        await incoming.write(PAGE.frame[:5])
        await incoming.write(PAGE.frame[5:50])
        await incoming.write(PAGE.frame[50:])
        assert len(incoming.header().children) == 2
    with pytest.raises(BlockNotFoundError):
        await content(store, PAGE.id)


@on_every_store
async def test_wrong_bytes_are_refused_and_leave_nothing(store):
    wrong = bytearray(DATA.frame)
    wrong[-1] ^= 1
    other = some_block(500)
    for frame in (wrong, DATA.frame[:-1], DATA.frame + b"x", b"ATLB", b"", b"nonsense" * 9):
        with pytest.raises(BlockError):
            await put(store, DATA.id, bytes(frame))
    with pytest.raises(BlockError):
        await put(store, DATA.id, other.frame)
    with pytest.raises(BlockNotFoundError):
        await content(store, DATA.id)


@on_every_store
async def test_an_upload_that_is_given_up_leaves_nothing(store):
    async with store.receive(DATA.id) as incoming:
        await incoming.write(DATA.frame[:900_000])
    with pytest.raises(BlockNotFoundError):
        await content(store, DATA.id)


@given(cuts=st.lists(st.integers(1, len(PAGE.frame) - 1), max_size=8, unique=True))
def test_a_frame_may_come_in_any_pieces(cuts):
    event(f"{len(cuts)} cuts")
    bounds = [0, *sorted(cuts), len(PAGE.frame)]

    async def receive():
        store = MemoryBlockStore()
        async with store.receive(PAGE.id) as incoming:
            for start, stop in pairwise(bounds):
                await incoming.write(PAGE.frame[start:stop])
            return await incoming.keep()

    assert asyncio.run(receive()) == len(PAGE.frame)


@on_every_store
async def test_a_removed_block_is_gone_and_can_be_put_again(store):
    for block in (DATA, PAGE):
        await put(store, block.id, block.frame)
    assert {each async for each in store.stored()} == {DATA.id, PAGE.id}
    async with store.open(DATA.id) as stored:
        await store.remove(DATA.id)
        await store.remove(DATA.id)
        assert await stored.read(0, stored.size_bytes) == DATA.frame
    with pytest.raises(BlockNotFoundError):
        await content(store, DATA.id)
    assert {each async for each in store.stored()} == {PAGE.id}
    await put(store, DATA.id, DATA.frame)
    assert await content(store, DATA.id) == DATA.frame
