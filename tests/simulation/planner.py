"""The rules of the lattice and of the tree view, tried thousands of times a second, without any IO.

A random tree is changed twice on two or three devices that hear of some of each other's changes in
between; then everything is delivered in any order, twice, or as whole states. Called by tests, and::

    python -m tests.simulation.planner --cases 10000 --seed 1

Source: the shape of Dropbox's CanopyCheck ("Testing sync at Dropbox", 2020): random trees, no
network, thousands of cases a second; a failing case is its seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import lru_cache
from random import Random

from tests.simulation.planner_oracles import (
    check_agreement,
    check_nothing_is_lost,
    check_tree,
    item_views,
)
from tests.simulation.planner_world import (
    Record,
    Replica,
    base_tree,
    change,
    pick,
    shuffled,
)

_BASES = 64
_CHUNK = 500  # cases per measurement
_CLOCK_SKEWS_US = (0, 5, 50, 10_000_000)


def run_case(seed: int) -> Counter[str]:
    """One case, from its seed alone.

    Returns:
        What it reached, by name.

    Raises:
        AssertionError: an oracle does not hold.
    """
    draw = Random(seed)
    base = _base(int(draw.random() * _BASES))
    count = pick(draw, (2, 2, 2, 3))
    replicas = [
        base.copy(number, base.clock_us + pick(draw, _CLOCK_SKEWS_US))
        for number in range(1, count + 1)
    ]
    waiting: dict[int, list[Record]] = {replica.number: [] for replica in replicas}
    records = _perturb(replicas, waiting, draw)
    for replica in replicas:
        early = waiting[replica.number] = shuffled(draw, waiting[replica.number])
        for _ in range(int(draw.random() * (len(early) + 1))):
            replica.receive(early.pop())
    records += _perturb(replicas, waiting, draw)
    _deliver(replicas, waiting, draw)
    check_agreement(replicas, records)
    views = item_views(replicas[0], replicas[0].files + replicas[0].folders)
    reached = check_tree(replicas, views)
    check_nothing_is_lost(replicas[0], views)
    return reached


def _perturb(
    replicas: list[Replica], waiting: dict[int, list[Record]], draw: Random
) -> list[Record]:
    records = []
    for replica in replicas:
        for _ in range(pick(draw, (1, 1, 1, 2))):
            made = change(replica, draw)
            records += made
            for number, others in waiting.items():
                if number != replica.number:
                    others += made
    return records


def _deliver(replicas: list[Replica], waiting: dict[int, list[Record]], draw: Random) -> None:
    """Everything to everybody: record by record in any order, some twice, or as one state."""
    first = replicas[0]
    for replica in replicas:
        rest = waiting[replica.number]
        if replica is not first and draw.random() < 0.2:
            # What it has not heard of, the first device has.
            replica.merge(first)
            for record in rest:
                replica.receive(record)
            continue
        for record in shuffled(draw, rest):
            replica.receive(record)
        if rest and draw.random() < 0.2:
            replica.receive(pick(draw, rest))


@lru_cache(maxsize=_BASES)
def _base(number: int) -> Replica:
    return base_tree(Random(number))


def run_cases(first_seed: int, count: int) -> Counter[str]:
    """Many cases; the seed of one that fails stands in the error."""
    reached: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + count):
        try:
            reached.update(run_case(seed))
        except Exception as error:
            error.add_note(f"python -m tests.simulation.planner --cases 1 --seed {seed}")
            raise
    return reached


def main() -> int:
    """Run cases and print how many a second of this core's time made."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planner")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one; they count up")
    arguments = parser.parse_args()
    run_cases(0, 100)  # makes the base trees
    reached: Counter[str] = Counter()
    spent_s = []
    for first in range(arguments.seed, arguments.seed + arguments.cases, _CHUNK):
        began = time.process_time()
        count = min(_CHUNK, arguments.seed + arguments.cases - first)
        reached += run_cases(first, count)
        spent_s.append((time.process_time() - began) / count)
    spent_s.sort()
    print(
        f"{arguments.cases} cases from seed {arguments.seed}: "
        f"median {1 / spent_s[len(spent_s) // 2]:.0f}/s of this core's time, "
        f"best {1 / spent_s[0]:.0f}/s (other load on the machine slows it)"
    )
    print(", ".join(f"{name} {count}" for name, count in sorted(reached.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
