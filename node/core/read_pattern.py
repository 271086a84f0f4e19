"""Whether somebody reads a file from front to back, so that it pays to fetch what comes next.

Owns the guess, from offsets alone. Refuses to know what a read returns and to fetch anything. Called
by ``node.sync.content_reader``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

NEARNESS_BYTES: Final = 4 * 1024 * 1024
"""The kernel reads ahead with several requests at once, which arrive in any order: 4 MiB is what it
has under way when each has 1 MiB."""

READS_OF_A_RUN: Final = 2
"""One read says nothing: programs that list a folder look at the beginning of every file."""

STREAMS: Final = 256
"""Files watched at a time; the one that was read longest ago is forgotten."""


@dataclass(slots=True)
class _Run:
    """Reads that went on where the ones before had ended, or close to it."""

    frontier: int
    reads: int


class ReadPattern:
    """Watches the reads of many files.

    Concurrency: owned by one reader; nothing here awaits.
    """

    __slots__ = ("_runs", "_streams")

    def __init__(self, streams: int = STREAMS) -> None:
        self._streams = streams
        self._runs: OrderedDict[Hashable, _Run] = OrderedDict()

    def is_sequential(self, stream: Hashable, offset: int, size: int) -> bool:
        """Notes a read, and says whether it continues a run that moves forward.

        Args:
            stream: what is read; the same value for every read of one version of a file.
            offset: of the first byte.
            size: bytes read.
        """
        end = offset + size
        run = self._runs.get(stream)
        if run is None or abs(offset - run.frontier) > NEARNESS_BYTES:
            self._runs[stream] = _Run(end, 1)
            self._runs.move_to_end(stream)
            if len(self._runs) > self._streams:
                self._runs.popitem(last=False)
            return False
        self._runs.move_to_end(stream)
        if end > run.frontier:
            run.frontier = end
            run.reads += 1
        return run.reads >= READS_OF_A_RUN
