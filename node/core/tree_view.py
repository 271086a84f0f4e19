"""Which tree a namespace's state shows: the rules, as pure functions.

Same state, same tree, on every device. The index applies these rules to what changed; `view_of`
applies them to everything and is what the index must always equal.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocol.ids import ROOT_ITEM, DeviceId, ItemId, LinkId
from protocol.limits import MAX_NAME_BYTES
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version(Generic[T]):
    """A live value of a register, with what decides between siblings."""

    dot: Dot
    time_us: int
    device: DeviceId
    context: Context
    value: T

    @property
    def rank(self) -> tuple[int, Dot]:
        """Greater is later. Total: dots are distinct."""
        return (self.time_us, self.dot)


@dataclass(frozen=True, slots=True)
class PlacedLink:
    """A link that the item has in the merged placement, and the write that put it there."""

    link: Link
    time_us: int
    dot: Dot
    device: DeviceId

    @property
    def rank(self) -> tuple[int, Dot, LinkId]:
        """Greater is later; total also among the links of one write."""
        return (self.time_us, self.dot, self.link.id)


@dataclass(frozen=True, slots=True)
class ItemView:
    """One item as its own registers show it, before its neighbours are looked at.

    Attributes:
        links: none when the item is deleted; at most one for a folder.
        former: where it hung before, the latest first: its place in a cycle or when revived.
        content: the winner; None while no content arrived.
        conflicts: content siblings whose bytes differ from the winner's and from each other's.
        attributes: the latest; None while none arrived.
    """

    links: tuple[PlacedLink, ...]
    former: tuple[PlacedLink, ...]
    content: Version[Content] | None
    conflicts: tuple[Version[Content], ...]
    attributes: Version[ItemAttributes] | None

    @property
    def is_folder(self) -> bool:
        """Whether other items can hang below it."""
        return self.content is not None and self.content.value.kind is Kind.DIRECTORY


def view_item(
    placements: Sequence[Version[Placement]],
    attributes: Sequence[Version[ItemAttributes]],
    contents: Sequence[Version[Content]],
) -> ItemView:
    """The view of one item from the live values of its registers (in any order)."""
    winner, conflicts = choose_content(contents)
    links, former = merge_placements(placements)
    if not links and former and _is_revived(placements, contents):
        links = former[:1]
    if winner is not None and winner.value.kind is Kind.DIRECTORY and len(links) > 1:
        links = (max(links, key=lambda placed: placed.rank),)
    latest = max(attributes, key=lambda version: version.rank, default=None)
    return ItemView(links, former, winner, conflicts, latest)


def choose_content(
    versions: Sequence[Version[Content]],
) -> tuple[Version[Content] | None, tuple[Version[Content], ...]]:
    """The version that is shown, and the conflict versions beside it, the latest first.

    Versions with the same bytes are one; the latest of them stands for all.
    """
    kept: list[Version[Content]] = []
    for version in sorted(versions, key=lambda version: version.rank, reverse=True):
        if not any(version.value.has_same_bytes(other.value) for other in kept):
            kept.append(version)
    return (kept[0], tuple(kept[1:])) if kept else (None, ())


def merge_placements(
    versions: Sequence[Version[Placement]],
) -> tuple[tuple[PlacedLink, ...], tuple[PlacedLink, ...]]:
    """The links that siblings show together, and the former ones, the latest first.

    Per link the latest position counts. A link that one sibling removed stays if another sibling
    moved it, and every link that a sibling added stays.
    """
    if len(versions) == 1:
        version = versions[0]
        return _placed(version, version.value.links), _placed(version, version.value.former)
    ordered = sorted(versions, key=lambda version: version.rank, reverse=True)
    chosen: dict[LinkId, PlacedLink] = {}
    for version in ordered:
        for placed in _placed(version, version.value.links):
            chosen.setdefault(placed.link.id, placed)
    for version in ordered:
        kept_ids = {link.id for link in version.value.links}
        for former in version.value.former:
            placed = chosen.get(former.id)
            if former.id not in kept_ids and placed is not None and placed.link == former:
                del chosen[former.id]
    formers = [
        placed for version in ordered for placed in _placed(version, version.value.former)
    ]
    links = tuple(sorted(chosen.values(), key=lambda placed: placed.link.id))
    return links, tuple(formers)


def _placed(version: Version[Placement], links: Iterable[Link]) -> tuple[PlacedLink, ...]:
    return tuple(
        PlacedLink(link, version.time_us, version.dot, version.device) for link in links
    )


def _is_revived(
    placements: Sequence[Version[Placement]], contents: Sequence[Version[Content]]
) -> bool:
    seen = EMPTY_CONTEXT
    for placement in placements:
        seen = seen.join(placement.value.seen)
    return any(not seen.covers(version.value.origin or version.dot) for version in contents)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that wants a name in a folder."""

    item: ItemId
    placed: PlacedLink
    is_folder: bool

    @property
    def precedence(self) -> tuple[bool, int, Dot, LinkId, ItemId]:
        """The smallest keeps the name: folders first, then the earliest placement."""
        return (not self.is_folder, *self.placed.rank, self.item)


