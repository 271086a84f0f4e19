"""What each choice of `atoll resolve` makes of a conflict, and what is said when it can not."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.control.conflict_commands import ConflictCommands
from node.control.messages import ControlError
from node.core.content_merge import Settlement
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.settlements import Settlements
from node.filesystem.values import Owner
from node.storage.aside import Aside
from node.sync.sibling_merge import SiblingMerge
from protocol.ids import ItemId
from protocol.values import Content, Kind
from tests.node.storage.indexes import DatabasePool, Index, World, repeatable_ids

MOUNT = Path("/m")


@pytest.fixture(scope="module")
def pool():
    databases = DatabasePool()
    yield databases
    databases.close()


@pytest.fixture
def world(pool):
    with pool.borrow(3) as databases, repeatable_ids(b"resolve"):
        yield World(databases)


class Drive:
    """What the commands use of a drive, over one index."""

    def __init__(self, index: Index) -> None:
        self._settlements = Settlements(
            index.database,
            index.registers,
            index.tree,
            index.journal,
            lambda: index.now_ns,
            random.Random(1).randbytes,
        )
        self.steps: list[str] = []

    def settle(self, item: ItemId, settlement: Settlement) -> tuple[list[Any], list[ItemId]]:
        self.steps.append("settle")
        return [], self._settlements.write(item, settlement)

    def stage(self, item: ItemId, data: bytes, after_ns: int) -> Content:
        return Content(Kind.FILE, len(data), after_ns, inline=data)

    async def announce(self, stale: list[Any]) -> None:
        self.steps.append("announce")

    async def sync_content(self, content: Content) -> None:
        self.steps.append("sync")


class Source:
    async def read(self, content: Content, offset: int, size: int) -> bytes:
        raise AssertionError("everything is inline here")


async def inline(function, *arguments):
    await trio.lowlevel.checkpoint()
    return function(*arguments)


class Node:
    def __init__(self, index: Index) -> None:
        self.index = index
        self.drive = Drive(index)
        folder = ConflictFolder(index.tree, index.registers, Aside(index.database), Owner(0, 0))
        self.commands = ConflictCommands(
            mountpoint=MOUNT,
            device=index.device,
            tree=index.tree,
            registers=index.registers,
            conflicts=folder,
            drive=self.drive,  # type: ignore[arg-type]
            merging=SiblingMerge(Source(), inline),
            merger=SimpleNamespace(reason=lambda item: "a reason"),  # type: ignore[arg-type]
        )

    async def resolve(self, keep: str, path: str = "/m/d/a.txt") -> dict[str, Any]:
        return await self.commands.resolve({"path": path.encode(), "keep": keep})

    async def refused(self, keep: str, path: str = "/m/d/a.txt") -> ControlError:
        with pytest.raises(ControlError) as raised:
            await self.resolve(keep, path)
        return raised.value

    def text(self, path: str = "d/a.txt") -> str:
        row = self.index.row_at(path)
        version = self.index.registers.content(row.item, row.content)
        assert version is not None
        return version.value.inline.decode()


BASE = "one\ntwo\nthree\n"


@pytest.fixture
def nodes(world):
    """Two devices that edited the same line; the second one's is shown. A third looks on."""
    one, two, three = world.indexes
    one.make_folder("d")
    one.make_file("d/a.txt", BASE)
    world.sync()
    one.write("d/a.txt", BASE.replace("two", "by one"))
    two.now_ns += 10**9
    two.write("d/a.txt", BASE.replace("two", "by two"))
    world.sync()
    return Node(one), Node(two), Node(three)


def settled(world: World, *nodes: Node) -> set[str]:
    """The text that all devices show, once there is no conflict anywhere."""
    world.sync()
    assert not any(node.index.tree.conflicts() for node in nodes)
    return {node.text() for node in nodes}


@pytest.mark.parametrize(("keep", "kept"), [("mine", "by one"), ("theirs", "by two")])
async def test_a_side_is_kept_and_settles_the_conflict_everywhere(world, nodes, keep, kept):
    report = await nodes[0].resolve(keep)
    assert report["beside"] == []
    assert settled(world, *nodes) == {BASE.replace("two", kept)}
    assert nodes[0].drive.steps == ["settle", "announce", "sync"]


async def test_a_choice_goes_out_without_the_settle_time(nodes):
    index = nodes[0].index
    await nodes[0].resolve("mine")
    (group,) = index.journal.groups(0, 0, 10)
    assert group.is_urgent


async def test_mine_is_what_this_device_wrote(world, nodes):
    await nodes[1].resolve("mine")
    assert settled(world, *nodes) == {BASE.replace("two", "by two")}


