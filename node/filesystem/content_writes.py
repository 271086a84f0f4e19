"""Writes content into an item and into all that are shown as one with it.

Knows registers and twins; knows neither names nor open files. Called by edits and settlements inside
their transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.core.tree_view import Version
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Tree
from protocol.hybrid_clock import tick
from protocol.ids import ItemId
from protocol.records import Register
from protocol.values import Content
from protocol.version_vector import Dot


@dataclass(frozen=True, slots=True)
class Written:
    """Where a content went: the dot in the item's own register, and what its record will be."""

    dot: Dot
    time_us: int
    group: int


class ContentWrites:
    """Writes content. Concurrency: owned by the node's loop; no method awaits."""

    def __init__(
        self, registers: Registers, tree: Tree, journal: Journal, now_ns: Callable[[], int]
    ) -> None:
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._now_ns = now_ns

    def together(self, item: ItemId, content: Content | None = None) -> list[ItemId]:
        """The item and others that change with it.

        Args:
            content: to be written. If its bytes wait in staging, who else's bytes wait in that file
                changes as well, wherever it hangs.
        """
        sharing = self._registers.in_staging(content) if content is not None else []
        return list(dict.fromkeys([item, *self._tree.twins(item), *sharing]))

    def write(
        self,
        item: ItemId,
        content: Content,
        bases: Sequence[Version[Content]] | None,
        *,
        later_than: Iterable[Version[Any]] = (),
        automatic: bool = False,
        group: int | None = None,
    ) -> Written:
        """Write content in one group, and bring the view up to date.

        Args:
            bases: versions of the item that the writer had seen; None for all that are known here.
                Versions with the same bytes were seen with them.
            later_than: more versions that the write's time must be after.
            group: one that it is to be in, with groups that wait already.
        """
        covered = {each: self._covered(each, bases) for each in self.together(item, content)}
        if bases is not None:
            covered[item] = [*bases, *(covered[item] or ())]
        seen = [version for versions in covered.values() for version in versions or ()]
        time_us = tick(
            self._now_ns() // 1000, (version.time_us for version in (*seen, *later_than))
        )
        joined = {*self._registers.groups_of(covered), *([] if group is None else [group])}
        group = self._journal.open_group(self._now_ns() // 1000, sorted(joined))
        dots: dict[ItemId, Dot] = {}
        for each, versions in covered.items():
            own = content if each == item else self._as_of(each, content)
            dots[each] = self._registers.write_local(
                each, Register.CONTENT, own, time_us, group, versions, automatic=automatic
            )
        for each in covered:
            self._tree.refresh_values(each, self._now_ns())
        return Written(dots[item], time_us, group)

    def _covered(
        self, item: ItemId, bases: Sequence[Version[Content]] | None
    ) -> list[Version[Content]] | None:
        if bases is None:
            return None
        return [
            version
            for version in self._registers.contents(item)
            if any(version.value.has_same_bytes(base.value) for base in bases)
        ]

    def _as_of(self, twin: ItemId, content: Content) -> Content:
        """The content as a twin's: bytes that are kept came to it with a write of its own."""
        if content.origin is None:
            return content
        for version in self._registers.contents(twin):
            if version.value.has_same_bytes(content):
                return replace(content, origin=version.value.origin or version.dot)
        return replace(content, origin=None)
