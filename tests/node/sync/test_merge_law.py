"""Whoever merges when, whatever arrives in which order: all end alike, no line is lost, it ends."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import Phase, event, given, note, settings
from hypothesis import strategies as st

from node.core.content_merge import Settlement
from node.core.tree_view import choose_content
from node.filesystem.settlements import Settlements
from node.sync.sibling_merge import Joined, SiblingMerge
from protocol.ids import ItemId
from protocol.values import Content, Kind
from tests.node.drives import NoBlocks
from tests.node.storage.indexes import DatabasePool, Index, World, repeatable_ids

BASE = [f"base {number}\n" for number in range(12)]
_MOST_MERGES = 40  # of one history; more would be a quarrel of merges


@pytest.fixture(scope="module")
def pool():
    databases = DatabasePool()
    yield databases
    databases.close()


async def inline(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def finished(coroutine: Coroutine[Any, Any, Joined]) -> Joined:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result = end.value
        assert isinstance(result, Joined)
        return result
    raise AssertionError("it waits for something")


class Devices:
    """Three devices that edit one text, hear of each other by chance, and merge by chance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.merging = SiblingMerge(NoBlocks(), inline)
        self.lines: list[str] = []
        self.merges = 0
        first = world.indexes[0]
        self.item: ItemId = first.make_file("text", "".join(BASE))
        world.sync()

    def edit(self, index: Index, place: int) -> None:
        """Insert a line of its own into what is shown."""
        line = f"line {len(self.lines)} by {index.number}\n"
        self.lines.append(line)
        shown = self.shown(index).splitlines(keepends=True)
        shown.insert(place % (len(shown) + 1), line)
        index.write("text", "".join(shown))
        self.world.seal()

    def shown(self, index: Index) -> str:
        version = index.registers.content(self.item, index.row_at("text").content)
        assert version is not None
        return version.value.inline.decode()

    def hear(self, index: Index, choice: int) -> bool:
        """One of the records that a device lacks arrives."""
        missing = self.world.missing(index)
        if missing:
            index.receive(missing[choice % len(missing)])
        return bool(missing)

    def merge(self, index: Index) -> bool:
        """What a merger does at its turn; whether it merged anything."""
        siblings = index.registers.contents(self.item)
        if not choose_content(siblings)[1]:
            return False
        joined = finished(self.merging.join(siblings, index.registers.history(self.item)))
        if joined.side is None:
            return False
        side = joined.side
        content = side.published(is_automatic=True)
        if content is None:
            assert side.data is not None
            content = Content(Kind.FILE, len(side.data), side.mtime_ns, inline=side.data)
        index.now_ns += 10**9
        Settlements(
            index.database,
            index.registers,
            index.tree,
            index.journal,
            lambda: index.now_ns,
            random.Random(0).randbytes,
        ).write(self.item, Settlement(side.versions, content, is_automatic=True))
        self.world.seal()
        self.merges += 1
        return True

    def versions(self, index: Index) -> set[bytes]:
        return {version.value.inline for version in index.registers.contents(self.item)}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.integers(0, 2), st.integers(0, 40)),
        st.tuples(st.just("hear"), st.integers(0, 2), st.integers(0, 40)),
        st.tuples(st.just("merge"), st.integers(0, 2), st.just(0)),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=60, phases=set(Phase) - {Phase.explain})
@given(STEPS)
def test_all_devices_end_alike_with_every_line_and_merging_ends(
    pool: DatabasePool, steps: list[tuple[str, int, int]]
) -> None:
    with pool.borrow(3) as databases, repeatable_ids(b"merge law"):
        devices = Devices(World(databases))
        indexes = devices.world.indexes
        for step, number, choice in steps:
            match step:
                case "edit":
                    devices.edit(indexes[number], choice)
                case "hear":
                    devices.hear(indexes[number], choice)
                case _:
                    devices.merge(indexes[number])
        during = devices.merges
        heal(devices)
        note(f"{len(devices.lines)} edits, {devices.merges} merges")
        event("merged while apart" if during else "merged in the end" if devices.merges else "no")
        found = [devices.versions(index) for index in indexes]
        assert found[0] == found[1] == found[2]
        event(f"{min(len(found[0]), 3)} versions in the end")
        assert len({devices.shown(index) for index in indexes}) == 1
        text = b"".join(found[0]).decode()
        assert all(line in text for line in devices.lines), "a line is lost"
        for version in found[0]:
            lines = version.decode().splitlines(keepends=True)
            assert len(lines) == len(set(lines)), "a line is there twice"
            assert [line for line in lines if line in BASE] == BASE


def heal(devices: Devices) -> None:
    """Everybody hears of everything; then all merge at once, hear of it, and so on, until none can.

    All at once is the worst case: turns make it rare.
    """
    indexes = devices.world.indexes
    is_going_on = True
    while is_going_on:
        for index in indexes:
            while devices.hear(index, 0):
                pass
        is_going_on = sum(devices.merge(index) for index in indexes) > 0
        assert devices.merges < _MOST_MERGES, "merges make merges"
