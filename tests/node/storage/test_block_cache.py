"""The block cache keeps what it must, gives up what it may, and survives what the disk does."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from node.errors import StorageError
from node.storage import block_cache
from node.storage.block_cache import BlockCache
from protocol.ids import BlockId


def frame(number: int, size: int = 1000) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def block_of(data: bytes) -> BlockId:
    return BlockId(hashlib.sha256(data).digest())


def path_of(directory: Path, block: BlockId) -> Path:
    return directory / str(block)[:2] / str(block)


def has_pending(cache: BlockCache) -> bool:
    return cache.has_pending


def put_many(cache: BlockCache, count: int) -> list[BlockId]:
    blocks = []
    for number in range(count):
        data = frame(number)
        blocks.append(block_of(data))
        cache.put(blocks[-1], data)
    return blocks


def test_a_block_comes_back_and_is_found_by_the_next_run(tmp_path: Path):
    cache = BlockCache(tmp_path)
    blocks = put_many(cache, 5)
    cache.put(blocks[0], frame(0))
    for found in (cache, BlockCache(tmp_path)):
        assert found.used_bytes == 5000
        assert [found.get(block) for block in blocks] == [frame(number) for number in range(5)]
        assert found.contains(blocks[3])
        assert not found.contains(block_of(b"other"))
        assert found.get(block_of(b"other")) is None
    path = path_of(tmp_path, blocks[0])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_a_crash_left_half_written_is_removed(tmp_path: Path):
    cache = BlockCache(tmp_path)
    (block,) = put_many(cache, 1)
    folder = path_of(tmp_path, block).parent
    torn = folder / f"{block}.7.new"
    torn.write_bytes(b"half")
    empty = folder / (str(block)[:2] + "0" * 62)
    empty.touch()
    (folder / "notes").write_bytes(b"mine")
    (tmp_path / "stray").write_bytes(b"mine")
    found = BlockCache(tmp_path)
    assert found.used_bytes == 1000
    assert not torn.exists()
    assert not empty.exists()
    assert (folder / "notes").exists()
    assert (tmp_path / "stray").exists()


def test_the_longest_unused_blocks_are_evicted(tmp_path: Path):
    cache = BlockCache(tmp_path, limit_bytes=5000)
    blocks = put_many(cache, 5)
    cache.get(blocks[0])
    cache.put(block_of(frame(9)), frame(9))
    assert [cache.contains(block) for block in blocks] == [True, False, False, True, True]
    assert cache.used_bytes == 4000
    assert not path_of(tmp_path, blocks[1]).exists()


def test_protected_and_unsynced_blocks_stay_above_the_limit(tmp_path: Path):
    cache = BlockCache(tmp_path, limit_bytes=2500)
    cache.protect([block_of(frame(0))])
    cache.put(block_of(frame(0)), frame(0))
    cache.put_new(block_of(frame(1)), frame(1))
    put_many(cache, 6)
    assert cache.get(block_of(frame(0))) == frame(0)
    assert cache.get(block_of(frame(1))) == frame(1)
    cache.sync_pending()
    cache.unprotect([block_of(frame(0))])
    cache.put(block_of(frame(7)), frame(7))
    assert cache.used_bytes <= 2500


def test_only_blocks_sealed_here_are_synced_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    monkeypatch.setattr(
        os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino)
    )
    cache = BlockCache(tmp_path)
    cache.put(block_of(frame(0)), frame(0))
    cache.sync_pending()
    assert synced == []
    assert not has_pending(cache)
    for number in (1, 2, 3):
        cache.put_new(block_of(frame(number)), frame(number))
    assert has_pending(cache)
    cache.sync_pending()
    cache.sync_pending()
    assert not has_pending(cache)
    assert sorted(synced) == sorted(
        path_of(tmp_path, block_of(frame(number))).stat().st_ino for number in (1, 2, 3)
    )


def test_a_failed_sync_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    cache = BlockCache(tmp_path)
    cache.put_new(block_of(frame(1)), frame(1))
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError):
            cache.sync_pending()
    assert has_pending(cache)
    cache.sync_pending()
    assert not has_pending(cache)


def test_a_block_that_vanished_before_its_sync_is_an_error(tmp_path: Path):
    cache = BlockCache(tmp_path)
    cache.put_new(block_of(frame(1)), frame(1))
    path_of(tmp_path, block_of(frame(1))).unlink()
    with pytest.raises(StorageError):
        cache.sync_pending()


def test_a_sync_passes_over_a_block_that_is_just_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = BlockCache(tmp_path / "blocks")
    first, second = frame(1), frame(2)
    cache.put_new(block_of(first), first)
    write = block_cache._write

    def write_while_another_syncs(path: Path, data: bytes) -> None:
        cache.sync_pending()
        write(path, data)

    monkeypatch.setattr(block_cache, "_write", write_while_another_syncs)
    cache.put_new(block_of(second), second)
    assert has_pending(cache), "the second one still waits for a sync"
    cache.sync_pending()
    assert not has_pending(cache)


def test_a_block_put_again_during_a_sync_waits_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = BlockCache(tmp_path)
    block = block_of(frame(1))
    cache.put_new(block, frame(1))
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: cache.put_new(block, frame(1)))
    cache.sync_pending()
    assert has_pending(cache)


def test_discard_removes_a_damaged_block_and_keeps_a_good_only_copy(tmp_path: Path):
    cache = BlockCache(tmp_path)
    block = block_of(frame(1))
    cache.put(block, frame(1))
    cache.protect([block])
    cache.discard(block)
    assert cache.get(block) == frame(1)
    path_of(tmp_path, block).write_bytes(b"damaged")
    cache.discard(block)
    assert (cache.contains(block), cache.get(block), cache.used_bytes) == (False, None, 0)
    cache.discard(block)
    cache.put(block, frame(1))
    assert cache.get(block) == frame(1)


def test_a_block_that_somebody_removed_counts_no_longer(tmp_path: Path):
    cache = BlockCache(tmp_path)
    (block,) = put_many(cache, 1)
    path_of(tmp_path, block).unlink()
    assert cache.get(block) is None
    assert (cache.contains(block), cache.used_bytes) == (False, 0)


@pytest.mark.parametrize("written", [0, 300])
def test_a_full_disk_leaves_nothing_of_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
):
    write = os.write

    def fill(descriptor: int, data: bytes) -> int:
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:written])

    cache = BlockCache(tmp_path)
    block = block_of(frame(1))
    with monkeypatch.context() as full:
        full.setattr(block_cache.__dict__["os"], "write", fill)
        for put in (cache.put, cache.put_new):
            with pytest.raises(StorageError) as raised:
                put(block, frame(1))
            assert (raised.value.errno, raised.value.is_transient) == (errno.ENOSPC, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert (cache.contains(block), cache.used_bytes, cache.has_pending) == (False, 0, False)
    cache.put(block, frame(1))
    assert cache.get(block) == frame(1)


def test_threads_that_put_the_same_blocks_into_a_full_cache_lose_none_that_they_protect(
    tmp_path: Path,
):
    cache = BlockCache(tmp_path, limit_bytes=20_000)
    frames = {block_of(frame(number)): frame(number) for number in range(200)}
    kept = list(frames)[:10]
    failures: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            blocks = list(frames)
            for block in blocks[offset:] + blocks[:offset]:
                if block in kept:
                    cache.protect([block])
                    cache.put_new(block, frames[block])
                    assert cache.get(block) == frames[block]
                else:
                    cache.put(block, frames[block])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(50 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    cache.sync_pending()
    assert [cache.get(block) for block in kept] == [frames[block] for block in kept]
    stored = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.used_bytes == 1000 * len(stored) <= 20_000
