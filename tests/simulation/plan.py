"""What happens in a run: a list of steps drawn from a seed. Pure.

A step names what it does by numbers that are resolved when it is carried out (the n-th file that
there is then), so that any part of a plan is a plan: that is how failing ones are made shorter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

PROGRAM = {
    "create": 10,
    "edit": 14,
    "append": 6,
    "overwrite": 5,
    "truncate": 2,
    "big": 3,
    "rename": 6,
    "move folder": 5,
    "remove": 5,
    "remove all": 2,
    "mkdir": 5,
    "change case": 2,
    "link": 3,
    "symlink": 2,
    "chmod": 3,
    "unpack": 4,
    "save by rename": 6,
    "save with backup": 4,
    "save by delete": 3,
    "hold open": 2,
    "exchange": 2,
    "set xattr": 2,
}

FAULTS = {
    "crash": 5,
    "power": 4,
    "stop": 2,
    "cut": 4,
    "cut up": 2,
    "cut down": 3,
    "heal": 5,
    "weather": 4,
    "server crash": 3,
    "server down": 2,
    "drop index": 2,
    "skew": 2,
    "wild clock": 2,
    "suspend": 1,
    "backup": 3,
    "restore": 1,
    "clone": 1,
}

_NEEDS_FEW_FAULTS = 0.15  # so many plans have no fault at all, so that ordinary days are tried too


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    Attributes:
        gap_s: after the step before.
        device: who does it, or whom it befalls.
        numbers: resolved by whoever carries it out.
    """

    gap_s: float
    action: str
    device: int
    numbers: tuple[int, int, int]

    @property
    def is_fault(self) -> bool:
        return self.action in FAULTS


@dataclass(frozen=True)
class Plan:
    """A run."""

    seed: int
    devices: int
    operations: int
    steps: tuple[Step, ...]
    kept: tuple[int, ...]

    def only(self, kept: Sequence[int]) -> Plan:
        """The plan with some of its steps."""
        return replace(self, kept=tuple(kept))

    @property
    def chosen(self) -> list[Step]:
        """The steps that are carried out."""
        return [self.steps[index] for index in self.kept]


def plan_of(seed: int, devices: int = 3, operations: int = 50) -> Plan:
    """The plan of a seed."""
    draw = random.Random(f"{seed}/plan")
    fault_share = 0.0 if draw.random() < _NEEDS_FEW_FAULTS else draw.choice((0.05, 0.15, 0.3))
    pace_s = draw.choice((0.05, 0.5, 2.0, 10.0))
    steps: list[Step] = []
    done = 0
    while done < operations:
        is_fault = draw.random() < fault_share
        actions = FAULTS if is_fault else PROGRAM
        (action,) = draw.choices(list(actions), list(actions.values()))
        numbers = (draw.randrange(10**6), draw.randrange(10**6), draw.randrange(10**6))
        gap_s = draw.expovariate(1 / pace_s) if draw.random() < 0.7 else 0.0
        steps.append(Step(gap_s, action, draw.randrange(devices), numbers))
        done += not is_fault
    return Plan(seed, devices, operations, tuple(steps), tuple(range(len(steps))))
