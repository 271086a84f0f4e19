"""Borders do not depend on windows, and a planned rewrite gives the content that was meant."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from node.core.chunking import (
    CHUNK_SIZES,
    BaseEntry,
    ChunkSizes,
    Hole,
    Keep,
    Rechunk,
    chunker_seed,
    plan_chunks,
    plan_rewrite,
)

SMALL = ChunkSizes(64, 256, 1024)
KIB = 1024
MIB = 1024 * KIB


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def cut_in_windows(data: bytes, window_bytes: int, sizes: ChunkSizes, seed: int = 7) -> list[int]:
    lengths: list[int] = []
    start = end = 0
    while start < len(data):
        end = min(max(end, start) + window_bytes, len(data))
        found = plan_chunks(data[start:end], seed=seed, is_last=end == len(data), sizes=sizes)
        assert found or end - start < sizes.maximum
        lengths += found
        start += sum(found)
    return lengths


@given(seed=st.integers(0, 100), size=st.integers(0, 8000), window=st.integers(1, 5000))
def test_borders_are_the_same_in_windows_of_any_size(seed: int, size: int, window: int):
    data = random_bytes(seed, size)
    whole = plan_chunks(data, seed=7, is_last=True, sizes=SMALL)
    assert cut_in_windows(data, window, SMALL) == whole
    assert sum(whole) == size
    assert all(SMALL.minimum <= length <= SMALL.maximum for length in whole[:-1])


def test_real_sizes_cut_within_their_bounds_and_near_their_average():
    data = random_bytes(1, 48 * MIB)
    lengths = cut_in_windows(data, 8 * MIB, CHUNK_SIZES)
    assert lengths == plan_chunks(data, seed=7, is_last=True)
    assert all(256 * KIB <= length <= 4 * MIB for length in lengths[:-1])
    assert 0.7 * MIB < 48 * MIB / len(lengths) < 2 * MIB


def test_a_window_of_the_maximum_always_yields_a_chunk():
    assert plan_chunks(bytes(4 * MIB), seed=7, is_last=False) == [4 * MIB]
    assert plan_chunks(bytes(4 * MIB - 1), seed=7, is_last=False) == []
    assert plan_chunks(b"", seed=7, is_last=True) == []


def test_the_seed_moves_the_borders_and_every_key_gives_a_usable_one():
    data = random_bytes(2, 16 * MIB)
    seeds = [chunker_seed(key) for key in (bytes(32), b"\xff" * 32, bytes(range(32)))]
    assert len({tuple(plan_chunks(data, seed=seed, is_last=True)) for seed in seeds}) == 3


def contents(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length


def test_an_insertion_into_a_rewritten_file_changes_about_one_chunk():
    data = random_bytes(3, 32 * MIB)
    changed = data[: 10 * MIB] + b"inserted" + data[10 * MIB :]
    before = set(contents(data, plan_chunks(data, seed=7, is_last=True)))
    after = list(contents(changed, plan_chunks(changed, seed=7, is_last=True)))
    assert len(after) > 15
    assert 1 <= sum(chunk not in before for chunk in after) <= 2


def entries_of(*lengths: int) -> list[BaseEntry]:
    return [BaseEntry(length) for length in lengths]


def test_an_untouched_file_keeps_all():
    assert plan_rewrite(entries_of(300, 300, 20), 620, [], 620, SMALL) == [Keep(0, 3)]
    assert plan_rewrite([], 0, [], 0, SMALL) == []


def test_an_edit_in_place_replaces_only_the_entries_that_it_touches():
    entries = entries_of(*[300] * 10)
    assert plan_rewrite(entries, 3000, [(1000, 1001)], 3000, SMALL) == [
        Keep(0, 3),
        Rechunk(900, 1200),
        Keep(4, 6),
    ]
    assert plan_rewrite(entries, 3000, [(299, 301), (2999, 3000)], 3000, SMALL) == [
        Rechunk(0, 600),
        Keep(2, 7),
        Rechunk(2700, 3000),
    ]


def test_a_truncation_cuts_the_entry_that_it_meets():
    entries = entries_of(300, 300, 300)
    assert plan_rewrite(entries, 450, [], 450, SMALL) == [Keep(0, 1), Rechunk(300, 450)]
    assert plan_rewrite(entries, 600, [], 600, SMALL) == [Keep(0, 2)]
    assert plan_rewrite(entries, 0, [], 0, SMALL) == []


def test_growing_without_writing_adds_a_hole():
    entries = entries_of(300, 300)
    assert plan_rewrite(entries, 600, [], 5000, SMALL) == [Keep(0, 2), Hole(4400)]
    assert plan_rewrite(entries, 450, [], 5000, SMALL) == [
        Keep(0, 1),
        Rechunk(300, 450),
        Hole(4550),
    ]
    assert plan_rewrite([], 0, [], 10, SMALL) == [Hole(10)]


def test_an_appended_tail_joins_a_short_last_entry_and_leaves_a_long_one():
    assert plan_rewrite(entries_of(300, 255), 555, [(555, 560)], 560, SMALL) == [
        Keep(0, 1),
        Rechunk(300, 560),
    ]
    assert plan_rewrite(entries_of(300, 256), 556, [(556, 560)], 560, SMALL) == [
        Keep(0, 2),
        Rechunk(556, 560),
    ]


def test_a_tiny_entry_beside_a_change_is_absorbed_but_not_one_that_ends_the_file():
    assert plan_rewrite(entries_of(300, 10, 300), 610, [(400, 401)], 610, SMALL) == [
        Keep(0, 1),
        Rechunk(300, 610),
    ]
    assert plan_rewrite(entries_of(300, 300, 10), 610, [(400, 401)], 610, SMALL) == [
        Keep(0, 1),
        Rechunk(300, 600),
        Keep(2, 1),
    ]


def test_a_touched_hole_stays_a_hole_where_it_was_not_touched():
    entries = [BaseEntry(300), BaseEntry(10**12, is_hole=True), BaseEntry(300)]
    size = 600 + 10**12
    assert plan_rewrite(entries, size, [(10**6, 10**6 + 5)], size, SMALL) == [
        Keep(0, 1),
        Hole(10**6 - 300),
        Rechunk(10**6, 10**6 + 5),
        Hole(10**12 + 300 - 10**6 - 5),
        Keep(2, 1),
    ]


def test_small_gaps_between_writes_are_filled_with_zeros_instead_of_holes():
    assert plan_rewrite([], 0, [(0, 100), (163, 200)], 263, SMALL) == [Rechunk(0, 263)]
    assert plan_rewrite([], 0, [(0, 100), (164, 200)], 264, SMALL) == [
        Rechunk(0, 100),
        Hole(64),
        Rechunk(164, 200),
        Hole(64),
    ]


def test_a_file_written_whole_is_cut_as_one_stream():
    entries = entries_of(*[300] * 10)
    assert plan_rewrite(entries, 3000, [(0, 3100)], 3100, SMALL) == [Rechunk(0, 3100)]


class NaiveFile:
    """The same edits on plain bytes, beside what staging would remember of them."""

    def __init__(self, base: bytes) -> None:
        self.data = bytearray(base)
        self.base_limit = len(base)
        self.touched: set[int] = set()

    def write(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
        self.data[offset : offset + len(data)] = data
        self.touched.update(range(offset, offset + len(data)))

    def truncate(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]
        self.base_limit = min(self.base_limit, size)
        self.touched = {position for position in self.touched if position < size}

    def touched_ranges(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for position in sorted(self.touched):
            if ranges and ranges[-1][1] == position:
                ranges[-1] = (ranges[-1][0], position + 1)
            else:
                ranges.append((position, position + 1))
        return ranges


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 6000), st.integers(1, 700)),
        st.tuples(st.just("truncate"), st.integers(0, 7000), st.just(0)),
    ),
    max_size=6,
)
BASES = st.lists(
    st.tuples(st.integers(1, SMALL.maximum), st.sampled_from([False, False, False, True])),
    max_size=8,
)


@given(base=BASES, edits=EDITS, seed=st.integers(0, 1000))
def test_a_carried_out_plan_gives_the_edited_content(
    base: list[tuple[int, bool]], edits: list[tuple[str, int, int]], seed: int
):
    blocks = [
        bytes(length) if is_hole else random_bytes(seed + index, length)
        for index, (length, is_hole) in enumerate(base)
    ]
    file = NaiveFile(b"".join(blocks))
    for index, (kind, offset, length) in enumerate(edits):
        if kind == "write":
            file.write(offset, random_bytes(seed + 100 + index, length))
        else:
            file.truncate(offset)

    entries = [BaseEntry(length, is_hole) for length, is_hole in base]
    steps = plan_rewrite(entries, file.base_limit, file.touched_ranges(), len(file.data), SMALL)

    rebuilt = bytearray()
    for step in steps:
        event(type(step).__name__)
        match step:
            case Keep(first, count):
                assert all(not base[index][1] for index in range(first, first + count))
                rebuilt += b"".join(blocks[first : first + count])
            case Rechunk(start, end):
                assert start == len(rebuilt)
                piece = bytes(file.data[start:end])
                lengths = cut_in_windows(piece, SMALL.maximum, SMALL)
                assert all(0 < length <= SMALL.maximum for length in lengths)
                rebuilt += b"".join(contents(piece, lengths))
            case Hole(length):
                rebuilt += bytes(length)
    assert bytes(rebuilt) == bytes(file.data)
    assert all(
        type(one) is not type(next_) for one, next_ in pairwise(steps) if type(one) is not Keep
    )


@given(
    lengths=st.lists(st.integers(SMALL.average, SMALL.maximum), min_size=1, max_size=20),
    data=st.data(),
)
def test_no_entry_is_replaced_unless_a_write_touched_it(lengths: list[int], data: st.DataObject):
    size = sum(lengths)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    steps = plan_rewrite(entries_of(*lengths), size, [(start, end)], size, SMALL)
    kept = {
        index
        for step in steps
        if isinstance(step, Keep)
        for index in range(step.first, step.first + step.count)
    }
    offset = 0
    for index, length in enumerate(lengths):
        assert (index in kept) == (end <= offset or start >= offset + length)
        offset += length


def test_a_plan_refuses_a_base_that_reaches_beyond_the_file():
    with pytest.raises(AssertionError):
        plan_rewrite(entries_of(300), 300, [], 200, SMALL)
