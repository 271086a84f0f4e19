"""What a crash, a kill, a loss of power, a full disk and damage leave of a staged file."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from node.errors import StorageError
from node.storage import staging_log
from node.storage.staging import StagingStore
from node.storage.staging_file import StagingFile
from node.storage.staging_format import SEGMENT_BYTES, SLOT_STRIDE
from tests.node.storage.staging_model import (
    KEY,
    ModelFile,
    content,
    content_of,
    random_bytes,
    reopened,
)

PAGE = 4096


def only_path(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def test_a_file_that_ends_anywhere_in_its_last_flush_is_as_it_was_before_or_after(tmp_path: Path):
    (tmp_path / "live").mkdir()
    store = StagingStore(tmp_path / "live", KEY)
    file = store.create(0, b"label")
    file.write(0, b"A" * (2 * SEGMENT_BYTES + 500))
    file.flush()
    path = only_path(tmp_path / "live")
    before = path.stat().st_size
    file.write(0, b"B" * SEGMENT_BYTES)
    file.flush()
    raw = path.read_bytes()

    def found_with(size: int) -> StagingFile:
        shutil.rmtree(tmp_path / "crashed", ignore_errors=True)
        (tmp_path / "crashed").mkdir()
        (tmp_path / "crashed" / path.name).write_bytes(raw[:size])
        return reopened(tmp_path / "crashed")

    old = b"A" * (2 * SEGMENT_BYTES + 500)
    new = b"B" * SEGMENT_BYTES + b"A" * (SEGMENT_BYTES + 500)
    last_slot = 3 * SLOT_STRIDE
    sizes = [before, last_slot, last_slot + 1, last_slot + 47, last_slot + 48, last_slot + 49]
    sizes += [*range(last_slot + PAGE, len(raw), PAGE), len(raw) - 1]
    for size in sizes:
        assert content(found_with(size), b"") == old
    assert content(found_with(len(raw)), b"") == new
    assert content(found_with(before - 1), b"")[: 2 * SEGMENT_BYTES] == old[: 2 * SEGMENT_BYTES]


@pytest.mark.parametrize("within", [0, 5, 40, 48, 1000, SEGMENT_BYTES // 2, SEGMENT_BYTES + 60])
def test_damage_in_one_slot_costs_that_segment_only_and_is_counted(tmp_path: Path, within: int):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    data = random_bytes(1, 5 * SEGMENT_BYTES)
    file.write(0, data)
    file.flush()
    path = only_path(tmp_path)
    raw = path.read_bytes()
    for slot in range(5):
        damaged = bytearray(raw)
        damaged[slot * SLOT_STRIDE + within] ^= 0x10
        path.write_bytes(damaged)
        found = reopened(tmp_path)
        start, end = slot * SEGMENT_BYTES, (slot + 1) * SEGMENT_BYTES
        assert (found.label, found.unreadable_slots) == (b"label", 1)
        # The last slot alone tells how far the file goes.
        lost = bytes(SEGMENT_BYTES) if slot < 4 else b""
        assert content(found, b"") == data[:start] + lost + data[end:]


def test_damage_in_a_synced_slot_is_an_error_until_the_segment_is_written_anew(tmp_path: Path):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    data = random_bytes(1, 4 * SEGMENT_BYTES)
    file.write(0, data[:-100])
    file.sync()
    file.write(len(data) - 100, data[-100:])
    file.flush()
    path = only_path(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[SLOT_STRIDE + 100] ^= 1
    path.write_bytes(raw)

    found = reopened(tmp_path)
    assert content_of(found, 0, SEGMENT_BYTES) == data[:SEGMENT_BYTES]
    for attempt in (
        lambda: found.read(SEGMENT_BYTES, 10),
        lambda: found.write(SEGMENT_BYTES + 5, b"part"),
        found.snapshot,
    ):
        with pytest.raises(StorageError, match="do not verify"):
            attempt()
    assert (
        content_of(found, 2 * SEGMENT_BYTES, SEGMENT_BYTES)
        == data[2 * SEGMENT_BYTES :][:SEGMENT_BYTES]
    )
    found.write(SEGMENT_BYTES, data[SEGMENT_BYTES : 2 * SEGMENT_BYTES])
    assert content(found, b"") == data
    found.snapshot().close()
    assert content(reopened(tmp_path), b"") == data


def test_damage_that_a_later_write_or_truncation_covers_does_no_harm(tmp_path: Path):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    file.write(0, random_bytes(1, 3 * SEGMENT_BYTES))
    file.sync()
    new = random_bytes(2, SEGMENT_BYTES)
    file.write(0, new)
    file.truncate(SEGMENT_BYTES)
    file.sync()
    path = only_path(tmp_path)
    raw = bytearray(path.read_bytes())
    for slot in range(3):
        raw[slot * SLOT_STRIDE + 100] ^= 1
    path.write_bytes(raw)
    found = reopened(tmp_path)
    assert found.unreadable_slots == 3
    assert content(found, b"") == new
    found.snapshot().close()


def test_damage_that_was_truncated_away_does_not_come_back(tmp_path: Path):
    file = StagingStore(tmp_path, KEY).create(0, b"label")
    data = random_bytes(1, 2 * SEGMENT_BYTES)
    file.write(0, data)
    file.sync()
    file.truncate(2 * SEGMENT_BYTES + 1)
    file.flush()
    path = only_path(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[SLOT_STRIDE + 100] ^= 1
    path.write_bytes(raw)
    found = reopened(tmp_path)
    with pytest.raises(StorageError):
        found.snapshot()
    found.truncate(SEGMENT_BYTES)
    found.truncate(2 * SEGMENT_BYTES)
    found.flush()
    for file in (found, reopened(tmp_path)):
        assert content(file, b"") == data[:SEGMENT_BYTES] + bytes(SEGMENT_BYTES)
        file.snapshot().close()


def test_a_recovered_file_goes_on_as_if_nothing_had_happened(tmp_path: Path):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    model = ModelFile(b"")
    for round_ in range(10):
        data = random_bytes(round_, 100_000)
        for target in (file, model):
            target.write(round_ * 30_000, data)
            target.truncate(round_ * 35_000 + 50_000)
        file.flush()
        store.close()
        store = StagingStore(tmp_path, KEY)
        (file,) = store.open_all().files
        assert content(file, b"") == model.data
    file.sync()
    assert content(reopened(tmp_path), b"") == model.data


def test_a_crash_in_the_very_first_write_leaves_nothing(tmp_path: Path):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    file.write(0, bytes(100_000))
    file.flush()
    path = only_path(tmp_path)
    raw = path.read_bytes()
    for size in (0, 48, 1000, SEGMENT_BYTES):
        path.write_bytes(raw[:size])
        recovery = StagingStore(tmp_path, KEY).open_all()
        assert (recovery.files, recovery.damaged) == ((), ())
        assert not path.exists()


def test_a_file_of_which_nothing_verifies_is_reported_and_kept(tmp_path: Path):
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    file.write(0, b"precious")
    file.flush()
    path = only_path(tmp_path)
    raw = path.read_bytes()
    recovery = StagingStore(tmp_path, b"another key".ljust(32)).open_all()
    assert (recovery.files, recovery.damaged) == ((), (path,))
    assert path.read_bytes() == raw
    assert content(reopened(tmp_path), b"") == b"precious"


def test_other_files_in_the_directory_are_left_alone(tmp_path: Path):
    (tmp_path / "notes").write_bytes(b"mine")
    recovery = StagingStore(tmp_path, KEY).open_all()
    assert (recovery.files, recovery.damaged) == ((), ())
    assert (tmp_path / "notes").exists()


WRITER = """
import sys
from pathlib import Path
from node.storage import staging_log
from node.storage.staging import StagingStore
from tests.node.storage.staging_model import KEY, random_bytes

