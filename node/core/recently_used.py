"""A map that keeps what was used last, within a bound on its weight.

Owns the order of use and the bound. Refuses to know what the values are. Called by ``node.sync`` for
opened pages and blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


class RecentlyUsed(Generic[Key, Kept]):
    """Keeps values until newer use of others pushes them out.

    Concurrency: owned by one task at a time; nothing here awaits.

    Attributes:
        weight: of all values kept.
    """

    __slots__ = ("_limit", "_values", "_weigh", "weight")

    def __init__(self, limit: int, weigh: Callable[[Kept], int]) -> None:
        """Starts empty; the weights of the values kept never sum up to more than ``limit``."""
        self.weight = 0
        self._limit = limit
        self._weigh = weigh
        self._values: OrderedDict[Key, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Kept | None:
        """The value, which counts as used now; None when it is not kept."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Kept) -> None:
        """Keeps a value in place of a former one; a value heavier than the limit is not kept."""
        former = self._values.pop(key, None)
        if former is not None:
            self.weight -= self._weigh(former)
        weight = self._weigh(value)
        if weight > self._limit:
            return
        self._values[key] = value
        self.weight += weight
        while self.weight > self._limit:
            _, oldest = self._values.popitem(last=False)
            self.weight -= self._weigh(oldest)
