"""Merges the content siblings of one file: reads what it must, and writes nothing.

Owns the order in which siblings are joined, so that every device that has the same siblings and the
same history comes to the same bytes. Called by the merger and by ``atoll resolve``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from node.core.content_merge import Side, choose_base, distinct_sides, may_be_text, settled, side_of
from node.core.text_lines import MAX_TEXT_BYTES
from node.core.text_merge import Merged, NotMergeable, Overlap, mark, merge
from node.core.tree_view import Version
from node.sync.workers import RunSync
from protocol.values import Content


class ContentSource(Protocol):
    """Where the bytes of sealed contents come from."""

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of siblings.

    Attributes:
        side: those that were merged; None when no two of them can be.
        reason: why not all were, as a clause; empty when all were.
    """

    side: Side | None
    reason: str = ""


class SiblingMerge:
    """Joins siblings pairwise, the earliest first.

    Concurrency: has no state; what it awaits are bytes and a thread.
    """

    def __init__(self, source: ContentSource, run_sync: RunSync) -> None:
        self._source = source
        self._run_sync = run_sync

    async def join(
        self, siblings: Sequence[Version[Content]], history: Sequence[Version[Content]]
    ) -> Joined:
        """Merge as many siblings as go together.

        Siblings with the same bytes are one already; they alone are nothing to publish, or devices
        that merge at once would go on covering each other's merges.

        Raises:
            ServerError: bytes are not here and did not arrive.
            StorageError: bytes can not be read.
        """
        waiting = distinct_sides(siblings)
        known = [*history, *siblings]
        reason = ""
        while len(waiting) > 1:
            first, *others = waiting
            joined, left = first, []
            for other in others:
                result = await self._join_two(joined, other, known)
                if isinstance(result, Side):
                    joined = result
                else:
                    reason = result
                    left.append(other)
            if joined is not first:
                return Joined(joined, reason if left else "")
            waiting = left
        return Joined(None, reason)

    async def _join_two(
        self, one: Side, other: Side, known: Sequence[Version[Content]]
    ) -> Side | str:
        """Two sides as one, or why they can not be."""
        simple = settled(one, other, known)
        if simple is not None:
            return simple
        base = choose_base(one, other, known)
        if base is None:
            return "no version is known here that both were written over"
        texts = await self._texts(side_of(base), one, other)
        if isinstance(texts, str):
            return texts
        outcome: Merged | Overlap | NotMergeable = await self._run_sync(merge, *texts)
        match outcome:
            case Merged(data):
                return one.with_bytes(other, _content_of(data, texts, one, other), data)
            case Overlap():
                return "both changed the same lines"
            case NotMergeable(reason):
                return reason

    async def marked(
        self,
        siblings: Sequence[Version[Content]],
        history: Sequence[Version[Content]],
        label: Callable[[Version[Content]], str],
    ) -> bytes | str:
        """All siblings in one text, with marks where there is no merge; or why there is none.

        Args:
            label: what a version is called in the marks.

        Raises:
            ServerError, StorageError: as `join`.
        """
        first, *others = sorted(siblings, key=lambda each: each.rank)
        known = [*history, *siblings]
        joined, name = side_of(first), label(first)
        for other in others:
            side = side_of(other)
            base = choose_base(joined, side, known)
            texts = await self._texts(side_of(base or other), joined, side)
            if isinstance(texts, str):
                return texts
            old, one, two = texts
            marked = await self._run_sync(
                mark, None if base is None else old, one, two, name, label(other)
            )
            if isinstance(marked, NotMergeable):
                return marked.reason
            joined = joined.with_bytes(side, None, marked)
            name = f"{name}, {label(other)}"
        assert joined.data is not None
        return joined.data

    async def _texts(self, *sides: Side) -> tuple[bytes, ...] | str:
        contents = [side.content for side in sides if side.content is not None]
        if not all(may_be_text(content, MAX_TEXT_BYTES) for content in contents):
            return "it is too long to be compared, or no file"
        return tuple([await self._bytes(side) for side in sides])

    async def _bytes(self, side: Side) -> bytes:
        if side.data is not None:
            return side.data
        assert side.content is not None
        if side.content.manifest is None:
            return side.content.inline
        return await self._source.read(side.content, 0, side.content.size)


def _content_of(data: bytes, texts: Sequence[bytes], one: Side, other: Side) -> Content | None:
    """The content of the side that has the merged bytes already, if one does."""
    for text, side in zip(texts[1:], (one, other), strict=True):
        if text == data:
            return side.content
    return None
