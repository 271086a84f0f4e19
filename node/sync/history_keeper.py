"""Lets replaced contents go when their retention time is over, or when they are too many.

One task that looks once an hour, in small steps, so that the mount answers meanwhile. Called by the
node's assembly.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.storage.history import History
from node.storage.verdicts import Verdicts

MOST_VERSIONS = 500_000
"""Some 200 MB of index. A program that saves every second must not fill the disk in a month."""

_ROUND_S = 3600.0
_STEP_VERSIONS = 500
_US_PER_DAY = 24 * 3600 * 1_000_000


class HistoryKeeper:
    """Prunes the history of one namespace.

    Concurrency: one task; each step is a transaction of its own.
    """

    def __init__(
        self,
        history: History,
        verdicts: Verdicts,
        days: float,
        now_ns: Callable[[], int],
        most_versions: int = MOST_VERSIONS,
    ) -> None:
        """``days``: for so long a replaced content is kept."""
        self._history = history
        self._verdicts = verdicts
        self._retention_us = int(days * _US_PER_DAY)
        self._now_ns = now_ns
        self._most_versions = most_versions

    async def run(self) -> None:
        """Prune until cancelled; StorageError when the index can not be written."""
        while True:
            await self.prune()
            await trio.sleep(_ROUND_S)

    async def prune(self) -> None:
        """One round."""
        now_us = self._now_ns() // 1000
        await _repeat(lambda: self._history.date(now_us, _STEP_VERSIONS))
        oldest_us = now_us - self._retention_us
        await _repeat(lambda: self._history.forget_before(oldest_us, _STEP_VERSIONS))
        surplus = self._history.count() - self._most_versions
        while surplus > 0:
            surplus -= self._history.forget_oldest(min(surplus, _STEP_VERSIONS))
            await trio.lowlevel.checkpoint()
        self._verdicts.sweep()


async def _repeat(step: Callable[[], int]) -> None:
    while step() == _STEP_VERSIONS:
        await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
