"""How long a tree of small files takes to the other device, and how fast it lists."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

from scripts.bench_parts.bench_world import BenchWorld, copy_small_files
from scripts.bench_parts.figures import Figure, since
from tests.system.trees import differences, snapshot

_COMPLETE_S = 60.0
_LIST_RATIO = 1.5
_LISTINGS = 5


def tree(made: BenchWorld, files: int) -> list[Figure]:
    """`cp -a` of real small files into A until B has them all; leaves both trees for `listing`."""
    source = made.native / "source"
    size_bytes = copy_small_files(source, files)
    os.sync()
    native_copy_s = _timed("cp", "-a", source, made.native / "tree")
    native_read_s = _read_all(made.native / "tree")
    os.sync()

    before = made.processor_s()
    began_s = time.perf_counter()
    copy_s = _timed("cp", "-a", source, made.first.mount / "tree")
    made.first.wait("server", 600)
    sent_s = time.perf_counter() - began_s
    made.second.wait("synced", 600)
    shown_s = time.perf_counter() - began_s
    read_s = _read_all(made.second.mount / "tree")
    complete_s = time.perf_counter() - began_s
    used = since(before, made.processor_s())

    found = differences(snapshot(source), snapshot(made.second.mount / "tree"))
    if found:
        raise SystemExit("the tree is not the same on the second device:\n" + "\n".join(found))
    details = {
        "files": files,
        "bytes": size_bytes,
        "peak MiB": made.peak_memory_mib(),
        "processor s": used,
    }
    return [
        Figure("tree/cp -a into A", copy_s, "s", native_copy_s, details=details),
        Figure("tree/all on the server", sent_s, "s", native_copy_s),
        Figure("tree/all shown on B", shown_s, "s", native_copy_s, at_most=_COMPLETE_S),
        Figure("tree/all read on B", complete_s, "s", native_copy_s, at_most=_COMPLETE_S),
        Figure("tree/reading it on B", read_s, "s", native_read_s),
    ]


def listing(made: BenchWorld) -> list[Figure]:
    """`ls -lR` of the tree on B, the first and later times, each turn beside the native tree."""
    # A node that has just started: nothing of the tree is in the kernel's caches.
    made.second.stop()
    made.second.start()
    made.both_synced()
    figures = []
    for name, device in (("B", made.second), ("A", made.first)):
        first_s = _list(device.mount / "tree")
        native_first_s = _list(made.native / "tree")
        pairs = [
            (_list(device.mount / "tree"), _list(made.native / "tree")) for _ in range(_LISTINGS)
        ]
        ours_s, native_s = (statistics.median(column) for column in zip(*pairs, strict=True))
        figures += [
            Figure(f"list/{name}, first time", first_s, "s", native_first_s),
            Figure(
                f"list/{name}, second time",
                ours_s,
                "s",
                native_s,
                at_most=_LIST_RATIO,
                is_ratio_bound=True,
            ),
        ]
    return figures


def _list(folder: Path) -> float:
    return _timed("ls", "-lR", folder)


def _timed(*command: str | Path) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=900)
    return time.perf_counter() - began_s


def _read_all(folder: Path) -> float:
    began_s = time.perf_counter()
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                file.read_bytes()
    return time.perf_counter() - began_s
