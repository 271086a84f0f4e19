import errno

import pytest

from node.errors import DriveError
from protocol.ids import ROOT_ITEM
from protocol.records import Register
from protocol.values import Content, ItemAttributes, Kind

DATE = "2025-10-09"


def refused(number):
    return pytest.raises(DriveError, check=lambda error: error.errno == number)


def writes_of(records):
    return [[(write.item, write.register) for write in record.writes] for record in records]


def content_of(index, path):
    row = index.row_at(path)
    return index.registers.content(row.item, row.content).value.inline.decode()


class TestCreating:
    def test_a_new_item_is_one_record_of_three_writes(self, one):
        item = one.make_file("a")
        (record,) = one.seal()
        assert {write.register for write in record.writes} == set(Register)
        assert {write.item for write in record.writes} == {item}
        assert [change.folder for change in record.folders] == [ROOT_ITEM]

    @pytest.mark.parametrize(
        ("name", "number"),
        [
            (b"", errno.EINVAL),
            (b".", errno.EINVAL),
            (b"..", errno.EINVAL),
            (b"a/b", errno.EINVAL),
            (b"a\0b", errno.EINVAL),
            (b"n" * 256, errno.ENAMETOOLONG),
        ],
    )
    def test_a_name_that_no_folder_holds_is_refused(self, one, name, number):
        with refused(number):
            one.edits.create(one.row_at(""), name, Content(Kind.FILE), ItemAttributes(0))
        assert one.journal.count_groups() == 0

    def test_a_name_that_is_there_is_refused(self, one):
        one.make_file("a")
        with refused(errno.EEXIST):
            one.make_folder("a")
        with refused(errno.EEXIST):
            one.link("a", "a")

    def test_the_longest_name_and_one_that_is_not_utf_8_are_taken(self, one):
        for name in (b"n" * 255, b"\xff\xfe"):
            row = one.edits.create(one.row_at(""), name, Content(Kind.FILE), ItemAttributes(0))
            assert one.tree.path(row.item) == name

    def test_a_deleted_folder_takes_nothing(self, one):
        one.make_folder("d")
        one.make_file("a")
        one.seal()
        folder = one.row_at("d")
        one.remove_folder("d")
        with refused(errno.ENOENT):
            one.edits.create(folder, b"new", Content(Kind.FILE), ItemAttributes(0))
        with refused(errno.ENOENT):
            one.edits.link(one.row_at("a"), folder, b"new")
        entry = one.tree.entry(ROOT_ITEM, b"a")
        with refused(errno.ENOENT):
            one.edits.move(one.row_at(""), entry, folder, b"new", None)
        assert one.paths() == {"a"}

    def test_a_folder_that_is_merged_into_another_hands_entries_on(self, world, one, two):
        one.make_folder("d")
        two.now_ns += 10**9
        two.make_folder("d")
        held = two.row_at("d")
        world.sync()
        held = two.tree.item(held.item)
        assert held.merged_into is not None
        two.edits.create(held, b"new", Content(Kind.FILE), ItemAttributes(0))
        world.sync()
        assert one.paths() == two.paths() == {"d/", "d/new"}


class TestFolderTimes:
    def test_a_file_that_came_to_nothing_leaves_the_folder_its_time(self, world, one, two):
        one.make_file("kept")
        world.sync()
        published = one.row_at("").shown_mtime_ns
        one.make_file("temporary")
        assert one.row_at("").shown_mtime_ns > published
        one.unlink("temporary")
        world.sync()
        assert one.row_at("").shown_mtime_ns == two.row_at("").shown_mtime_ns == published

    def test_several_that_came_to_nothing_leave_it_too(self, world, one, two):
        one.make_file("kept")
        world.sync()
        published = one.row_at("").shown_mtime_ns
        for name in ("database-wal", "database-shm"):
            one.make_file(name)
        for name in ("database-wal", "database-shm"):
            one.unlink(name)
        world.sync()
        assert one.row_at("").shown_mtime_ns == two.row_at("").shown_mtime_ns == published

    def test_what_else_changed_the_folder_meanwhile_counts(self, world, one, two):
        one.make_file("temporary")
        one.make_file("kept")
        one.unlink("temporary")
        world.sync()
        assert one.row_at("").shown_mtime_ns == two.row_at("").shown_mtime_ns


