"""Writes that wait to be sealed, across a restart that gives them dots of another actor."""

from __future__ import annotations

import os
from pathlib import Path

from node.core.tree_view import view_item
from node.storage.database import Database
from node.storage.registers import Author, Registers
from protocol.ids import DeviceId, ItemId, LinkId, actor_id
from protocol.records import Register
from protocol.values import Content, Kind, Link, Placement

DEVICE = DeviceId(b"d" * 32)


def registers_of_a_run(path: Path, incarnation: bytes) -> Registers:
    author = Author(actor_id(DEVICE, incarnation), DEVICE)
    return Registers(Database(path / "index.db", b"k" * 32), author)


def test_a_waiting_write_is_never_its_own_origin(tmp_path: Path) -> None:
    registers = registers_of_a_run(tmp_path, b"first...")
    item = ItemId(os.urandom(16))
    dot = registers.write_local(item, Register.CONTENT, Content(Kind.FILE), 1, 1)
    touched = Content(Kind.FILE, mtime_ns=7, origin=dot)

    assert registers.write_local(item, Register.CONTENT, touched, 2, 1) == dot

    (version,) = registers.contents(item)
    assert version.value == Content(Kind.FILE, mtime_ns=7)


def test_a_file_touched_before_a_restart_can_be_deleted_after_it(tmp_path: Path) -> None:
    before = registers_of_a_run(tmp_path, b"first...")
    item = ItemId(os.urandom(16))
    link = Link(LinkId(b"l" * 8), ItemId(bytes(16)), b"name")
    before.write_local(item, Register.PLACEMENT, Placement((link,)), 1, 1)
    dot = before.write_local(item, Register.CONTENT, Content(Kind.FILE), 1, 1)
    before.write_local(item, Register.CONTENT, Content(Kind.FILE, mtime_ns=7, origin=dot), 2, 1)

    after = registers_of_a_run(tmp_path, b"second..")
    assert after.adopt_waiting_writes() == [item]
    seen = after.seen(item, Register.CONTENT)
    deletion = Placement((), (link,), seen)
    after.write_local(item, Register.PLACEMENT, deletion, 3, 1)

    view = view_item(after.placements(item), [], after.contents(item))
    assert view.links == ()
