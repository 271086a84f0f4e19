"""The law of the tree: same records, same tree, whatever the order in which they came.

Two or three devices work on their own indexes and hear of each other in any order. After every
delivery an index equals the tree made from scratch; in the end all indexes are the same, and so is
one that takes all records at once.
"""

import random
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from node.core.tree_view import CONTEST_MARK
from node.errors import DriveError
from protocol.ids import ROOT_ITEM
from protocol.values import Kind
from tests.node.storage.indexes import Index, World, repeatable_ids

NAMES = ("a", "b", "c.txt")


ACTIONS = [
    *["mkdir"] * 2,
    *["create", "write", "touch", "link", "mode"],
    *["unpack"] * 2,
    *["remove"] * 2,
    *["move"] * 3,
    *["nest"] * 4,
    *["deliver"] * 4,
]

steps = st.tuples(
    st.sampled_from(ACTIONS),
    st.integers(0, 2),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, len(NAMES) - 1),
)


def perform(world, step):
    """One step of one device; what can not be done there is left out."""
    action, number, first, second, name = step
    index = world.indexes[number % len(world.indexes)]
    if action == "deliver":
        world.seal()
        missing = world.missing(index)
        if missing:
            index.receive(missing[first % len(missing)])
            check_view(index)
        return
    paths = sorted(index.paths())
    folders = ["", *(path for path in paths if path.endswith("/"))]
    files = [path for path in paths if not path.endswith("/")]
    target = folders[first % len(folders)] + NAMES[name % len(NAMES)]
    if action == "mkdir":
        index.make_folder(target)
    elif action == "create":
        index.make_file(target, str(second % 3))
    elif action == "unpack":
        for each in world.indexes:
            if target.rpartition("/")[0] + "/" in {"/", *each.paths()}:
                with suppress(DriveError):
                    each.make_file(target, str(second % 3))
    elif action == "write" and files:
        index.write(files[first % len(files)], str(second % 3))
    elif action == "touch" and files:
        index.touch(files[first % len(files)])
    elif action == "mode" and paths:
        index.set_mode(paths[first % len(paths)], second)
    elif action == "remove" and paths:
        index.remove_all(paths[first % len(paths)])
    elif action == "link" and files:
        index.link(files[second % len(files)], target)
    elif action == "nest" and folders[1:]:
        move(index, folders[1:][second % (len(folders) - 1)], target, paths)
    elif action == "move" and paths:
        move(index, paths[second % len(paths)], target, paths)


def move(index, source, target, paths):
    """As `Drive.rename` refuses what can not be."""
    is_folder = source.endswith("/")
    if is_folder and (target + "/").startswith(source):
        return
    if source.rstrip("/") == target:
        return
    if is_folder:
        if target in paths or any(
            path.startswith(target + "/") for path in paths if path != target + "/"
        ):
            return
    elif target + "/" in paths:
        return
    index.move(source, target)


def check_view(index: Index) -> None:
    counted = index.database.row(
        "SELECT count(*), coalesce(sum(size), 0) FROM items "
        "WHERE EXISTS (SELECT 1 FROM entries WHERE entries.item = items.item)"
    )
    assert index.tree.totals() == counted
    whole = index.from_scratch()
    assert index.shown() == whole.entries
    for folder, group in (
        (whole.entries.get(path, ROOT_ITEM), g) for path, g in whole.merged.items()
    ):
        assert set(index.tree.merged_folders(folder)) == group
    for path, item in whole.entries.items():
        row = index.tree.item(item)
        assert row is not None
        if row.kind is not Kind.DIRECTORY:
            assert behind(index, path) == whole.behind.get(path, frozenset()), path
    cuts = {bytes(folder): bytes(parent) for folder, parent in whole.cuts.items()}
    assert dict(index.database.execute("SELECT folder, parent FROM cuts")) == cuts


def behind(index: Index, path) -> frozenset:
    folder = index.row_at(b"/".join(path[:-1]).decode()).item
    entry = index.tree.entry(folder, path[-1])
    assert entry is not None
    return frozenset((other.item, other.link) for other in index.tree.entries_behind(entry))


def differences(index: Index, other: Index) -> dict:
    view = index.view()
    return {
        table: set(rows) ^ set(view[table])
        for table, rows in other.view().items()
        if rows != view[table]
    }


def reached(index: Index) -> Counter:
    whole = index.from_scratch()
    return Counter(
        cycles=bool(whole.cuts),
        merges=any(len(group) > 1 for group in whole.merged.values()),
        contests=any(CONTEST_MARK in path[-1] for path in whole.entries),
        revivals=bool(whole.revived),
        conflicts=bool(index.tree.conflicts()),
        twins=bool(whole.behind),
    )


def check_law(world: World, rebuilt: Index, order) -> Counter:
    world.seal()
    for index in world.indexes:
        check_view(index)
        for record in order(world.missing(index)):
            index.receive(record)
            check_view(index)
    for record in sorted(world.records, key=lambda record: record.id):
        rebuilt.receive(record)
    for index in (*world.indexes[1:], rebuilt):
        different = differences(index, world.indexes[0])
        assert not different, different
    for index in world.indexes:
        before = index.view()
        for record in world.records:
            index.receive(record)
        assert index.view() == before
    return reached(rebuilt)


def begin(world):
    """Folders in folders that all have heard of: what cycles are made of."""
    first = world.indexes[0]
    for path in ("a", "b", "a/b", "b/a", "a/c.txt"):
        first.make_folder(path)
    first.make_file("b/c.txt", "first")
    world.sync()


@settings(max_examples=60)
@given(
    data=st.data(),
    program=st.lists(steps, max_size=30),
    count=st.integers(2, 3),
    begins_with_folders=st.booleans(),
)
def test_any_order_of_delivery_shows_the_same_tree(pool, data, program, count, begins_with_folders):
    with pool.borrow(count + 1) as databases, repeatable_ids(b"law"):
        world = World(databases[:count])
        rebuilt = Index(databases[count], 7)
        if begins_with_folders:
            begin(world)
        for step in program:
            try:
                perform(world, step)
            except DriveError:
                event("refused")
        found = check_law(world, rebuilt, lambda records: data.draw(st.permutations(records)))
        for what, was_reached in found.items():
            if was_reached:
                event(what)


WALKS = 120


@pytest.mark.no_cover  # counting lines would double its time
def test_random_walks_reach_everything_that_is_not_local(pool):
    """The same law on longer programs that a seed makes; and proof of what they met."""
    found: Counter = Counter()
    for seed in range(WALKS):
        draw = random.Random(seed)
        count = draw.choice([2, 3])
        with pool.borrow(count + 1) as databases, repeatable_ids(b"%d" % seed):
            world = World(databases[:count])
            rebuilt = Index(databases[count], 7)
            begin(world)
            for _ in range(draw.randrange(5, 25)):
                action = draw.choice(ACTIONS)
                numbers = (draw.randrange(31) for _ in range(3))
                try:
                    perform(world, (action, draw.randrange(3), *numbers))
                except DriveError:
                    found["refused"] += 1
            found += check_law(
                world, rebuilt, lambda records, draw=draw: draw.sample(records, len(records))
            )
    for what in ("cycles", "merges", "contests", "revivals", "conflicts", "twins"):
        assert found[what] > 0, (what, found)
