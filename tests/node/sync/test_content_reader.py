"""Any range of a content reads as its bytes, wherever the blocks are, and no lie gets through."""

from __future__ import annotations

import errno
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from node.errors import ServerError, StorageError
from node.storage.block_cache import BlockCache
from node.sync.block_fetcher import BlockFetcher, ServerSource
from node.sync.content_reader import ContentReader, ReaderLimits
from protocol.crypto.blocks import BlockKind, SealedBlock, seal_block
from protocol.ids import BlockId
from protocol.manifests import MAX_PAGE_ENTRIES, Entry, Manifest, PageRef, pack
from protocol.values import Content, Kind
from tests.node.sync.worlds import KEYS, NAMESPACE, OTHER_NAMESPACE, MemoryServer

KIB = 1024
MIB = 1024 * KIB
LIMITS = ReaderLimits()


class World:
    """A server with contents, and a device that has nothing yet."""

    def __init__(self, home: Path, limits: ReaderLimits = LIMITS) -> None:
        self.home = home
        self.server = MemoryServer()
        self.cache = BlockCache(home)
        self.fetcher = BlockFetcher(self.cache, [ServerSource(self.server)], draw=lambda: 0.5)
        self.reader = ContentReader(self.fetcher, limits)

    def keep(self, sealed: SealedBlock) -> SealedBlock:
        self.server.store(NAMESPACE)[sealed.id] = sealed.frame
        return sealed

    def block(self, plain: bytes) -> Entry:
        return Entry.of_block(self.keep(seal_block(KEYS.dedup, plain)))

    def page(self, plain: bytes, children: Sequence[BlockId]) -> SealedBlock:
        return self.keep(seal_block(KEYS.dedup, plain, BlockKind.PAGE, children))

    def content(self, entries: Sequence[Entry]) -> Content:
        manifest, _ = pack(entries, self.page)
        return Content(Kind.FILE, manifest.size, manifest=manifest)

    async def read(self, content: Content, offset: int = 0, size: int | None = None) -> bytes:
        wanted = content.size if size is None else size
        return await self.reader.read(NAMESPACE, content, offset, wanted)

    def damage(self, block: BlockId) -> None:
        path = self.home / str(block)[:2] / str(block)
        frame = bytearray(path.read_bytes())
        frame[-1] ^= 1
        path.write_bytes(frame)

    def drop_everything(self) -> None:
        """The blocks are gone, from the server and from the disk."""
        for block in self.server.store(NAMESPACE):
            self.cache.discard(block)
        self.server.store(NAMESPACE).clear()

    def cached(self, entries: Sequence[Entry]) -> list[bool]:
        return [entry.block is not None and self.cache.contains(entry.block) for entry in entries]


@asynccontextmanager
async def a_world(home: Path) -> AsyncIterator[World]:
    world = World(home)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.fetcher.run)
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture
async def world(tmp_path):
    async with a_world(tmp_path) as world:
        yield world


def root_of(content: Content) -> PageRef:
    assert content.manifest is not None
    assert content.manifest.root is not None
    return content.manifest.root


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(
    ("offset", "size", "read"),
    [(0, 6, b"inline"), (2, 2, b"li"), (4, 9, b"ne"), (6, 1, b""), (9, 1, b""), (0, 0, b"")],
)
async def test_an_inline_content_is_read_without_a_block(world, offset, size, read):
    content = Content(Kind.FILE, 6, inline=b"inline")
    assert await world.read(content, offset, size) == read


lengths = st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=200)


@settings(max_examples=40)
@given(
    lengths,
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9000)), min_size=1, max_size=10),
    st.booleans(),
)
def test_any_range_reads_as_the_slice_of_the_whole(stretches, reads, is_repeated):
    async def play() -> None:
        with tempfile.TemporaryDirectory() as home:
            async with a_world(Path(home)) as world:
                plain, entries = b"", []
                for seed, (length, is_hole) in enumerate(stretches * (9 if is_repeated else 1)):
                    data = bytes(length) if is_hole else noise(length, seed)
                    plain += data
                    entries.append(Entry.hole(length) if is_hole else world.block(data))
                content = world.content(entries)
                for where, size in reads:
                    offset = int(where * len(plain))
                    assert await world.read(content, offset, size) == plain[offset:][:size]
                assert await world.reader.entries(NAMESPACE, content) == entries
                is_paged = content.manifest is not None and content.manifest.root is not None
                event(f"pages: {is_paged}")

    trio.run(play)


