"""How fast one big file goes up and comes down, and how much memory that takes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from scripts.bench_parts.bench_world import BenchWorld
from scripts.bench_parts.figures import Figure, since

_PIECE_BYTES = 1 << 20
_SPEED_MB_S = 150.0
_MEMORY_MIB = 300.0


def big_file(made: BenchWorld, size_bytes: int) -> list[Figure]:
    """Noise, so that nothing is gained by compression; from A's first write to B's last byte."""
    source = made.native / "source"
    want = _write_noise(source, size_bytes)
    os.sync()
    native_write = _speed(size_bytes, _copy_and_sync(source, made.native / "copy"))

    before = made.processor_s()
    began_s = time.perf_counter()
    _copy(source, made.first.mount / "big")
    copy_s = time.perf_counter() - began_s
    made.first.wait("server", 900)
    upload_s = time.perf_counter() - began_s
    uploading = since(before, made.processor_s())

    made.second.wait("synced", 900)
    os.sync()
    before = made.processor_s()
    began_s = time.perf_counter()
    _read(made.second.mount / "big")
    download_s = time.perf_counter() - began_s
    downloading = since(before, made.processor_s())
    peaks = made.peak_memory_mib()

    _forget_pages(made.native / "copy")
    began_s = time.perf_counter()
    _read(made.native / "copy")
    native_read = _speed(size_bytes, time.perf_counter() - began_s)
    began_s = time.perf_counter()
    got = _digest(made.second.mount / "big")
    warm_s = time.perf_counter() - began_s
    if got != want:
        raise SystemExit("the big file is not the same on the second device")
    figures = [
        Figure("big-file/cp into A", _speed(size_bytes, copy_s), "MB/s", native_write),
        Figure(
            "big-file/upload",
            _speed(size_bytes, upload_s),
            "MB/s",
            native_write,
            at_least=_SPEED_MB_S,
            details={"bytes": size_bytes, "processor s": uploading},
        ),
        Figure(
            "big-file/download",
            _speed(size_bytes, download_s),
            "MB/s",
            native_read,
            at_least=_SPEED_MB_S,
            details={"bytes": size_bytes, "processor s": downloading},
        ),
        Figure("big-file/second read and SHA-256", _speed(size_bytes, warm_s), "MB/s"),
    ]
    figures += [
        Figure(f"big-file/memory of {name}", peak, "MiB", at_most=_MEMORY_MIB)
        for name, peak in peaks.items()
    ]
    return figures


def _speed(size_bytes: int, taken_s: float) -> float:
    return size_bytes / 1e6 / taken_s


def _write_noise(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_bytes // _PIECE_BYTES):
            piece = os.urandom(_PIECE_BYTES)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        while piece := read.read(_PIECE_BYTES):
            written.write(piece)


def _copy_and_sync(source: Path, target: Path) -> float:
    began_s = time.perf_counter()
    _copy(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - began_s


def _read(path: Path) -> None:
    buffer = bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _forget_pages(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
