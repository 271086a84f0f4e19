"""How programs save, as the system calls that were recorded of them, on a drive without mount."""

import pytest

from protocol.records import Register
from protocol.values import Content, Kind
from tests.node.filesystem.dances import DANCES, IN_PLACE, KEEP_BACKUP, git_checkout
from tests.node.filesystem.machines import Machine, Syncing, now


@pytest.fixture
def here(one, tmp_path):
    (tmp_path / "one").mkdir()
    return Machine(one, tmp_path / "one")


@pytest.fixture
def there(two, tmp_path):
    (tmp_path / "two").mkdir()
    return Machine(two, tmp_path / "two")


@pytest.fixture
def sync(world, here, there):
    return Syncing(world, here, there)


def settle(machine):
    """Time enough that nothing counts as new any more."""
    machine.wait(60)


@pytest.fixture(params=DANCES, ids=lambda dance: dance.__name__)
def dance(request):
    return request.param


@pytest.fixture
def shared(here, there, sync):
    """A file that both machines have had for a while."""
    here.put("f", b"old")
    sync()
    settle(here)
    settle(there)
    return here.item("f")


class TestEveryWayOfSaving:
    def test_the_name_keeps_its_item_and_shows_the_new_bytes(
        self, here, there, sync, shared, dance
    ):
        dance(here, b"new")
        assert here.item("f") == shared
        assert here.read("f") == b"new"
        here.check_names()
        sync()
        assert there.item("f") == shared
        assert there.read("f") == b"new"
        assert there.names() == (["f", "f~"] if dance in KEEP_BACKUP else ["f"])
        assert there.tree() == here.tree()

    def test_again_and_again(self, here, there, sync, shared, dance):
        for number in range(3):
            dance(here, b"new %d" % number)
            settle(here)
            sync()
        assert there.item("f") == here.item("f") == shared
        assert there.read("f") == b"new 2"
        if dance in KEEP_BACKUP:
            assert there.read("f~") == b"new 1"
        here.check_names()

    def test_saved_twice_within_a_moment(self, here, there, sync, shared, dance):
        dance(here, b"new 1")
        dance(here, b"new 2")
        sync()
        assert there.item("f") == shared
        assert there.read("f") == b"new 2"
        here.check_names()

    def test_two_devices_get_siblings_of_one_item(self, here, there, sync, shared, dance):
        dance(here, b"new here")
        dance(there, b"new there")
        sync()
        assert here.item("f") == there.item("f") == shared
        assert {name for name in here.names() if name.startswith("f") and "~" not in name} == {"f"}
        assert here.conflicts("f") == there.conflicts("f") == 1
        contents = here.index.registers.contents(shared)
        assert {version.value.inline for version in contents} == {b"new here", b"new there"}
        history = here.index.registers.history(shared)
        assert b"old" in {version.value.inline for version in history}  # the base of a merge

    def test_a_rename_elsewhere_meanwhile_is_kept(self, here, there, sync, shared, dance):
        dance(here, b"new")
        there.rename("f", "renamed")
        sync()
        assert here.item("renamed") == there.item("renamed") == shared
        assert here.read("renamed") == there.read("renamed") == b"new"
        assert "f" not in here.names()

    def test_a_save_covers_only_the_version_that_was_shown(self, here, there, sync, shared, dance):
        here.overwrite("f", b"edited here")
        settle(there)
        there.overwrite("f", b"edited there, later")
        sync()
        settle(here)
        assert here.read("f") == b"edited there, later"
        dance(here, b"new")
        sync()
        contents = there.index.registers.contents(shared)
        assert {version.value.inline for version in contents} == {b"edited here", b"new"}

    @pytest.mark.parametrize("dance", [one for one in DANCES if one not in IN_PLACE], indirect=True)
    def test_open_handles_keep_the_old_bytes(self, here, shared, dance):
        handle = here.open("f", writable=True)
        before = here.stat("f").inode
        dance(here, b"new")
        assert here.stat("f").inode != before
        assert here.pread(handle) == b"old"
        here.write(handle, b"OLD")
        here.close(handle)
        assert here.read("f") == b"new"
        if dance in KEEP_BACKUP:
            assert here.read("f~") == b"OLD"

    def test_the_other_name_of_a_hard_link_is_unchanged(self, here, there, sync, shared, dance):
        here.link("f", "other")
        sync()
        settle(here)
        dance(here, b"new")
        sync()
        for machine in (here, there):
            assert machine.read("f") == b"new"
            assert machine.read("other") == (b"new" if dance in IN_PLACE else b"old")
        here.check_names()

    def test_what_was_acknowledged_survives_a_crash_after_it(
        self, here, there, sync, shared, dance
    ):
        dance(here, b"new")
        here.crash()
        assert here.item("f") == shared
        assert here.read("f") == b"new"
        sync()
        assert there.read("f") == b"new"

    def test_a_save_is_one_record(self, here, sync, shared, dance):
        dance(here, b"new")
        records = here.index.seal()
        about = [record for record in records if shared in {write.item for write in record.writes}]
        assert len(about) == 1
        contents = {write.item for write in about[0].writes if write.register is Register.CONTENT}
        backups = {here.item(name) for name in here.names() if name == "f~"}
        assert contents == {shared, *backups}


