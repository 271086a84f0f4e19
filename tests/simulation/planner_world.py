"""Devices of the planner-level checker: a state of registers each, and changes made at random.

Everything is a value; nothing is sealed, stored or sent. Beside the context of each write its true
set of dots is kept, so that the oracles need not trust `protocol.version_vector`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeVar

from node.core.tree_view import ItemView, Version, merge_placements, view_item
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, LinkId
from protocol.lattice import RegisterState
from protocol.records import Register
from protocol.values import Content, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

T = TypeVar("T")
Key = tuple[ItemId, Register]
Dots = frozenset[Dot]

NAMES = (b"a", b"b", b"c.txt", b"d", b"e")
TEXTS = tuple(Content(Kind.FILE, len(text), inline=text) for text in (b"one", b"two!", b"three"))
FOLDER = Content(Kind.DIRECTORY)
NEW_ITEMS = 8  # that one device may make
BASE_ITEMS = 6

_ITEMS = [ItemId((number + 1).to_bytes(16, "big")) for number in range(BASE_ITEMS + 4 * NEW_ITEMS)]
_LINKS = [LinkId(number.to_bytes(8, "big")) for number in range(4096)]
_ACTORS = [ActorId(bytes([number]) * 16) for number in range(4)]
_DEVICES = [DeviceId(bytes([number]) * 32) for number in range(4)]
_NONE: Dots = frozenset()
_UNKNOWN: RegisterState[Any] = RegisterState()


class Write(NamedTuple):
    """One write of a record.

    Attributes:
        saw: the dots of the register that the writer had seen, as a plain set.
        heard: these, and the write's own.
        saw_content: of a deletion: the dots of the content that the deleter had seen.
    """

    key: Key
    version: Version[Any]
    saw: Dots
    heard: Dots
    saw_content: Dots = _NONE


Record = tuple[Write, ...]


@dataclass(slots=True)
class Replica:
    """What one device knows.

    Attributes:
        state: every register that it has heard of.
        seen: per register, the true set of dots that it has heard of, directly or not.
        counts: how often this device has written a register.
        files, folders: items whose content and placement it has heard of.
        writes: every write that it received or made, by register and dot.
        touched: items that were written since all devices began with one tree.
        base_views: the views of all items of that tree.
    """

    number: int
    state: dict[Key, RegisterState[Any]] = field(default_factory=dict)
    seen: dict[Key, Dots] = field(default_factory=dict)
    writes: dict[tuple[Key, Dot], Write] = field(default_factory=dict)
    touched: set[ItemId] = field(default_factory=set)
    base_views: dict[ItemId, ItemView] = field(default_factory=dict)
    files: list[ItemId] = field(default_factory=list)
    folders: list[ItemId] = field(default_factory=list)
    counts: dict[Key, int] = field(default_factory=dict)
    clock_us: int = 1_000_000
    made: int = 0

    def copy(self, number: int, clock_us: int) -> Replica:
        """Another device that knows the same."""
        return Replica(
            number,
            dict(self.state),
            dict(self.seen),
            dict(self.writes),
            set(),
            self.base_views,
            list(self.files),
            list(self.folders),
            clock_us=clock_us,
        )

    def receive(self, record: Record) -> None:
        """Take a record in, for the first time or again."""
        for write in record:
            key, version = write.key, write.version
            dot = version.dot
            self.writes[key, dot] = write
            self.touched.add(key[0])
            present = self.state.get(key)
            if present is not None:
                self.state[key] = present.apply(dot, version.context, version)
                self.seen[key] = self.seen[key] | write.heard
                continue
            self.state[key] = _UNKNOWN.apply(dot, version.context, version)
            self.seen[key] = write.heard
            contents = self.live(key[0], Register.CONTENT)
            if contents and (key[0], Register.PLACEMENT) in self.state:
                kind = contents[0].value.kind
                (self.folders if kind is Kind.DIRECTORY else self.files).append(key[0])

    def merge(self, other: Replica) -> None:
        """Take over all that another device knows, as states and not as records."""
        self.writes.update(other.writes)
        self.touched |= other.touched
        self.files += [item for item in other.files if item not in self.files]
        self.folders += [item for item in other.folders if item not in self.folders]
        for key, state in other.state.items():
            present = self.state.get(key)
            if present is None:
                self.state[key], self.seen[key] = state, other.seen[key]
            elif present is not state:
                self.state[key] = present.merge(state)
                self.seen[key] = self.seen[key] | other.seen[key]

    def live(self, item: ItemId, register: Register) -> list[Version[Any]]:
        """The siblings of a register."""
        return list(self.state.get((item, register), _UNKNOWN).live.values())

    def write(
        self,
        item: ItemId,
        register: Register,
        value: Any,
        bases: Sequence[Version[Any]] | None = None,
        *,
        is_automatic: bool = False,
        saw_content: Dots = _NONE,
    ) -> Write:
        """A write of this device, not yet received by it; over all siblings unless bases are given."""
        key = (item, register)
        state = self.state.get(key, _UNKNOWN)
        context: Context
        if bases is None:
            context, saw = state.seen, self.seen.get(key, _NONE)
            times = [version.time_us for version in state.live.values()]
        else:
            context, saw = EMPTY_CONTEXT, _NONE
            for base in bases:
                context = context.join(base.context.add((base.dot,)))
                saw = saw | self.writes[key, base.dot].saw | {base.dot}
            times = [version.time_us for version in bases]
        self.clock_us = max([self.clock_us, *times]) + 1
        own = self.counts[key] = self.counts.get(key, 0) + 1
        dot = Dot(_ACTORS[self.number], own)
        device = _DEVICES[self.number]
        version = Version(dot, self.clock_us, device, context, value, is_automatic)
        return Write(key, version, saw, saw | {dot}, saw_content)

    def new_item(self) -> ItemId:
        """The id of an item that this device makes."""
        self.made += 1
        return _ITEMS[BASE_ITEMS * bool(self.number) + self.number * NEW_ITEMS + self.made - 1]

    def new_link(self, draw: Random) -> LinkId:
        return pick(draw, _LINKS)


def pick(draw: Random, choices: Sequence[T]) -> T:
    """As `Random.choice`, at a third of its cost."""
    return choices[int(draw.random() * len(choices))]


def shuffled(draw: Random, values: Iterable[T]) -> list[T]:
    """As `Random.sample` of all, at a third of its cost."""
    return sorted(values, key=lambda _: draw.random())


def change(replica: Replica, draw: Random) -> list[Record]:
    """One change of a device that looks at what it knows, which it knows itself from then on."""
    if draw.random() < 0.04:
        return _save_through_two_handles(replica, draw)
    record = pick(draw, _ACTIONS)(replica, draw)
    if record is None:
        return []
    replica.receive(record)
    return [record]


def change_folders(replica: Replica, draw: Random) -> list[Record]:
    """As `change`, of folders only: moves, removals and new ones of names that are there."""
    action = pick(draw, (_move, _move, _move, _delete, _create))
    record = action(replica, draw)
    if record is None:
        return []
    replica.receive(record)
    return [record]


def _save_through_two_handles(replica: Replica, draw: Random) -> list[Record]:
    """Two programs have one version open; each saves over it, and one saves once more.

    The last save has seen the first of this device but not the second: an exception in its context.
    """
    item = pick(draw, replica.files)
    (opened, *_) = replica.live(item, Register.CONTENT)
    records: list[Record] = []
    for base in (opened, opened, None):
        own = base or records[1][0].version
        write = replica.write(item, Register.CONTENT, pick(draw, TEXTS), [own])
        replica.receive((write,))
        records.append((write,))
    return records


def _create(replica: Replica, draw: Random) -> Record | None:
    if replica.made == NEW_ITEMS - 1:
        return None
    content = FOLDER if draw.random() < 0.3 else pick(draw, TEXTS)
    item = replica.new_item()
    link = Link(replica.new_link(draw), _folder(replica, draw), pick(draw, NAMES))
    return (
        replica.write(item, Register.PLACEMENT, Placement((link,))),
        replica.write(item, Register.CONTENT, content),
    )


def _edit(replica: Replica, draw: Random) -> Record:
    """A save over all siblings, or over the one that a program had opened."""
    item = pick(draw, replica.files)
    siblings = replica.live(item, Register.CONTENT)
    bases = [pick(draw, siblings)] if draw.random() < 0.5 else None
    return (replica.write(item, Register.CONTENT, pick(draw, TEXTS), bases),)


def _touch(replica: Replica, draw: Random) -> Record:
    item = pick(draw, replica.files)
    base = pick(draw, replica.live(item, Register.CONTENT))
    value: Content = base.value
    kept = Content(value.kind, value.size, replica.clock_us, value.origin or base.dot, value.inline)
    return (replica.write(item, Register.CONTENT, kept, [base]),)


def _merge(replica: Replica, draw: Random) -> Record | None:
    """What a node makes on its own out of siblings."""
    for item in shuffled(draw, replica.files):
        siblings = replica.live(item, Register.CONTENT)
        if len(siblings) > 1:
            value = pick(draw, TEXTS)
            merged = replica.write(item, Register.CONTENT, value, siblings, is_automatic=True)
            return (merged,)
    return None


def _delete(replica: Replica, draw: Random) -> Record:
    """A removal of one item, or of two at once."""
    items = shuffled(draw, [*replica.files, *replica.folders])[: pick(draw, (1, 1, 2))]
    return tuple(_deletion(replica, item) for item in items)


def _deletion(replica: Replica, item: ItemId) -> Write:
    links, former = _places(replica, item)
    key = (item, Register.CONTENT)
    value = Placement((), tuple(dict.fromkeys([*links, *former]))[:8], replica.state[key].seen)
    return replica.write(item, Register.PLACEMENT, value, saw_content=replica.seen[key])


def _move(replica: Replica, draw: Random) -> Record:
    item = pick(draw, replica.folders if draw.random() < 0.6 else replica.files)
    return (_moved(replica, item, _folder(replica, draw, item), draw),)


def _moved(replica: Replica, item: ItemId, parent: ItemId, draw: Random) -> Write:
    links, former = _places(replica, item)
    source = pick(draw, links or former)
    target = Link(source.id, parent, pick(draw, NAMES))
    kept = [link for link in links if link.id != source.id]
    value = Placement(
        tuple(sorted([*kept, target], key=lambda link: link.id)),
        tuple(dict.fromkeys([source, *former]))[:8],
    )
    return replica.write(item, Register.PLACEMENT, value)


def _replace(replica: Replica, draw: Random) -> Record | None:
    """A rename over another file: two placements in one record."""
    if len(replica.files) < 2:
        return None
    moved, replaced, *_ = shuffled(draw, replica.files)
    return _moved(replica, moved, _folder(replica, draw), draw), _deletion(replica, replaced)


def _link(replica: Replica, draw: Random) -> Record:
    item = pick(draw, replica.files)
    links, former = _places(replica, item)
    added = Link(replica.new_link(draw), _folder(replica, draw), pick(draw, NAMES))
    value = Placement(tuple(sorted([*links, added], key=lambda link: link.id)), former)
    return (replica.write(item, Register.PLACEMENT, value),)


def _unlink(replica: Replica, draw: Random) -> Record | None:
    for item in shuffled(draw, replica.files):
        links, former = _places(replica, item)
        if len(links) > 1:
            removed = pick(draw, links)
            kept = tuple(link for link in links if link is not removed)
            value = Placement(kept, (removed, *former)[:8])
            return (replica.write(item, Register.PLACEMENT, value),)
    return None


_ACTIONS = [
    *[_create] * 3,
    *[_edit] * 3,
    *[_move] * 5,
    *[_delete] * 3,
    *[_touch, _merge, _replace, _link, _link, _unlink],
]


def _places(replica: Replica, item: ItemId) -> tuple[tuple[Link, ...], tuple[Link, ...]]:
    links, former = merge_placements(replica.live(item, Register.PLACEMENT))
    return tuple(p.link for p in links), tuple(p.link for p in former)


def _folder(replica: Replica, draw: Random, other: ItemId | None = None) -> ItemId:
    """A folder to hang something in, be it deleted: another device may not know that."""
    folder = pick(draw, (ROOT_ITEM, *replica.folders))
    return ROOT_ITEM if folder == other else folder


def base_tree(draw: Random) -> Replica:
    """A tree that all devices begin with."""
    replica = Replica(0)
    parents = [ROOT_ITEM]
    for number in range(BASE_ITEMS):
        item = replica.new_item()
        link = Link(replica.new_link(draw), pick(draw, parents), pick(draw, NAMES))
        is_folder = number in (0, 1, 3)
        record = (
            replica.write(item, Register.PLACEMENT, Placement((link,))),
            replica.write(item, Register.CONTENT, FOLDER if is_folder else pick(draw, TEXTS)),
        )
        replica.receive(record)
        if is_folder:
            parents.append(item)
    for item in (*replica.files, *replica.folders):
        contents = replica.live(item, Register.CONTENT)
        replica.base_views[item] = view_item(replica.live(item, Register.PLACEMENT), (), contents)
    return replica
