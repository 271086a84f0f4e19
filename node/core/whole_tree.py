"""The tree that a whole state shows, made from scratch: what every index must equal.

It applies the rules of `node.core.tree_view` to everything at once, in their plainest form and
without regard to cost. It shares no way of finding what a change touches with the index, which
keeps its view incrementally. Called by whoever checks an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from node.core.tree_view import (
    Candidate,
    ItemView,
    Move,
    PlacedLink,
    cut_cycles,
    outside_graves,
    share_name,
    shown_names,
    twin_identity,
)
from protocol.ids import ROOT_ITEM, DeviceId, ItemId, LinkId

Path = tuple[bytes, ...]
_Names = dict[bytes, list[tuple[ItemId, PlacedLink]]]


@dataclass(frozen=True, slots=True)
class WholeTree:
    """What is shown.

    Attributes:
        entries: every path from the root, with the item that it shows; of merged folders the one
            that stands for all.
        behind: per path, the links that are shown as one with the item there: the same bytes.
        merged: per path of a folder, the folders that are shown as one.
        revived: deleted folders that are shown because something lives in them.
        cuts: folders that a cycle keeps from where they want to hang, with the parent they get.
    """

    entries: Mapping[Path, ItemId]
    behind: Mapping[Path, frozenset[tuple[ItemId, LinkId]]]
    merged: Mapping[Path, frozenset[ItemId]]
    revived: frozenset[ItemId]
    cuts: Mapping[ItemId, ItemId]


def view_of(
    items: Mapping[ItemId, ItemView],
    device_name: Callable[[DeviceId], str],
    buried: AbstractSet[ItemId] = frozenset(),
) -> WholeTree:
    """Show a state.

    Args:
        items: the view of every item by its own registers; the root may be among them.
        device_name: names the devices, for contested names.
        buried: of which nothing is among the items.
    """
    known = {
        item: view for item, view in items.items() if view.content is not None and item != ROOT_ITEM
    }
    revived = _revived(known)
    links = {item: view.links for item, view in known.items()}
    links.update((folder, known[folder].former[:1]) for folder in revived)
    if buried:
        links = {
            item: tuple(outside_graves(placed, buried.__contains__))
            for item, placed in links.items()
        }
    cuts = _cuts(known, links, revived)
    for folder, parent in cuts.items():
        links[folder] = tuple(
            replace(placed, link=replace(placed.link, parent=parent)) for placed in links[folder]
        )
    children = _children(links)
    entries: dict[Path, ItemId] = {}
    behind: dict[Path, frozenset[tuple[ItemId, LinkId]]] = {}
    merged: dict[Path, frozenset[ItemId]] = {}
    unread: list[tuple[Path, frozenset[ItemId]]] = [((), frozenset({ROOT_ITEM}))]
    while unread:
        path, folders = unread.pop()
        merged[path] = folders
        wanted = _union([children[folder] for folder in folders if folder in children])
        for name, placed_items in wanted.items():
            if len(placed_items) == 1:
                ((item, _),) = placed_items
                entries[*path, name] = item
                if known[item].is_folder:
                    unread.append(((*path, name), frozenset({item})))
                continue
            slot = share_name(_candidates(known, placed_items))
            for shown, candidate in shown_names(slot, name, device_name, wanted.__contains__):
                entries[*path, shown] = candidate.item
                if twins := slot.twins_of(candidate):
                    behind[*path, shown] = frozenset((t.item, t.placed.link.id) for t in twins)
            if slot.keeper is not None and slot.keeper.is_folder:
                group = {slot.keeper.item, *(candidate.item for candidate in slot.merged)}
                unread.append(((*path, name), frozenset(group)))
    return WholeTree(entries, behind, merged, frozenset(revived), cuts)


def _children(links: Mapping[ItemId, tuple[PlacedLink, ...]]) -> dict[ItemId, _Names]:
    children: dict[ItemId, _Names] = {}
    for item, placed_links in links.items():
        for placed in placed_links:
            names = children.setdefault(placed.link.parent, {})
            names.setdefault(placed.link.name, []).append((item, placed))
    return children


def _union(folders: Sequence[_Names]) -> _Names:
    """What is wanted in folders that are shown as one."""
    if len(folders) == 1:
        return folders[0]
    union: _Names = {}
    for names in folders:
        for name, placed_items in names.items():
            union.setdefault(name, []).extend(placed_items)
    return union


def _candidates(
    known: Mapping[ItemId, ItemView], placed_items: Sequence[tuple[ItemId, PlacedLink]]
) -> Iterator[Candidate]:
    for item, placed in placed_items:
        view = known[item]
        yield Candidate(item, placed, view.is_folder, twin_identity(view))


def _revived(known: Mapping[ItemId, ItemView]) -> set[ItemId]:
    revived: set[ItemId] = set()
    parents = [placed.link.parent for view in known.values() for placed in view.links]
    while parents:
        parent = parents.pop()
        view = known.get(parent)
        if view is None or view.links or not view.is_folder or not view.former:
            continue
        if parent not in revived:
            revived.add(parent)
            parents.append(view.former[0].link.parent)
    return revived


def _cuts(
    known: Mapping[ItemId, ItemView],
    links: Mapping[ItemId, tuple[PlacedLink, ...]],
    revived: set[ItemId],
) -> dict[ItemId, ItemId]:
    folders = dict.fromkeys(folder for folder, view in known.items() if view.is_folder)

    def move_of(folder: ItemId) -> Move | None:
        if folder not in folders or not links[folder]:
            return None
        (placed,) = links[folder]
        former = tuple([place.link.parent for place in known[folder].former])
        return Move(placed.link.parent, former, placed.rank, folder in revived)

    return cut_cycles(folders, move_of)
