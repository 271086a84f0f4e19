"""What was just done to names: which files are new, who left which name, what arrived meanwhile.

Kept in memory and bounded: what is forgotten only means that a file keeps its own identity. Knows
no registers. Called by `node.filesystem.saves`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from node.core.save_patterns import DANCE_NS, RECENT_NS
from node.core.tree_view import Version
from protocol.ids import ItemId, LinkId
from protocol.values import Content
from protocol.version_vector import Dot

Name = tuple[ItemId, bytes]
Key = TypeVar("Key")
Value = TypeVar("Value")

_MOST = 4096  # as many as a program leaves within seconds; a tree that is removed needs no memory


@dataclass(frozen=True, slots=True)
class Departure:
    """Who left a name, over which link, and the version that the name showed.

    Attributes:
        replaced: whose place it took, when it was moved over another file.
    """

    item: ItemId
    link: LinkId
    version: Dot
    replaced: ItemId | None = None


class _Lately(Generic[Key, Value]):
    """The latest few values with their times."""

    def __init__(self, lasts_ns: int) -> None:
        self._lasts_ns = lasts_ns
        self._values: OrderedDict[Key, tuple[int, Value]] = OrderedDict()

    def put(self, key: Key, now_ns: int, value: Value) -> None:
        self._values[key] = (now_ns, value)
        self._values.move_to_end(key)
        if len(self._values) > _MOST:
            self._values.popitem(last=False)

    def get(self, key: Key, now_ns: int) -> tuple[int, Value] | None:
        """Time and value, unless they are too old; a clock that went back makes nothing old."""
        found = self._values.get(key)
        if found is None:
            return None
        if now_ns - found[0] > self._lasts_ns:
            del self._values[key]
            return None
        return found

    def drop(self, key: Key) -> None:
        self._values.pop(key, None)


class SaveMemory:
    """Concurrency: owned by the node's loop; no method awaits."""

    def __init__(self) -> None:
        self._made: _Lately[ItemId, None] = _Lately(RECENT_NS)
        self._left: _Lately[Name, Departure] = _Lately(DANCE_NS)
        self._linked: _Lately[LinkId, None] = _Lately(DANCE_NS)
        self._backups: _Lately[ItemId, ItemId] = _Lately(DANCE_NS)
        self._saved: _Lately[ItemId, ItemId] = _Lately(DANCE_NS)
        self._replaced: _Lately[ItemId, list[tuple[int, Version[Content]]]] = _Lately(RECENT_NS)

    def made(self, item: ItemId, now_ns: int) -> None:
        """A file was made here."""
        self._made.put(item, now_ns, None)

    def age_ns(self, item: ItemId, now_ns: int) -> int | None:
        """How long ago a file was made here; None when that is too long."""
        found = self._made.get(item, now_ns)
        return None if found is None else now_ns - found[0]

    def linked(self, link: LinkId, now_ns: int) -> None:
        """A file was given one more name."""
        self._linked.put(link, now_ns, None)

    def is_step(self, link: LinkId, now_ns: int) -> bool:
        """Whether a name was given just now."""
        return self._linked.get(link, now_ns) is not None

    def left(self, name: Name, departure: Departure, now_ns: int) -> None:
        """A file lost its name, or was moved from it to the name of a backup."""
        self._left.put(name, now_ns, departure)

    def who_left(self, name: Name, now_ns: int) -> Departure | None:
        """Who had a name until just now."""
        found = self._left.get(name, now_ns)
        return None if found is None else found[1]

    def came_back(self, name: Name) -> None:
        """A name that was left is in use again."""
        self._left.drop(name)

    def saved(self, item: ItemId, backup: ItemId, now_ns: int) -> None:
        """A file was written anew, and its former version is another item now."""
        self._backups.put(item, now_ns, backup)
        self._saved.put(backup, now_ns, item)

    def backup_of(self, item: ItemId, now_ns: int) -> ItemId | None:
        """The item that holds the former version of a file which is being saved."""
        found = self._backups.get(item, now_ns)
        return None if found is None else found[1]

    def saved_before(self, backup: ItemId, now_ns: int) -> ItemId | None:
        """The file whose former version an item holds."""
        found = self._saved.get(backup, now_ns)
        return None if found is None else found[1]

    def replaced(self, item: ItemId, version: Version[Content], now_ns: int) -> None:
        """What a file showed until something arrived from elsewhere."""
        found = self._replaced.get(item, now_ns)
        self._replaced.put(item, now_ns, [*(found[1] if found else ())[-7:], (now_ns, version)])

    def shown_at(self, item: ItemId, age_ns: int, now_ns: int) -> Version[Content] | None:
        """What a file showed so long ago; None when it shows that still."""
        found = self._replaced.get(item, now_ns)
        for until_ns, version in found[1] if found is not None else ():
            if until_ns > now_ns - age_ns:
                return version
        return None
