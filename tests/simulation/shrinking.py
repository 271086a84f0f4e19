"""Makes a plan that fails shorter, as long as it fails in the same way.

Delta debugging (Zeller and Hildebrandt 2002) over steps, after whole devices were tried. Called by
the command.
"""

from __future__ import annotations

import time

from node.assembly import leaves_of
from tests.simulation.plan import Plan
from tests.simulation.world import Outcome, simulate

_PATIENCE_S = 120.0  # of shrinking: somebody waits for the command


def shrink(plan: Plan, outcome: Outcome) -> tuple[Plan, Outcome]:
    """The shortest plan found that fails with the same kind of error, and what it came to."""
    end_s = time.monotonic() + _PATIENCE_S
    wanted = _kind(outcome)
    best = plan, outcome

    def still_fails(kept: list[int]) -> bool:
        nonlocal best
        tried = plan.only(kept)
        result = simulate(tried)
        if result.failure is None or _kind(result) != wanted:
            return False
        best = tried, result
        return True

    for device in range(plan.devices):
        still_fails([index for index in best[0].kept if plan.steps[index].device != device])
    size = max(1, len(best[0].kept) // 2)
    while time.monotonic() < end_s:
        kept = list(best[0].kept)
        for start in range(0, len(kept), size):
            if time.monotonic() > end_s:
                return best
            if still_fails(kept[:start] + kept[start + size :]):
                break
        else:
            if size == 1:
                return best
            size = max(1, size // 2)
    return best


def _kind(outcome: Outcome) -> str:
    """What failures are compared by: their errors' types, and how their messages begin."""
    assert outcome.failure is not None
    return repr(
        sorted({(type(leaf).__name__, str(leaf)[:12]) for leaf in leaves_of(outcome.failure)})
    )
