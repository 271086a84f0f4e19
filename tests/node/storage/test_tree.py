"""The table of what is shown when two devices change things apart, rule by rule.

In each test both devices have what the first block made; then each works alone; `settled` lets
everything reach both, checks that they show the same, and gives the paths.
"""

import errno

import pytest

from node.core.content_merge import Settlement
from node.errors import DriveError, StorageError
from node.filesystem.settlements import Settlements
from node.storage.tree import Tree, iterate_folder
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, RecordId
from protocol.limits import MAX_TIME_US
from protocol.records import Register
from protocol.values import Content, ExplicitTime, ItemAttributes, Kind, Placement
from protocol.version_vector import Dot
from tests.node.storage.indexes import (
    STEP_NS,
    World,
    item_id,
    link_to,
    repeatable_ids,
    version_of,
)

DATE = "2025-10-09"
RECORD = RecordId(b"r" * 32)


def settled(world):
    world.sync()
    one, two = world.indexes
    assert one.view() == two.view()
    assert one.shown() == one.from_scratch().entries
    return one.paths()


def text_at(index, path):
    row = index.row_at(path)
    version = index.registers.content(row.item, row.content)
    return version.value.inline.decode()


def conflict_texts(index, path):
    row = index.row_at(path)
    return {
        version.value.inline.decode()
        for version in index.registers.contents(row.item)
        if version.dot != row.content
    }


def merge_on_its_own(index, path, text):
    """As the merger does."""
    row = index.row_at(path)
    content = Content(Kind.FILE, len(text), inline=text.encode())
    siblings = tuple(index.registers.contents(row.item))
    settlements = Settlements(
        index.database,
        index.registers,
        index.tree,
        index.journal,
        lambda: index.now_ns,
        lambda size: bytes(size),
    )
    settlements.write(row.item, Settlement(siblings, content, is_automatic=True))


@pytest.fixture
def one(world):
    return world.indexes[0]


@pytest.fixture
def two(world):
    return world.indexes[1]


class TestContents:
    def test_of_two_edits_the_later_is_shown_and_the_other_is_kept(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "first")
        two.now_ns += 10**9
        two.write("a", "second")
        assert settled(world) == {"a"}
        assert text_at(one, "a") == "second"
        assert conflict_texts(one, "a") == {"first"}
        assert one.row_at("a").conflicts == 1

    def test_two_edits_to_the_same_bytes_are_no_conflict(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "same")
        two.write("a", "same")
        assert settled(world) == {"a"}
        assert one.row_at("a").conflicts == 0
        assert one.tree.conflicts() == []

    def test_an_edit_that_saw_the_other_settles_it(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "first")
        world.sync()
        two.write("a", "second")
        settled(world)
        assert text_at(one, "a") == "second"
        assert one.row_at("a").conflicts == 0

    def test_attributes_and_content_set_apart_are_both_kept(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "new")
        two.edits.set_attributes(two.row_at("a").item, lambda now, _: ItemAttributes(0o755))
        settled(world)
        assert text_at(two, "a") == "new"
        assert one.row_at("a").mode == 0o755


