"""Runs trio so that one seed decides everything: which task goes first, and what the clock says.

Owns the use of trio's private switch for tests of schedulers. Called by `campaign` and by tests.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing
from trio._core import _run

Result = TypeVar("Result")


def run_seeded(seed: int, main: Callable[[], Awaitable[Result]]) -> Result:
    """What the function returns; no time passes but while all tasks wait for a later moment.

    Trio shuffles the tasks that could run now. The switch sorts them first, so that the shuffle
    depends on nothing but its generator (python-trio, ``_core/_run.py``). Iteration over sets of
    bytes depends on PYTHONHASHSEED besides, which ``scripts/simulate`` sets.
    """
    former = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r = random.Random(seed)
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r = former  # type: ignore[misc]


async def run_inline(function: Callable[..., Any], *arguments: Any, **_options: Any) -> Any:
    """In place of a thread: the virtual clock would run ahead of it."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)
