"""How much memory a node takes that knows a great many items while a long file is read.

The file begins with noise that is stored as blocks; the rest is a hole, which costs no disk.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from scripts.bench_parts.bench_world import peak_of
from scripts.bench_parts.big_index import fill_index
from scripts.bench_parts.figures import Figure
from tests.system.world import Device, World

_PIECE_BYTES = 1 << 20
_NOISE_SHARE = 5
_MOST_MIB = 200.0
_LISTED_FOLDERS = 200
_RESET_PEAK = "5"  # proc(5), clear_refs: the peak begins anew


def mount_memory(root: Path, items: int, size_bytes: int) -> list[Figure]:
    """The node's peak while folders are listed, and while the file is read from front to back."""
    try:
        with World(root, deadline_s=3600) as world:
            return _measured(world, items, size_bytes)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _measured(world: World, items: int, size_bytes: int) -> list[Figure]:
    world.server.start("--requests-per-second", "100000", "--request-burst", "100000")
    node, author = world.enrolled("node", "author")
    node.start("--no-lan")
    node.wait("synced")
    node.stop()
    fill_index(node.home, author.home, items)
    node.start("--no-lan")
    node.wait("synced", 600)
    file = node.mount / "long"
    _write(file, size_bytes)
    node.wait("server", 1800)
    writing_mib = peak_of(_pid(node))
    node.stop()

    node.start("--no-lan")
    node.wait("synced", 600)
    process = _pid(node)
    for number in range(0, min(items, _LISTED_FOLDERS * 101), 101):
        os.listdir(node.mount / f"folder {number}")
    listing_mib = peak_of(process)
    Path(f"/proc/{process}/clear_refs").write_text(_RESET_PEAK)
    began_s = time.perf_counter()
    _read(file)
    read_s = time.perf_counter() - began_s
    details = {"items": items, "bytes": size_bytes, "read s": read_s}
    reading_mib = peak_of(process)
    node.stop()
    return [
        Figure("mount-memory/writing the file", writing_mib, "MiB", details=details),
        Figure("mount-memory/listing folders", listing_mib, "MiB", at_most=_MOST_MIB),
        Figure("mount-memory/reading the file", reading_mib, "MiB", at_most=_MOST_MIB),
    ]


def _pid(node: Device) -> int:
    assert node.process is not None
    return node.process.pid


def _write(file: Path, size_bytes: int) -> None:
    with file.open("wb", buffering=0) as written:
        for _ in range(size_bytes // _NOISE_SHARE // _PIECE_BYTES):
            written.write(os.urandom(_PIECE_BYTES))
        written.truncate(size_bytes)


def _read(file: Path) -> None:
    buffer = bytearray(_PIECE_BYTES)
    with file.open("rb", buffering=0) as read:
        while read.readinto(buffer):
            pass
