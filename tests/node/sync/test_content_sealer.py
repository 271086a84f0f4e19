"""A sealed content reads as the staged file did; what nothing touched stays as it was sealed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from node.core.chunking import CHUNK_SIZES
from node.errors import ServerError
from node.storage.block_cache import BlockCache
from node.storage.staging import StagingStore
from node.storage.staging_file import StagingFile
from node.sync.block_fetcher import BlockFetcher, ServerSource
from node.sync.block_uploader import BlockUploader
from node.sync.content_reader import ContentReader
from node.sync.content_sealer import ContentSealer, SealedContent, SealerLimits
from protocol.crypto.blocks import parse_header
from protocol.crypto.keys import EpochKeys
from protocol.ids import BlockId
from protocol.limits import INLINE_BYTES
from protocol.manifests import Entry
from protocol.values import Content, Kind
from tests.node.sync.worlds import KEYS, NAMESPACE, MemoryServer

KIB = 1024
MIB = 1024 * KIB


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def as_content(sealed: SealedContent) -> Content:
    return Content(Kind.FILE, sealed.size, 0, None, sealed.inline, sealed.manifest)


@dataclass
class Device:
    """One node's cache and staging, with the parts that work on them."""

    home: Path
    server: MemoryServer = field(default_factory=MemoryServer)
    limits: SealerLimits = SealerLimits()

    def __post_init__(self) -> None:
        (self.home / "staging").mkdir(parents=True)
        self.staging = StagingStore(self.home / "staging", bytes(32))
        self.cache = BlockCache(self.home / "blocks")
        self.fetcher = BlockFetcher(self.cache, [ServerSource(self.server)])
        self.reader = ContentReader(self.fetcher)
        self.sealer = ContentSealer(self.reader, self.cache, self.limits)

    def staged(self, data: bytes) -> StagingFile:
        file = self.staging.create(0, b"")
        file.write(0, data)
        return file

    async def seal(
        self, file: StagingFile, base: Content | None = None, **options
    ) -> SealedContent:
        with file.snapshot() as snapshot:
            return await self.sealer.seal_content(snapshot, base, NAMESPACE, KEYS, **options)

    async def seal_bytes(self, data: bytes) -> Content:
        file = self.staged(data)
        sealed = await self.seal(file)
        file.discard()
        return as_content(sealed)

    async def read_all(self, content: Content) -> bytes:
        return await self.reader.read(NAMESPACE, content, 0, content.size)

    async def entries(self, content: Content) -> list[Entry]:
        return await self.reader.entries(NAMESPACE, content)

    def cached_blocks(self) -> set[BlockId]:
        names = [path.name for path in (self.home / "blocks").glob("??/*")]
        return {BlockId.parse(name) for name in names if not name.endswith(".new")}


@asynccontextmanager
async def running(home: Path, **options) -> AsyncIterator[Device]:
    device = Device(home, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.fetcher.run)
        yield device
        nursery.cancel_scope.cancel()
    device.staging.close()


@pytest.fixture
async def device(tmp_path):
    async with running(tmp_path / "device") as device:
        yield device


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES])
async def test_a_short_content_is_inline_and_makes_no_block(device, size):
    sealed = await device.seal(device.staged(noise(size)))
    assert sealed == SealedContent(size, noise(size))
    assert not device.cached_blocks()


@pytest.mark.parametrize("size", [INLINE_BYTES + 1, 200 * KIB, 300 * KIB, 5 * MIB, 20 * MIB + 7])
async def test_a_content_reads_back_as_it_was_written(device, size):
    sealed = await device.seal(device.staged(noise(size)))
    assert sealed.size == size
    assert sealed.inline == b""
    assert set(sealed.new_blocks) == device.cached_blocks()
    assert await device.read_all(as_content(sealed)) == noise(size)


async def test_a_long_content_has_pages_that_list_its_blocks(tmp_path):
    limits = SealerLimits()
    async with running(tmp_path / "device", limits=limits) as device:
        file = device.staging.create(0, b"")
        # Short blocks of their own, as 70 single writes far apart leave them.
        for index in range(70):
            file.write(index * MIB, noise(10 * KIB, index))
        sealed = await device.seal(file)
        assert sealed.manifest is not None
        root = sealed.manifest.root
        assert root is not None
        assert sealed.new_blocks[-1] == root.block
        frame = device.cache.get(root.block)
        assert frame is not None
        assert set(parse_header(frame).children) == set(sealed.new_blocks[:-1])
        content = as_content(sealed)
        for index in range(70):
            read = await device.reader.read(NAMESPACE, content, index * MIB, 11 * KIB)
            assert read == (noise(10 * KIB, index) + bytes(KIB))[: content.size - index * MIB]


