import errno
import itertools

import pytest

from node.errors import DriveError
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.values import Owner
from protocol.ids import RecordId
from protocol.records import Register
from protocol.values import Content, Kind
from tests.node.storage.indexes import STEP_NS, version_of


def refused(number):
    return pytest.raises(DriveError, check=lambda error: error.errno == number)


@pytest.fixture
def folder(one):
    return ConflictFolder(one.tree, one.registers, Owner(1000, 100))


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
