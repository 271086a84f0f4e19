"""Blocks are fetched once for all who wait, verified, kept, and never waited for without end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.errors import NodeError, ServerError
from node.storage.block_cache import BlockCache
from node.sync.block_fetcher import BlockFetcher, FetchLimits, ServerSource
from protocol.crypto.blocks import SealedBlock, seal_block
from protocol.ids import BlockId
from tests.node.sync.worlds import KEYS, NAMESPACE, OTHER_NAMESPACE, MemoryServer

LIMITS = FetchLimits()


@pytest.fixture
def cache(tmp_path):
    return BlockCache(tmp_path / "blocks")


@pytest.fixture
def server():
    return MemoryServer()


def stored(server: MemoryServer, text: str) -> SealedBlock:
    sealed = seal_block(KEYS.dedup, text.encode())
    server.store(NAMESPACE)[sealed.id] = sealed.frame
    return sealed


@asynccontextmanager
async def running(cache, server, limits=LIMITS) -> AsyncIterator[BlockFetcher]:
    fetcher = BlockFetcher(cache, [ServerSource(server)], limits, draw=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        await nursery.start(fetcher.run)
        yield fetcher
        nursery.cancel_scope.cancel()


async def collect(fetcher: BlockFetcher, block: BlockId, results: list) -> None:
    try:
        results.append(await fetcher.get(NAMESPACE, block))
    except NodeError as error:
        results.append(error)


async def test_a_block_comes_from_the_server_once_and_then_from_the_cache(cache, server):
    block = stored(server, "once")
    async with running(cache, server) as fetcher:
        assert await fetcher.get(NAMESPACE, block.id) == block.frame
        assert await fetcher.get(NAMESPACE, block.id) == block.frame
        assert server.got[block.id] == 1
        assert fetcher.blocks_from["server"] == 1
        assert fetcher.bytes_from["server"] == len(block.frame)
    assert cache.get(block.id) == block.frame


async def test_many_who_wait_for_one_block_share_one_fetch(cache, server):
    block = stored(server, "shared")
    server.gate = trio.Event()
    results: list = []
    async with running(cache, server) as fetcher, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(collect, fetcher, block.id, results)
        await trio.testing.wait_all_tasks_blocked()
        server.gate.set()
    assert results == [block.frame] * 20
    assert server.got[block.id] == 1


async def test_a_cancelled_waiter_does_not_take_the_block_from_the_others(cache, server):
    block = stored(server, "kept")
    server.gate = trio.Event()
    results: list = []
    async with running(cache, server) as fetcher, trio.open_nursery() as nursery:
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as first:
                first.start_soon(fetcher.get, NAMESPACE, block.id)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(collect, fetcher, block.id, results)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel()
        server.gate.set()
    assert results == [block.frame]
    assert server.got[block.id] == 1


async def test_a_fetch_that_nobody_waits_for_any_more_still_fills_the_cache(cache, server):
    block = stored(server, "late")
    server.gate = trio.Event()
    async with running(cache, server) as fetcher:
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetcher.get, NAMESPACE, block.id)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel()
        server.gate.set()
        assert await fetcher.get(NAMESPACE, block.id) == block.frame
    assert server.got[block.id] == 1


async def test_a_queued_fetch_that_nobody_waits_for_any_more_is_not_begun(cache, server):
    first, second = stored(server, "first"), stored(server, "second")
    server.gate = trio.Event()
    async with running(cache, server, FetchLimits(parallel=1)) as fetcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.get, NAMESPACE, first.id)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as impatient:
                async with trio.open_nursery() as inner:
                    inner.start_soon(fetcher.get, NAMESPACE, second.id)
                    await trio.testing.wait_all_tasks_blocked()
                    impatient.cancel()
            server.gate.set()
        await trio.testing.wait_all_tasks_blocked()
    assert second.id not in server.got


class CarelessSource:
    """Hands over whatever it is sent, as a peer might."""

    name = "peer"
    is_verifying = False

    def __init__(self, frame: bytes) -> None:
        self.frame = frame

    async def fetch(self, namespace, block) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.frame


@pytest.mark.parametrize("length", [10, 300 * 1024])
async def test_bytes_that_are_not_the_block_are_refused_and_the_next_source_is_asked(
    cache, server, length
):
    block, other = stored(server, "a" * length), stored(server, "b" * length)
    for sources in ([], [ServerSource(server)]):
        fetcher = BlockFetcher(cache, [CarelessSource(other.frame), *sources])
        async with trio.open_nursery() as nursery:
            await nursery.start(fetcher.run)
            if sources:
                assert await fetcher.get(NAMESPACE, block.id) == block.frame
            else:
                with pytest.raises(ServerError) as caught:
                    await fetcher.get(NAMESPACE, block.id)
                assert caught.value.code == "block_mismatch"
                assert cache.get(block.id) is None
            nursery.cancel_scope.cancel()


async def test_a_block_that_the_server_does_not_have_is_an_error_at_once(
    cache, server, autojump_clock
):
    block = seal_block(KEYS.dedup, b"nowhere")
    async with running(cache, server) as fetcher:
        with pytest.raises(ServerError) as caught:
            await fetcher.get(NAMESPACE, block.id)
    assert caught.value.code == "not_found"
    assert server.got[block.id] == 1


async def test_a_passing_failure_is_tried_again(cache, server, autojump_clock):
    block = stored(server, "in the end")
    server.failures = [ServerError("unreachable", "no route", is_transient=True)] * 2
    async with running(cache, server) as fetcher:
        assert await fetcher.get(NAMESPACE, block.id) == block.frame
    assert server.got[block.id] == 3


async def test_a_server_that_stays_away_is_reported_soon(cache, server, autojump_clock):
    block = stored(server, "away")
    server.failures = [ServerError("unreachable", "no route", is_transient=True)] * 100
    async with running(cache, server) as fetcher:
        started = trio.current_time()
        with pytest.raises(ServerError) as caught:
            await fetcher.get(NAMESPACE, block.id)
        assert caught.value.code == "unreachable"
        assert trio.current_time() - started < 3
        server.failures = []
        assert await fetcher.get(NAMESPACE, block.id) == block.frame


async def test_a_silent_server_fails_the_read_at_the_deadline_and_the_block_may_still_arrive(
    cache, server, autojump_clock
):
    block = stored(server, "slow")
    server.gate = trio.Event()
    async with running(cache, server, FetchLimits(deadline_s=30)) as fetcher:
        started = trio.current_time()
        with pytest.raises(ServerError) as caught:
            await fetcher.get(NAMESPACE, block.id)
        assert caught.value.code == "deadline"
        assert caught.value.is_transient
        assert trio.current_time() - started == pytest.approx(30)
        with pytest.raises(ServerError):  # as the kernel does, which had only read ahead
            await fetcher.get(NAMESPACE, block.id)
        assert trio.current_time() - started == pytest.approx(30)
        await trio.sleep(1)
        server.gate.set()
        assert await fetcher.get(NAMESPACE, block.id) == block.frame
    assert server.got[block.id] == 1


async def test_a_fetch_that_never_ends_is_given_up_and_makes_room(cache, server, autojump_clock):
    block, other = stored(server, "stuck"), stored(server, "other")
    server.gate = trio.Event()
    limits = FetchLimits(parallel=1, give_up_s=60)
    async with running(cache, server, limits) as fetcher:
        with pytest.raises(ServerError):
            await fetcher.get(NAMESPACE, block.id)
        await trio.sleep(60)
        server.gate.set()
        assert await fetcher.get(NAMESPACE, other.id) == other.frame


async def test_no_more_fetches_than_allowed_are_under_way(cache, server):
    blocks = [stored(server, f"block {index}") for index in range(20)]
    server.gate = trio.Event()
    results: list = []
    async with (
        running(cache, server, FetchLimits(parallel=5)) as fetcher,
        trio.open_nursery() as nursery,
    ):
        for block in blocks:
            nursery.start_soon(collect, fetcher, block.id, results)
        await trio.testing.wait_all_tasks_blocked()
        assert server.under_way == 5
        server.gate.set()
    assert sorted(results) == sorted(block.frame for block in blocks)
    assert server.most_under_way == 5


async def test_prefetching_leaves_room_for_a_read_that_somebody_waits_for(cache, server):
    ahead = [stored(server, f"ahead {index}") for index in range(20)]
    urgent = stored(server, "urgent")
    server.gate = trio.Event()
    results: list = []
    limits = FetchLimits(parallel=4, reserved=1)
    async with running(cache, server, limits) as fetcher, trio.open_nursery() as nursery:
        fetcher.prefetch(NAMESPACE, [block.id for block in ahead])
        await trio.testing.wait_all_tasks_blocked()
        assert server.under_way == 3
        nursery.start_soon(collect, fetcher, urgent.id, results)
        await trio.testing.wait_all_tasks_blocked()
        assert server.got[urgent.id] == 1
        server.gate.set()
    assert results == [urgent.frame]


async def test_a_read_moves_a_block_that_was_to_be_prefetched_to_the_front(cache, server):
    ahead = [stored(server, f"ahead {index}") for index in range(10)]
    server.gate = trio.Event()
    limits = FetchLimits(parallel=2, reserved=1)
    async with running(cache, server, limits) as fetcher, trio.open_nursery() as nursery:
        fetcher.prefetch(NAMESPACE, [block.id for block in ahead])
        await trio.testing.wait_all_tasks_blocked()
        assert server.got[ahead[9].id] == 0
        nursery.start_soon(fetcher.get, NAMESPACE, ahead[9].id)
        await trio.testing.wait_all_tasks_blocked()
        assert server.got[ahead[9].id] == 1
        server.gate.set()


async def test_what_does_not_fit_into_the_queue_is_not_prefetched(cache, server):
    blocks = [stored(server, f"block {index}") for index in range(20)]
    async with running(cache, server, FetchLimits(parallel=1)) as fetcher:
        server.gate = trio.Event()
        fetcher.prefetch(NAMESPACE, [blocks[0].id])
        await trio.testing.wait_all_tasks_blocked()
        limited = [block.id for block in blocks[1:]]
        fetcher.prefetch(NAMESPACE, limited * 10)
        server.gate.set()
        while any(not cache.contains(block) for block in limited):
            await trio.sleep(0)
    assert max(server.got.values()) == 1

    few = BlockFetcher(cache, [ServerSource(server)], FetchLimits(queued_ahead=2))
    more = [stored(server, f"more {index}") for index in range(5)]
    few.prefetch(NAMESPACE, [block.id for block in more])
    async with trio.open_nursery() as nursery:
        await nursery.start(few.run)
        while not cache.contains(more[1].id):
            await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [cache.contains(block.id) for block in more] == [True, True, False, False, False]


async def test_a_damaged_block_in_the_cache_is_thrown_away_and_fetched(cache, server):
    block = stored(server, "damaged")
    async with running(cache, server) as fetcher:
        await fetcher.get(NAMESPACE, block.id)
        assert await fetcher.get_again(NAMESPACE, block.id) == block.frame
    assert server.got[block.id] == 2


async def test_one_namespace_is_never_served_by_the_failure_of_another(cache, server):
    block = stored(server, "mine")
    server.gate = trio.Event()
    results: list = []

    async def fetch_elsewhere(fetcher):
        with pytest.raises(ServerError):
            await fetcher.get(OTHER_NAMESPACE, block.id)

    async with running(cache, server) as fetcher, trio.open_nursery() as nursery:
        nursery.start_soon(fetch_elsewhere, fetcher)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(collect, fetcher, block.id, results)
        await trio.testing.wait_all_tasks_blocked()
        server.gate.set()
    assert results == [block.frame]


async def test_who_waits_when_the_fetcher_ends_gets_an_error(cache, server):
    running_block, queued_block = stored(server, "running"), stored(server, "queued")
    server.gate = trio.Event()
    results: list = []
    fetcher = BlockFetcher(cache, [ServerSource(server)], FetchLimits(parallel=1))
    async with trio.open_nursery() as nursery, trio.open_nursery() as home:
        await home.start(fetcher.run)
        for block in (running_block, queued_block):
            nursery.start_soon(collect, fetcher, block.id, results)
        await trio.testing.wait_all_tasks_blocked()
        home.cancel_scope.cancel()
    assert [error.code for error in results] == ["closing", "closing"]


async def test_sources_are_asked_in_their_order(cache, server):
    nearer = MemoryServer()
    near, far = stored(nearer, "near"), stored(server, "far")
    server.store(NAMESPACE)[near.id] = near.frame
    fetcher = BlockFetcher(cache, [ServerSource(nearer, "peer"), ServerSource(server)])
    async with trio.open_nursery() as nursery:
        await nursery.start(fetcher.run)
        assert await fetcher.get(NAMESPACE, near.id) == near.frame
        assert await fetcher.get(NAMESPACE, far.id) == far.frame
        nursery.cancel_scope.cancel()
    assert fetcher.blocks_from == {"peer": 1, "server": 1}
    assert not server.got[near.id]
