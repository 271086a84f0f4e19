"""A staged file reads as plain bytes would, whatever was written, flushed, published and reopened."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from node.errors import StorageError
from node.storage import staging_log
from node.storage.staging import StagingStore
from node.storage.staging_format import MAX_CUTS, SEGMENT_BYTES, SLOT_STRIDE
from node.storage.staging_pieces import BaseRange, StagedBytes, Zeros
from node.storage.staging_snapshot import StagingSnapshot
from tests.node.storage.staging_model import (
    KEY,
    ModelFile,
    content,
    filled,
    random_bytes,
    reopened,
)

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> StagingStore:
    return StagingStore(tmp_path, KEY)


def test_a_read_says_what_is_staged_what_is_the_base_and_what_is_zero(store: StagingStore):
    file = store.create(100, b"label")
    file.write(10, b"staged")
    file.truncate(50)
    file.truncate(70)
    assert file.read(0, 1000) == [
        BaseRange(0, 10),
        StagedBytes(10, memoryview(b"staged")),
        BaseRange(16, 34),
        Zeros(50, 20),
    ]
    assert file.read(12, 3) == [StagedBytes(12, memoryview(b"age"))]
    assert file.read(70, 5) == []
    assert file.read(75, 5) == []
    assert (file.size, file.base_limit, file.touched()) == (70, 50, [(10, 16)])


def test_nothing_is_on_the_disk_before_a_flush_and_everything_after_it(
    store: StagingStore, tmp_path: Path
):
    file = store.create(0, b"label")
    file.write(0, b"hello")
    assert list(tmp_path.iterdir()) == []
    file.flush()
    found = reopened(tmp_path)
    assert (found.identity, found.label, content(found, b"")) == (file.identity, b"label", b"hello")
    assert found.unreadable_slots == 0


def test_an_empty_file_survives_its_flush(store: StagingStore, tmp_path: Path):
    store.create(0, b"empty").flush()
    found = reopened(tmp_path)
    assert (found.size, found.base_limit, found.label) == (0, 0, b"empty")


def test_a_small_file_takes_one_page_on_the_disk(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"x" * 64)
    file.write(0, bytes(1000))
    file.flush()
    file.flush()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 4096
    assert path.stat().st_mode & 0o777 == 0o600


def test_neither_the_bytes_nor_the_label_are_on_the_disk_in_clear(
    store: StagingStore, tmp_path: Path
):
    file = store.create(0, b"LABEL-LABEL-LABEL")
    file.write(0, b"CONTENT-CONTENT-CONTENT" * 10000)
    file.flush()
    stored = b"".join(path.name.encode() + path.read_bytes() for path in tmp_path.iterdir())
    assert b"CONTENT" not in stored
    assert b"LABEL" not in stored


def test_rewriting_a_file_again_and_again_does_not_make_it_grow(
    store: StagingStore, tmp_path: Path
):
    file = store.create(0, b"")
    (data, other) = (random_bytes(1, MIB), random_bytes(2, MIB))
    for _ in range(10):
        file.write(0, data)
        file.write(0, other)
        file.sync()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 3 * 16 * SLOT_STRIDE
    assert content(file, b"") == other


def test_a_file_truncated_to_nothing_gives_its_room_back(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"")
    file.write(0, bytes(8 * MIB))
    file.sync()
    file.truncate(0)
    file.sync()
    for _ in range(2):
        file.write(0, b"again")
        file.sync()
    file.flush()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < MIB
    assert content(reopened(tmp_path), b"") == b"again"


def test_memory_is_bounded_over_all_files(tmp_path: Path):
    store = StagingStore(tmp_path, KEY, memory_limit_bytes=4 * SEGMENT_BYTES)
    files = [store.create(0, bytes([index])) for index in range(20)]
    for index, file in enumerate(files):
        for segment in range(3):
            file.write(segment * SEGMENT_BYTES, bytes([index, segment]))
            assert store.unflushed_segments <= 4
    for index, file in enumerate(files):
        (first, *_, last) = file.read(0, 10 * SEGMENT_BYTES)
        assert isinstance(first, StagedBytes)
        assert isinstance(last, StagedBytes)
        assert (bytes(first.data), bytes(last.data)) == (bytes([index, 0]), bytes([index, 2]))


def test_more_files_than_descriptors_can_be_in_use(tmp_path: Path):
    store = StagingStore(tmp_path, KEY, descriptor_limit=2)
    files = [store.create(0, bytes([index])) for index in range(10)]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for index, file in enumerate(files):
            file.write(file.size, bytes([index]) * 10)
            file.flush()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    for index, file in enumerate(files):
        assert content(file, b"") == bytes([index]) * 30
    store.close()
    found = StagingStore(tmp_path, KEY).open_all().files
    assert sorted(content(file, b"") for file in found) == [
        bytes([index]) * 30 for index in range(10)
    ]


def test_a_discarded_file_is_gone_and_refuses_everything(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"")
    file.write(0, b"x")
    file.flush()
    file.write(5, b"y")
    file.discard()
    assert list(tmp_path.iterdir()) == []
    assert store.unflushed_segments == 0
    for attempt in (file.flush, file.sync, file.snapshot, lambda: file.write(0, b"z")):
        with pytest.raises(StorageError):
            attempt()


def test_a_file_that_is_sent_to_the_disk_early_is_as_it_was(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"label")
    data = random_bytes(1, 2 * MIB)
    file.write(0, data)
    file.start_write_out()
    file.write(MIB, b"later")
    file.sync()
    expected = data[:MIB] + b"later" + data[MIB + 5 :]
    assert content(reopened(tmp_path), b"") == expected
    file.discard()
    with pytest.raises(StorageError):
        file.start_write_out()


def test_damage_on_the_disk_is_an_error_and_not_other_bytes(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"")
    file.write(0, bytes(2 * SEGMENT_BYTES))
    file.flush()
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    raw[SLOT_STRIDE + 1000] ^= 1
    path.write_bytes(raw)
    assert len(file.read(0, SEGMENT_BYTES)) == 1
    with pytest.raises(StorageError, match="do not verify"):
        file.read(SEGMENT_BYTES, 1)


def test_a_snapshot_stays_as_it_was_while_the_file_is_rewritten_and_discarded(
    store: StagingStore,
):
    file = store.create(0, b"label")
    first = random_bytes(1, 300_000)
    file.write(0, first)
    snapshot = file.snapshot()
    assert file.is_unchanged_since(snapshot)
    for seed in range(5):
        file.write(1000 * seed, random_bytes(seed, 200_000))
        file.sync()
    assert not file.is_unchanged_since(snapshot)
    file.truncate(0)
    file.write(0, random_bytes(9, 300_000))
    file.sync()
    assert filled(snapshot.read(0, 10**6), 0, b"") == first
    file.discard()
    assert filled(snapshot.read(0, 10**6), 0, b"") == first
    assert snapshot.touched() == [(0, 300_000)]
    snapshot.close()
    snapshot.close()


def test_slots_of_a_closed_snapshot_are_used_again(store: StagingStore, tmp_path: Path):
    file = store.create(0, b"")
    for seed in range(20):
        file.write(0, random_bytes(seed, MIB))
        with file.snapshot():
            file.write(0, random_bytes(seed + 100, MIB))
            file.flush()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 3 * 16 * SLOT_STRIDE


def test_after_a_rebase_only_later_changes_are_staged(store: StagingStore, tmp_path: Path):
    base = random_bytes(1, 500_000)
    model = ModelFile(base)
    file = store.create(len(base), b"old base")
    for target in (file, model):
        target.write(100_000, b"a" * 100)
        target.truncate(400_000)
        target.truncate(450_000)
    snapshot = file.snapshot()
    published = bytes(model.data)
    for target in (file, model):
        target.write(300_000, b"b" * 10)
        target.truncate(420_000)
        target.truncate(430_000)
    file.rebase(snapshot, b"new base")
    snapshot.close()
    assert (file.label, file.base_limit, file.touched()) == (
        b"new base",
        420_000,
        [(300_000, 300_010)],
    )
    assert content(file, published) == model.data
    file.flush()
    found = reopened(tmp_path)
    assert (found.label, found.base_limit) == (b"new base", 420_000)
    assert found.touched() == [(300_000, 300_010)]
    assert content(found, published) == model.data


def test_many_truncations_at_growing_sizes_are_remembered(store: StagingStore, tmp_path: Path):
    model = ModelFile(b"")
    file = store.create(0, b"")
    for index in range(3 * MAX_CUTS):
        size = (index + 1) * SEGMENT_BYTES // 2
        data = random_bytes(index, 2 * SEGMENT_BYTES)
        for target in (file, model):
            target.write(max(0, size - SEGMENT_BYTES), data)
            target.truncate(size)
        file.flush()
        if index % 8 == 7:
            for target in (file, model):
                target.truncate(10 * MIB)
            file.flush()
            assert content(reopened(tmp_path), b"") == model.data
            for target in (file, model):
                target.truncate(size)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.integers(0, 4 * SEGMENT_BYTES),
            st.one_of(st.integers(1, 5000), st.sampled_from([65536, 131072, 200_000])),
        ),
        st.tuples(
            st.just("write"),
            st.integers(0, 4).map(lambda segment: segment * SEGMENT_BYTES),
            st.integers(1, 3).map(lambda segments: segments * SEGMENT_BYTES),
        ),
        st.tuples(st.just("truncate"), st.integers(0, 6 * SEGMENT_BYTES), st.just(0)),
        st.tuples(
            st.sampled_from(["flush", "sync", "snapshot", "close", "rebase", "reopen"]),
            st.integers(0, 3),
            st.just(0),
        ),
    ),
    max_size=25,
)


class Pair:
    """A staged file and its model, through all that can happen to them."""

    def __init__(self, directory: Path, base: bytes) -> None:
        self.directory = directory
        self.store = StagingStore(directory, KEY, memory_limit_bytes=2 * SEGMENT_BYTES)
        self.file = self.store.create(len(base), b"0")
        self.model = ModelFile(base)
        self.bases = [base]
        self.snapshots: list[tuple[StagingSnapshot, bytes, bytes]] = []

    @property
    def base(self) -> bytes:
        return self.bases[int(self.file.label)]

    def check(self) -> None:
        assert content(self.file, self.base) == self.model.data
        for snapshot, base, data in self.snapshots:
            assert filled(snapshot.read(0, snapshot.size), 0, base) == data
        for start, end in self.file.touched():
            assert start < end <= self.file.size

    def apply(self, kind: str, first: int, second: int, seed: int) -> None:
        match kind:
            case "write":
                data = random_bytes(seed, second)
                self.file.write(first, data)
                self.model.write(first, data)
            case "truncate":
                self.file.truncate(first)
                self.model.truncate(first)
            case "flush":
                self.file.flush()
            case "sync":
                self.file.sync()
            case "snapshot":
                snapshot = self.file.snapshot()
                self.snapshots.append((snapshot, self.base, bytes(self.model.data)))
            case "close" if self.snapshots:
                self.snapshots.pop(first % len(self.snapshots))[0].close()
            case "rebase":
                if not self.snapshots:
                    self.apply("snapshot", 0, 0, seed)
                self.rebase(first % len(self.snapshots))
            case "reopen":
                self.reopen()
            case _:
                return
        event(kind)

    def rebase(self, index: int) -> None:
        for snapshot, *_ in self.snapshots[:index]:
            snapshot.close()
        snapshot, _, data = self.snapshots[index]
        self.bases.append(data)
        self.file.rebase(snapshot, b"%d" % (len(self.bases) - 1))
        snapshot.close()
        del self.snapshots[: index + 1]

    def reopen(self) -> None:
        self.file.flush()
        while self.snapshots:
            self.snapshots.pop()[0].close()
        self.store.close()
        self.store = StagingStore(self.directory, KEY, memory_limit_bytes=2 * SEGMENT_BYTES)
        recovery = self.store.open_all()
        (self.file,) = recovery.files
        assert recovery.damaged == ()
        assert self.file.unreadable_slots == 0


@pytest.fixture
def few_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a few truncations reach what otherwise takes dozens."""
    monkeypatch.setattr(staging_log, "MAX_CUTS", 2)


@pytest.mark.usefixtures("few_cuts")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base_size=st.sampled_from([0, 1, 70_000, 300_000]), operations=OPERATIONS)
def test_a_staged_file_equals_its_model(
    tmp_path_factory: pytest.TempPathFactory,
    base_size: int,
    operations: list[tuple[str, int, int]],
):
    pair = Pair(tmp_path_factory.mktemp("staging"), random_bytes(99, base_size))
    for seed, (kind, first, second) in enumerate(operations):
        pair.apply(kind, first, second, seed)
        pair.check()
    pair.reopen()
    pair.check()
    pair.file.discard()
    pair.store.close()