@dataclass(frozen=True, slots=True)
class Slot:
    """Who shows under one wanted name.

    Attributes:
        keeper: has the name; None when nobody wants it.
        merged: further folders of the name, shown as one with the keeper.
        renamed: shown under another name.
    """

    keeper: Candidate | None
    merged: tuple[Candidate, ...]
    renamed: tuple[Candidate, ...]


def share_name(candidates: Iterable[Candidate]) -> Slot:
    """Decide between the items that want one name in one folder."""
    ordered = sorted(candidates, key=lambda candidate: candidate.precedence)
    if not ordered:
        return Slot(None, (), ())
    keeper, rest = ordered[0], ordered[1:]
    merged = tuple(c for c in rest if keeper.is_folder and c.is_folder)
    renamed = tuple(c for c in rest if not (keeper.is_folder and c.is_folder))
    return Slot(keeper, merged, renamed)


def contested_name(
    name: bytes, device_name: str, time_us: int, is_free: Callable[[bytes], bool]
) -> bytes:
    """``name (from DEVICE DATE).ext``, numbered until it is free, cut to fit into a folder."""
    date = datetime.datetime.fromtimestamp(time_us / 1e6, datetime.UTC).strftime("%Y-%m-%d")
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    label = "".join(c if c.isprintable() and c != "/" else "_" for c in device_name)[:40]
    number = 1
    while True:
        mark = f" (from {label} {date}{f' {number}' if number > 1 else ''})".encode()
        room = MAX_NAME_BYTES - len(mark) - len(dot) - len(extension)
        if room < 1:
            stem, dot, extension = name, b"", b""
            room = MAX_NAME_BYTES - len(mark)
        shown = stem[:room] + mark + dot + extension
        if is_free(shown):
            return shown
        number += 1


@dataclass(frozen=True, slots=True)
class Move:
    """Where a folder wants to hang, and where it hung before."""

    parent: ItemId
    former: tuple[ItemId, ...]
    rank: tuple[int, Dot, LinkId]


def cut_cycles(moves: Mapping[ItemId, Move]) -> dict[ItemId, ItemId]:
    """The folders that can not hang where they want, with the parent that they get.

    While there is a cycle, the folder that was moved latest takes its former place; the second
    time it is hung below the root.

    Source: the requirements of Kleppmann et al., "A highly-available move operation for replicated
    trees" (2021), met on the state instead of on an operation log.
    """
    parents = {folder: move.parent for folder, move in moves.items()}
    tries: dict[ItemId, int] = {}
    while (cycle := _find_cycle(parents)) is not None:
        latest = max(cycle, key=lambda folder: (-tries.get(folder, 0) // 2, moves[folder].rank))
        attempt = tries.get(latest, 0)
        tries[latest] = attempt + 1
        former = moves[latest].former
        parents[latest] = former[0] if attempt == 0 and former else ROOT_ITEM
    return {folder: parents[folder] for folder in tries}


def _find_cycle(parents: Mapping[ItemId, ItemId]) -> list[ItemId] | None:
    finished: set[ItemId] = set()
    for start in sorted(parents):
        path: dict[ItemId, None] = {}
        folder = start
        while folder in parents and folder not in finished:
            if folder in path:
                members = list(path)
                return members[members.index(folder) :]
            path[folder] = None
            folder = parents[folder]
        finished.update(path)
    return None