async def test_the_same_content_gives_the_same_blocks_on_every_device(tmp_path):
    async with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        file = other.staging.create(0, b"")
        for start in range(0, 9 * MIB, 77_777):
            file.write(start, noise(9 * MIB)[start : start + 77_777])
        assert as_content(await other.seal(file)) == await one.seal_bytes(noise(9 * MIB))


async def test_another_epoch_gives_other_blocks(device):
    file = device.staged(noise(MIB))
    sealed = await device.seal(file)
    later = EpochKeys.from_secret(NAMESPACE, 2, b"t" * 32)
    with file.snapshot() as snapshot:
        again = await device.sealer.seal_content(snapshot, None, NAMESPACE, later)
    assert not set(sealed.new_blocks) & set(again.new_blocks)


async def test_a_small_edit_replaces_only_the_block_that_it_touches(device):
    data = bytearray(noise(24 * MIB))
    base = await device.seal_bytes(bytes(data))
    file = device.staging.create(base.size, b"")
    position = 13 * MIB + 5
    file.write(position, b"edited")
    data[position : position + 6] = b"edited"
    sealed = await device.seal(file, base)
    before, after = await device.entries(base), await device.entries(as_content(sealed))
    start, touched = 0, []
    for entry in before:
        if start < position + 6 and position < start + entry.length:
            touched.append(entry)
        start += entry.length
    assert len(touched) == 1
    assert [entry for entry in before if entry not in after] == touched
    assert set(sealed.new_blocks) == {entry.block for entry in after if entry not in before}
    assert await device.read_all(as_content(sealed)) == data


async def test_blocks_of_an_older_epoch_stay_beside_new_ones(device):
    base = await device.seal_bytes(noise(12 * MIB))
    file = device.staging.create(base.size, b"")
    file.write(0, b"edited")
    later = EpochKeys.from_secret(NAMESPACE, 2, b"t" * 32)
    with file.snapshot() as snapshot:
        sealed = await device.sealer.seal_content(snapshot, base, NAMESPACE, later)
    kept = set(await device.entries(base)) & set(await device.entries(as_content(sealed)))
    assert sum(entry.length for entry in kept) > 6 * MIB
    assert await device.read_all(as_content(sealed)) == b"edited" + noise(12 * MIB)[6:]


async def test_an_insertion_shifts_the_blocks_behind_it_and_leaves_them_as_they_are(device):
    data = noise(24 * MIB)
    base = await device.seal_bytes(data)
    longer = data[: 3 * MIB] + b"inserted" + data[3 * MIB :]
    shifted = await device.seal_bytes(longer)
    before, after = await device.entries(base), await device.entries(shifted)
    assert sum(entry.length for entry in after if entry not in before) < 9 * MIB
    assert await device.read_all(shifted) == longer


async def test_appending_seals_no_more_than_the_end(device):
    base = await device.seal_bytes(noise(16 * MIB))
    file = device.staging.create(base.size, b"")
    file.write(base.size, b"one more line\n")
    sealed = await device.seal(file, base)
    new = set(sealed.new_blocks)
    entries = await device.entries(as_content(sealed))
    assert sum(entry.length for entry in entries if entry.block in new) <= 5 * MIB
    assert await device.read_all(as_content(sealed)) == noise(16 * MIB) + b"one more line\n"


async def test_holes_stay_holes(device):
    file = device.staging.create(0, b"")
    file.truncate(2**40)
    file.write(2**39, noise(MIB))
    sealed = await device.seal(file)
    content = as_content(sealed)
    assert sum(entry.length for entry in await device.entries(content) if entry.block) == MIB
    read = await device.reader.read(NAMESPACE, content, 2**39 - KIB, MIB + 2 * KIB)
    assert read == bytes(KIB) + noise(MIB) + bytes(KIB)
    assert await device.reader.read(NAMESPACE, content, 2**40 - 5, 100) == bytes(5)

    again = device.staging.create(content.size, b"")
    again.write(0, b"edited")
    edited = as_content(await device.seal(again, content))
    assert await device.reader.read(NAMESPACE, edited, 0, 7) == b"edited\0"
    assert sum(entry.length for entry in await device.entries(edited) if not entry.block) > 2**39


