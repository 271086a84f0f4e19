import errno

import pytest

from node.errors import DriveError
from node.filesystem.xattrs import Xattrs
from node.storage.standing import Standing
from protocol.limits import MAX_XATTRS_BYTES


def refused(number):
    return pytest.raises(DriveError, check=lambda error: error.errno == number)


@pytest.fixture
def xattrs(one):
    one.make_file("a")
    one.make_folder("d")
    return Xattrs(one.registers, one.edits, Standing(one.database), lambda content: 42)


@pytest.fixture
def put(one, xattrs):
    def put(name, value, create=False, replace=False):
        one.now_ns += 10**9
        xattrs.set(one.row_at("a"), name, value, create=create, replace=replace)

    return put


def test_a_value_is_kept_replaced_and_removed(one, xattrs, put):
    put(b"user.tag", b"\0one")
    put(b"user.other", b"")
    put(b"user.tag", b"two")
    row = one.row_at("a")
    assert xattrs.get(row, b"user.tag") == b"two"
    assert xattrs.get(row, b"user.other") == b""
    assert row.xattr_count == 2
    xattrs.remove(row, b"user.tag")
    with refused(errno.ENODATA):
        xattrs.get(one.row_at("a"), b"user.tag")


def test_values_travel(world, one, two, put):
    put(b"user.tag", b"one")
    world.sync()
    theirs = Xattrs(two.registers, two.edits, Standing(two.database), lambda content: 0)
    assert theirs.get(two.row_at("a"), b"user.tag") == b"one"
    assert b"user.tag" in theirs.names(two.row_at("a"))


def test_create_and_replace_are_heeded(put):
    with refused(errno.ENODATA):
        put(b"user.tag", b"x", replace=True)
    put(b"user.tag", b"x", create=True)
    with refused(errno.EEXIST):
        put(b"user.tag", b"y", create=True)
    put(b"user.tag", b"z", replace=True)


@pytest.mark.parametrize("name", [b"system.posix_acl_access", b"other", b"", b"user"])
def test_other_kinds_are_not_kept(one, xattrs, put, name):
    with refused(errno.EOPNOTSUPP):
        put(name, b"x")
    with refused(errno.EOPNOTSUPP):
        xattrs.get(one.row_at("a"), name)


def test_names_and_values_are_bounded(put):
    with refused(errno.ERANGE):
        put(b"user." + b"n" * 251, b"")
    put(b"user." + b"n" * 250, b"")
    with refused(errno.ENOSPC):
        put(b"user.big", bytes(MAX_XATTRS_BYTES))


def test_removing_what_is_not_there_is_refused(one, xattrs):
    with refused(errno.ENODATA):
        xattrs.remove(one.row_at("a"), b"user.tag")


def test_atolls_own_say_where_a_file_stands_and_can_not_be_set(one, xattrs, put):
    row = one.row_at("a")
    assert xattrs.get(row, b"user.atoll.item") == str(row.item).encode()
    assert xattrs.get(row, b"user.atoll.cached") == b"42"
    assert xattrs.get(row, b"user.atoll.durability") == b"local"
    one.seal()
    assert xattrs.get(row, b"user.atoll.durability") == b"server"
    with refused(errno.EPERM):
        put(b"user.atoll.item", b"x")
    with refused(errno.EPERM):
        xattrs.remove(row, b"user.atoll.item")
    with refused(errno.ENODATA):
        xattrs.get(row, b"user.atoll.unknown")


def test_every_listed_name_has_a_value(one, xattrs, put):
    put(b"user.tag", b"x")
    for path in ("a", "d"):
        row = one.row_at(path)
        names = xattrs.names(row)
        assert len(names) == len(set(names))
        for name in names:
            xattrs.get(row, name)
    assert b"user.atoll.cached" not in xattrs.names(one.row_at("d"))
