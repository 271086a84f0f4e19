"""What happened in a run, as a hash to compare and counts to judge it by."""

from __future__ import annotations

import hashlib
from collections import Counter, deque

import trio

_KEPT_LINES = 4000  # of the end of a run, for whoever looks at a failure


class Trace:
    """Every event of a run goes through here, in its order.

    Attributes:
        counts: how often each kind of thing happened.
        lines: the last ones, to read.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._digest = hashlib.blake2b(digest_size=16)

    def note(self, what: str, *details: object) -> None:
        """One event; its first word is counted."""
        self.counts[what] += 1
        line = f"{trio.current_time():.6f} {what} {' '.join(map(str, details))}"
        self._digest.update(line.encode(errors="surrogateescape") + b"\n")
        self.lines.append(line)

    @property
    def hexdigest(self) -> str:
        """The same for two runs in which the same happened at the same moments."""
        return self._digest.hexdigest()