class TestLinks:
    def test_every_name_counts_until_the_last_goes(self, one):
        item = one.make_file("a", "data")
        one.make_folder("d")
        one.link("a", "d/b")
        assert one.tree.link_count(item) == 2
        one.unlink("a")
        assert content_of(one, "d/b") == "data"
        one.unlink("d/b")
        assert one.paths() == {"d/"}

    def test_unlink_says_whether_the_last_name_went(self, one):
        one.make_file("a")
        one.link("a", "b")
        root = one.row_at("")
        last = [one.edits.unlink(root, one.tree.entry(ROOT_ITEM, name)) for name in (b"b", b"a")]
        assert last == [False, True]

    def test_folders_have_one_name(self, one):
        one.make_folder("d")
        with refused(errno.EPERM):
            one.link("d", "e")

    def test_links_are_bounded(self, one, monkeypatch):
        monkeypatch.setattr("node.filesystem.edits.MAX_LINKS", 3)
        one.make_file("a")
        one.link("a", "b")
        one.link("a", "c")
        with refused(errno.EMLINK):
            one.link("a", "one too many")

    def test_a_deleted_file_gets_no_new_name(self, one):
        one.make_file("a")
        one.seal()
        row = one.row_at("a")
        one.unlink("a")
        with refused(errno.ENOENT):
            one.edits.link(row, one.row_at(""), b"b")


class TestRemoving:
    def test_what_nobody_saw_leaves_no_record(self, one):
        one.make_folder("d")
        one.make_file("d/a")
        one.remove_all("d")
        assert one.seal() == []
        assert one.journal.count_groups() == 0
        assert one.tree.totals() == (0, 0)

    def test_what_was_sent_leaves_a_deletion_that_says_what_it_saw(self, one):
        item = one.make_file("a")
        one.seal()
        one.unlink("a")
        (record,) = one.seal()
        (write,) = record.writes
        assert (write.item, write.register) == (item, Register.PLACEMENT)
        assert write.version.value.links == ()
        assert [link.name for link in write.version.value.former] == [b"a"]
        assert write.version.value.seen == one.registers.seen(item, Register.CONTENT)

    def test_a_folder_with_entries_stays(self, one):
        one.make_folder("d")
        one.make_file("d/a")
        with refused(errno.ENOTEMPTY):
            one.remove_folder("d")

    def test_merged_folders_go_together(self, world, one, two):
        for index in world.indexes:
            index.make_folder("d")
        world.sync()
        one.remove_folder("d")
        world.sync()
        assert one.paths() == two.paths() == set()


class TestMoving:
    def test_a_folder_moves_in_one_write_whatever_it_holds(self, one):
        folder = one.make_folder("d")
        for number in range(20):
            one.make_file(f"d/{number}")
        one.seal()
        one.move("d", "e")
        assert writes_of(one.seal()) == [[(folder, Register.PLACEMENT)]]
        assert len(one.paths()) == 21

    def test_a_replacing_rename_is_one_urgent_record(self, one):
        old, new = one.make_file("a", "old"), one.make_file("b", "new")
        one.seal()
        one.move("b", "a")
        (group,) = one.journal.groups(0, 0, 10)
        assert group.is_urgent
        (writes,) = writes_of(one.seal())
        assert sorted(writes) == sorted([(old, Register.PLACEMENT), (new, Register.PLACEMENT)])
        assert one.paths() == {"a"}
        assert content_of(one, "a") == "new"

    def test_one_name_of_several_moves_alone(self, one):
        one.make_file("a")
        one.link("a", "b")
        one.move("b", "c")
        assert one.paths() == {"a", "c"}

    def test_both_folders_have_changed(self, one):
        one.make_folder("d")
        one.make_folder("e")
        one.make_file("d/a")
        one.seal()
        one.move("d/a", "e/a")
        (record,) = one.seal()
        assert {change.folder for change in record.folders} == {
            one.row_at("d").item,
            one.row_at("e").item,
        }

    def test_exchange_swaps_in_one_record(self, one):
        first, second = one.make_file("a", "first"), one.make_folder("d")
        one.make_file("d/x")
        one.seal()
        exchange(one, b"a", b"d")
        assert one.paths() == {"a/", "a/x", "d"}
        (writes,) = writes_of(one.seal())
        assert {item for item, _ in writes} == {first, second}

    def test_exchange_takes_merged_folders_along(self, world, one, two):
        for number, index in enumerate(world.indexes):
            index.make_folder("d")
            index.make_file(f"d/{number}")
        one.make_file("a")
        world.sync()
        exchange(one, b"a", b"d")
        world.sync()
        assert one.paths() == two.paths() == {"a/", "a/0", "a/1", "d"}


def exchange(index, first, second):
    root = index.row_at("")
    index.now_ns += 10**9
    entries = [index.tree.entry(ROOT_ITEM, name) for name in (first, second)]
    index.edits.exchange(root, entries[0], root, entries[1])


