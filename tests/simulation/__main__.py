"""The command behind `scripts/simulate`: many seeds, or one; shrinks what fails and says how to see it.

Needs ``PYTHONHASHSEED=0``, which the script sets: sets of bytes are then iterated in the same order
in every process.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence

import structlog

from tests.simulation.plan import FAULTS, PROGRAM, Plan, plan_of
from tests.simulation.shrinking import shrink
from tests.simulation.world import Outcome, simulate

_MANY_SEEDS = 100  # a campaign of so many must have tried everything
_MINUTE_S = 60.0


def main() -> int:
    """Run what the arguments say; 1 when a promise was broken or a campaign tried too little."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started_s, virtual_s, runs = time.process_time(), 0.0, 0
    counts: Counter[str] = Counter()
    for plan in _plans(arguments):
        outcome = simulate(plan)
        runs, virtual_s = runs + 1, virtual_s + outcome.virtual_s
        counts += outcome.counts
        if outcome.failure is not None:
            _report(plan, outcome, is_shrunk=arguments.shrink)
            return 1
        if arguments.seed is not None:
            sys.stdout.write(f"trace {outcome.trace}\n")
    spent_s = time.process_time() - started_s
    missing = [action for action in (*PROGRAM, *FAULTS) if not counts[action]]
    exercised = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
    days = virtual_s / 86_400
    sys.stdout.write(
        f"{runs} runs, {runs / spent_s:.1f} per second of a core, "
        f"{days / spent_s * _MINUTE_S:.2f} simulated days per minute: {exercised}\n"
    )
    if runs >= _MANY_SEEDS and missing:
        sys.stderr.write(f"the campaign was vacuous: it never tried {', '.join(missing)}\n")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one and print its trace")
    parser.add_argument("--minutes", type=float, help="run seeds for so long")
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--operations", type=int, default=50)
    parser.add_argument("--steps", help="only these steps of the plan, as 3,5,8-12")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false")
    return parser.parse_args()


def _plans(arguments: argparse.Namespace) -> Iterator[Plan]:
    if arguments.seed is not None:
        plan = plan_of(arguments.seed, arguments.devices, arguments.operations)
        yield plan if arguments.steps is None else plan.only(_parsed(arguments.steps))
        return
    end_s = None if arguments.minutes is None else time.monotonic() + arguments.minutes * _MINUTE_S
    seed = arguments.first
    while seed < arguments.first + arguments.seeds if end_s is None else time.monotonic() < end_s:
        yield plan_of(seed, arguments.devices, arguments.operations)
        seed += 1


def _report(plan: Plan, outcome: Outcome, *, is_shrunk: bool) -> None:
    """The failure, and the one command that shows it again."""
    sys.stdout.write(f"seed {plan.seed} failed; trace {outcome.trace}\n")
    if is_shrunk:
        plan, outcome = shrink(plan, outcome)
    assert outcome.failure is not None
    for index in plan.kept:
        step = plan.steps[index]
        sys.stdout.write(f"  {index}: +{step.gap_s:.2f} s, device {step.device}, {step.action}\n")
    traceback.print_exception(outcome.failure, limit=-4, file=sys.stdout)
    sys.stdout.write(
        f"replay: scripts/simulate --seed {plan.seed} --devices {plan.devices} "
        f"--operations {plan.operations} --steps {_printed(plan.kept)} --no-shrink\n"
    )


def _printed(kept: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for index in kept:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in runs)


def _parsed(steps: str) -> list[int]:
    kept: list[int] = []
    for part in filter(None, steps.split(",")):
        low, _, high = part.partition("-")
        kept += range(int(low), int(high or low) + 1)
    return kept


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.exit("run scripts/simulate, which makes runs repeatable")
    sys.exit(main())
