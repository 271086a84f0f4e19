import errno
import itertools

import pytest

from node.errors import DriveError
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.values import Owner, StaleEntry
from node.storage.aside import Aside
from protocol.ids import RecordId
from protocol.records import Register
from protocol.values import Content, Kind
from tests.node.storage.indexes import STEP_NS, version_of


def refused(number):
    return pytest.raises(DriveError, check=lambda error: error.errno == number)


@pytest.fixture
def folder(one):
    return ConflictFolder(one.tree, one.registers, Aside(one.database), Owner(1000, 100))


@pytest.fixture
def conflict(world, one, two):
    """The file ``d/a`` of which the first device's version lost."""
    one.make_folder("d")
    one.make_file("d/a", "old")
    world.sync()
    one.write("d/a", "lost")
    two.now_ns += STEP_NS
    two.write("d/a", "shown")
    world.sync()


def walk(folder, inode, path=()):
    for name, attributes in folder.list_folder(inode):
        yield (*path, name), attributes
        if attributes.kind is Kind.DIRECTORY:
            yield from walk(folder, attributes.inode, (*path, name))


def test_without_conflicts_it_is_an_empty_folder(folder):
    root = folder.root()
    assert root.kind is Kind.DIRECTORY
    assert [name for name, _ in folder.list_folder(root.inode)] == [b"conflicts"]
    assert [path for path, _ in walk(folder, root.inode)] == [(b"conflicts",)]
    assert folder.versions() == []


def test_a_lost_version_is_a_file_below_the_path_of_the_shown_one(folder, conflict):
    found = dict(walk(folder, folder.root().inode))
    name = b"device 0-2025-10-09T08.53.23.000000"
    assert list(found) == [
        (b"conflicts",),
        (b"conflicts", b"d"),
        (b"conflicts", b"d", b"a"),
        (b"conflicts", b"d", b"a", name),
    ]
    attributes = found[b"conflicts", b"d", b"a", name]
    assert (attributes.kind, attributes.mode, attributes.size) == (Kind.FILE, 0o400, 4)
    assert (attributes.uid, attributes.gid) == (1000, 100)
    assert folder.open(attributes.inode).version.value.inline == b"lost"


def test_names_are_looked_up_and_keep_their_inodes(folder, conflict):
    for path, attributes in walk(folder, folder.root().inode):
        found = folder.root()
        for name in path:
            found = folder.lookup(found.inode, name)
        assert found == attributes == folder.attributes(found.inode)
        assert folder.holds(found.inode)
    assert not folder.holds(1)


def test_what_is_not_there_is_not_found(folder, conflict):
    root = folder.root().inode
    for name in (b"other", b"", b"conflicts2"):
        with refused(errno.ENOENT):
            folder.lookup(root, name)
    with refused(errno.ENOENT):
        folder.attributes(root + 1000)
    with refused(errno.ENOENT):
        folder.list_folder(root + 1000)
    with refused(errno.ENOENT):
        folder.open(root)


def test_a_settled_conflict_is_gone(world, one, folder, conflict):
    found = dict(walk(folder, folder.root().inode))
    file = next(attributes.inode for attributes in found.values() if attributes.kind is Kind.FILE)
    row = one.row_at("d/a")
    one.edits.write_content(
        row.item, Content(Kind.FILE, 7, inline=b"settled"), None, is_urgent=False
    )
    for read in (folder.attributes, folder.open):
        with refused(errno.ENOENT):
            read(file)
    assert len(dict(walk(folder, folder.root().inode))) == 1


def test_it_follows_a_rename(one, folder, conflict):
    list(walk(folder, folder.root().inode))
    one.move("d", "e")
    paths = [path for path, _ in walk(folder, folder.root().inode)]
    assert (b"conflicts", b"e", b"a") in paths
    assert (b"conflicts", b"d", b"a") not in paths


def test_a_deleted_file_has_no_conflicts(one, folder, conflict):
    one.unlink("d/a")
    assert folder.versions() == []


def test_versions_of_one_device_and_moment_have_names_of_their_own(one, folder):
    item = one.make_file("a", "old")
    for n in itertools.count(1):
        version = version_of(Content(Kind.FILE, 1, inline=b"%d" % n), device=2, n=n, time_us=5)
        record = RecordId(bytes([n]) * 32)
        one.registers.apply_remote(item, Register.CONTENT, version, record)
        if n == 3:
            break
    one.tree.refresh(item, 0)
    names = [conflict.name for conflict in folder.versions()]
    assert len(names) == len(set(names)) == 3
    assert all(name.startswith(b"device 2-1970-01-01T00.00.00.000005") for name in names)


@pytest.fixture
def beside(one):
    return ConflictFolder(
        one.tree, one.registers, Aside(one.database), Owner(1000, 100), is_beside=True
    )


BESIDE_NAME = b"a (from device 0 2025-10-09)"


def test_beside_its_file_a_version_is_a_read_only_file(one, beside, conflict):
    folder = one.row_at("d").item
    ((name, attributes),) = beside.list_beside(folder)
    assert name == BESIDE_NAME
    assert (attributes.kind, attributes.mode, attributes.size) == (Kind.FILE, 0o400, 4)
    found = beside.beside(folder, name)
    assert found is not None
    assert found[0] == attributes == beside.attributes(attributes.inode)
    assert beside.open(attributes.inode).version.value.inline == b"lost"
    assert beside.beside(folder, b"a") is None
    assert beside.list_beside(one.row_at("").item) == []


def test_nothing_is_beside_unless_it_is_asked_for(one, folder, conflict):
    parent = one.row_at("d").item
    assert folder.list_beside(parent) == []
    assert folder.beside(parent, BESIDE_NAME) is None


def test_beside_takes_no_name_that_is_taken(one, beside, conflict):
    one.make_file(f"d/{BESIDE_NAME.decode()}", "another")
    ((name, _),) = beside.list_beside(one.row_at("d").item)
    assert name == b"a (from device 0 2025-10-09 2)"


def test_beside_does_not_change_what_the_folder_of_conflicts_lists(folder, beside, conflict):
    assert [path for path, _ in walk(beside, beside.root().inode)] == [
        path for path, _ in walk(folder, folder.root().inode)
    ]


def test_the_kernel_is_told_of_what_came_and_went(one, folder, beside, conflict):
    assert folder.take_stale() == [], "nobody has looked"
    list(walk(folder, folder.root().inode))
    folder.take_stale()
    beside.take_stale()
    row = one.row_at("d/a")
    content = Content(Kind.FILE, 7, inline=b"settled")
    one.edits.write_content(row.item, content, None, is_urgent=False)
    conflicts = folder.lookup(folder.root().inode, b"conflicts").inode
    assert StaleEntry(conflicts, b"d") in folder.take_stale()
    assert StaleEntry(one.row_at("d").inode, BESIDE_NAME) in beside.take_stale()
    assert folder.take_stale() == beside.take_stale() == []