async def test_an_inline_base_grows_into_blocks_and_shrinks_back(device):
    base = await device.seal_bytes(b"inline")
    file = device.staging.create(base.size, b"")
    file.write(INLINE_BYTES, b"end")
    grown = as_content(await device.seal(file, base))
    assert grown.manifest is not None
    assert await device.read_all(grown) == b"inline".ljust(INLINE_BYTES, b"\0") + b"end"
    file = device.staging.create(grown.size, b"")
    file.truncate(4)
    assert await device.seal(file, grown) == SealedContent(4, b"inli")


async def test_a_part_of_the_base_that_is_not_here_is_fetched(tmp_path):
    server = MemoryServer()
    async with running(tmp_path / "a", server=server) as author:
        sealed = await author.seal(author.staged(noise(6 * MIB)))
        uploader = BlockUploader(server, author.cache)
        await uploader.upload(NAMESPACE, sealed.new_blocks)
    base = as_content(sealed)
    async with running(tmp_path / "b", server=server) as editor:
        file = editor.staging.create(base.size, b"")
        file.write(3 * MIB, b"edited")
        edited = await editor.seal(file, base)
        # What was not needed was not fetched.
        assert len(editor.cached_blocks() - set(edited.new_blocks)) == 1
        expected = noise(6 * MIB)[: 3 * MIB] + b"edited" + noise(6 * MIB)[3 * MIB + 6 :]
        assert await editor.read_all(as_content(edited)) == expected


async def test_without_that_part_of_the_base_sealing_fails_and_can_be_repeated(
    tmp_path, autojump_clock
):
    server = MemoryServer()
    async with running(tmp_path / "a", server=server) as author:
        sealed = await author.seal(author.staged(noise(100 * KIB)))
        await BlockUploader(server, author.cache).upload(NAMESPACE, sealed.new_blocks)
    base = as_content(sealed)
    async with running(tmp_path / "b", server=server) as editor:
        file = editor.staging.create(base.size, b"")
        file.write(50 * KIB, b"edited")
        away = ServerError("unreachable", "no route", is_transient=True)
        server.failures = [away] * 3
        with pytest.raises(ServerError) as caught:
            await editor.seal(file, base)
        assert caught.value is away
        edited = await editor.seal(file, base)
        expected = noise(100 * KIB)[: 50 * KIB] + b"edited" + noise(100 * KIB)[50 * KIB + 6 :]
        assert await editor.read_all(as_content(edited)) == expected


async def test_each_new_block_is_announced_once_it_is_in_the_cache_and_pages_in_the_end(device):
    announced: list[BlockId] = []

    async def on_block(block: BlockId) -> None:
        assert device.cache.contains(block)
        announced.append(block)
        await trio.lowlevel.checkpoint()

    file = device.staging.create(0, b"")
    for index in range(70):
        file.write(index * MIB, noise(10 * KIB, index % 35))
    sealed = await device.seal(file, on_block=on_block)
    assert tuple(announced) == sealed.new_blocks
    assert len(announced) == len(set(announced)) == 36
    assert sealed.manifest is not None
    assert sealed.manifest.blocks == (announced[-1],)


async def test_sealing_waits_for_a_listener_that_falls_behind(tmp_path):
    limits = SealerLimits(blocks_ahead=3)
    resume = trio.Event()

    async def on_block(block: BlockId) -> None:
        await resume.wait()

    async with running(tmp_path / "device", limits=limits) as device:
        long, short = device.staged(noise(30 * MIB)), device.staged(noise(100 * KIB, 1))
        results: list[SealedContent] = []

        async def seal_long() -> None:
            results.append(await device.seal(long, on_block=on_block))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(seal_long)
            while len(device.cached_blocks()) < 3:
                await trio.sleep(0.001)
            # A short content passes the long one, which seals no further meanwhile.
            await device.seal(short)
            assert len(device.cached_blocks()) == 3 + 1
            assert not results
            resume.set()
        assert await device.read_all(as_content(results[0])) == noise(30 * MIB)


async def test_only_so_many_staged_bytes_are_in_memory_however_many_contents_are_sealed(tmp_path):
    limits = SealerLimits(staged_bytes=4 * MIB)
    resume = trio.Event()

    async def on_block(block: BlockId) -> None:
        await resume.wait()

    async with running(tmp_path / "device", limits=limits) as device:
        # Each takes twice its length: as read, and as cut.
        files = [device.staged(noise(MIB, seed)) for seed in range(6)]

        async def seal(file: StagingFile) -> None:
            await device.seal(file, on_block=on_block)

        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(seal, file)
            while len(device.cached_blocks()) < 2:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.1)
            held = device.cached_blocks()
            # Two contents of at most three blocks.
            assert len(held) <= 6
            resume.set()
        assert len(device.cached_blocks()) > len(held)


