"""What programs do to files and folders, timed: the workloads of the mount bench.

Owns what each does and what is timed of it. Every workload gets a contestant and the inputs, works
in a folder that is its own, and leaves nothing behind. Knows no contestant by name.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scripts.bench_parts.comparison import Sample
from scripts.bench_parts.contestants import Contestant
from scripts.bench_parts.mount_inputs import Inputs

_PIECE_BYTES = 1 << 20
_PAGE_BYTES = 4096
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")

Measure = Callable[[Contestant, Inputs, Path], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: done ``rounds`` times by each contestant, in turn."""

    name: str
    measure: Measure
    rounds: int = 3


def big_file(contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """One long file of noise: written, read from where it is stored, read again, then in pages."""
    file = folder / "big"
    noise = memoryview(inputs.noise)
    megabytes = len(noise) / 1e6
    with _Clock() as clock, file.open("wb", buffering=0) as written:
        for start in range(0, len(noise), _PIECE_BYTES):
            written.write(noise[start : start + _PIECE_BYTES])
        os.fsync(written)
    yield Sample("sequential write + fsync", clock.seconds, megabytes, "MB")
    contestant.rest()

    _forget_pages(file)
    with _Clock() as clock:
        _read(file)
    yield Sample("sequential read, from the store", clock.seconds, megabytes, "MB")
    with _Clock() as clock:
        _read(file)
    yield Sample("sequential read, page cache warm", clock.seconds, megabytes, "MB")
    if contestant.keeps_bytes:
        _require_same(file, noise)

    _forget_pages(file)
    places = random.Random(1).sample(range(len(noise) // _PAGE_BYTES), inputs.pages)
    with _Clock() as clock, file.open("rb", buffering=0) as read:
        for place in places:
            os.pread(read.fileno(), _PAGE_BYTES, place * _PAGE_BYTES)
    yield Sample("random 4 KiB read, from the store", clock.seconds, len(places), "reads")
    pages = [bytes(noise[n * _PAGE_BYTES : (n + 1) * _PAGE_BYTES]) for n in range(len(places))]
    with _Clock() as clock, file.open("rb+", buffering=0) as written:
        for place, page in zip(places, pages, strict=True):
            os.pwrite(written.fileno(), page, place * _PAGE_BYTES)
        os.fsync(written)
    yield Sample("random 4 KiB write, fsync at the end", clock.seconds, len(places), "writes")


def small_files(contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """Many files of 1 KiB: made, looked at, their folder renamed, removed."""
    place = folder / "before"
    place.mkdir()
    content = inputs.noise[:1024]
    count = inputs.small_files
    with _Clock() as clock:
        for number in range(count):
            with (place / f"file {number}").open("wb", buffering=0) as made:
                made.write(content)
    yield Sample("create + write 1 KiB + close", clock.seconds, count, "files")
    contestant.rest()

    place = place.rename(folder / "after")
    paths = [os.fspath(place / f"file {number}") for number in range(count)]
    for turn in ("uncached", "second time"):
        if turn == "uncached":
            _forget_names()
        with _Clock() as clock:
            for path in paths:
                os.stat(path)  # noqa: PTH116 - a Path would take longer than the call
        yield Sample(f"stat, {turn}", clock.seconds, count, "files")
    with _Clock() as clock:
        place = place.rename(folder / "renamed")
    yield Sample(f"rename of a folder of {count:,}", clock.seconds)
    contestant.rest()
    with _Clock() as clock:
        for number in range(count):
            (place / f"file {number}").unlink()
    yield Sample("unlink", clock.seconds, count, "files")


def listing(contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """A long folder, listed with and without attributes, with and without the kernel's caches."""
    for number in range(inputs.listed):
        os.close(os.open(folder / f"entry {number}", os.O_CREAT | os.O_WRONLY))
    contestant.rest()
    for _ in range(3):
        _forget_names()
        for turn in ("cold", "second time"):
            with _Clock() as clock:
                found = os.listdir(folder)
            assert len(found) == inputs.listed
            yield Sample(f"readdir of {inputs.listed:,}, {turn}", clock.seconds)
        _forget_names()
        for turn in ("cold", "second time"):
            with _Clock() as clock:
                _run("ls", "-l", folder)
            yield Sample(f"ls -l of {inputs.listed:,}, {turn}", clock.seconds)


def source_tree(contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """A tree of real sources: unpacked, copied, removed; cloned; a package installed."""
    files = f"{inputs.tree_files:,} files"
    with _Clock() as clock:
        _run("tar", "-xf", inputs.archive, "-C", folder)
    yield Sample(f"untar of {files}", clock.seconds)
    contestant.rest()
    with _Clock() as clock:
        _run("cp", "-a", folder / "tree", folder / "copy")
    yield Sample(f"cp -a of {files}", clock.seconds)
    contestant.rest()
    with _Clock() as clock:
        _run("rm", "-rf", folder / "copy")
    yield Sample(f"rm -rf of {files}", clock.seconds)
    contestant.rest()
    with _Clock() as clock:
        _run("git", "clone", "--quiet", "--no-local", inputs.repository, folder / "clone")
    yield Sample(f"git clone of {files}", clock.seconds)
    contestant.rest()
    with _Clock() as clock:
        pip = inputs.wheel / "pip"  # a wheel of pip runs itself
        options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
        _run(sys.executable, pip, "install", *options, "--target", folder / "site", inputs.wheel)
    yield Sample("pip install of a wheel", clock.seconds)


def status(contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """`git status` of a long tree, once its index is fresh and the kernel knows the files."""
    clone = folder / "clone"
    _run("git", "clone", "--quiet", "--no-local", inputs.long_repository, clone)
    contestant.rest()
    _run("git", "-C", clone, "status", "--short")
    for _ in range(5):
        with _Clock() as clock:
            _run("git", "-C", clone, "status", "--short")
        yield Sample(f"git status of {inputs.long_files:,} files, second time", clock.seconds)


def durable(_contestant: Contestant, inputs: Inputs, folder: Path) -> Iterator[Sample]:
    """Small steps that each must be on the disk before the next."""
    count = inputs.transactions
    with _Clock() as clock, (folder / "log").open("ab", buffering=0) as log:
        for number in range(count):
            log.write(inputs.noise[number * 1024 : (number + 1) * 1024])
            os.fsync(log)
    yield Sample("append 1 KiB + fsync", clock.seconds, count, "steps")
    with contextlib.closing(sqlite3.connect(folder / "database", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)")
        with _Clock() as clock:
            for number in range(count):
                data = inputs.noise[number * 200 : (number + 1) * 200]
                database.execute("INSERT INTO t VALUES (?, ?)", (number, data))
    yield Sample("SQLite transactions (WAL)", clock.seconds, count, "commits")


WORKLOADS = (
    Workload("big-file", big_file),
    Workload("small-files", small_files),
    Workload("listing", listing, rounds=1),
    Workload("source-tree", source_tree),
    Workload("git-status", status, rounds=1),
    Workload("durable", durable),
)


class _Clock:
    """Takes the time of a block."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began


def remove(folder: Path) -> None:
    """Take away what a workload worked in."""
    shutil.rmtree(folder)


def can_forget_names() -> bool:
    """Whether this user may empty the kernel's caches: cold figures are wrong otherwise."""
    return os.access(_DROP_CACHES, os.W_OK)


def _forget_names() -> None:
    os.sync()
    _DROP_CACHES.write_text("2")


def _forget_pages(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _read(file: Path) -> None:
    buffer = bytearray(_PIECE_BYTES)
    with file.open("rb", buffering=0) as read:
        while read.readinto(buffer):
            pass


def _require_same(file: Path, expected: memoryview) -> None:
    with file.open("rb", buffering=0) as read:
        for start in range(0, len(expected), _PIECE_BYTES):
            if read.read(_PIECE_BYTES) != expected[start : start + _PIECE_BYTES]:
                raise ValueError(f"{file} does not hold what was written, at {start}")


def _run(*command: str | Path) -> None:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_COUNT": "1"}
    environment |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=900,
    )