async def test_a_content_with_two_levels_of_pages_is_read_across_them(world):
    plains = [noise(100, seed) for seed in range(MAX_PAGE_ENTRIES + 10)]
    content = world.content([world.block(plain) for plain in plains])
    assert root_of(content).level == 1
    border = 100 * MAX_PAGE_ENTRIES
    assert await world.read(content, border - 150, 300) == b"".join(plains)[border - 150 :][:300]
    assert await world.read(content) == b"".join(plains)


async def test_a_damaged_block_in_the_cache_is_replaced_before_anything_is_shown(world):
    entry = world.block(noise(50 * KIB))
    content = world.content([entry])
    assert await world.read(content, 0, 10) == noise(50 * KIB)[:10]
    world.damage(entry.block)
    assert await world.read(content, 0, 10) == noise(50 * KIB)[:10]
    assert world.server.got[entry.block] == 2


async def test_a_damaged_page_in_the_cache_is_replaced(tmp_path):
    async with a_world(tmp_path) as world:
        content = world.content([world.block(noise(10, n)) for n in range(100)])
        expected = await world.read(content)
    world.damage(root_of(content).block)
    async with a_world(tmp_path) as later:
        later.server.blocks = world.server.blocks
        assert await later.read(content) == expected
        assert later.server.got[root_of(content).block] == 1


async def test_a_manifest_with_a_wrong_key_is_an_input_output_error(world):
    entry = world.block(noise(50 * KIB))
    content = world.content([replace(entry, key=bytes(32))])
    with pytest.raises(StorageError) as caught:
        await world.read(content)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("length", [50 * KIB - 1, 50 * KIB + 1, 70 * KIB])
async def test_a_manifest_with_a_wrong_length_is_an_input_output_error(world, length):
    content = world.content([replace(world.block(noise(50 * KIB)), length=length)])
    with pytest.raises(StorageError):
        await world.read(content)


async def test_who_knows_only_the_id_of_a_block_that_is_open_does_not_get_its_content(world):
    entry = world.block(noise(50 * KIB))
    honest = world.content([entry, world.block(noise(10))])
    for _ in range(3):
        await world.read(honest)
    forged = world.content([replace(entry, key=bytes(32))])
    with pytest.raises(StorageError):
        await world.read(forged)


async def test_a_page_that_does_not_add_up_is_an_input_output_error(world):
    content = world.content([world.block(noise(10, n)) for n in range(100)])
    root = replace(root_of(content), length=1001)
    forged = replace(content, size=1001, manifest=Manifest(root=root))
    with pytest.raises(StorageError):
        await world.read(forged, 0, 10)


async def test_a_block_that_can_not_be_had_is_the_servers_error(world):
    content = world.content([world.block(noise(5 * KIB))])
    world.drop_everything()
    with pytest.raises(ServerError):
        await world.read(content)


async def test_a_small_read_of_one_block_fetches_no_other(world):
    entries = [world.block(noise(100 * KIB, seed)) for seed in range(30)]
    content = world.content(entries)
    await world.read(content, 1000 * KIB, 4 * KIB)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert world.cached(entries).count(True) == 1


async def test_reads_here_and_there_fetch_nothing_ahead(world):
    entries = [world.block(noise(MIB, seed)) for seed in range(30)]
    content = world.content(entries)
    for number in (0, 20, 10, 25, 5):
        await world.read(content, number * MIB, 4 * KIB)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert world.cached(entries).count(True) == 5


async def test_a_sequential_reader_finds_the_next_blocks_there(world):
    entries = [world.block(noise(20 * KIB, seed)) for seed in range(30)]
    content = world.content(entries)
    await world.read(content, 0, 20 * KIB)
    await world.read(content, 20 * KIB, 20 * KIB)
    while world.cached(entries).count(True) < 10:
        await trio.sleep(0.001)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert world.cached(entries) == [True] * 10 + [False] * 20