async def test_a_listener_that_fails_ends_the_sealing(device):
    async def on_block(block: BlockId) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(trio.BrokenResourceError):
        await device.seal(device.staged(noise(10 * MIB)), on_block=on_block)


async def test_a_cancelled_sealing_leaves_room_for_the_next(tmp_path):
    async with running(tmp_path / "device", limits=SealerLimits(blocks_in_flight=2)) as device:
        file = device.staged(noise(20 * MIB))

        async def hang(block: BlockId) -> None:
            scope.cancel()
            await trio.sleep_forever()

        for _ in range(3):
            with trio.CancelScope() as scope:
                await device.seal(file, on_block=hang)
            assert scope.cancelled_caught
        content = as_content(await device.seal(file))
        assert await device.read_all(content) == noise(20 * MIB)


async def test_a_snapshot_is_sealed_although_the_file_changes_meanwhile(device):
    file = device.staged(noise(20 * MIB))

    async def overwrite(block: BlockId) -> None:
        file.write(0, bytes(20 * MIB))
        file.flush()
        file.truncate(5)

    content = as_content(await device.seal(file, on_block=overwrite))
    assert await device.read_all(content) == noise(20 * MIB)


async def test_a_damaged_copy_in_the_cache_does_not_become_the_only_one(device):
    file = device.staged(noise(100 * KIB))
    sealed = await device.seal(file)
    (block,) = sealed.new_blocks
    frame = device.cache.get(block)
    path = device.home / "blocks" / str(block)[:2] / str(block)
    path.write_bytes(b"damaged")
    assert device.cache.get(block) == b"damaged"
    await device.seal(file)
    assert device.cache.get(block) == frame


async def test_new_blocks_are_not_evicted_before_they_are_published(tmp_path):
    async with running(tmp_path / "device") as device:
        sealed = await device.seal(device.staged(noise(6 * MIB)))
        device.cache.sync_pending()
        device.cache.limit_bytes = 0
        device.cache.put(BlockId(bytes(32)), b"other")
        assert all(device.cache.contains(block) for block in sealed.new_blocks)


edits = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 9 * MIB), st.integers(1, 300 * KIB)),
        st.tuples(st.just("write"), st.integers(0, 64 * KIB), st.integers(1, 5000)),
        st.tuples(st.just("truncate"), st.integers(0, 10 * MIB), st.just(0)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(
    st.sampled_from([9 * MIB, 4 * MIB, 700 * KIB, 5000, 10]),
    st.lists(edits, min_size=1, max_size=3),
)
def test_any_edits_sealed_one_version_after_the_other_read_as_the_plain_bytes(size, versions):
    async def play() -> None:
        with tempfile.TemporaryDirectory() as home:
            async with running(Path(home) / "device") as device:
                plain = noise(size)
                base = await device.seal_bytes(plain)
                for number, script in enumerate(versions):
                    base, plain = await edited(device, base, plain, script, number)

    trio.run(play)


async def edited(
    device: Device, base: Content, before: bytes, script: list, number: int
) -> tuple[Content, bytes]:
    plain = bytearray(before)
    file = device.staging.create(base.size, b"")
    for step, (kind, position, length) in enumerate(script):
        if kind == "truncate":
            file.truncate(position)
            plain = plain[:position].ljust(position, b"\0")
        else:
            data = noise(length, 100 * number + step)
            file.write(position, data)
            plain = plain.ljust(position, b"\0")
            plain[position : position + length] = data
    with file.snapshot() as snapshot:
        sealed = await device.sealer.seal_content(snapshot, base, NAMESPACE, KEYS)
        touched, base_limit = snapshot.touched(), snapshot.base_limit
    file.discard()
    content = as_content(sealed)
    assert sealed.size == len(plain)
    assert await device.read_all(content) == plain
    after = set(await device.entries(content))
    start = 0
    for entry in await device.entries(base):
        end = start + entry.length
        is_untouched = end <= base_limit and not any(
            low < end and start < high for low, high in touched
        )
        # Shorter ones beside a change are sealed anew, lest edits leave ever shorter blocks.
        if entry.block and is_untouched and entry.length >= CHUNK_SIZES.average:
            assert entry in after
            assert entry.block not in sealed.new_blocks
            event("an untouched block stayed")
        start = end
    event(f"inline: {content.manifest is None}")
    return content, bytes(plain)
