"""Where work on bytes is done: on the loop when they are few, else in a thread.

Owns that choice and a bound on threads. Refuses to know the work. Called by ``node.sync`` for
hashing, sealing, opening, and files of the block cache.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar

import trio

Result = TypeVar("Result")

RunSync = Callable[..., Awaitable[Any]]
"""Runs a function in a thread (`trio.to_thread.run_sync`), or inline where time is simulated."""

QUICK_BYTES: Final = 128 * 1024
"""To seal so much takes 0.2 ms; a visit to a thread costs 0.1 ms and a switch of the interpreter."""


class Workers:
    """Carries out work that neither awaits nor touches what the loop owns.

    Concurrency: shared. Work in a thread is waited for even when the caller is cancelled, so that
    what it reads stays open and what it writes is whole.
    """

    def __init__(self, threads: int, quick_bytes: int = QUICK_BYTES) -> None:
        """At most ``threads`` at one time; none for work on up to ``quick_bytes``."""
        self._limiter = trio.CapacityLimiter(threads)
        self._quick_bytes = quick_bytes

    @classmethod
    def inline(cls) -> Self:
        """Workers without threads, for a clock that must not run ahead of them."""
        return cls(1, sys.maxsize)

    async def call(self, size_bytes: int, work: Callable[[], Result]) -> Result:
        """What the work on so many bytes returns or raises."""
        if size_bytes <= self._quick_bytes:
            await trio.lowlevel.checkpoint()
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._limiter)
