"""Scenario 8: folders moved into each other, deleted and merged apart, delivered in every order.

Source: M. Kleppmann, D. Mulligan, V. Gomes, A. Beresford, "A highly-available move operation for
replicated trees" (2021): concurrent moves made Dropbox and Google Drive duplicate folders or refuse to
go on. The plausible simpler designs that this breaks: the first move to arrive wins; a cycle is cut
where it is found; a folder that can not hang anywhere is dropped with all that it holds.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from node.errors import DriveError
from node.storage.database import Database
from tests.node.storage.indexes import (
    DatabasePool,
    Index,
    SentRecord,
    World,
    repeatable_ids,
    taken_back,
)
from tests.node.storage.test_tree_law import check_view, move, reached
from tests.simulation.planner_oracles import check_agreement, check_tree, item_views
from tests.simulation.planner_world import Record, Replica, base_tree, change_folders

WORLDS = 25
PURE_WORLDS = 200


@pytest.fixture(scope="module")
def pool() -> Iterator[DatabasePool]:
    databases = DatabasePool()
    yield databases
    databases.close()


def begin(index: Index, draw: random.Random) -> None:
    """Three to eight folders, some in others, each with a file."""
    folders = [""]
    for number in range(draw.randrange(3, 9)):
        path = f"{draw.choice(folders)}f{number}"
        index.make_folder(path)
        index.make_file(f"{path}/file{number}")
        folders.append(f"{path}/")


def change(index: Index, draw: random.Random) -> None:
    folders = sorted(path for path in index.paths() if path.endswith("/"))
    action = draw.choice(("move", "move", "remove", "remove", "make", "file"))
    chosen = draw.choice(["", *folders])
    if action == "move" and folders:
        source = draw.choice(folders)
        move(
            index,
            source,
            f"{chosen}{draw.choice(('x', 'y', source.split('/')[-2]))}",
            index.paths(),
        )
    elif action == "remove" and folders:
        index.remove_all(draw.choice(folders))
    elif action == "make":
        index.make_folder(f"{chosen}{draw.choice('xy')}")
    elif action == "file":
        index.make_file(f"{chosen}new{index.number}")


def made_apart(world: World, draw: random.Random) -> list[SentRecord]:
    """What devices did without hearing of each other: about four records."""
    begin(world.indexes[0], draw)
    world.sync()
    before = len(world.records)
    one, two = world.indexes
    first, second = draw.sample(sorted(path for path in one.paths() if path.endswith("/")), 2)
    match draw.randrange(3):
        case 0 if not second.startswith(first) and not first.startswith(second):
            one.move(first, f"{second}x")
            two.move(second, f"{first}x")
        case 1:
            one.remove_all(first)
            two.make_file(f"{first}new")
        case 2:
            one.make_folder(f"{first}y")
            two.make_folder(f"{first}y")
    world.seal()
    while len(world.records) < before + 4:
        for index in world.indexes:
            try:
                change(index, draw)
            except DriveError:
                continue
            world.seal()
    return world.records[before : before + 4]


@pytest.mark.no_cover  # counting lines would double its time
def test_every_order_of_delivery_shows_one_tree_that_holds_everything(pool: DatabasePool) -> None:
    found: Counter[str] = Counter()
    for seed in range(WORLDS):
        draw = random.Random(seed)
        with pool.borrow(3) as databases, repeatable_ids(b"moves%d" % seed):
            world = World(databases[:2])
            apart = made_apart(world, draw)
            common = world.records[: world.records.index(apart[0])]
            found += check_all_orders(databases[2], common, apart)
    for what in ("cycles", "merges", "revivals"):
        assert found[what] >= 1, (what, found)


def check_all_orders(
    database: Database, common: list[SentRecord], apart: list[SentRecord]
) -> Counter[str]:
    views = []
    found: Counter[str] = Counter()
    index = Index(database, 7)
    for record in common:
        index.receive(record)
    for order in itertools.permutations(apart):
        with taken_back(database):
            for record in order:
                index.receive(record)
            check_view(index)
            views.append((index.view(), index.paths()))
            found = reached(index)
    assert all(view == views[0] for view in views), "the order of arrival shows"
    return found


def test_thousands_of_orders_of_moves_agree_by_the_pure_rules() -> None:
    """The same on values alone, where every link of a living item must be shown exactly once."""
    found: Counter[str] = Counter()
    for seed in range(PURE_WORLDS):
        draw = random.Random(seed)
        base = base_tree(draw)
        devices = [base.copy(number, base.clock_us) for number in (1, 2, 3)]
        records: list[Record] = []
        for device in draw.sample(devices, 3) + draw.sample(devices, draw.randrange(3)):
            records += change_folders(device, draw)
        orders = list(itertools.permutations(records))
        for order in draw.sample(orders, min(len(orders), 24)):
            replica: Replica = base.copy(9, 0)
            for record in order:
                replica.receive(record)
            whole = base.copy(9, 0)
            for record in records:
                whole.receive(record)
            check_agreement([whole, replica], records)
            views = item_views(whole, whole.files + whole.folders)
            found += check_tree([whole, replica], views)
    for what in ("cycles", "merges", "revivals"):
        assert found[what] >= 100, (what, found)
