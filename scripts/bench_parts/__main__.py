"""The command behind scripts/bench: chooses benches, runs them, prints the table, writes bench.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.bench_parts.bench_world import bench_world
from scripts.bench_parts.big_file import big_file
from scripts.bench_parts.close_to_readable import close_to_readable
from scripts.bench_parts.comparison import Row, comparison_table
from scripts.bench_parts.figures import Figure, table
from scripts.bench_parts.merging import merging
from scripts.bench_parts.mount_bench import mount_rows
from scripts.bench_parts.mount_memory import mount_memory
from scripts.bench_parts.mount_workloads import WORKLOADS
from scripts.bench_parts.tree_bench import listing, tree

NAMES = ("close-to-readable", "tree", "list", "big-file", "merging", "mount", "mount-memory")
_BUSY = 0.5
"""Load per core above which figures say more about the neighbours than about Atoll."""


def main() -> int:
    arguments = _arguments()
    chosen = [name for name in NAMES if not arguments.names or name in arguments.names]
    directory = Path(tempfile.mkdtemp(prefix="atoll-bench-", dir=arguments.directory))
    machine = describe_machine()
    figures: list[Figure] = []
    rows: list[Row] = []
    contestants: list[str] = []
    try:
        for run in runs(chosen, directory, arguments.quick):
            for figure in run():
                figures.append(figure)
                print(table([figure]).splitlines()[1], file=sys.stderr, flush=True)
        if "mount" in chosen:
            rows, contestants = mount_rows(
                directory / "mount", arguments.quick, arguments.rounds, arguments.workload or []
            )
    finally:
        shutil.rmtree(directory / "mount", ignore_errors=True)
        directory.rmdir()
    machine["load after"] = os.getloadavg()[0]
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["scripts/bench", *sys.argv[1:]]),
        "machine": machine,
        "quick": arguments.quick,
        "figures": [figure.to_json() for figure in figures],
        "comparison": [row.to_json() for row in rows],
    }
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    if figures:
        print(table(figures))
    if rows:
        print(comparison_table(rows, contestants))
    if machine["load before"] > _BUSY * (os.cpu_count() or 1):
        print(f"\nother programs kept this machine busy: load {machine['load before']:.1f}")
    missed = [measured.name for measured in [*figures, *rows] if measured.is_kept is False]
    if missed and not arguments.quick:
        print(f"\nmissed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


def runs(chosen: list[str], directory: Path, is_quick: bool) -> list[Callable[[], list[Figure]]]:
    """What to do for the chosen names; tree and list share one world."""

    def latency() -> list[Figure]:
        with bench_world(directory, "latency") as made:
            return close_to_readable(made, 40 if is_quick else 200)

    def trees() -> list[Figure]:
        with bench_world(directory, "tree") as made:
            found = tree(made, 1000 if is_quick else 10_000)
            return (found if "tree" in chosen else []) + (listing(made) if "list" in chosen else [])

    def big() -> list[Figure]:
        with bench_world(directory, "big") as made:
            return big_file(made, (128 if is_quick else 1024) << 20)

    found: list[Callable[[], list[Figure]]] = []
    if "close-to-readable" in chosen:
        found.append(latency)
    if {"tree", "list"} & set(chosen):
        found.append(trees)
    if "big-file" in chosen:
        found.append(big)
    if "merging" in chosen:
        items, records = (20_000, 2_000) if is_quick else (1_000_000, 100_000)
        found.append(lambda: merging(directory / "merging", items, records))
    if "mount-memory" in chosen:
        items, size_bytes = (20_000, 256 << 20) if is_quick else (1_000_000, 10 << 30)
        found.append(lambda: mount_memory(directory / "mount", items, size_bytes))
    return found


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "processor": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory MiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "load before": os.getloadavg()[0],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures Atoll on this machine, beside the native file system.",
        epilog="example: scripts/bench tree list",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES) + "; default all")
    parser.add_argument("--quick", action="store_true", help="fewer samples, smaller files")
    parser.add_argument(
        "--workload",
        action="append",
        choices=[workload.name for workload in WORKLOADS],
        help="of the bench mount; default all, may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each workload; default 3")
    parser.add_argument("--directory", type=Path, help="where worlds are made")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(
            f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}"
        )
    return arguments


if __name__ == "__main__":
    sys.exit(main())