store = StagingStore(Path(sys.argv[1]), KEY, memory_limit_bytes=4 * 65536)
file = store.create(0, b"killed")
version = 0
while True:
    version += 1
    header = version.to_bytes(8, "big")
    for segment in range(40):
        file.write(segment * 65536, header + random_bytes(version * 100 + segment, 65528))
    file.flush()
    print(version, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 2, 5, 9])
def test_a_killed_process_loses_nothing_that_it_had_flushed(tmp_path: Path, kill_after: int):
    repository = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    ) as process:
        assert process.stdout is not None
        flushed = 0
        for line in process.stdout:
            flushed = int(line)
            if flushed >= kill_after:
                break
        process.send_signal(signal.SIGKILL)
        flushed = max([flushed, *(int(line) for line in process.stdout.read().split())])
    assert flushed >= kill_after
    found = reopened(tmp_path)
    assert (found.label, found.size) == (b"killed", 40 * 65536)
    data = content(found, b"")
    for segment in range(40):
        stored = data[segment * 65536 : (segment + 1) * 65536]
        version = int.from_bytes(stored[:8], "big")
        assert version in (flushed, flushed + 1)
        assert stored[8:] == random_bytes(version * 100 + segment, 65528)


class PowerLoss:
    """A disk that keeps what was synced, and of the rest whichever pages it likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced = bytearray()
        self.pages: list[tuple[int, bytes]] = []
        self._pwritev = os.pwritev
        self._ftruncate = os.ftruncate
        monkeypatch.setattr(os, "pwritev", self.pwritev)
        monkeypatch.setattr(os, "ftruncate", self.ftruncate)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def pwritev(self, descriptor: int, buffers: list[bytes], offset: int) -> int:
        data = b"".join(buffers)
        position = 0
        while position < len(data):
            length = min(PAGE - (offset + position) % PAGE, len(data) - position)
            self.pages.append((offset + position, data[position : position + length]))
            position += length
        return self._pwritev(descriptor, buffers, offset)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self.pages.append((size, b""))
        self._ftruncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        self._apply(self.synced, self.pages)
        self.pages.clear()

    def image(self, chance: random.Random) -> bytes:
        """What may be on the disk if the power goes now."""
        image = bytearray(self.synced)
        kept = chance.choice([0.0, 0.3, 0.7, 0.95, 1.0])
        self._apply(image, [page for page in self.pages if chance.random() < kept])
        return bytes(image)

    @staticmethod
    def _apply(image: bytearray, pages: list[tuple[int, bytes]]) -> None:
        for offset, data in pages:
            if not data:
                del image[offset:]
                continue
            image.extend(bytes(max(0, offset + len(data) - len(image))))
            image[offset : offset + len(data)] = data


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3 * SEGMENT_BYTES), st.integers(1, 90_000)),
        st.tuples(
            st.just("write"),
            st.sampled_from([0, SEGMENT_BYTES]),
            st.sampled_from([SEGMENT_BYTES, 2 * SEGMENT_BYTES]),
        ),
        st.tuples(st.just("truncate"), st.integers(0, 4 * SEGMENT_BYTES), st.just(0)),
        st.tuples(
            st.sampled_from(["flush", "sync", "sync", "rebase", "kill"]), st.just(0), st.just(0)
        ),
    ),
    min_size=4,
    max_size=20,
)


class PoweredFile:
    """A staged file on a disk that may lose its power, and all contents since its last sync."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.disk = PowerLoss(monkeypatch)
        self.store = StagingStore(directory, KEY, memory_limit_bytes=2 * SEGMENT_BYTES)
        self.file = self.store.create(0, b"0")
        self.model = ModelFile(b"")
        self.bases = [b""]
        self.versions = [b""]

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
            case "rebase":
                with self.file.snapshot() as snapshot:
                    self.bases.append(bytes(self.model.data))
                    self.file.rebase(snapshot, b"%d" % (len(self.bases) - 1))
            case "kill":
                self.kill()
            case _:
                assert kind == "sync"
                self.file.sync()
                self.versions.clear()
        self.versions.append(bytes(self.model.data))

    def kill(self) -> None:
        """The process dies; what it had in memory is lost, what it had written is not."""
        self.store.close()
        self.store = StagingStore(self.directory, KEY, memory_limit_bytes=2 * SEGMENT_BYTES)
        files = self.store.open_all().files
        if files:
            (self.file,) = files
            self.model.data = bytearray(content(self.file, self.bases[int(self.file.label)]))
        else:
            self.file = self.store.create(0, b"0")
            self.model.data = bytearray()

    def lose_power(self, chance: random.Random, directory: Path) -> None:
        """Checks what could be found if the power went now."""
        (directory / self.file.identity.hex()).write_bytes(self.disk.image(chance))
        store = StagingStore(directory, KEY)
        recovery = store.open_all()
        assert recovery.damaged == ()
        (found,) = recovery.files
        data = content(found, self.bases[int(found.label)])
        store.close()
        sizes = [len(version) for version in self.versions]
        assert min(sizes) <= len(data) <= max(sizes)
        # Every byte is that of the last sync, or what it became since.
        possible = [version.ljust(len(data), b"\0") for version in self.versions]
        for start in range(0, len(data), PAGE):
            pages = {version[start : start + PAGE] for version in possible}
            page = data[start : start + PAGE]
            if page not in pages:
                for byte, *others in zip(page, *pages, strict=False):
                    assert byte in others