async def test_a_listed_version_is_kept_by_its_name(world, nodes):
    (conflict,) = await nodes[2].commands.list_conflicts({})
    assert conflict["path"] == "/m/d/a.txt"
    assert conflict["readable_at"] == f"/m/.atoll/conflicts/d/a.txt/{conflict['version']}"
    assert conflict["reason"] == "a reason"
    report = await nodes[2].resolve(conflict["version"])
    assert report == {"path": "/m/d/a.txt", "kept": conflict["version"], "beside": []}
    assert settled(world, *nodes) == {BASE.replace("two", "by one")}


async def test_both_makes_the_other_versions_files_beside_it_in_one_record(world, nodes):
    report = await nodes[0].resolve("both")
    (beside,) = report["beside"]
    assert beside.startswith("/m/d/a (from device 0 ")
    assert beside.endswith(").txt")
    records = len(world.records)
    assert settled(world, *nodes) == {BASE.replace("two", "by two")}
    assert len(world.records) == records + 1
    for node in nodes:
        assert node.text(beside.removeprefix("/m/")) == BASE.replace("two", "by one")
        assert len(node.index.paths()) == 3


async def test_merge_marks_what_overlaps(world, nodes):
    report = await nodes[0].resolve("merge")
    assert report["kept"] == "merge"
    (text,) = settled(world, *nodes)
    lines = text.splitlines()
    assert lines[0] == "one"
    assert lines[1].startswith("<<<<<<< device 0-")
    assert lines[2:5] == ["by one", "=======", "by two"]
    assert lines[5].startswith(">>>>>>> device 1-")


async def test_merge_has_no_marks_where_nothing_overlaps(world):
    one, two, _ = world.indexes
    one.make_folder("d")
    one.make_file("d/a.txt", BASE)
    world.sync()
    one.write("d/a.txt", BASE.replace("one", "ONE"))
    two.write("d/a.txt", BASE.replace("three", "THREE"))
    world.sync()
    await Node(one).resolve("merge")
    assert settled(world, Node(one), Node(two)) == {"ONE\ntwo\nTHREE\n"}


async def test_binary_can_not_be_merged_and_the_sentence_says_what_can_be_kept(world):
    one, two, _ = world.indexes
    one.make_folder("d")
    one.make_file("d/a.txt", "\0")
    world.sync()
    one.write("d/a.txt", "\0one")
    two.write("d/a.txt", "\0two")
    world.sync()
    error = await Node(one).refused("merge")
    assert error.code == "not_mergeable"
    assert "it is not text; keep device" in error.message
    assert "(shown)" in error.message


async def test_a_stranger_has_no_version_of_its_own_and_two_of_others(nodes):
    error = await nodes[2].refused("mine")
    assert error.code == "no_version"
    assert "no version by this device; keep device 1-" in error.message
    error = await nodes[2].refused("theirs")
    assert error.code == "ambiguous"
    assert "2 versions by other devices; keep device 1-" in error.message
    assert " (shown) or device 0-" in error.message
    assert (await nodes[2].refused("yours")).code == "no_version"


async def test_two_versions_by_one_device_are_not_mine_without_saying_which(world, nodes):
    one = nodes[0].index
    item = one.row_at("d/a.txt").item
    (base,) = [
        version for version in one.registers.history(item) if version.value.inline == BASE.encode()
    ]
    content = Content(Kind.FILE, 5, inline=b"third")
    one.edits.write_content(item, content, base, is_urgent=False)  # another handle's save
    assert (await nodes[0].refused("mine")).code == "ambiguous"


@pytest.mark.parametrize(
    ("path", "code", "sentence"),
    [
        ("/elsewhere", "bad_request", "/elsewhere is not in the drive at /m"),
        ("/m/nothing", "not_found", "there is no /m/nothing"),
        ("/m/d", "no_conflict", "there is no conflict at /m/d; `atoll conflicts` lists"),
        ("/m/.atoll/conflicts/d/a.txt/x", "bad_request", "name the file that it belongs to"),
    ],
)
async def test_what_is_no_conflict_is_said(nodes, path, code, sentence):
    error = await nodes[0].refused("mine", path)
    assert error.code == code
    assert sentence in error.message


async def test_a_settled_conflict_is_none(nodes):
    await nodes[0].resolve("mine")
    assert (await nodes[0].refused("mine")).code == "no_conflict"


async def test_a_choice_must_be_given(nodes):
    for arguments in ({}, {"path": b"/m/d/a.txt"}, {"path": b"/m/d/a.txt", "keep": ""}):
        with pytest.raises(ControlError, match="takes 'path' and 'keep'"):
            await nodes[0].commands.resolve(arguments)
