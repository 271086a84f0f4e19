"""Only what the server lacks is sent, pages after their children, and failures name their cause."""

import pytest
import trio
import trio.testing

from node.errors import ServerError, StorageError
from node.storage.block_cache import BlockCache
from node.sync.block_uploader import BlockUploader, UploadLimits
from protocol.crypto.blocks import BlockKind, SealedBlock, seal_block
from protocol.ids import BlockId
from tests.node.sync.worlds import KEYS, NAMESPACE, OTHER_NAMESPACE, MemoryServer


@pytest.fixture
def cache(tmp_path):
    return BlockCache(tmp_path / "blocks")


@pytest.fixture
def server():
    return MemoryServer()


def kept(cache: BlockCache, text: str, children: tuple[SealedBlock, ...] = ()) -> SealedBlock:
    kind = BlockKind.PAGE if children else BlockKind.DATA
    below = sorted(child.id for child in children)
    sealed = seal_block(KEYS.dedup, text.encode(), kind, below)
    cache.put(sealed.id, sealed.frame)
    return sealed


def ids(blocks) -> list[BlockId]:
    return [block.id for block in blocks]


async def test_the_server_has_every_block_when_an_upload_returns(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(30)]
    uploader = BlockUploader(server, cache, UploadLimits(batch=7))
    await uploader.upload(NAMESPACE, iter(ids(blocks)))
    assert server.store(NAMESPACE) == {block.id: block.frame for block in blocks}
    assert uploader.blocks_sent == 30
    assert uploader.bytes_sent == sum(len(block.frame) for block in blocks)


async def test_what_the_server_has_is_not_sent(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(10)]
    for block in blocks[:6]:
        server.store(NAMESPACE)[block.id] = block.frame
    uploader = BlockUploader(server, cache)
    await uploader.upload(NAMESPACE, ids(blocks))
    assert sorted(server.put) == sorted(ids(blocks[6:]))


async def test_a_block_that_is_on_the_server_need_not_be_in_the_cache(cache, server):
    block = kept(cache, "evicted")
    server.store(NAMESPACE)[block.id] = block.frame
    cache.discard(block.id)
    await BlockUploader(server, cache).upload(NAMESPACE, [block.id])


async def test_nothing_to_upload_asks_nothing(cache, server):
    await BlockUploader(server, cache).upload(NAMESPACE, [])
    assert server.questions == 0


async def test_a_block_named_twice_is_sent_once(cache, server):
    block = kept(cache, "twice")
    await BlockUploader(server, cache).upload(NAMESPACE, [block.id, block.id])
    assert server.put == [block.id]


async def test_what_is_known_to_be_there_is_not_asked_about_again(cache, server):
    there, sent = kept(cache, "there"), kept(cache, "sent")
    server.store(NAMESPACE)[there.id] = there.frame
    uploader = BlockUploader(server, cache)
    await uploader.upload(NAMESPACE, ids([there, sent]))
    await uploader.upload(NAMESPACE, ids([there, sent]))
    assert server.questions == 1
    await uploader.upload(OTHER_NAMESPACE, ids([there, sent]))
    assert server.questions == 2
    assert set(server.store(OTHER_NAMESPACE)) == {there.id, sent.id}


async def test_knowledge_ends_well_before_the_servers_lease(cache, server, autojump_clock):
    block = kept(cache, "leased")
    uploader = BlockUploader(server, cache)
    await uploader.upload(NAMESPACE, [block.id])
    server.store(NAMESPACE).clear()
    await trio.sleep(12 * 3600 + 1)
    await uploader.upload(NAMESPACE, [block.id])
    assert block.id in server.store(NAMESPACE)


async def test_forgetting_asks_about_everything_again(cache, server):
    block = kept(cache, "forgotten")
    uploader = BlockUploader(server, cache)
    for namespace in (NAMESPACE, OTHER_NAMESPACE):
        await uploader.upload(namespace, [block.id])
        server.store(namespace).clear()
    uploader.forget(NAMESPACE)
    for namespace in (NAMESPACE, OTHER_NAMESPACE):
        await uploader.upload(namespace, [block.id])
    assert block.id in server.store(NAMESPACE)
    assert block.id not in server.store(OTHER_NAMESPACE)