@settings(max_examples=100)
@given(steps=STEPS, chance=st.randoms(use_true_random=False))
def test_a_loss_of_power_loses_nothing_that_was_synced(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, int]],
    chance: random.Random,
):
    live, found = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("found")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(staging_log, "MAX_CUTS", 2)
        powered = PoweredFile(live, monkeypatch)
        for seed, (kind, first, second) in enumerate(steps):
            powered.apply(kind, first, second, seed)
            if powered.disk.synced:
                event(f"power lost after {kind}")
                for _ in range(2):
                    powered.lose_power(chance, found)
        powered.file.discard()
        powered.store.close()
    shutil.rmtree(live)
    shutil.rmtree(found)


def test_merged_truncations_lose_nothing_that_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(staging_log, "MAX_CUTS", 2)
    (tmp_path / "live").mkdir()
    (tmp_path / "found").mkdir()
    powered = PoweredFile(tmp_path / "live", monkeypatch)
    for seed, step in enumerate(
        [
            ("write", 0, 2 * SEGMENT_BYTES),
            ("flush", 0, 0),
            ("truncate", 10, 0),
            ("write", SEGMENT_BYTES + 100, 500),
            ("flush", 0, 0),
            ("truncate", SEGMENT_BYTES + 200, 0),
            ("write", 2 * SEGMENT_BYTES, SEGMENT_BYTES),
            ("sync", 0, 0),
            ("truncate", 2 * SEGMENT_BYTES + 50, 0),
            ("flush", 0, 0),
        ]
    ):
        powered.apply(*step, seed)
    for chance in range(100):
        powered.lose_power(random.Random(chance), tmp_path / "found")


