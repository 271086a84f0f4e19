"""A part of a cached block is what the whole block holds there; what is not right is left to others."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.storage.block_cache import BlockCache
from node.sync.block_fetcher import BlockFetcher
from node.sync.block_parts import BlockParts
from protocol.crypto.blocks import SEGMENT_BYTES, seal_block
from protocol.manifests import Entry
from tests.node.sync.worlds import KEYS

PLAIN = random.Random(1).randbytes(2 * SEGMENT_BYTES) + bytes(SEGMENT_BYTES) + b"the end"


@pytest.fixture
def cache(tmp_path):
    return BlockCache(tmp_path)


@pytest.fixture
def parts(cache):
    return BlockParts(BlockFetcher(cache, []))


@pytest.fixture
def entry(cache):
    sealed = seal_block(KEYS.dedup, PLAIN)
    cache.put(sealed.id, sealed.frame)
    return Entry.of_block(sealed)


@given(offset=st.integers(0, len(PLAIN)), size=st.integers(0, SEGMENT_BYTES))
def test_any_part_is_the_slice_of_the_whole(tmp_path_factory, offset, size):
    sealed = seal_block(KEYS.dedup, PLAIN)
    cache = BlockCache(tmp_path_factory.mktemp("cache"))
    cache.put(sealed.id, sealed.frame)
    parts = BlockParts(BlockFetcher(cache, []))
    for _ in range(2):  # with and without the header kept
        assert parts.read(Entry.of_block(sealed), offset, size) == PLAIN[offset : offset + size]


def test_a_part_reads_no_more_of_the_disk_than_its_segments(parts, entry, tmp_path):
    path = tmp_path / str(entry.block)[:2] / str(entry.block)
    frame = path.read_bytes()
    # Everything behind the first segment is gone.
    path.write_bytes(frame[: SEGMENT_BYTES + 4096])
    assert parts.read(entry, 100, 4096) == PLAIN[100:4196]
    assert parts.read(entry, SEGMENT_BYTES, 4096) is None


def test_a_part_that_is_too_long_for_the_loop_is_left_to_a_thread(parts, entry):
    assert parts.read(entry, 0, SEGMENT_BYTES + 1) is None


def test_a_block_that_is_not_here_has_no_parts(parts, entry, cache):
    assert parts.read(entry, 0, 10) == PLAIN[:10]
    cache.discard(entry.block)
    assert parts.read(entry, 0, 10) is None


def test_a_damaged_segment_does_not_open(parts, entry, tmp_path):
    path = tmp_path / str(entry.block)[:2] / str(entry.block)
    frame = bytearray(path.read_bytes())
    frame[-1] ^= 1
    path.write_bytes(frame)
    assert parts.read(entry, len(PLAIN) - 7, 7) is None
    assert parts.read(entry, 0, 7) == PLAIN[:7]


def test_a_damaged_header_is_no_header(parts, entry, tmp_path):
    path = tmp_path / str(entry.block)[:2] / str(entry.block)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert parts.read(entry, 0, 7) is None


def test_who_knows_only_the_id_gets_nothing(parts, entry):
    stranger = Entry(entry.block, bytes(32), entry.length)
    assert parts.read(entry, 0, 7) == PLAIN[:7]
    assert parts.read(stranger, 0, 7) is None