class TestContestedNames:
    """Whatever a program does under a name, the file that waits behind it stays where it is shown."""

    OTHER = f"a (from device 1 {DATE})"

    @pytest.fixture
    def contest(self, world, one, two):
        two.now_ns += 10**9
        one.make_file("a", "keeper")
        two.make_file("a", "waiting")
        world.sync()
        assert one.paths() == {"a", self.OTHER}
        return world

    def check(self, world, paths):
        world.sync()
        one, two = world.indexes
        assert one.view() == two.view()
        assert one.paths() == {*paths, self.OTHER}
        assert content_of(two, self.OTHER) == "waiting"

    def test_after_a_removal(self, contest, one):
        one.unlink("a")
        self.check(contest, set())

    def test_after_a_move_away(self, contest, one):
        one.move("a", "b")
        self.check(contest, {"b"})

    def test_after_a_save_by_replacing(self, contest, one):
        one.make_file("tmp", "saved")
        one.move("tmp", "a")
        self.check(contest, {"a"})
        assert content_of(one, "a") == "saved"

    def test_after_a_save_by_moving_away_and_writing_anew(self, contest, one):
        one.move("a", "a~")
        one.make_file("a", "saved")
        one.unlink("a~")
        self.check(contest, {"a"})
        assert content_of(one, "a") == "saved"

    def test_after_an_exchange(self, contest, one):
        one.make_file("b", "other")
        exchange(one, b"a", b"b")
        self.check(contest, {"a", "b"})
        assert content_of(one, "a") == "other"

    def test_after_one_more_name_for_the_keeper(self, contest, one):
        one.link("a", "b")
        self.check(contest, {"a", "b"})
        assert content_of(one, "a") == "keeper"

    def test_after_a_further_name_of_the_keeper_is_moved_or_removed(self, contest, one):
        one.link("a", "b")
        contest.sync()
        one.move("b", "c")
        self.check(contest, {"a", "c"})
        one.unlink("c")
        self.check(contest, {"a"})
        assert content_of(one, "a") == "keeper"

    def test_after_one_more_name_for_the_waiting_one(self, contest, one):
        one.link(self.OTHER, "b")
        self.check(contest, {"a", "b"})
        assert content_of(one, "b") == "waiting"

    def test_and_all_of_it_is_one_record(self, contest, one):
        contest.seal()
        one.unlink("a")
        (record,) = one.seal()
        assert len(record.writes) == 2

    def test_a_waiting_file_that_leaves_moves_nobody(self, contest, one):
        one.move(self.OTHER, "b")
        contest.sync()
        assert one.paths() == {"a", "b"}


class TestContents:
    def test_a_save_covers_what_was_opened(self, world, one, two):
        one.make_file("a", "old")
        world.sync()
        opened = two.registers.content(two.row_at("a").item, two.row_at("a").content)
        one.write("a", "unseen")
        world.sync()
        two.edits.write_content(
            two.row_at("a").item, Content(Kind.FILE, 4, inline=b"mine"), opened, is_urgent=True
        )
        assert two.row_at("a").conflicts == 1
        assert two.journal.groups(0, 0, 9)[0].is_urgent

    def test_a_write_is_later_than_what_it_covers_though_the_clock_went_back(self, world, one, two):
        one.now_ns += 3600 * 10**9
        one.make_file("a", "from the future")
        world.seal()
        for record in world.missing(two):
            two.receive(record)
        two.write("a", "now")
        version = two.registers.contents(two.row_at("a").item)[0]
        assert version.time_us > one.now_ns // 1000

    def test_attributes_are_changed_from_the_latest(self, world, one, two):
        one.make_file("a")
        world.sync()
        one.set_mode("a", 0o711)
        two.now_ns += 10**9
        two.set_mode("a", 0o722)
        world.sync()
        one.edits.set_attributes(
            one.row_at("a").item, lambda now, _: ItemAttributes(now.mode | 0o001)
        )
        assert one.row_at("a").mode == 0o723
        assert len(one.registers.attributes(one.row_at("a").item)) == 1

    def test_nothing_is_left_of_a_change_that_fails(self, one):
        one.make_file("a")
        one.seal()
        before = one.view()

        def fail(now, time_us):
            raise DriveError(errno.ENOSPC, "full")

        with refused(errno.ENOSPC):
            one.edits.set_attributes(one.row_at("a").item, fail)
        assert one.view() == before
        assert one.journal.count_groups() == 0

    def test_make_urgent_makes_what_waits_for_the_item_urgent(self, one):
        item = one.make_file("a")
        one.make_file("b")
        one.edits.make_urgent(item)
        assert [group.is_urgent for group in one.journal.groups(2**62, 2**62, 9)] == [True, False]
