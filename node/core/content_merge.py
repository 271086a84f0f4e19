"""How the contents that devices wrote apart become one: which base, who yields, whose turn. Pure.

Knows versions and contexts; reads no bytes and sends nothing. Called by `node.sync.sibling_merge`
and by the merger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from node.core.tree_view import Version
from protocol.ids import DeviceId
from protocol.values import Content, Kind
from protocol.version_vector import EMPTY_CONTEXT, Context

SETTLE_S = 0.5
"""A device that is just sending several changes of a file is let finish."""

TURN_S = 2.0
"""A record of the first author is here in less, where both are connected."""

STRANGER_WAIT_S = 30.0
"""Whoever wrote none of the sides leaves the merge to those who did, unless they are away."""


@dataclass(frozen=True, slots=True)
class Side:
    """What is to be merged: one version, or several that were merged already.

    Attributes:
        versions: what it covers once it is published.
        context: all that its writers had seen, with its own dots.
        content: None when no version has these bytes.
        data: the bytes where they are at hand.
    """

    versions: tuple[Version[Content], ...]
    context: Context
    content: Content | None
    data: bytes | None = None

    @property
    def mtime_ns(self) -> int:
        """The latest time of its versions: whoever merges, it is the same."""
        return max(version.value.mtime_ns for version in self.versions)

    def published(self, *, is_automatic: bool) -> Content | None:
        """What to publish when a version has the bytes; None when they are new.

        What a node decides names the write that brought the bytes: whoever deletes the file having
        seen that one has seen these.
        """
        if self.content is None:
            return None
        writer = next(version for version in self.versions if version.value is self.content)
        origin = self.content.origin or writer.dot if is_automatic else None
        return replace(self.content, mtime_ns=self.mtime_ns, origin=origin)

    def with_bytes(self, other: Side, content: Content | None, data: bytes | None) -> Side:
        """This side and another one as one."""
        return Side(
            (*self.versions, *other.versions), self.context.join(other.context), content, data
        )

    def shows(self, content: Content) -> bool:
        """Whether this surely has the same bytes."""
        return self.content is not None and self.content.has_same_bytes(content)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of content siblings.

    Attributes:
        covered: the siblings that are settled; others stay.
        content: stands for them.
        beside: siblings that become files of their own beside the file.
        is_automatic: a node decided it, not a user.
    """

    covered: tuple[Version[Content], ...]
    content: Content
    beside: tuple[Version[Content], ...] = ()
    is_automatic: bool = False


def side_of(version: Version[Content]) -> Side:
    """One version as a side."""
    return Side((version,), version.context.add([version.dot]), version.value)


def distinct_sides(siblings: Iterable[Version[Content]]) -> list[Side]:
    """One side for all siblings with the same bytes, the earliest first."""
    sides: list[Side] = []
    for version in sorted(siblings, key=lambda version: version.rank):
        place = next((n for n, side in enumerate(sides) if side.shows(version.value)), len(sides))
        alike = sides[place : place + 1]
        side = side_of(version)
        sides[place : place + 1] = [
            alike[0].with_bytes(side, version.value, None) if alike else side
        ]
    return sides


def choose_base(
    one: Side, other: Side, known: Iterable[Version[Content]]
) -> Version[Content] | None:
    """The newest version that both sides were written over, or None when none is known.

    Newest by cause: a version that another one of them was written over is older, whatever clocks
    said. Of several that nobody had written over each other, the latest.
    """
    common = [
        version
        for version in known
        if one.context.covers(version.dot) and other.context.covers(version.dot)
    ]
    seen = EMPTY_CONTEXT
    for version in common:
        seen = seen.join(version.context)
    newest = [version for version in common if not seen.covers(version.dot)]
    return max(newest, key=lambda version: version.rank, default=None)


def settled(one: Side, other: Side, known: Sequence[Version[Content]]) -> Side | None:
    """Both sides as one, where that needs no bytes: one of them adds nothing.

    A side that equals the base yields. So does a side whose bytes somebody else had written as well, in a version that the other side was written over: two
    devices that made the same merge at once end up here, when somebody edits one of the two.
    """
    for yielding, staying in ((one, other), (other, one)):
        if _adds_nothing(yielding, staying, known):
            return yielding.with_bytes(staying, staying.content, staying.data)
    return None


def _adds_nothing(side: Side, other: Side, known: Sequence[Version[Content]]) -> bool:
    base = choose_base(side, other, known)
    if base is not None and side.shows(base.value):
        return True
    return any(
        other.context.covers(version.dot)
        and not side.context.covers(version.dot)
        and side.shows(version.value)
        for version in known
    )


def may_be_text(content: Content, longest_bytes: int) -> bool:
    """Whether it is worth reading: a file that is not too long to be merged."""
    return content.kind is Kind.FILE and content.size <= longest_bytes


def wait_s(
    siblings: Sequence[Version[Content]], device: DeviceId, draw: Callable[[], float]
) -> float:
    """How long a device leaves a merge to others: nothing but a moment for the first author.

    Args:
        draw: from 0 to 1; spreads those who wait alike.
    """
    authors = sorted({version.device for version in siblings})
    if device not in authors:
        return STRANGER_WAIT_S * (1 + draw())
    rank = authors.index(device)
    return SETTLE_S + TURN_S * rank * (1 + draw())