class TestDeletions:
    def test_a_deletion_that_saw_everything_deletes(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        two.unlink("a")
        assert settled(world) == set()

    def test_an_edit_beats_a_deletion(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "new")
        two.unlink("a")
        assert settled(world) == {"a"}
        assert text_at(two, "a") == "new"

    def test_a_changed_time_alone_does_not_revive(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.touch("a")
        two.unlink("a")
        assert settled(world) == set()

    def test_a_time_set_after_an_edit_does_revive(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "new")
        world.seal()
        one.touch("a")
        two.unlink("a")
        assert settled(world) == {"a"}

    def test_changed_attributes_alone_do_not_revive(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.edits.set_attributes(one.row_at("a").item, lambda now, _: ItemAttributes(0o755))
        two.unlink("a")
        assert settled(world) == set()

    def test_a_rename_beats_a_deletion(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.move("a", "b")
        two.unlink("a")
        assert settled(world) == {"b"}
        assert text_at(two, "b") == "old"

    def test_a_new_link_beats_a_deletion(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.link("a", "b")
        two.unlink("a")
        assert settled(world) == {"b"}

    def test_a_revived_file_is_deleted_by_a_deletion_that_saw_the_edit(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "new")
        two.unlink("a")
        world.sync()
        two.unlink("a")
        assert settled(world) == set()

    def test_two_deletions_are_one(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.unlink("a")
        two.unlink("a")
        assert settled(world) == set()

    def test_a_folder_that_was_brought_back_stays_when_it_is_emptied(self, world, one, two):
        one.make_folder("d")
        one.make_file("d/old")
        world.sync()
        one.remove_all("d")
        two.make_file("d/new")
        assert settled(world) == {"d/", "d/new"}
        two.unlink("d/new")
        assert two.paths() == {"d/"}
        assert settled(world) == {"d/"}
        one.make_file("d/again")
        one.remove_all("d")
        assert settled(world) == set()

    def test_a_folder_that_was_brought_back_stays_when_all_is_moved_out(self, world, one, two):
        one.make_folder("d")
        one.make_folder("d/e")
        world.sync()
        one.remove_all("d")
        two.make_file("d/e/new")
        settled(world)
        two.move("d/e/new", "new")
        assert settled(world) == {"d/", "d/e/", "new"}
        two.remove_folder("d/e")
        assert settled(world) == {"d/", "new"}

    def test_deletion_outdoes_an_automatic_merge_of_what_it_had_seen(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "of one")
        two.write("a", "of two")
        world.sync()
        merge_on_its_own(two, "a", "both")
        one.unlink("a")
        assert settled(world) == set()

    def test_an_automatic_merge_of_what_the_deleter_had_not_seen_lives(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.write("a", "of one")
        two.write("a", "of two")
        world.tell(two)
        merge_on_its_own(two, "a", "both")
        one.unlink("a")
        assert settled(world) == {"a"}
        assert text_at(one, "a") == "both"


class TestRenames:
    def test_of_two_renames_the_later_counts_and_there_is_one_copy(self, world, one, two):
        one.make_file("a")
        world.sync()
        two.now_ns += 10**9
        one.move("a", "b")
        two.move("a", "c")
        assert settled(world) == {"c"}

    def test_a_rename_and_an_edit_are_both_kept(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.move("a", "b")
        two.write("a", "new")
        assert settled(world) == {"b"}
        assert text_at(one, "b") == "new"

    def test_links_added_apart_all_stay(self, world, one, two):
        one.make_file("a")
        world.sync()
        one.link("a", "b")
        two.link("a", "c")
        assert settled(world) == {"a", "b", "c"}
        assert one.tree.link_count(one.row_at("a").item) == 3

    @pytest.mark.parametrize("later", [0, 1])
    def test_a_rename_and_an_added_link_are_both_kept(self, world, one, two, later):
        one.make_file("a")
        world.sync()
        world.indexes[later].now_ns += 10**9
        one.move("a", "b")
        two.link("a", "c")
        assert settled(world) == {"b", "c"}

    @pytest.mark.parametrize("later", [0, 1])
    def test_a_removed_and_an_added_link_are_both_heeded(self, world, one, two, later):
        one.make_file("a")
        one.link("a", "b")
        world.sync()
        world.indexes[later].now_ns += 10**9
        one.unlink("b")
        two.link("a", "c")
        assert settled(world) == {"a", "c"}

    def test_a_folder_that_is_moved_twice_hangs_once(self, world, one, two):
        for path in ("a", "b", "c", "a/x"):
            one.make_folder(path)
        world.sync()
        one.move("a/x", "b/x")
        two.now_ns += 10**9
        two.move("a/x", "c/x")
        assert settled(world) == {"a/", "b/", "c/", "c/x/"}

    def test_a_replaced_file_is_gone_but_an_edit_of_it_lives_beside(self, world, one, two):
        one.make_file("a", "old")
        one.make_file("b", "new")
        world.sync()
        one.move("b", "a")
        two.write("a", "edited")
        paths = settled(world)
        assert {text_at(one, path) for path in paths} == {"new", "edited"}
        assert len(paths) == 2


class TestContests:
    def test_the_earlier_file_keeps_the_name(self, world, one, two):
        one.now_ns += 10**9
        one.make_file("a.txt", "later")
        two.make_file("a.txt", "earlier")
        other = f"a (from device 0 {DATE}).txt"
        assert settled(world) == {"a.txt", other}
        assert text_at(one, "a.txt") == "earlier"
        assert text_at(two, other) == "later"

    def test_a_folder_keeps_the_name_before_a_file(self, world, one, two):
        one.make_file("a")
        two.now_ns += 10**9
        two.make_folder("a")
        assert settled(world) == {"a/", f"a (from device 0 {DATE})"}

    def test_contested_names_are_numbered(self, world, one, two):
        for number in range(3):
            one.make_file(f"{number}")
            two.make_file(f"{number} of two")
        world.sync()
        one.now_ns += 10**9
        one.move("0", "a.c")
        one.move("1", "b.c")
        two.move("0 of two", "a.c")
        two.move("2", "b.c")
        two.move("1 of two", "d")
        two.move("d", "x")
        world.sync()
        assert settled(world) >= {"a.c", f"a (from device 0 {DATE}).c", "b.c"}

    def test_a_wanted_name_is_never_taken_by_a_contested_one(self, world, one, two):
        other = f"a (from device 0 {DATE})"
        one.now_ns += 10**9
        one.make_file("a", "later")
        two.make_file("a", "earlier")
        two.make_file(other, "wanted")
        assert settled(world) == {"a", other, f"a (from device 0 {DATE} 2)"}
        assert text_at(one, other) == "wanted"

    def test_a_wanted_name_that_comes_later_is_given_up_by_a_contested_one(self, world, one, two):
        other = f"a (from device 0 {DATE})"
        one.now_ns += 10**9
        one.make_file("a", "later")
        two.make_file("a", "earlier")
        world.sync()
        item = item_id(7)
        for index in world.indexes:
            for register, value in (
                (Register.PLACEMENT, Placement((link_to(1, ROOT_ITEM, other.encode()),))),
                (Register.CONTENT, Content(Kind.FILE)),
            ):
                index.registers.apply_remote(item, register, version_of(value, device=5), RECORD)
            index.tree.refresh(item, 0)
        assert settled(world) == {"a", other, f"a (from device 0 {DATE} 2)"}
        assert one.row_at(other).item == item

    def test_names_that_are_not_utf_8_are_contested_too(self, world, one, two):
        for index in world.indexes:
            content = Content(Kind.FILE, 1, inline=b"%d" % index.number)
            index.edits.create(index.row_at(""), b"caf\xe9.txt", content, ItemAttributes(0))
        world.sync()
        names = {name for name, _ in iterate_folder(one.tree, ROOT_ITEM)}
        assert len(names) == 2
        assert all(name.startswith(b"caf\xe9") and name.endswith(b".txt") for name in names)

    def test_the_longest_names_are_contested_too(self, world, one, two):
        for ending in ("x", "y"):
            one.make_file("n" * 250 + ending + ".txt")
            two.make_file("n" * 250 + ending + ".txt")
        paths = settled(world)
        assert len(paths) == 4
        assert all(len(path) <= 255 and path.endswith(".txt") for path in paths)


class TestTwins:
    """Files of one name with the same bytes are one file for whoever looks and whoever works."""

    @pytest.fixture(autouse=True)
    def made_apart(self, world, one, two):
        for index in (one, two):
            index.make_file("a.txt", "the same")
        world.sync()

    def test_the_same_bytes_under_one_name_are_one_file(self, world, one):
        assert settled(world) == {"a.txt"}
        assert len(one.tree.twins(one.row_at("a.txt").item)) == 2
        assert one.tree.totals() == (1, 8)

    def test_a_rename_takes_both_along(self, world, one, two):
        one.move("a.txt", "b.txt")
        assert one.paths() == {"b.txt"}
        assert settled(world) == {"b.txt"}

    def test_a_removal_takes_both_away(self, world, one, two):
        two.unlink("a.txt")
        assert two.paths() == set()
        assert settled(world) == set()

    def test_an_edit_is_one_record_that_writes_both(self, world, one, two):
        one.write("a.txt", "edited")
        (record,) = one.seal()
        world.records.append(record)
        assert len(record.writes) == 2
        assert settled(world) == {"a.txt"}
        assert text_at(two, "a.txt") == "edited"

    def test_new_attributes_are_those_of_both(self, world, one, two):
        one.set_mode("a.txt", 0o640)
        two.write("a.txt", "edited")
        settled(world)
        modes = {two.tree.item(item).mode for item in two.tree.twins(two.row_at("a.txt").item)}
        assert modes == {0o640}

    def test_edits_made_apart_are_one_conflict_in_one_file(self, world, one, two):
        one.write("a.txt", "of one")
        two.write("a.txt", "of two")
        assert settled(world) == {"a.txt"}
        assert conflict_texts(one, "a.txt") == {"of one"}

    def test_settling_that_conflict_settles_it_for_both(self, world, one, two):
        one.write("a.txt", "of one")
        two.write("a.txt", "of two")
        settled(world)
        row = one.row_at("a.txt")
        one.edits.write_content(
            row.item, Content(Kind.FILE, 4, inline=b"both"), None, is_urgent=False
        )
        assert settled(world) == {"a.txt"}
        assert two.tree.conflicts() == []

    def test_a_late_save_over_an_old_version_is_a_conflict_in_one_file(self, world, one, two):
        row = one.row_at("a.txt")
        opened = one.registers.content(row.item, row.content)
        two.write("a.txt", "of two")
        settled(world)
        one.edits.write_content(
            row.item, Content(Kind.FILE, 4, inline=b"late"), opened, is_urgent=False
        )
        assert settled(world) == {"a.txt"}
        assert len(conflict_texts(two, "a.txt")) == 1

    def test_a_time_that_was_set_does_not_bring_back_what_was_deleted(self, world, one, two):
        one.touch("a.txt")
        two.unlink("a.txt")
        assert settled(world) == set()

    def test_an_edit_brings_back_one_file(self, world, one, two):
        one.write("a.txt", "edited")
        two.unlink("a.txt")
        assert settled(world) == {"a.txt"}

    def test_bytes_that_one_device_changed_before_it_knew_the_other_show_beside(
        self, world, one, two
    ):
        one.make_file("b.txt", "b")
        two.make_file("b.txt", "b")
        two.write("b.txt", "b of two")
        assert len(settled(world) - {"a.txt", "b.txt"}) == 1
        beside = next(path for path in one.paths() if "(from" in path)
        two.write("b.txt", "edited")
        settled(world)
        assert (text_at(one, "b.txt"), text_at(one, beside)) == ("edited", "b of two")

    def test_those_that_lost_a_name_are_one_if_they_hold_the_same(self, world, one, two):
        for index in world.indexes:
            index.make_file("c", f"first of {index.number}")
            index.make_file("d", "second")
        one.unlink("c")
        settled(world)
        two.move("d", "e")
        one.make_file("e", "third")
        names = settled(world)
        assert {"a.txt", "c", "e"} <= names
        assert len(names) == 4

    def test_a_third_name_of_one_of_them_shows_what_is_written_under_the_first(
        self, world, one, two
    ):
        one.link("a.txt", "hard")
        two.write("a.txt", "edited")
        assert settled(world) == {"a.txt", "hard"}
        one.write("hard", "again")
        assert settled(world) == {"a.txt", "hard"}
        assert text_at(two, "a.txt") == text_at(two, "hard") == "again"

    def test_a_name_may_be_taken_over_by_a_twin_of_what_it_shows(self, world, one, two):
        one.make_file("a.tmp", "the same")
        one.move("a.tmp", "a.txt")
        assert settled(world) == {"a.txt"}
        assert len(one.tree.twins(one.row_at("a.txt").item)) == 1

    def test_two_names_that_show_the_same_are_exchanged(self, world, one, two):
        one.make_file("b.txt", "the same")
        first, second = one.row_at("a.txt").item, one.row_at("b.txt").item
        root = one.row_at("")
        one.edits.exchange(
            root, one.tree.entry(ROOT_ITEM, b"a.txt"), root, one.tree.entry(ROOT_ITEM, b"b.txt")
        )
        assert settled(world) == {"a.txt", "b.txt"}
        assert one.row_at("a.txt").item == second
        assert first in one.tree.twins(one.row_at("b.txt").item)

    def test_a_copy_made_of_what_kept_the_name_stays_where_it_is(self, world, one, two):
        one.make_file("b", "first")
        two.make_file("b", "second")
        (beside,) = settled(world) - {"a.txt", "b"}
        two.write(beside, "first")
        assert settled(world) == {"a.txt", "b", beside}

    def test_what_kept_the_name_stays_beside_what_it_is_made_like(self, world, one, two):
        one.make_file("b", "first")
        two.make_file("b", "second")
        (beside,) = settled(world) - {"a.txt", "b"}
        two.write("b", "second")
        assert settled(world) == {"a.txt", "b", beside}
        two.unlink(beside)
        assert settled(world) == {"a.txt", "b"}

    def test_an_index_of_an_older_release_finds_them_when_it_opens(self, world, one):
        one.database.execute("UPDATE items SET twin = NULL")
        one.database.set_meta("twins_unknown", 1)
        item = one.row_at("a.txt").item
        one.tree = Tree(one.database, one.registers)
        assert len(one.tree.twins(item)) == 2
        assert one.database.meta("twins_unknown") is None


class TestFolders:
    def test_folders_of_one_name_show_the_union(self, world, one, two):
        one.make_folder("d")
        one.make_file("d/a")
        two.make_folder("d")
        two.make_file("d/b")
        assert settled(world) == {"d/", "d/a", "d/b"}

    def test_folders_in_merged_folders_merge_too(self, world, one, two):
        for number, index in enumerate(world.indexes):
            for path in ("d", "d/e", "d/e/f"):
                index.make_folder(path)
            index.make_file(f"d/e/f/{number}")
        assert settled(world) == {"d/", "d/e/", "d/e/f/", "d/e/f/0", "d/e/f/1"}

    def test_merged_folders_move_and_go_as_one(self, world, one, two):
        one.make_folder("d")
        one.make_file("d/a")
        two.make_folder("d")
        two.make_file("d/b")
        world.sync()
        two.move("d", "e")
        assert settled(world) == {"e/", "e/a", "e/b"}
        one.remove_all("e")
        assert settled(world) == set()

    def test_folders_that_part_show_their_own(self, world, one, two):
        one.make_folder("d")
        one.make_file("d/a")
        world.sync()
        one.make_folder("x")
        one.make_file("x/b")
        two.make_folder("x")
        two.make_file("x/c")
        two.move("d", "x/d")
        world.sync()
        one.move("x/d", "d2")
        assert settled(world) == {"d2/", "d2/a", "x/", "x/b", "x/c"}

    def test_a_deleted_folder_with_an_addition_lives(self, world, one, two):
        one.make_folder("d")
        one.make_folder("d/e")
        world.sync()
        one.remove_all("d")
        two.make_file("d/e/new")
        assert settled(world) == {"d/", "d/e/", "d/e/new"}

    def test_a_deleted_folder_goes_when_the_addition_goes(self, world, one, two):
        one.make_folder("d")
        one.make_folder("d/e")
        world.sync()
        one.remove_all("d")
        two.make_file("d/e/new")
        world.tell(one)
        assert one.paths() == {"d/", "d/e/", "d/e/new"}
        two.move("d/e/new", "new")  # not knowing that the folder was deleted
        assert settled(world) == {"new"}

    def test_a_local_change_in_a_revived_folder_puts_it_back(self, world, one, two):
        one.make_folder("d")
        world.sync()
        one.remove_folder("d")
        two.make_file("d/new")
        world.sync()
        one.make_file("d/other")
        one.unlink("d/new")
        one.unlink("d/other")
        assert settled(world) == {"d/"}

    def test_deleted_folders_that_hang_in_each_other_go_with_the_last_that_lives(
        self, world, one, two
    ):
        one.make_folder("a")
        one.make_folder("b")
        world.sync()
        one.move("a", "b/a")
        two.move("b", "a/b")
        one.remove_all("b")
        two.remove_all("a")
        file = item_id(9)
        world.sync()
        for index in world.indexes:
            link = link_to(1, _former_item(index, b"b"), b"x")
            index.registers.apply_remote(
                file, Register.PLACEMENT, version_of(Placement((link,)), device=5), RECORD
            )
            index.registers.apply_remote(
                file, Register.CONTENT, version_of(Content(Kind.FILE), device=5), RECORD
            )
            index.tree.refresh(file, 0)
        assert len([path for path in settled(world) if path.endswith("x")]) == 1
        path = next(path for path in one.paths() if path.endswith("x"))
        one.unlink(path)
        settled(world)
        assert not one.from_scratch().revived


class TestDepth:
    """Folder depth is bounded, and what moves made apart exceed is still a tree."""

    def chain(self, index, top, count):
        path = top
        index.make_folder(path)
        for _ in range(count - 1):
            path += "/f"
            index.make_folder(path)
        return path

    def test_no_folder_is_made_or_moved_deeper_than_the_bound(self, world, one, monkeypatch):
        monkeypatch.setattr("node.filesystem.edits.MAX_FOLDER_DEPTH", 6)
        deepest = self.chain(one, "a", 6)
        other = self.chain(one, "b", 3)
        one.make_file(f"{deepest}/file")
        for refused in (
            lambda: one.make_folder(f"{deepest}/more"),
            lambda: one.move("a", f"{other}/a"),
            lambda: one.move("b", f"{deepest[:7]}/b"),
        ):
            with pytest.raises(DriveError, check=lambda error: error.errno == errno.ENAMETOOLONG):
                refused()
        one.move(other, "c")
        one.move("b", f"{deepest[:5]}/b")
        assert settled(world) >= {"a/f/f/b/f/", f"{deepest}/file"}

    def test_moves_made_apart_that_exceed_it_show_one_tree_that_can_be_taken_apart(
        self, world, one, two, monkeypatch
    ):
        monkeypatch.setattr("node.filesystem.edits.MAX_FOLDER_DEPTH", 8)
        ends = {name: self.chain(one, name, 4) for name in ("a", "b", "c")}
        world.sync()
        one.move("b", f"{ends['a']}/b")
        two.move("c", f"{ends['b']}/c")
        end = f"{ends['a']}/{ends['b']}/{ends['c']}/"
        assert end in settled(world)
        with pytest.raises(DriveError):
            two.make_folder(f"{end}more")
        two.move(f"{ends['a']}/{ends['b']}/c", "c")
        two.make_folder(f"{ends['c']}/more")
        two.remove_all("a")
        assert settled(world) == {"c/", "c/f/", "c/f/f/", "c/f/f/f/", "c/f/f/f/more/"}


def _former_item(index, name):
    """The folder that was first made with this name."""
    rows = index.database.execute("SELECT DISTINCT item FROM versions WHERE register = 0")
    for (item,) in list(rows):
        for version in index.registers.placements(ItemId(item)):
            if any(link.name == name for link in version.value.former):
                return ItemId(item)
    raise AssertionError(name)


class TestCycles:
    def test_of_two_moves_into_each_other_the_latest_takes_its_former_place(self, world, one, two):
        one.make_folder("a")
        one.make_folder("b")
        world.sync()
        one.move("a", "b/a")
        two.now_ns += 10**9
        two.move("b", "a/b")
        assert settled(world) == {"b/", "b/a/"}

    def test_a_cut_ends_when_the_other_folder_moves_on(self, world, one, two):
        for path in ("a", "b", "c"):
            one.make_folder(path)
        world.sync()
        one.move("a", "b/a")
        two.now_ns += 10**9
        two.move("b", "a/b")
        world.sync()
        one.move("b/a", "c/a")
        assert settled(world) == {"c/", "c/a/", "c/a/b/"}
        assert one.rows("cuts") == []

    def test_moving_the_cut_folder_settles_the_cycle(self, world, one, two):
        one.make_folder("a")
        one.make_folder("b")
        world.sync()
        one.move("a", "b/a")
        two.now_ns += 10**9
        two.move("b", "a/b")
        world.sync()
        one.move("b", "c")
        assert settled(world) == {"c/", "c/a/"}
        assert one.rows("cuts") == []

    def test_files_in_a_cycle_stay_reachable(self, world, one, two):
        for path in ("a", "b"):
            one.make_folder(path)
            one.make_file(f"{path}/file")
        world.sync()
        one.move("a", "b/a")
        two.move("b", "a/b")
        assert sum(path.endswith("file") for path in settled(world)) == 2

    def test_a_deleted_folder_gives_way_to_what_lives_in_it(self, world, one, two):
        one.make_folder("a")
        one.make_folder("a/d")
        one.make_folder("x")
        world.sync()
        one.move("a", "x/a")
        one.move("x/a/d", "d")
        one.remove_folder("d")
        two.move("a/d", "x/d")
        two.move("a", "x/d/a")
        paths = settled(world)
        assert sum(path.endswith("a/") for path in paths) == 1

    def test_a_former_place_that_becomes_known_later_is_taken(self, world, one, two):
        for path in ("b", "c", "d", "y", "y/a"):
            one.make_folder(path)
        world.sync()
        two.move("y/a", "c/a")
        two.move("c/a", "d/a")
        two.move("b", "d/a/b")
        one.now_ns = two.now_ns + STEP_NS
        one.move("y/a", "b/a")
        one.remove_folder("y")
        world.seal()
        moved, moved_into_it = [
            record
            for record in world.missing(one)
            if record.writes[0].register is Register.PLACEMENT
        ]
        one.receive(moved_into_it)
        assert one.paths() == {"a/", "a/b/", "c/", "d/"}
        one.receive(moved)
        assert one.paths() == {"c/", "c/a/", "c/a/b/", "d/"}
        assert settled(world) == {"c/", "c/a/", "c/a/b/", "d/"}

    def test_a_folder_that_claims_to_hang_in_itself_hangs_in_the_root(self, index):
        folder = item_id(1)
        for register, value in (
            (Register.PLACEMENT, Placement((link_to(1, folder, b"self"),))),
            (Register.CONTENT, Content(Kind.DIRECTORY)),
        ):
            index.registers.apply_remote(folder, register, version_of(value), RECORD)
        index.tree.refresh(folder, 0)
        assert index.paths() == {"self/"}


class TestArrival:
    """What comes in pieces or makes no sense."""

    def place(self, index, number, link, kind=Kind.FILE, device=5, **version):
        for register, value in (
            (Register.PLACEMENT, Placement((link,))),
            (Register.CONTENT, Content(kind, device_number=number)),
        ):
            item = item_id(number)
            index.registers.apply_remote(
                item, register, version_of(value, device=device, **version), RECORD
            )
        index.tree.refresh(item_id(number), 0)

    def test_an_entry_waits_for_its_folder(self, index):
        self.place(index, 1, link_to(1, item_id(2), b"file"))
        assert index.paths() == set()
        self.place(index, 2, link_to(2, ROOT_ITEM, b"folder"), Kind.DIRECTORY)
        assert index.paths() == {"folder/", "folder/file"}

    def test_a_placement_without_content_shows_nothing_yet(self, index):
        link = link_to(1, ROOT_ITEM, b"file")
        item = item_id(1)
        index.registers.apply_remote(
            item, Register.PLACEMENT, version_of(Placement((link,))), RECORD
        )
        index.tree.refresh(item, 0)
        self.place(index, 2, link_to(2, item, b"below"), Kind.DIRECTORY)
        assert index.paths() == set()
        index.registers.apply_remote(item, Register.CONTENT, version_of(Content(Kind.FILE)), RECORD)
        index.tree.refresh(item, 0)
        assert index.paths() == {"file"}

    def test_an_entry_below_a_file_is_not_shown_and_does_no_harm(self, index):
        self.place(index, 1, link_to(1, ROOT_ITEM, b"file"))
        self.place(index, 2, link_to(2, item_id(1), b"below"))
        assert index.paths() == {"file"}

    def test_a_forged_time_still_gives_a_date(self, index):
        self.place(index, 1, link_to(1, ROOT_ITEM, b"a"), device=1)
        self.place(index, 2, link_to(2, ROOT_ITEM, b"a"), device=2, time_us=MAX_TIME_US)
        assert index.paths() == {"a", "a (from device 2 2262-04-11)"}

    def test_a_register_whose_values_cover_each_other_shows_nothing(self, index):
        item = item_id(1)
        self.place(index, 1, link_to(1, ROOT_ITEM, b"a"), device=1)
        own = Dot(ActorId(bytes([1]) * 16), 1)
        forged = version_of(Content(Kind.FILE), device=2, seen=[own])
        index.registers.apply_remote(item, Register.CONTENT, forged, RECORD)
        back = version_of(Content(Kind.FILE), device=3, seen=[forged.dot])
        other = version_of(Content(Kind.FILE), device=4, seen=[back.dot])
        index.registers.apply_remote(item, Register.CONTENT, other, RECORD)
        index.registers.apply_remote(
            item,
            Register.CONTENT,
            version_of(Content(Kind.FILE), device=3, seen=[other.dot, forged.dot]),
            RECORD,
        )
        index.tree.refresh(item, 0)
        assert index.paths() == set()
        assert index.tree.item(item) is None


class TestRoot:
    def test_its_attributes_are_shown(self, world, one, two):
        one.edits.set_attributes(
            ROOT_ITEM, lambda now, _: ItemAttributes(0o755, explicit_time=ExplicitTime(5, 2**50))
        )
        settled(world)
        root = two.tree.item(ROOT_ITEM)
        assert root.mode == 0o755
        assert root.shown_mtime_ns == 5

    def test_it_stays_a_folder_at_its_place_whatever_is_written(self, index):
        for register, value in (
            (Register.CONTENT, Content(Kind.FILE, 1, inline=b"x")),
            (Register.PLACEMENT, Placement((link_to(1, item_id(1), b"moved"),))),
        ):
            index.registers.apply_remote(ROOT_ITEM, register, version_of(value), RECORD)
        index.tree.refresh(ROOT_ITEM, 0)
        root = index.tree.item(ROOT_ITEM)
        assert root.kind is Kind.DIRECTORY
        assert root.inode == 1
        index.make_file("a")
        assert index.paths() == {"a"}


class TestFolderTimes:
    def test_the_latest_change_of_entries_counts_whatever_the_order(self, index):
        folder = item_id(1)
        index.tree.note_entries_changed(folder, 5)
        index.tree.note_entries_changed(folder, 9)
        index.tree.note_entries_changed(folder, 7)
        index.registers.apply_remote(
            folder, Register.CONTENT, version_of(Content(Kind.DIRECTORY)), RECORD
        )
        index.tree.refresh(folder, 0)
        assert index.tree.item(folder).shown_mtime_ns == 9000
        index.tree.note_entries_changed(folder, 3)
        assert index.tree.item(folder).shown_mtime_ns == 9000

    def test_a_time_that_was_set_later_is_shown_though_it_lies_in_the_past(self, world, one, two):
        one.make_folder("d")
        one.make_file("d/a")
        item = one.row_at("d").item
        one.edits.set_attributes(
            item,
            lambda now, time_us: ItemAttributes(0o700, explicit_time=ExplicitTime(77, time_us)),
        )
        settled(world)
        assert two.row_at("d").shown_mtime_ns == 77
        two.make_file("d/b")
        settled(world)
        assert one.row_at("d").shown_mtime_ns > 77
        assert one.row_at("d").shown_mtime_ns == two.row_at("d").shown_mtime_ns


class TestSealing:
    """A record has one time for all that it holds: a waiting write may get a later one."""

    def wait_and_receive(self, world, one, two):
        two.now_ns += 10 * STEP_NS
        world.records += two.seal()
        for record in world.missing(one):
            one.receive(record)
        one.now_ns += 20 * STEP_NS
        one.move("a", "b")

    def test_attributes_that_waited_win_over_those_that_were_set_meanwhile(self, world, one, two):
        one.make_file("a")
        world.sync()
        one.set_mode("a", 0o711)
        two.set_mode("a", 0o722)
        self.wait_and_receive(world, one, two)
        settled(world)
        assert two.row_at("b").mode == 0o711

    def test_so_does_the_time_of_equal_bytes(self, world, one, two):
        one.make_file("a")
        world.sync()
        one.write("a", "same")
        two.now_ns += STEP_NS
        two.write("a", "same")
        self.wait_and_receive(world, one, two)
        settled(world)

    def test_and_a_rename(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        one.link("a", "c")
        two.move("a", "d")
        two.now_ns += 10 * STEP_NS
        world.records += two.seal()
        for record in world.missing(one):
            one.receive(record)
        one.now_ns += 20 * STEP_NS
        one.write("c", "new")
        settled(world)


class TestReading:
    def test_folders_are_read_in_pages_by_name(self, index):
        names = [f"{number:03}" for number in range(20)]
        for name in reversed(names):
            index.make_file(name)
        page = index.tree.list_folder(ROOT_ITEM, b"004", 3)
        assert [name for name, _, _ in page] == [b"005", b"006", b"007"]
        assert [name.decode() for name, _ in iterate_folder(index.tree, ROOT_ITEM)] == names

    def test_paths_and_totals_follow_what_is_shown(self, index):
        index.make_folder("d")
        item = index.make_file("d/a", "four")
        assert index.tree.path(item) == b"d/a"
        assert index.tree.totals() == (2, 4)
        index.unlink("d/a")
        assert index.tree.path(item) is None
        assert index.tree.totals() == (1, 0)

    def test_inode_numbers_are_never_given_twice(self, index):
        first = index.make_file("a")
        number = index.tree.item(first).inode
        index.unlink("a")
        second = index.make_file("a")
        assert index.tree.item(second).inode > number
        assert index.tree.new_inode(second) > number + 1

    def test_nor_after_a_change_that_was_taken_back(self, index):
        numbers = []

        def make(name):
            item = index.make_file(name)
            numbers.append(index.tree.item(item).inode)

        def fail():
            with index.database.transaction():
                make("lost")
                raise StorageError(28, "full")

        for name in ("a", "b"):
            with pytest.raises(StorageError):
                fail()
            make(name)
        restarted = Tree(index.database, index.registers)
        numbers.append(restarted.new_inode(index.row_at("a").item))
        assert numbers == sorted(set(numbers))

    def test_changes_say_what_the_kernel_may_hold(self, index):
        index.make_folder("d")
        item = index.make_file("d/a")
        folder = index.row_at("d").item
        index.seal()
        index.tree.take_changes()
        index.write("d/a", "new")
        changes = index.tree.take_changes()
        assert changes.contents == {item}
        assert changes.entries == set()
        index.move("d/a", "d/b")
        changes = index.tree.take_changes()
        assert changes.entries == {(folder, b"a"), (folder, b"b")}
        assert item in changes.items
        assert index.tree.take_changes().items == set()

    def test_a_device_without_a_known_name_is_called_by_its_id(self, index):
        device = DeviceId(b"\xff" * 32)
        assert index.tree.device_name(device) == str(device)[:12]
        index.journal.add_device(device, bytes(32), bytes(32), "phone")
        assert index.tree.device_name(device) == "phone"


class TestBurials:
    def bury(self, index, *items):
        with index.database.transaction():
            index.tree.burials.note(items)
            for item in items:
                index.tree.bury(item, index.now_ns)

    def test_what_hung_in_a_buried_folder_hangs_in_the_root_whatever_comes_first(self, world):
        one, two = world.indexes
        folder = one.make_folder("folder")
        one.make_file("stays", "data")
        world.sync()
        one.remove_folder("folder")
        two.move("stays", "folder/moved")
        two.make_file("folder/new", "data")
        world.seal()
        self.bury(one, folder)
        world.sync()
        self.bury(two, folder)
        assert settled(world) == {"moved", "new"}

    def test_nothing_that_was_written_to_a_buried_item_comes_back(self, world):
        one, two = world.indexes
        gone = one.make_file("gone", "first")
        world.sync()
        one.unlink("gone")
        two.write("gone", "by two")
        world.seal()
        self.bury(one, gone)
        world.sync()
        assert one.shown() == {}
        rows = one.database.execute("SELECT 1 FROM versions WHERE item = ?", (gone,))
        assert rows == []

    def test_a_folder_goes_before_what_is_in_it(self, world):
        one, _ = world.indexes
        outer, inner = one.make_folder("outer"), one.make_folder("outer/inner")
        one.make_file("outer/inner/file", "data")
        world.sync()
        self.bury(one, outer)
        assert one.paths() == {"inner/", "inner/file"}
        assert one.shown() == one.from_scratch().entries
        self.bury(one, inner)
        assert one.paths() == {"file"}
        assert one.shown() == one.from_scratch().entries


class TestRowsByInode:
    def test_a_row_is_as_new_as_the_last_change(self, one):
        item = one.make_file("a", "old")
        inode = one.row_at("a").inode
        for mode in (0o600, 0o640):
            one.set_mode("a", mode)
            assert one.tree.item_of_inode(inode) == one.tree.item(item)
            assert one.tree.item_of_inode(inode).mode == mode
        one.unlink("a")
        assert one.tree.item_of_inode(inode) is None

    def test_a_row_of_a_change_that_was_taken_back_is_forgotten(self, one):
        item = one.make_file("a", "old")
        inode = one.row_at("a").inode

        given = []

        def change_and_fail():
            with one.database.transaction():
                given.append(one.tree.new_inode(item))
                assert one.tree.item_of_inode(given[0]).item == item
                raise StorageError(errno.EIO, "the disk failed")

        with pytest.raises(StorageError):
            change_and_fail()
        assert one.tree.item_of_inode(inode) == one.tree.item(item)
        assert one.tree.item_of_inode(given[0]) is None


class TestCyclesOfDeletedFolders:
    def test_they_do_not_keep_each_other_alive(self, pool):
        """Each was deleted while it hung in the other; a file held both, and its deleter knew neither."""
        with pool.borrow(3) as databases, repeatable_ids(b"three"):
            world = World(databases)
            one, two, three = world.indexes
            one.make_folder("a")
            one.make_folder("b")
            one.make_file("a/f", "first")
            world.sync()
            two.write("a/f", "edited")
            world.seal()
            world.tell(three)
            three.unlink("a/f")
            one.unlink("a/f")
            one.move("a", "b/a")
            one.remove_folder("b/a")
            two.move("b", "a/b")
            two.remove_folder("a/b")
            deletion = three.seal()
            for index, other in ((one, two), (two, one)):
                for record in other.seal():
                    index.receive(record)
                for record in world.missing(index):
                    index.receive(record)
            for index in (one, two):
                for record in deletion:
                    index.receive(record)
                assert index.shown() == index.from_scratch().entries == {}
