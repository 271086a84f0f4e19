"""What must hold after everybody has heard of everything. Called by the planner-level checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from node.core.tree_view import CONTEST_MARK, ItemView, view_item
from node.core.whole_tree import WholeTree, view_of
from protocol.ids import ROOT_ITEM, DeviceId, ItemId
from protocol.records import Register
from protocol.values import Kind
from protocol.version_vector import Dot
from tests.simulation.planner_world import Dots, Key, Record, Replica, Write

_NONE: Dots = frozenset()


def check_agreement(replicas: Sequence[Replica], records: Sequence[Record]) -> None:
    """All devices hold one state, and it is the one that the true sets of dots ask for."""
    first = replicas[0]
    for other in replicas[1:]:
        assert other.state == first.state, "the states differ"
    covered: dict[Key, Dots] = {}
    for record in records:
        for write in record:
            covered[write.key] = covered.get(write.key, _NONE) | write.saw
    for key, seen in covered.items():
        state = first.state[key]
        # What was heard of is what was written: every dot is in the record of its write.
        assert state.live.keys() == first.seen[key] - seen, f"wrong siblings of {key}"
        assert all(map(state.covered.covers, seen)), f"forgot what was seen of {key}"


def check_tree(replicas: Sequence[Replica], views: Mapping[ItemId, ItemView]) -> Counter[str]:
    """One tree on all devices, whatever the order in which they learnt of its parts.

    It is total: every link of a living item is in it exactly once.

    Args:
        views: of all items on the first device.
    """
    last = replicas[-1]
    tree = view_of(views, _device_name)
    backwards = {
        item: view_again(last, item, views[item])
        for item in (*reversed(last.folders), *reversed(last.files))
    }
    assert backwards == views, "an item is shown differently"
    assert view_of(backwards, _device_name) == tree, "the trees differ"
    _check_total(views, tree)
    return Counter(
        cycles=bool(tree.cuts),
        contests=any(CONTEST_MARK in path[-1] for path in tree.entries),
        merges=any(len(group) > 1 for group in tree.merged.values()),
        revivals=bool(tree.revived),
        conflicts=any(view.conflicts for view in views.values()),
        twins=bool(tree.behind),
        cases=1,
    )


def _check_total(views: Mapping[ItemId, ItemView], tree: WholeTree) -> None:
    shown = set(tree.entries.values())
    shown.update(item for links in tree.behind.values() for item, _ in links)
    for group in tree.merged.values():
        shown |= group
    shown.discard(ROOT_ITEM)
    living = {item for item, view in views.items() if view.links}
    assert shown == living | tree.revived, "what lives is not what is shown"
    places = (
        len(tree.entries)
        + sum(map(len, tree.behind.values()))
        + sum(len(group) - 1 for group in tree.merged.values())
    )
    links = sum(len(view.links) for view in views.values()) + len(tree.revived)
    assert places == links, "a link is shown twice or not at all"
    for path in tree.entries:
        assert len(path) == 1 or path[:-1] in tree.entries, "an entry hangs in no folder"
    for folder in tree.revived:
        assert _holds_life(folder, views, tree), "a deleted folder haunts"


def _holds_life(folder: ItemId, views: Mapping[ItemId, ItemView], tree: WholeTree) -> bool:
    """Whether something that lives wants to hang in a folder, or in a deleted one below it."""
    unread, met = [folder], {folder}
    while unread:
        parent = unread.pop()
        for item, view in views.items():
            if any(placed.link.parent == parent for placed in view.links):
                return True
            is_below = item in tree.revived and view.former[0].link.parent == parent
            if is_below and item not in met:
                met.add(item)
                unread.append(item)
    return False


def check_nothing_is_lost(replica: Replica, views: Mapping[ItemId, ItemView]) -> None:
    """Every content is shown, a conflict version, covered by who saw it, or deleted by who saw it."""
    for item in replica.touched:
        placements = replica.live(item, Register.PLACEMENT)
        contents = replica.live(item, Register.CONTENT)
        view = views[item]
        assert view.content is not None
        kept = {version.value.inline for version in (view.content, *view.conflicts)}
        assert kept == {version.value.inline for version in contents}, "a sibling is not kept"
        if not view.links:
            writes = [replica.writes[(item, Register.PLACEMENT), p.dot] for p in placements]
            _check_deleted(replica, item, writes)


def _check_deleted(replica: Replica, item: ItemId, placements: Iterable[Write]) -> None:
    """What is not shown was deleted by devices that together had seen all of its content."""
    placements = list(placements)
    removed = {link for write in placements for link in write.version.value.former}
    for write in placements:
        assert removed.issuperset(write.version.value.links), "a link went though nobody removed it"
    seen = frozenset[Dot]().union(*(write.saw_content for write in placements))
    for version in replica.live(item, Register.CONTENT):
        if version.value.kind is Kind.DIRECTORY:
            continue
        write = replica.writes[(item, Register.CONTENT), version.dot]
        is_seen = (version.value.origin or version.dot) in seen
        is_seen |= version.automatic and write.saw <= seen
        assert is_seen, "content is gone that no deleter had seen"


def item_views(replica: Replica, items: Iterable[ItemId]) -> dict[ItemId, ItemView]:
    """The view of each item by its own registers; of untouched ones it is known."""
    views: dict[ItemId, ItemView] = {}
    for item in items:
        known = replica.base_views.get(item)
        if known is None or item in replica.touched:
            known = view_item(
                replica.live(item, Register.PLACEMENT), (), replica.live(item, Register.CONTENT)
            )
        views[item] = known
    return views


def view_again(replica: Replica, item: ItemId, view: ItemView) -> ItemView:
    """The view of an item that another device with the same state shows so.

    Only the order of siblings can differ between the two.
    """
    placements = replica.state[item, Register.PLACEMENT].live
    contents = replica.state[item, Register.CONTENT].live
    if len(placements) < 2 and len(contents) < 2:
        return view
    return view_item(list(placements.values()), (), list(contents.values()))


def _device_name(device: DeviceId) -> str:
    return f"device {device[0]}"
