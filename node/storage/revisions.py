"""What each change of the view concerned, so that what was read before can be known to be true still.

Owns a count that grows with every change and the ids of the last ones. Knows no table. Called by
`node.storage.tree`; asked for those who keep what a folder lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final

from protocol.ids import ItemId

_KEPT: Final = 1024
"""Changes remembered: who has looked away for longer reads anew."""

_MOST_IDS: Final = 64
"""Of one change; what concerns more counts as concerning everything."""


class Revisions:
    """The changes of one view.

    Concurrency: owned by the node's loop; nothing here awaits.

    Attributes:
        number: grows with everything that may change what a folder lists.
    """

    def __init__(self) -> None:
        self.number = 0
        self._concerned: deque[frozenset[ItemId] | None] = deque(maxlen=_KEPT)

    def note(self, concerned: AbstractSet[ItemId]) -> None:
        """Something changed in the rows of these items, or in the entries of these folders."""
        self.number += 1
        is_short = len(concerned) <= _MOST_IDS
        self._concerned.append(frozenset(concerned) if is_short else None)

    def have_concerned(self, items: AbstractSet[ItemId], since: int) -> bool:
        """Whether a change after the one with that number may have concerned any of the items."""
        count = self.number - since
        if count > len(self._concerned):
            return True
        latest = islice(reversed(self._concerned), count)
        return any(ids is None or not items.isdisjoint(ids) for ids in latest)
