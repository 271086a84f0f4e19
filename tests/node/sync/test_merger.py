"""Conflicting versions of text become one, by one device, once; everything else stays a conflict."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.core.content_merge import Settlement, Side
from node.errors import ServerError
from node.filesystem.settlements import Settlements
from node.storage.verdicts import Verdicts
from node.sync.merger import Merger
from node.sync.sibling_merge import SiblingMerge
from protocol.ids import ItemId
from protocol.records import Register
from protocol.values import Content, Kind
from tests.node.storage.indexes import DatabasePool, Index, World, repeatable_ids

BASE = "one\ntwo\nthree\nfour\nfive\n"


@pytest.fixture(scope="module")
def pool():
    databases = DatabasePool()
    yield databases
    databases.close()


@pytest.fixture
def world(pool):
    with pool.borrow(3) as databases, repeatable_ids(b"merger"):
        yield World(databases)


class Files:
    """What a merger uses of a drive, over one index."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.settlements = Settlements(
            index.database,
            index.registers,
            index.tree,
            index.journal,
            lambda: index.now_ns,
            random.Random(1).randbytes,
        )
        self.unsettled = trio.Event()
        self.is_open = False
        self.settled: list[Settlement] = []
        self.announced = 0

    async def wait_unsettled(self) -> None:
        await self.unsettled.wait()
        self.unsettled = trio.Event()

    def is_being_written(self, item: ItemId) -> bool:
        return self.is_open or self.index.registers.is_waiting(item, Register.CONTENT)

    def stage(self, item: ItemId, data: bytes, after_ns: int) -> Content:
        return Content(Kind.FILE, len(data), after_ns, inline=data)

    def settle(self, item: ItemId, settlement: Settlement) -> tuple[list[Any], list[ItemId]]:
        self.settled.append(settlement)
        made = self.settlements.write(item, settlement)
        self.unsettled.set()
        return [], made

    async def announce(self, stale: list[Any]) -> None:
        self.announced += 1


class Source:
    """Bytes that are inline; fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures: list[ServerError] = []
        self.reads = 0
        self.meanwhile: list[Callable[[], None]] = []

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.meanwhile:
            self.meanwhile.pop()()
        if self.failures:
            raise self.failures.pop(0)
        return content.inline[offset : offset + size]


class Reading(SiblingMerge):
    """Reads every content, as if none were inline."""

    async def _bytes(self, side: Side) -> bytes:
        if side.data is not None:
            return side.data
        assert side.content is not None
        return await self._source.read(side.content, 0, side.content.size)


class Device:
    """One device of the world with a merger."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.files = Files(index)
        self.is_behind = False
        self.source = Source()
        self.merger = Merger(
            registers=index.registers,
            tree=index.tree,
            verdicts=Verdicts(index.database, index.registers),
            drive=self.files,
            merging=Reading(self.source, inline),
            device=index.device,
            is_behind=lambda: self.is_behind,
            draw=lambda: 0.5,
        )

    def text(self, path: str = "a") -> str:
        row = self.index.row_at(path)
        version = self.index.registers.content(row.item, row.content)
        assert version is not None
        return version.value.inline.decode()

    def is_pending(self) -> bool:
        return self.merger.is_pending

    def error(self) -> str | None:
        return self.merger.last_error

    @property
    def conflicts(self) -> int:
        return len(self.index.tree.conflicts())


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@asynccontextmanager
async def running(*devices: Device):
    async with trio.open_nursery() as nursery:
        for device in devices:
            nursery.start_soon(device.merger.run)
        yield
        nursery.cancel_scope.cancel()


def apart(world: World, *texts: str, base: str = BASE) -> list[Device]:
    """Devices that wrote their texts over one base and have told each other."""
    world.indexes[0].make_file("a", base)
    world.sync()
    for index, text in zip(world.indexes, texts, strict=False):
        index.write("a", text)
    world.sync()
    return [Device(index) for index in world.indexes]


def apart_again(world: World, devices: list[Device]) -> list[Device]:
    """The same devices with two edits of one line."""
    for device, text in zip(devices, ("x\n", "y\n"), strict=False):
        device.index.write("a", text)
    world.sync()
    return [Device(device.index) for device in devices]


async def pass_s(world: World, devices: list[Device], seconds: float) -> None:
    """Virtual time; what is written reaches everybody twice a second."""
    for _ in range(int(seconds * 2)):
        await trio.sleep(0.5)
        world.sync()
        for device in devices:
            device.files.unsettled.set()


@pytest.fixture
def clock():
    return MockClock(autojump_threshold=0)


async def settle(world: World, devices: list[Device], seconds: float = 5) -> None:
    async with running(*devices):
        await pass_s(world, devices, seconds)


