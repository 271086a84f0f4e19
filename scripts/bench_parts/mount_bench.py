"""How a mount compares with the disk, with the binding's own ceiling, and with its peers.

Contestants take turns within each round of each workload, because the machine may be shared: what a
neighbour takes, it takes from all of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.bench_parts.comparison import OURS, Row, Sample, comparison_table, row_of
from scripts.bench_parts.contestants import NATIVE, NULL, Contestant, contestants
from scripts.bench_parts.mount_inputs import Inputs, make_inputs
from scripts.bench_parts.mount_workloads import WORKLOADS, Workload, can_forget_names, remove

_MUST_SUCCEED = (NATIVE, NULL, OURS)
_FAILURES = (OSError, ValueError, sqlite3.Error, subprocess.SubprocessError)

_AHEAD = {"gocryptfs": 1.0, "rclone": 1.0}

_AT_LEAST: Mapping[str, Mapping[str, float]] = {
    "sequential read, page cache warm": {NATIVE: 0.95},
    "sequential read, from the store": {NULL: 0.5, "gocryptfs": 1.0},
    "sequential write + fsync": {NULL: 0.5},
    "random 4 KiB read, from the store": {NULL: 0.6},
    "stat, second time": {NATIVE: 0.95},
    "stat, uncached": {NULL: 0.8},
    "ls -l of 10,000, second time": {NATIVE: 0.95},
    "readdir of 10,000, cold": {NULL: 0.5},
    "readdir of 10,000, second time": {NULL: 0.9},
    "create + write 1 KiB + close": {NULL: 0.6, "rclone": 1.0},
    "git status of 10,000 files, second time": {NATIVE: 0.833},
}
"""By name of the row, as shares of speed. All others must be ahead of the peers."""


def mount_rows(
    root: Path, is_quick: bool, rounds: int, chosen: list[str]
) -> tuple[list[Row], list[str]]:
    """Every row, and the names of who took part.

    Args:
        rounds: at most so many of each workload.
        chosen: names of workloads; all of them when empty.
    """
    if not can_forget_names():
        raise SystemExit("bench mount empties the kernel's caches: run it as root")
    inputs_folder = root / "inputs"
    inputs_folder.mkdir(parents=True)
    rows = []
    with contextlib.ExitStack() as stack:
        stack.callback(remove, inputs_folder)
        inputs = make_inputs(inputs_folder, is_quick)
        taking_part = stack.enter_context(contestants(root / "contestants"))
        names = [contestant.name for contestant in taking_part]
        for workload in WORKLOADS:
            if not chosen or workload.name in chosen:
                measured = list(_rows(workload, taking_part, inputs, rounds))
                print(comparison_table(measured, names), file=sys.stderr, flush=True)
                rows += measured
    return rows, names


def _rows(
    workload: Workload, taking_part: list[Contestant], inputs: Inputs, rounds: int
) -> Iterator[Row]:
    taken: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    failed: set[str] = set()
    for turn in range(min(rounds, workload.rounds)):
        inputs.renew()
        for contestant in taking_part:
            if contestant.name in failed:
                continue
            try:
                for sample in _turn(workload, contestant, inputs, turn):
                    taken[sample.name][contestant.name].append(sample)
            except _FAILURES as error:
                if contestant.name in _MUST_SUCCEED:
                    raise
                said = (getattr(error, "stderr", None) or b"").decode(errors="replace")[:200]
                print(f"{contestant.name} fails {workload.name}: {said or error}", file=sys.stderr)
                failed.add(contestant.name)
    for name, samples in taken.items():
        yield row_of(samples, _AT_LEAST.get(name, _AHEAD))


def _turn(
    workload: Workload, contestant: Contestant, inputs: Inputs, turn: int
) -> Iterator[Sample]:
    """One contestant's turn, in a folder of its own; it is at rest before and after."""
    folder = contestant.folder / f"{workload.name} {turn}"
    folder.mkdir()
    contestant.rest()
    try:
        yield from workload.measure(contestant, inputs, folder)
    finally:
        with contextlib.suppress(OSError):
            remove(folder)
    contestant.rest()