async def test_a_sequential_reader_of_a_paged_content_finds_the_next_page_there(world):
    entries = [world.block(noise(10, seed)) for seed in range(MAX_PAGE_ENTRIES + 200)]
    content = world.content(entries)
    end = 10 * MAX_PAGE_ENTRIES - 30
    await world.read(content, end - 20, 10)
    pages_before = set(world.server.got)
    await world.read(content, end - 10, 10)
    while not all(world.cached(entries[MAX_PAGE_ENTRIES - 3 : MAX_PAGE_ENTRIES])):
        await trio.sleep(0.001)
    await trio.testing.wait_all_tasks_blocked(0.01)
    new = set(world.server.got) - pages_before - {entry.block for entry in entries}
    assert len(new) == 1


async def test_a_reader_that_must_not_look_ahead_does_not(world):
    entries = [world.block(noise(20 * KIB, seed)) for seed in range(30)]
    content = world.content(entries)
    for start in range(0, 100 * KIB, 10 * KIB):
        await world.reader.read(NAMESPACE, content, start, 10 * KIB, look_ahead=False)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert world.cached(entries) == [True] * 5 + [False] * 25


async def test_a_block_stays_open_for_the_reads_that_follow(world):
    content = world.content([world.block(noise(MIB, seed)) for seed in range(3)])
    plain = b"".join(noise(MIB, seed) for seed in range(3))
    for offset in range(0, MIB, 128 * KIB):
        assert await world.read(content, offset, 128 * KIB) == plain[offset:][: 128 * KIB]
        if offset:
            world.drop_everything()


async def test_plaintext_kept_open_is_bounded(tmp_path):
    world = World(tmp_path, ReaderLimits(open_bytes=300 * KIB))
    entries = [world.block(noise(100 * KIB, seed)) for seed in range(8)]
    content = world.content(entries)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.fetcher.run)
        await world.read(content)
        world.drop_everything()
        for number in range(5, 8):
            await world.read(content, number * 100 * KIB, 100 * KIB)
        with pytest.raises(ServerError):
            await world.read(content, 4 * 100 * KIB, 100 * KIB)
        nursery.cancel_scope.cancel()


async def test_several_readers_at_once_get_what_they_asked_for(world):
    content = world.content([world.block(noise(200 * KIB, seed)) for seed in range(10)])
    plain = b"".join(noise(200 * KIB, seed) for seed in range(10))

    async def read_and_compare(offset: int) -> None:
        assert await world.read(content, offset, 128 * KIB) == plain[offset:][: 128 * KIB]

    async with trio.open_nursery() as nursery:
        for offset in range(0, len(plain), 50 * KIB):
            nursery.start_soon(read_and_compare, offset)
    assert max(world.server.got.values()) == 1


async def test_the_cached_share_counts_blocks(world):
    entries = [world.block(noise(20 * KIB, seed)) for seed in range(4)]
    content = world.content([*entries, Entry.hole(MIB)])
    assert world.reader.cached_share(content) == 0
    await world.read(content, 0, 10)
    assert world.reader.cached_share(content) == 25
    await world.read(content)
    assert world.reader.cached_share(content) == 100
    assert world.reader.cached_share(Content(Kind.FILE, 1, inline=b"x")) == 100
    assert world.reader.cached_share(world.content([Entry.hole(MIB)])) == 100


async def test_the_cached_share_of_a_paged_content_is_nothing_without_the_page(tmp_path):
    async with a_world(tmp_path) as world:
        content = world.content([world.block(noise(10, seed)) for seed in range(100)])
        assert world.reader.cached_share(content) == 0
        await world.read(content, 0, 500)
        assert world.reader.cached_share(content) == 50
    # Known again after a restart, from the cached page.
    assert World(tmp_path).reader.cached_share(content) == 50
    world.damage(root_of(content).block)
    assert World(tmp_path).reader.cached_share(content) == 0


async def test_another_namespace_is_asked_for_its_own_blocks(world):
    entry = world.block(noise(5 * KIB))
    content = world.content([entry])
    with pytest.raises(ServerError):
        await world.reader.read(OTHER_NAMESPACE, content, 0, 10)
