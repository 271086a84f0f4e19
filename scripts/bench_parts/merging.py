"""How fast a node takes in changes of others when it knows a million items, and how soon it is there.

The node is the product's, started by its command; the records are signed and sealed, come from the
server in pages, and are verified, opened and applied as always.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import trio

from scripts.bench_parts.bench_world import peak_of, processor_time_of
from scripts.bench_parts.big_index import commit_changes, file_of, fill_index
from scripts.bench_parts.figures import Figure
from tests.system.world import Device, World


def merging(root: Path, items: int, records: int) -> list[Figure]:
    """Open an index of so many items; then merge so many records of another device into it."""
    try:
        return _in_world(root, items, records)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _in_world(root: Path, items: int, records: int) -> list[Figure]:
    with World(root, deadline_s=3600) as world:
        world.server.start("--requests-per-second", "100000", "--request-burst", "100000")
        node, author = world.enrolled("node", "author")
        node.start()
        node.wait("synced", 60)
        node.stop()
        fill_index(node.home, author.home, items)
        figures = [_opening(node, items)]
        trio.run(commit_changes, author.home, records, items)
        return [*figures, *_merging(node, records)]


def _opening(node: Device, items: int) -> Figure:
    """From the command's start until the drive lists its root and shows a file in its middle."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        process = node.launch("--no-lan")
        shown = node.mount / "folder 0" / os.fsdecode(file_of(1).link.name)
        while not shown.exists():
            assert process.is_running, process.said()
            time.sleep(0.005)
        times.append(time.perf_counter() - begun)
        node.wait("synced", 60)
        node.stop()
    return Figure(
        "merging/open an index",
        min(times),
        "s",
        at_most=1.0,
        details={"items": items, "all": times},
    )


def _merging(node: Device, records: int) -> list[Figure]:
    node.start("--no-lan")
    assert node.process is not None
    before_mib, before_s = peak_of(node.process.pid), processor_time_of(node.process.pid)
    begun = time.perf_counter()
    node.wait("synced", 3000)
    took_s = time.perf_counter() - begun
    used_s = processor_time_of(node.process.pid) - before_s
    peak_mib = peak_of(node.process.pid)
    applied = node.status()["counters"]["records_from_server"]
    assert applied == records, (applied, records)
    node.stop()
    details = {"records": records, "seconds": took_s, "processor s": used_s}
    return [
        Figure("merging/records", records / took_s, "1/s", at_least=3000, details=details),
        Figure(
            "merging/memory grows by",
            peak_mib - before_mib,
            "MiB",
            details={"at the start": before_mib, "peak": peak_mib},
        ),
    ]
