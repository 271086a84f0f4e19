"""Scenario 7: removals that meet what their author had not seen: nothing vanishes, nothing haunts.

Source: the surprises that Hughes, Pierce, Arts and Norell found in Dropbox ("Mysteries of Dropbox",
2016, sections 7 and 8): a deletion that met an edit could lose the edit, and deleted files came
back. The plausible simpler designs that this breaks: the later time wins between a deletion and an
edit; a deleted folder takes along what it holds when it arrives; a folder that was brought back is
deleted again by the old record, or stays for good.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.core.content_merge import Settlement
from node.filesystem.settlements import Settlements
from protocol.values import Content, Kind
from tests.node.storage.indexes import DatabasePool, Index, World, repeatable_ids

FILES = 120


@pytest.fixture
def world() -> Iterator[World]:
    pool = DatabasePool()
    with pool.borrow(3) as databases, repeatable_ids(b"deletions"):
        yield World(databases[:2])
    pool.close()


@pytest.fixture
def one(world: World) -> Index:
    return world.indexes[0]


@pytest.fixture
def two(world: World) -> Index:
    return world.indexes[1]


def agreed(world: World) -> set[str]:
    """What all show after everything has reached everybody, and once more after it comes again."""
    world.sync()
    paths = [index.paths() for index in world.indexes]
    assert paths[0] == paths[1]
    for index in world.indexes:
        for record in world.records:
            index.receive(record)
        assert index.paths() == paths[0]
        assert index.shown() == index.from_scratch().entries
    return paths[0]


def merge_on_its_own(index: Index, path: str, text: str) -> None:
    """As the merger does with what it found."""
    row = index.row_at(path)
    settlements = Settlements(
        index.database, index.registers, index.tree, index.journal, lambda: index.now_ns, bytes
    )
    content = Content(Kind.FILE, len(text), inline=text.encode())
    siblings = tuple(index.registers.contents(row.item))
    settlements.write(row.item, Settlement(siblings, content, is_automatic=True))


def make_tree(index: Index) -> None:
    for folder in ("d", "d/e", "d/e/f"):
        index.make_folder(folder)
    for number in range(FILES):
        index.make_file(f"{('d', 'd/e', 'd/e/f')[number % 3]}/old{number}")


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_rm_rf_against_a_bulk_add_keeps_what_was_added_and_no_more(
    world: World, one: Index, two: Index, is_removed_first: bool
) -> None:
    make_tree(one)
    world.sync()
    one.now_ns += 0 if is_removed_first else 10**12
    one.remove_all("d")
    two.make_folder("d/e/new")
    added = {f"{('d', 'd/e', 'd/e/new')[number % 3]}/new{number}" for number in range(FILES)}
    for path in sorted(added):
        two.make_file(path)
    assert agreed(world) == added | {"d/", "d/e/", "d/e/new/"}


def test_what_was_edited_or_moved_or_linked_apart_from_rm_rf_lives(
    world: World, one: Index, two: Index
) -> None:
    make_tree(one)
    world.sync()
    one.remove_all("d")
    two.write("d/old0", "edited")
    two.move("d/e/old1", "moved")
    two.link("d/e/f/old2", "linked")
    two.touch("d/old3")
    two.set_mode("d/old6", 0o640)
    assert agreed(world) == {"d/", "d/old0", "moved", "linked"}


def test_emptying_a_folder_that_was_brought_back_leaves_it_until_it_is_removed(
    world: World, one: Index, two: Index
) -> None:
    make_tree(one)
    world.sync()
    one.remove_all("d")
    two.make_file("d/e/new")
    assert agreed(world) == {"d/", "d/e/", "d/e/new"}
    two.unlink("d/e/new")
    assert two.paths() == {"d/", "d/e/"}, "it vanished under the hands of rm -r"
    two.remove_folder("d/e")
    two.remove_folder("d")
    assert agreed(world) == set(), "it haunts"
    one.make_folder("d")
    assert agreed(world) == {"d/"}


def test_the_last_removals_inside_by_either_device_bring_nothing_back(
    world: World, one: Index, two: Index
) -> None:
    make_tree(one)
    world.sync()
    one.remove_all("d")
    two.make_file("d/e/one")
    two.make_file("d/e/two")
    world.sync()
    one.unlink("d/e/one")
    two.unlink("d/e/two")
    world.sync()
    for index in world.indexes:
        index.remove_all("d")
    assert agreed(world) == set()


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_deletion_outdoes_an_automatic_merge_of_versions_that_it_had_seen(
    world: World, one: Index, two: Index, is_removed_first: bool
) -> None:
    one.make_file("a", "base")
    world.sync()
    one.write("a", "of one")
    two.write("a", "of two")
    world.sync()
    two.now_ns += 10**12 if is_removed_first else 0
    one.now_ns += 0 if is_removed_first else 10**12
    merge_on_its_own(two, "a", "both")
    one.unlink("a")
    assert agreed(world) == set()


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_an_automatic_merge_of_an_edit_that_the_deleter_had_not_seen_lives(
    world: World, one: Index, two: Index, is_removed_first: bool
) -> None:
    one.make_file("a", "base")
    world.sync()
    one.write("a", "of one")
    two.write("a", "of two")
    world.tell(two)
    one.now_ns += 0 if is_removed_first else 10**12
    merge_on_its_own(two, "a", "both")
    one.unlink("a")
    assert agreed(world) == {"a"}


def test_deleting_and_editing_and_deleting_again_ends_with_nothing(
    world: World, one: Index, two: Index
) -> None:
    one.make_file("a", "base")
    world.sync()
    for number in range(3):
        one.unlink("a")
        two.write("a", f"edit {number}")
        assert agreed(world) == {"a"}
    two.unlink("a")
    assert agreed(world) == set()
