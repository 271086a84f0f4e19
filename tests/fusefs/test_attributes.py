"""Attributes on their way to the kernel and back, without a mount."""

from __future__ import annotations

import stat
from types import SimpleNamespace
from typing import cast

import pyfuse3
import pytest

from fusefs.attributes import (
    AttributeTranslator,
    CacheTimeouts,
    changes_of,
    kind_of_mode,
    statistics_reply,
)
from node.drive import AttributeChanges, Attributes, Statistics
from protocol.values import Kind


def attributes(kind: Kind = Kind.FILE, mtime_ns: int = 5) -> Attributes:
    return Attributes(7, kind, 0o640, 2, 1000, 100, 0x10203, 12_345, mtime_ns, 9, 25)


def test_an_entry_says_what_the_attributes_say() -> None:
    entry = AttributeTranslator(CacheTimeouts(1, 2, 3)).entry(attributes(mtime_ns=-1))
    assert (entry.st_ino, entry.st_nlink, entry.st_uid, entry.st_gid) == (7, 2, 1000, 100)
    assert (entry.st_rdev, entry.st_size, entry.st_blocks) == (0x10203, 12_345, 25)
    assert (entry.st_mtime_ns, entry.st_atime_ns, entry.st_ctime_ns) == (-1, -1, 9)
    assert (entry.entry_timeout, entry.attr_timeout) == (1, 2)
    assert entry.st_mode == stat.S_IFREG | 0o640


def test_an_absent_name_has_no_inode_and_its_own_timeout() -> None:
    translator = AttributeTranslator(CacheTimeouts(1, 2, 3))
    assert (translator.absent.st_ino, translator.absent.entry_timeout) == (0, 3)
    assert translator.remembers_absence
    assert not AttributeTranslator(CacheTimeouts(1, 2, 0)).remembers_absence


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_type_bits(kind: Kind) -> None:
    entry = AttributeTranslator(CacheTimeouts()).entry(attributes(kind))
    assert kind_of_mode(entry.st_mode) is kind


def test_no_type_bits_are_no_kind() -> None:
    assert kind_of_mode(0o644) is None


def requested(**updates: bool) -> AttributeChanges | None:
    names = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")
    fields = SimpleNamespace(**{f"update_{name}": updates.get(name, False) for name in names})
    entry = pyfuse3.EntryAttributes()
    entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o4711)
    entry.st_uid, entry.st_gid, entry.st_size, entry.st_mtime_ns = 1, 2, 3, 4
    return changes_of(entry, cast("pyfuse3.SetattrFields", fields))


def test_only_what_is_asked_for_changes() -> None:
    assert requested(mode=True) == AttributeChanges(mode=0o4711)
    assert requested(uid=True, gid=True) == AttributeChanges(uid=1, gid=2)
    assert requested(size=True, mtime=True) == AttributeChanges(size=3, mtime_ns=4)


def test_an_access_time_alone_changes_nothing() -> None:
    assert requested(atime=True, ctime=True) is None


def test_free_space_is_free_for_everybody() -> None:
    reply = statistics_reply(Statistics(4096, 100, 40, 30, 20, 255))
    assert (reply.f_bsize, reply.f_frsize, reply.f_blocks) == (4096, 4096, 100)
    assert (reply.f_bfree, reply.f_bavail) == (40, 40)
    assert (reply.f_files, reply.f_ffree, reply.f_favail) == (30, 20, 20)
    assert reply.f_namemax == 255
