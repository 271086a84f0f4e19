"""Which tree a namespace's state shows: the rules, as pure functions.

Same state, same tree, on every device. The index applies these rules to what changed; `view_of`
applies them to everything and is what the index must always equal.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from protocol import codec
from protocol.ids import ROOT_ITEM, DeviceId, ItemId, LinkId
from protocol.limits import MAX_NAME_BYTES
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version(Generic[T]):
    """A live value of a register, with what decides between siblings.

    Attributes:
        automatic: made by a node on its own (a merge), out of what its context covers.
    """

    dot: Dot
    time_us: int
    device: DeviceId
    context: Context
    value: T
    automatic: bool = False

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
    if len(versions) == 1:
        return versions[0], ()
    kept: list[Version[Content]] = []
    for version in sorted(versions, key=lambda version: version.rank, reverse=True):
        if not any(version.value.has_same_bytes(other.value) for other in kept):
            kept.append(version)
    return (kept[0], tuple(kept[1:])) if kept else (None, ())


def merge_placements(
    versions: Sequence[Version[Placement]],
) -> tuple[tuple[PlacedLink, ...], tuple[PlacedLink, ...]]:
    """The links that siblings show together, and the former ones, the latest first.

    Per link the latest move counts; a sibling that only repeats a position from which another moved
    the link does not outdo it. A link that one sibling removed stays if another sibling moved it,
    and every link that a sibling added stays.
    """
    if len(versions) == 1:
        version = versions[0]
        return _placed(version, version.value.links), _placed(version, version.value.former)
    ordered = sorted(versions, key=lambda version: version.rank, reverse=True)
    left = {
        former
        for version in versions
        for former in version.value.former
        if former not in version.value.links
    }
    chosen: dict[LinkId, PlacedLink] = {}
    for is_left in (False, True):
        for version in ordered:
            for placed in _placed(version, version.value.links):
                if (placed.link in left) is is_left:
                    chosen.setdefault(placed.link.id, placed)
    for version in ordered:
        kept_ids = {link.id for link in version.value.links}
        for former in version.value.former:
            kept = chosen.get(former.id)
            if former.id not in kept_ids and kept is not None and kept.link == former:
                del chosen[former.id]
    formers = [placed for version in ordered for placed in _placed(version, version.value.former)]
    links = tuple(sorted(chosen.values(), key=lambda placed: placed.link.id))
    return links, tuple(formers)


def _placed(version: Version[Placement], links: Iterable[Link]) -> tuple[PlacedLink, ...]:
    if not links:
        return ()
    return tuple([PlacedLink(link, version.time_us, version.dot, version.device) for link in links])


def outside_graves(
    links: Iterable[PlacedLink], is_buried: Callable[[ItemId], bool]
) -> Iterator[PlacedLink]:
    """The links, in the root where their folder was buried: nobody knows any more where it was."""
    for placed in links:
        if is_buried(placed.link.parent):
            yield replace(placed, link=replace(placed.link, parent=ROOT_ITEM))
        else:
            yield placed


def _is_revived(
    placements: Sequence[Version[Placement]], contents: Sequence[Version[Content]]
) -> bool:
    seen = EMPTY_CONTEXT
    for placement in placements:
        seen = seen.join(placement.value.seen)
    return any(not _was_seen(version, seen) for version in contents)


def _was_seen(version: Version[Content], seen: Context) -> bool:
    """Whether who had seen these contents knew the bytes: a merge adds nothing to what it covers."""
    if seen.covers(version.value.origin or version.dot):
        return True
    return version.automatic and seen.contains(version.context)


def twin_identity(view: ItemView) -> bytes | None:
    """Equal for files and symlinks that surely hold the same bytes, also as conflict versions.

    Returns:
        None for what is never shown as one with its like.
    """
    if view.content is None or view.content.value.kind not in (Kind.FILE, Kind.SYMLINK):
        return None
    winner, *others = (
        codec.encode(version.value.identity()) for version in (view.content, *view.conflicts)
    )
    encoded = codec.encode([winner, *sorted(others)])
    return hashlib.blake2b(encoded, digest_size=20, person=b"atoll-twin-v1").digest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that wants a name in a folder.

    Attributes:
        twin: its `twin_identity`; it matters only where several want the name.
    """

    item: ItemId
    placed: PlacedLink
    is_folder: bool
    twin: bytes | None = None

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
        behind: per twin identity, those that are shown as one with the keeper or with a renamed
            one of the same identity; the earliest of them is the one that is shown.
    """

    keeper: Candidate | None
    merged: tuple[Candidate, ...]
    renamed: tuple[Candidate, ...]
    behind: Mapping[bytes, tuple[Candidate, ...]] = field(default_factory=dict)

    def twins_of(self, shown: Candidate) -> tuple[Candidate, ...]:
        """Who stands behind one that is shown."""
        return () if shown.twin is None else self.behind.get(shown.twin, ())


def share_name(candidates: Iterable[Candidate]) -> Slot:
    """Decide between the items that want one name in one folder."""
    ordered = list(candidates)
    if len(ordered) < 2:
        return Slot(ordered[0] if ordered else None, (), ())
    ordered.sort(key=lambda candidate: candidate.precedence)
    shown: list[Candidate] = []
    twins: dict[bytes, list[Candidate]] = {}
    for candidate in ordered:
        if candidate.twin in twins:
            twins[candidate.twin].append(candidate)
            continue
        shown.append(candidate)
        if candidate.twin is not None:
            twins[candidate.twin] = []
    keeper, rest = shown[0], shown[1:]
    merged = tuple(c for c in rest if keeper.is_folder and c.is_folder)
    renamed = tuple(c for c in rest if not (keeper.is_folder and c.is_folder))
    return Slot(
        keeper, merged, renamed, {twin: tuple(them) for twin, them in twins.items() if them}
    )


MAX_FOLDER_DEPTH = 1024
"""Folders in each other that a device makes: a path through twice as many could not be named to the
kernel, which takes 4,096 bytes. Moves made apart can exceed it; the view shows what they made."""

CONTEST_MARK = b" (from "
"""Part of every name that `contested_name` makes, and of hardly any other."""


def shown_names(
    slot: Slot,
    name: bytes,
    device_name: Callable[[DeviceId], str],
    is_wanted: Callable[[bytes], bool],
) -> Iterator[tuple[bytes, Candidate]]:
    """The entries that stand for one wanted name in a folder.

    Args:
        is_wanted: whether any item of the folder wants a name; a renamed one never takes it.
    """
    if slot.keeper is not None:
        yield name, slot.keeper
    taken: set[bytes] = set()
    for candidate in slot.renamed:
        shown = contested_name(
            name,
            device_name(candidate.placed.device),
            candidate.placed.time_us,
            lambda shown: shown not in taken and not is_wanted(shown),
        )
        taken.add(shown)
        yield shown, candidate


def contested_name(
    name: bytes, device_name: str, time_us: int, is_free: Callable[[bytes], bool]
) -> bytes:
    """``name (from DEVICE DATE).ext``, numbered until it is free, cut to fit into a folder.

    Two different names never give the same one, so that what is shown under one wanted name does
    not depend on what is shown under another: a device's name in it holds neither dot nor bracket,
    and a name that has to be cut, or looks as if it were, carries its hash.
    """
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    label = "".join(c if c.isprintable() and c not in "/.()" else "_" for c in device_name)[:40]
    number = 1
    while True:
        mark = f"{label} {_date(time_us)}{f' {number}' if number > 1 else ''})".encode()
        mark = CONTEST_MARK + mark
        shown = stem + mark + dot + extension
        if len(shown) > MAX_NAME_BYTES or _HASHED.search(name):
            digest = hashlib.blake2b(name, digest_size=12, person=b"atoll-name-v1").hexdigest()
            tail = b"~" + digest.encode() + mark
            if len(tail) + len(dot) + len(extension) < MAX_NAME_BYTES:
                tail += dot + extension
            shown = _cut(stem, MAX_NAME_BYTES - len(tail)) + tail
        if is_free(shown):
            return shown
        number += 1


_HASHED = re.compile(rb"~[0-9a-f]{24}")


def _cut(text: bytes, length: int) -> bytes:
    """At most ``length`` bytes of a text, without half a UTF-8 character at the end."""
    while 0 < length < len(text) and text[length] & 0xC0 == 0x80:
        length -= 1
    return text[:length]


def _date(time_us: int) -> str:
    seconds = min(time_us // 1_000_000, _LATEST_DATE_S)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


_LATEST_DATE_S = 253_402_300_799  # 9999-12-31: what datetime can say; a forged time may be later


@dataclass(frozen=True, slots=True)
class Move:
    """Where a folder wants to hang, and where it hung before.

    Attributes:
        former: the parents that it had, the latest first.
        is_revived: the folder was deleted and is shown only because something lives in it.
    """

    parent: ItemId
    former: tuple[ItemId, ...]
    rank: tuple[int, Dot, LinkId]
    is_revived: bool = False

    @property
    def weakness(self) -> tuple[bool, tuple[int, Dot, LinkId]]:
        """The greatest in a cycle gives way: what was deleted, then what was moved latest."""
        return (self.is_revived, self.rank)


def cut_cycles(
    folders: Iterable[ItemId], move_of: Callable[[ItemId], Move | None]
) -> dict[ItemId, ItemId]:
    """The folders that can not hang where they want, with the parent that they get.

    While there is a cycle, the folder in it that was moved latest takes its former places in turn,
    as far as they are shown, and then hangs below the root. The order in which cycles are met does
    not matter: those of one moment share no folder.

    Source: the requirements of Kleppmann et al., "A highly-available move operation for replicated
    trees" (2021), met on the state instead of on an operation log.

    Args:
        folders: where to look: at least one of, or below, each cycle.
        move_of: gives the move of a folder; None when it is not shown, and for the root.
    """
    starts = list(folders)
    moves: dict[ItemId, Move | None] = {}
    parents: dict[ItemId, ItemId] = {}
    places: dict[ItemId, Iterator[ItemId]] = {}

    def move(folder: ItemId) -> Move | None:
        if folder not in moves:
            moves[folder] = None if folder == ROOT_ITEM else move_of(folder)
        return moves[folder]

    def parent(folder: ItemId) -> ItemId:
        present = move(folder)
        assert present is not None
        return parents.get(folder, present.parent)

    def former_places(present: Move) -> Iterator[ItemId]:
        for place in dict.fromkeys(present.former):
            if place == ROOT_ITEM or (place != present.parent and move(place) is not None):
                yield place
        yield ROOT_ITEM

    while (cycle := _find_cycle([*starts, *parents], move, parent)) is not None:
        latest, present = max(cycle, key=lambda member: (member[1].weakness, member[0]))
        if latest not in places:
            places[latest] = former_places(present)
        parents[latest] = next(places[latest])
    return parents


def _find_cycle(
    starts: Iterable[ItemId],
    move: Callable[[ItemId], Move | None],
    parent: Callable[[ItemId], ItemId],
) -> list[tuple[ItemId, Move]] | None:
    finished: set[ItemId] = set()
    for start in starts:
        path: dict[ItemId, Move] = {}
        folder = start
        while folder not in finished and (present := move(folder)) is not None:
            if folder in path:
                members = list(path.items())
                return members[list(path).index(folder) :]
            path[folder] = present
            folder = parent(folder)
        finished.update(path)
    return None
