"""Runs a trio program in virtual time, in an order that a seed decides.

Knows nothing of nodes and servers. Called by the world of a simulation.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio._core._run as scheduler  # the only place where the order of tasks is decided
from trio.testing import MockClock

Result = TypeVar("Result")


def run_in_virtual_time(seed: str, main: Callable[[], Awaitable[Result]]) -> Result:
    """What ``main`` returns; time passes only when every task waits."""
    with _order_of(seed):
        return trio.run(main, clock=MockClock(autojump_threshold=0))


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
