"""How long after `close` on one device a small file reads right on the other."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scripts.bench_parts.bench_world import BenchWorld
from scripts.bench_parts.figures import Figure, percentile

SIZE_BYTES = 1024
_LOOK_S = 0.001
_REST_S = 0.02
_LONGEST_S = 30.0


def close_to_readable(made: BenchWorld, samples: int) -> list[Figure]:
    """New files, and one file written again and again; each beside one folder of the native disk."""
    figures = []
    for kind in ("new", "rewritten"):
        ours = _samples(made.first.mount, made.second.mount, kind, samples)
        native = _samples(made.native, made.native, kind, samples)
        for share, bound_ms in ((0.5, 150), (0.99, 1000)):
            figures.append(
                Figure(
                    f"close-to-readable/{kind} p{share * 100:g}",
                    percentile(ours, share) * 1000,
                    "ms",
                    percentile(native, share) * 1000,
                    at_most=bound_ms,
                    details={"samples": samples, "worst": max(ours) * 1000},
                )
            )
    return figures


def _samples(writer: Path, reader: Path, kind: str, samples: int) -> list[float]:
    found = []
    for number in range(samples):
        name = f"{kind}-{number}" if kind == "new" else kind
        wanted = os.urandom(SIZE_BYTES)
        (writer / name).write_bytes(wanted)
        closed_s = time.perf_counter()
        while not _reads(reader / name, wanted):
            if time.perf_counter() - closed_s > _LONGEST_S:
                raise SystemExit(f"{name} did not arrive within {_LONGEST_S:g} s")
            time.sleep(_LOOK_S)
        found.append(time.perf_counter() - closed_s)
        time.sleep(_REST_S)
    return found


def _reads(path: Path, wanted: bytes) -> bool:
    try:
        return path.read_bytes() == wanted
    except FileNotFoundError:
        return False
