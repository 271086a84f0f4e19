"""What only the block store on disk does: its files, and what a full disk does to them."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from server.blobs.disk import DiskBlockStore
from server.errors import BlockError, SettingsError, StorageFullError
from tests.server.blobs.test_contract import content, put
from tests.server.client import some_block


def files(directory):
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )


def test_a_block_lies_under_its_id_and_nothing_else_stays(tmp_path):
    block = some_block(2_000_000)

    async def store_and_fail():
        store = DiskBlockStore(tmp_path, 0)
        await put(store, block.id, block.frame)
        with pytest.raises(BlockError):
            await put(store, some_block(1).id, block.frame)

    asyncio.run(store_and_fail())
    name = str(block.id)
    assert files(tmp_path) == [f"blocks/{name[:2]}/{name}"]


def test_what_a_former_server_left_unfinished_is_removed(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "abc").write_bytes(b"half a block")
    asyncio.run(_open(tmp_path))
    assert files(tmp_path) == []


def test_blocks_outlive_the_store_object(tmp_path):
    block = some_block(5000)

    async def first():
        await put(DiskBlockStore(tmp_path, 0), block.id, block.frame)

    async def second():
        return await content(DiskBlockStore(tmp_path, 0), block.id)

    asyncio.run(first())
    assert asyncio.run(second()) == block.frame


def test_a_directory_that_can_not_be_made_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="can not be used"):
        asyncio.run(_open(tmp_path / "file"))


def test_the_reserve_is_left_free(tmp_path):
    block = some_block(5000)

    async def fill():
        store = DiskBlockStore(tmp_path, 2**60)
        with pytest.raises(StorageFullError):
            await put(store, block.id, block.frame)
        return await store.is_ready()

    assert not asyncio.run(fill())
    assert files(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_refuses_a_block_and_keeps_the_others_whole(tmp_path, monkeypatch):
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "atoll-test", str(mounted)], check=True
    )
    try:
        blocks = [some_block(900_000) for _ in range(6)]

        async def fill():
            store = DiskBlockStore(mounted, 0)
            # The check of free space is what usually refuses; here the write itself must.
            monkeypatch.setattr(store, "check_space", lambda size_bytes: None)
            outcomes = []
            for block in blocks:
                try:
                    await put(store, block.id, block.frame)
                    outcomes.append(block)
                except StorageFullError:
                    pass
            assert 2 <= len(outcomes) < len(blocks)
            for block in outcomes:
                assert await content(store, block.id) == block.frame
            return len(outcomes)

        assert asyncio.run(fill()) == len(files(mounted))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


async def _open(directory):
    return DiskBlockStore(directory, 0)