async def test_knowledge_is_bounded(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(5)]
    uploader = BlockUploader(server, cache, UploadLimits(known=3))
    for block in blocks:
        await uploader.upload(NAMESPACE, [block.id])
    server.asked.clear()
    await uploader.upload(NAMESPACE, ids(blocks))
    assert set(server.asked) == set(ids(blocks[:2]))


async def test_pages_are_sent_after_what_they_list_whatever_the_order(cache, server):
    data = [kept(cache, f"block {index}") for index in range(8)]
    leaves = [kept(cache, "page 0", tuple(data[:4])), kept(cache, "page 1", tuple(data[4:]))]
    root = kept(cache, "root", tuple(leaves))
    upside_down = [root, *leaves, *data]
    # The server refuses a page whose children it lacks.
    await BlockUploader(server, cache).upload(NAMESPACE, ids(upside_down))
    assert server.put[-1] == root.id
    assert set(server.put) == set(ids(upside_down))


async def test_blocks_are_sent_in_parallel_within_one_bound_for_all_uploads(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(20)]
    server.gate = trio.Event()
    uploader = BlockUploader(server, cache, UploadLimits(parallel=4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploader.upload, NAMESPACE, ids(blocks[:10]))
        nursery.start_soon(uploader.upload, NAMESPACE, ids(blocks[10:]))
        await trio.testing.wait_all_tasks_blocked()
        assert server.under_way == 4
        server.gate.set()
    assert server.most_under_way == 4
    assert set(server.put) == set(ids(blocks))


async def test_a_block_that_is_nowhere_is_named(cache, server):
    block = kept(cache, "lost")
    cache.discard(block.id)
    with pytest.raises(StorageError, match=str(block.id)) as caught:
        await BlockUploader(server, cache).upload(NAMESPACE, [block.id])
    assert not caught.value.is_transient


async def test_a_passing_failure_is_reported_as_it_is_and_the_rest_can_follow(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(12)]
    failure = ServerError("unreachable", "no route", is_transient=True)
    uploader = BlockUploader(server, cache, UploadLimits(batch=12))
    for failing_request in range(6):
        server.failures = [None] * failing_request + [failure]
        with pytest.raises(ServerError) as caught:
            await uploader.upload(NAMESPACE, ids(blocks))
        assert caught.value is failure
        assert server.under_way == 0
        server.failures = []
    await uploader.upload(NAMESPACE, ids(blocks))
    assert set(server.store(NAMESPACE)) == set(ids(blocks))
    assert len(server.put) == len(set(server.put)) == 12


async def test_blocks_are_sent_while_others_are_still_being_sealed(cache, server):
    blocks = [kept(cache, f"block {index}") for index in range(10)]
    uploader = BlockUploader(server, cache)
    send, receive = trio.open_memory_channel[BlockId](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploader.upload_stream, NAMESPACE, receive)
        for block in blocks[:5]:
            await send.send(block.id)
        await trio.testing.wait_all_tasks_blocked()
        assert set(server.put) == set(ids(blocks[:5]))
        page = kept(cache, "page", tuple(blocks))
        for block in (page, *blocks[5:]):
            await send.send(block.id)
        await trio.testing.wait_all_tasks_blocked()
        assert page.id not in server.put
        await send.aclose()
    assert server.put[-1] == page.id
    assert set(server.put) == {page.id, *ids(blocks)}


async def test_who_seals_notices_that_the_upload_failed(cache, server):
    block = kept(cache, "block")
    server.failures = [ServerError("unreachable", "no route", is_transient=True)]
    send, receive = trio.open_memory_channel[BlockId](1)
    await send.send(block.id)
    with pytest.raises(ServerError):
        await BlockUploader(server, cache).upload_stream(NAMESPACE, receive)
    with pytest.raises(trio.BrokenResourceError):
        await send.send(block.id)