async def test_edits_of_different_lines_are_one_file_everywhere(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    assert [device.conflicts for device in devices] == [1, 1, 1]
    await settle(world, devices)
    assert {device.text() for device in devices} == {"ONE\ntwo\nthree\nfour\nFIVE\n"}
    assert [device.conflicts for device in devices] == [0, 0, 0]
    assert [device.merger.merged for device in devices] == [1, 0, 0], "the first author did it"
    (settlement,) = devices[0].files.settled
    assert settlement.is_automatic
    assert len(settlement.covered) == 2


async def test_the_record_is_automatic_and_covers_exactly_what_was_merged(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    sides = devices[0].index.registers.contents(devices[0].index.row_at("a").item)
    await settle(world, devices)
    (merged,) = devices[2].index.registers.contents(devices[2].index.row_at("a").item)
    assert merged.automatic
    assert all(merged.context.covers(side.dot) for side in sides)


async def test_three_sides_become_one(world, clock):
    devices = apart(
        world,
        BASE.replace("one", "ONE"),
        BASE.replace("three", "THREE"),
        BASE.replace("five", "FIVE"),
    )
    await settle(world, devices)
    assert {device.text() for device in devices} == {"ONE\ntwo\nTHREE\nfour\nFIVE\n"}


async def test_two_of_three_sides_are_merged_and_the_third_stays_a_conflict(world, clock):
    devices = apart(
        world,
        BASE.replace("one", "ONE"),
        BASE.replace("one", "UNO"),
        BASE.replace("five", "FIVE"),
    )
    await settle(world, devices, 60)
    assert [device.conflicts for device in devices] == [1, 1, 1]
    assert sum(device.merger.merged for device in devices) == 1
    item = devices[0].index.row_at("a").item
    texts = {version.value.inline.decode() for version in devices[0].index.registers.contents(item)}
    assert texts == {
        BASE.replace("one", "ONE").replace("five", "FIVE"),
        BASE.replace("one", "UNO"),
    }


async def test_what_overlaps_stays_a_conflict_and_is_looked_at_once(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("one", "UNO"))
    await settle(world, devices, 300)
    assert [device.conflicts for device in devices] == [1, 1, 1]
    assert not any(device.files.settled for device in devices)
    item = devices[0].index.row_at("a").item
    assert devices[0].merger.reason(item) == "both changed the same lines"


async def test_what_can_not_be_merged_is_not_read_again_after_a_restart(world, clock):
    devices = apart(world, "\0a", "\0b", base="\0")
    await settle(world, devices, 10)
    again = Device(devices[0].index)
    async with running(again):
        await trio.sleep(10)
    assert again.source.reads == 0
    assert again.merger.reason(again.index.row_at("a").item) == "it is not text"


async def test_a_merge_is_pending_for_its_authors_until_it_is_made_or_given_up(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    async with running(*devices):
        await trio.sleep(0.1)
        assert [device.is_pending() for device in devices] == [True, True, False]
        await trio.sleep(1)
        assert [device.is_pending() for device in devices] == [False, True, False]
        await pass_s(world, devices, 1)
        assert [device.is_pending() for device in devices] == [False, False, False]
    overlapping = apart_again(world, devices)
    async with running(*overlapping):
        await trio.sleep(0.1)
        assert [device.is_pending() for device in overlapping] == [True, True, False]
        await trio.sleep(5)
        assert not any(device.is_pending() for device in overlapping)


async def test_an_edit_of_one_side_makes_it_worth_trying_again(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("one", "UNO"))
    async with running(*devices):
        await pass_s(world, devices, 5)
        item = devices[1].index.row_at("a").item
        second = next(
            version
            for version in devices[1].index.registers.contents(item)
            if version.device == devices[1].index.device
        )
        back = BASE.replace("four", "FOUR")
        devices[1].index.edits.write_content(
            item, Content(Kind.FILE, len(back), inline=back.encode()), second, is_urgent=False
        )
        await pass_s(world, devices, 10)
    assert {device.text() for device in devices} == {
        BASE.replace("one", "ONE").replace("four", "FOUR")
    }


async def test_binary_files_are_not_read_twice_nor_merged(world, clock):
    devices = apart(world, "\0a", "\0b", base="\0")
    await settle(world, devices, 60)
    assert [device.conflicts for device in devices] == [1, 1, 1]
    item = devices[0].index.row_at("a").item
    assert devices[0].merger.reason(item) == "it is not text"


async def test_a_side_that_equals_the_base_yields_whatever_the_file_is(world, clock):
    devices = apart(world, "\0", "\0new", base="\0")
    await settle(world, devices)
    assert {device.text() for device in devices} == {"\0new"}
    assert [device.conflicts for device in devices] == [0, 0, 0]


async def test_another_author_steps_in_when_the_first_is_away(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    async with running(*devices[1:]):
        await trio.sleep(3)
        assert not devices[1].files.settled
        await trio.sleep(2)
        assert devices[1].files.settled
    assert not devices[2].files.settled


async def test_a_stranger_merges_when_all_authors_are_away(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    async with running(devices[2]):
        await trio.sleep(29)
        assert not devices[2].files.settled
        await trio.sleep(31)
    assert devices[2].conflicts == 0


async def test_two_devices_that_merge_at_once_end_in_one_version(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    async with running(*devices):
        await trio.sleep(100)  # nobody hears of the others
        assert [device.merger.merged for device in devices] == [1, 1, 1]
        await pass_s(world, devices, 100)
    assert [device.merger.merged for device in devices] == [1, 1, 1], "no merge of merges"
    assert {device.text() for device in devices} == {"ONE\ntwo\nthree\nfour\nFIVE\n"}
    devices[1].index.write("a", "new\n")
    world.sync()
    assert [device.conflicts for device in devices] == [0, 0, 0], "who saw one saw all"


async def test_a_merge_waits_for_what_is_being_written(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    first = devices[0]
    first.files.is_open = True
    async with running(first):
        await trio.sleep(20)
        assert not first.files.settled
        first.files.is_open = False
        await trio.sleep(2)
        assert first.files.settled


async def test_what_changes_while_it_is_read_is_looked_at_again(world, clock):
    """A save here, and a version from elsewhere: neither is merged as if it were not there."""
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    first, third = devices[0], devices[2]
    third.index.write("a", BASE.replace("one", "UNO"))
    arriving = third.index.seal()
    world.records += arriving
    mine = BASE.replace("one", "ONE").replace("three", "THREE")

    def save() -> None:
        item = first.index.row_at("a").item
        (own,) = [
            version
            for version in first.index.registers.contents(item)
            if version.device == first.index.device
        ]
        content = Content(Kind.FILE, len(mine), inline=mine.encode())
        first.index.edits.write_content(item, content, own, is_urgent=False)

    def arrive() -> None:
        for record in arriving:
            first.index.receive(record)

    for change in (save, arrive):
        first.source.meanwhile = [change]
        async with running(first):
            await trio.sleep(0.6)
            assert first.source.reads
            assert not first.source.meanwhile
            assert not first.files.settled, "what was read is not what there is now"
        first.source.reads = 0
        first.index.seal()


async def test_a_merge_waits_until_announced_changes_are_here(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    first = devices[0]
    first.is_behind = True
    async with running(first):
        await trio.sleep(20)
        assert not first.files.settled
        first.is_behind = False
        await trio.sleep(2)
        assert first.files.settled


async def test_a_deleted_file_is_not_merged(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    devices[2].index.unlink("a")
    world.sync()
    await settle(world, devices, 60)
    assert not any(device.files.settled for device in devices)
    assert all(device.index.paths() == set() for device in devices)


async def test_a_deletion_by_who_saw_both_sides_holds_against_their_merge(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    async with running(devices[0]):
        await trio.sleep(2)
    assert devices[0].files.settled
    devices[2].index.unlink("a")
    world.sync()
    assert all(device.index.paths() == set() for device in devices)


async def test_bytes_that_do_not_come_are_an_error_that_is_shown_and_tried_again(world, clock):
    text = "\n".join(f"line {number}" for number in range(9))
    devices = apart(world, text.replace("line 1", "x"), text.replace("line 7", "y"), base=text)
    first = devices[0]
    first.source.failures = [ServerError("unreachable", "the server is away")] * 2
    async with running(first):
        await trio.sleep(0.6)
        assert first.error() == "the server is away"
        await trio.sleep(30)
    assert first.error() is None
    assert first.files.settled
    assert first.source.reads < 20, "it does not ask in a loop"


async def test_bytes_that_are_gone_for_good_leave_a_conflict_with_its_reason(world, clock):
    devices = apart(world, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))
    first = devices[0]
    first.source.failures = [ServerError("not_found", "there is no such block")]
    async with running(first):
        await trio.sleep(60)
    assert first.error() is None
    assert first.source.reads == 1
    reason = first.merger.reason(first.index.row_at("a").item)
    assert reason == "the bytes of a version that is needed for it are gone"


async def test_fifty_edits_made_apart_are_one_merge(world, clock):
    first, second, _ = world.indexes
    first.make_file("a", BASE)
    world.sync()
    for number in range(50):
        for index, word in ((first, "one"), (second, "five")):
            index.write("a", BASE.replace(word, f"{word} {number}"))
        world.seal()  # each edit is a record, and nobody hears of it
    world.sync()
    devices = [Device(index) for index in world.indexes]
    assert [device.conflicts for device in devices] == [1, 1, 1]
    assert len(first.registers.contents(first.row_at("a").item)) == 2, "one conflict, not fifty"
    await settle(world, devices)
    assert {device.text() for device in devices} == {
        BASE.replace("one", "one 49").replace("five", "five 49")
    }
