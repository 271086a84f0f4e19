"""A bound on memory that many pieces of work share.

Owns the count of bytes taken, and whose turn it is. Refuses to know what they are for. Called by
`node.sync.content_sealer`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


class ByteBudget:
    """Gives out bytes up to a limit, first come, first served.

    Concurrency: shared. Whoever takes must not take again before giving back, or two might wait
    for each other.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._turn = trio.Lock()
        self._given_back = trio.Event()

    @asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncGenerator[None, None]:
        """Waits until so many bytes are free, or all of them when more are asked for."""
        size_bytes = min(size_bytes, self._limit_bytes)
        async with self._turn:
            while self._free_bytes < size_bytes:
                self._given_back = trio.Event()
                await self._given_back.wait()
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            self._free_bytes += size_bytes
            self._given_back.set()
