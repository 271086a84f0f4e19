"""Runs a trio program in virtual time, in an order that a seed decides.

Knows nothing of nodes and servers. Called by the world of a simulation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio._core._run as scheduler  # the only place where the order of tasks is decided

Result = TypeVar("Result")


def run_in_virtual_time(seed: str, main: Callable[[], Awaitable[Result]]) -> Result:
    """What ``main`` returns; time passes only when every task waits."""
    with _order_of(seed):
        return trio.run(main, clock=JumpingClock())


class JumpingClock(trio.abc.Clock):
    """A clock that stands still while any task can run, and then jumps to the next deadline.

    As `trio.testing.MockClock` with an autojump threshold of 0, at a fifth of its cost: the run loop
    asks how long to sleep only when no task can run.
    """

    def __init__(self) -> None:
        self._now_s = 0.0

    def start_clock(self) -> None:
        """Nothing: no time passes by itself."""

    def current_time(self) -> float:
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if deadline == math.inf:
            return 1.0  # only the loop's own pipe wakes anything now: it starts, or ends
        self._now_s = max(self._now_s, deadline)
        return 0


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """In place of a thread."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@contextmanager
def _order_of(seed: str) -> Iterator[None]:
    """Runnable tasks go in an order drawn from the seed, not from addresses in memory."""
    former = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(random.Random(seed).random())
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = former  # type: ignore[misc]
        scheduler._r.setstate(state)