class FullDisk:
    """Takes so many more bytes, then as many as fit, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._pwritev = os.pwritev
        monkeypatch.setattr(os, "pwritev", self.pwritev)

    def pwritev(self, descriptor: int, buffers: list[bytes], offset: int) -> int:
        if self.room is None:
            return self._pwritev(descriptor, buffers, offset)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = b"".join(buffers)[: self.room]
        self.room -= len(data)
        return self._pwritev(descriptor, [data], offset)


@pytest.mark.parametrize(
    ("room", "whole"),
    [
        (0, 0),
        (100, 0),
        (SEGMENT_BYTES, 0),
        (SLOT_STRIDE - 1, 1),
        (5 * SLOT_STRIDE + 7, 5),
        (10 * SLOT_STRIDE, 10),
    ],
)
def test_a_full_disk_fails_the_write_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, whole: int
):
    disk = FullDisk(monkeypatch)
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    old, new = random_bytes(1, 8 * SEGMENT_BYTES), random_bytes(2, 12 * SEGMENT_BYTES)
    file.write(0, old)
    file.sync()
    disk.room = room
    with pytest.raises(StorageError) as raised:
        file.write(0, new)
    assert (raised.value.errno, raised.value.is_transient) == (errno.ENOSPC, True)
    expected = new[: whole * SEGMENT_BYTES] + old[whole * SEGMENT_BYTES :]
    assert content(file, b"") == expected
    assert content(reopened(tmp_path), b"") == expected
    disk.room = None
    file.write(0, new)
    file.sync()
    assert content(reopened(tmp_path), b"") == new


def test_a_torn_write_into_room_that_a_truncation_freed_brings_the_file_before_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = FullDisk(monkeypatch)
    file = StagingStore(tmp_path, KEY).create(0, b"label")
    old = random_bytes(1, 4 * SEGMENT_BYTES)
    file.write(0, old)
    file.flush()
    file.truncate(0)
    disk.room = 100
    with pytest.raises(StorageError):
        file.write(0, random_bytes(2, 4 * SEGMENT_BYTES))
    assert content(file, b"") == b""
    assert content(reopened(tmp_path), b"") == old


def test_what_a_full_disk_kept_in_memory_is_flushed_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = FullDisk(monkeypatch)
    store = StagingStore(tmp_path, KEY)
    file = store.create(0, b"label")
    disk.room = 0
    file.write(0, b"kept in memory")
    for _ in range(3):
        with pytest.raises(StorageError):
            file.flush()
    assert content(file, b"") == b"kept in memory"
    disk.room = None
    file.flush()
    assert content(reopened(tmp_path), b"") == b"kept in memory"


def test_a_failed_sync_is_never_followed_by_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = StagingStore(tmp_path, KEY).create(0, b"label")
    file.write(0, b"data")
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError):
            file.sync()
    with pytest.raises(StorageError):
        file.sync()
    assert content(file, b"") == b"data"


@pytest.mark.root
def test_a_really_full_file_system_gives_enospc_and_harms_nothing(tmp_path: Path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = StagingStore(tmp_path, KEY)
        file = store.create(0, b"label")
        file.write(0, b"A" * (8 * SEGMENT_BYTES))
        file.sync()
        with pytest.raises(StorageError) as raised:
            file.write(file.size, b"B" * (20 * SEGMENT_BYTES))
        assert raised.value.errno == errno.ENOSPC
        size = file.size
        assert content(file, b"").rstrip(b"B") == b"A" * (8 * SEGMENT_BYTES)
        found = reopened(tmp_path)
        assert found.size == size
        assert content(found, b"") == content(file, b"")
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