class _PowerCutError(Exception):
    pass


def cut_after(monkeypatch, machine, calls):
    """Let the node die after so many steps of a program."""
    left = iter(range(calls))
    plain = machine._tick

    def counting():
        if next(left, None) is None:
            raise _PowerCutError
        plain()

    monkeypatch.setattr(machine, "_tick", counting)


class TestCrashes:
    # git removes the file itself before it writes anew: then there is nothing, as anywhere.
    @pytest.mark.parametrize(
        "dance", [one for one in DANCES if one is not git_checkout], indirect=True
    )
    def test_at_no_step_of_a_save_are_both_versions_gone(
        self, here, there, sync, shared, dance, monkeypatch
    ):
        """Either the whole former version is somewhere, or the whole new one is, here and elsewhere."""
        for calls in range(1, 60):
            done = True
            with monkeypatch.context() as patched:
                cut_after(patched, here, calls)
                try:
                    dance(here, b"new")
                except _PowerCutError:
                    done = False
            here.crash()
            assert {b"old", b"new"} & {data for _, data, _ in here.tree().values()}
            settle(here)
            sync()
            assert there.tree() == here.tree()
            if done:
                break
            for path, (kind, _, _) in reversed(here.tree().items()):
                (here.rmdir if kind is Kind.DIRECTORY else here.unlink)(path)
            settle(here)
            here.put("f", b"old")
            sync()
            settle(here)
        assert done
        assert here.read("f") == there.read("f") == b"new"


class TestWhatIsNoSave:
    def test_a_backup_that_is_moved_back_is_moved_back(self, here, shared):
        here.rename("f", "f~")
        here.rename("f~", "f")
        assert here.item("f") == shared
        assert here.names() == ["f"]
        assert here.read("f") == b"old"


class TestInodes:
    def test_after_a_rename_over_it_a_name_has_the_number_of_the_source(self, here, shared):
        here.put("f.tmp", b"new")
        number = here.stat("f.tmp").inode
        here.rename("f.tmp", "f")
        assert here.stat("f").inode == number
        assert here.stat("f").nlink == 1

    def test_a_handle_on_the_source_goes_on_writing_to_the_name(self, here, there, sync, shared):
        handle = here.create("tmp", 0o600)
        here.write(handle, b"first")
        here.rename("tmp", "f")
        here.write(handle, b"FIRST")
        here.close(handle)
        assert here.read("f") == b"FIRST"
        sync()
        assert there.read("f") == b"FIRST"
        assert there.item("f") == shared

    def test_a_large_source_that_waits_in_staging_is_the_files_from_then_on(self, here, shared):
        data = bytes(range(256)) * 64
        here.put("f.tmp", data)
        here.rename("f.tmp", "f")
        assert here.read("f") == data
        here.crash()
        assert here.read("f") == data
        assert here.item("f") == shared
        handle = here.open("f", writable=True)
        here.write(handle, b"x")
        here.close(handle)
        assert here.read("f") == b"x" + data[1:]

    def test_a_published_source_whose_bytes_wait_is_not_revived_by_a_later_write(
        self, here, there, sync, shared
    ):
        handle = here.create("f.tmp", 0o600)
        sync()
        here.write(handle, bytes(8192))
        now(here.drive.flush(handle))
        here.rename("f.tmp", "f")
        here.write(handle, b"more", 8192)
        here.close(handle)
        assert here.names() == ["f"]
        assert here.stat("f").size == 8196


class TestSealing:
    def test_a_file_whose_bytes_leave_staging_keeps_its_times(self, here):
        handle = here.create("f")
        here.write(handle, bytes(8192))
        here.truncate("f", 4000)
        here.close(handle)
        before = here.stat("f")
        here.wait(1)
        index = here.index
        (group,) = index.journal.groups(2**62, 2**62, 10)
        for write in index.registers.pending_writes(group.id):
            if write.register is Register.CONTENT:
                sealed = Content(Kind.FILE, 4000, before.mtime_ns, inline=bytes(4000))
                index.registers.replace_value(write.item, write.register, write.version.dot, sealed)
        index.tree.refresh_values(here.item("f"), index.now_ns)
        assert here.stat("f") == before
