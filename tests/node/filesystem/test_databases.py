"""The files of a SQLite database travel together, and wait for each other."""

import pytest

from node.core.database_family import HEADER, database_name, family_names
from node.core.record_sealing import OpenedWrite
from protocol.records import Register
from tests.node.filesystem.machines import Machine, Syncing


@pytest.fixture
def here(one, tmp_path):
    (tmp_path / "one").mkdir()
    return Machine(one, tmp_path / "one")


def database(machine, name="n.db"):
    """A database with a log, both open."""
    handle = machine.create(name)
    machine.write(handle, HEADER + bytes(100))
    log = machine.create(f"{name}-wal")
    machine.write(log, b"frames")
    return handle, log


def items_of(record):
    return {write.item for write in record.writes}


def write_to(machine, item):
    """Somebody else's write of an item's content."""
    content = machine.index.registers.contents(item)[0]
    return OpenedWrite(item, Register.CONTENT, content)


class TestNames:
    @pytest.mark.parametrize("suffix", [b"", b"-wal", b"-journal", b"-shm"])
    def test_a_family_is_found_from_each_of_its_names(self, suffix):
        assert database_name(b"n.db" + suffix) == b"n.db"
        assert b"n.db" + suffix in family_names(b"n.db")

    def test_a_suffix_alone_is_a_name_like_any_other(self):
        assert database_name(b"-wal") == b"-wal"


class TestOneRecord:
    def test_a_sync_of_the_log_takes_the_database_along(self, here):
        handle, log = database(here)
        here.fsync(log)
        (record,) = here.index.seal()
        assert items_of(record) == {here.item("n.db"), here.item("n.db-wal")}
        contents = [w.version.value for w in record.writes if w.register is Register.CONTENT]
        assert sorted(content.size for content in contents) == [6, 116]
        here.close(handle)
        here.close(log)

    def test_a_transaction_with_a_journal_is_one_record_of_the_database(self, here):
        handle = here.create("n.db")
        here.write(handle, HEADER + bytes(100))
        here.fsync(handle)
        here.index.seal()
        journal = here.create("n.db-journal")
        here.write(journal, b"former pages")
        here.fsync(journal)
        here.sync_folder("")
        here.write(handle, HEADER + bytes(200))
        here.fsync(handle)
        here.close(journal)
        here.unlink("n.db-journal")
        assert here.index.journal.groups(0, 0, 10) == []  # nothing goes at once
        (record,) = here.index.seal()
        assert items_of(record) == {here.item("n.db")}

    def test_a_program_that_only_reads_writes_no_version_of_the_database(self, here):
        handle, log = database(here)
        here.fsync(log)
        here.index.seal()
        shared = here.create("n.db-shm")  # which every reader makes
        here.write(shared, b"locks")
        here.fsync(shared)
        written = {w.item for record in here.index.seal() for w in record.writes}
        assert written == {here.item("n.db-shm")}
        for each in (handle, log, shared):
            here.close(each)

    def test_of_two_that_wrote_one_database_apart_the_shown_files_are_of_one(
        self, here, two, tmp_path, world
    ):
        there = Machine(two, tmp_path / "two")
        sync = Syncing(world, here, there)
        for handle in database(here):
            here.close(handle)
        sync()
        handles = {}
        for machine in (here, there):
            handles[machine] = [machine.open(name, writable=True) for name in ("n.db", "n.db-wal")]
            machine.pread(handles[machine][0])
        here.write(handles[here][1], b"frames by A")
        here.fsync(handles[here][1])
        there.wait(1)
        there.write(handles[there][0], HEADER + b"pages by B")
        there.write(handles[there][1], b"frames by B")
        there.fsync(handles[there][1])
        for machine in (here, there):
            for handle in handles[machine]:
                machine.close(handle)
        sync()
        for machine in (here, there):
            assert b"by B" in machine.read("n.db")
            assert machine.read("n.db-wal") == b"frames by B"
            assert machine.conflicts("n.db-wal") == 1

    def test_files_that_are_no_database_go_alone(self, here):
        handle = here.create("n")
        here.write(handle, b"text")
        log = here.create("n-wal")
        here.write(log, b"text")
        here.fsync(log)
        (group,) = here.index.journal.groups(0, 0, 10)
        writes = here.index.registers.pending_writes(group.id)
        assert {write.item for write in writes} == {here.item("n-wal")}


class TestInUse:
    def test_while_any_of_its_files_is_open(self, here):
        handle, log = database(here)
        item = here.item("n.db")
        assert here.drive.is_in_use([write_to(here, item)])
        here.close(handle)
        assert here.drive.is_in_use([write_to(here, item)])
        here.close(log)
        assert not here.drive.is_in_use([write_to(here, item)])

    def test_a_log_that_somebody_else_makes_beside_it_waits_as_well(self, here, two, tmp_path):
        handle, log = database(here)
        here.close(log)
        here.unlink("n.db-wal")
        item = two.make_file("n.db-wal")
        (placement,) = two.registers.placements(item)
        write = OpenedWrite(item, Register.PLACEMENT, placement)
        assert here.drive.is_in_use([write])
        here.close(handle)
        assert not here.drive.is_in_use([write])

    def test_other_files_do_not(self, here):
        database(here)
        here.put("other", b"text")
        assert not here.drive.is_in_use([write_to(here, here.item("other"))])

    def test_a_database_that_was_read_is_known(self, here):
        here.put("n.db", HEADER + bytes(5000))
        here.crash()
        handle = here.open("n.db")
        item = here.item("n.db")
        assert not here.drive.is_in_use([write_to(here, item)])  # nothing of it is cached
        here.pread(handle)
        assert here.drive.is_in_use([write_to(here, item)])
