"""Scenario 2: the newest records come before the backlog, and the link breaks anywhere.

Source: the classic pitfalls of gossip by sequence numbers (A. Demers et al., "Epidemic Algorithms for
Replicated Database Maintenance", 1987: deletions that come back when their records were dropped;
checksums by which equals find out that they are). The plausible simpler designs that this breaks: a
device that has seen number 9 of an author asks for 10 and up; a log of which covered records may not be
dropped; an exchange that lists everything although nothing differs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import pytest

from node.errors import DriveError
from protocol.ids import ActorId, ItemId, RecordId
from protocol.records import Register
from protocol.state_digest import LiveWrite, StateDigest
from protocol.version_vector import Dot
from tests.node.storage.indexes import DatabasePool, Index, SentRecord, World, repeatable_ids
from tests.node.storage.test_tree_law import ACTIONS, check_view, differences, perform
from tests.protocol.state_model import Traffic, exchange

SEEDS = 12


class KnownIndex:
    """An index as one side of an exchange; of what it received it kept only what lives."""

    def __init__(self, index: Index, sent: Mapping[RecordId, SentRecord]) -> None:
        self.index = index
        self.order: list[RecordId] = []
        self._sent = sent

    @property
    def records(self) -> dict[RecordId, SentRecord]:
        rows = self.index.database.execute(
            "SELECT DISTINCT record FROM versions WHERE record IS NOT NULL"
        )
        return {RecordId(record): self._sent[RecordId(record)] for (record,) in rows}

    def apply(self, record: SentRecord) -> None:
        self.order.append(record.id)
        self.index.receive(record)
        check_view(self.index)

    def live_writes(self, prefix: bytes) -> Iterator[LiveWrite]:
        rows = self.index.database.execute(
            "SELECT item, register, actor, n, record FROM versions WHERE record IS NOT NULL"
        )
        for item, register, actor, n, record in list(rows):
            if item.startswith(prefix):
                dot = Dot(ActorId(actor), n)
                yield LiveWrite(ItemId(item), Register(register), dot, RecordId(record))

    def knows(self, write: LiveWrite) -> bool:
        return self.index.registers.seen(write.item, write.register).covers(write.dot)

    def newest_first(self, records: Iterable[RecordId]) -> Sequence[RecordId]:
        here = self.records
        known = [record for record in records if record in here]
        return sorted(known, key=lambda record: -here[record].writes[0].version.time_us)

    def _digests(self) -> StateDigest:
        return StateDigest(self.live_writes(b""))

    def count(self, prefix: bytes) -> int:
        return self._digests().count(prefix)

    def digest(self, prefix: bytes) -> bytes:
        return self._digests().digest(prefix)

    def children(self, prefix: bytes) -> dict[int, bytes]:
        return self._digests().children(prefix)


@pytest.fixture(scope="module")
def pool() -> Iterator[DatabasePool]:
    databases = DatabasePool()
    yield databases
    databases.close()


class Island:
    """Three devices that nobody connects but by exchanges, and how they came apart."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: dict[RecordId, SentRecord] = {}
        self.sides = [KnownIndex(index, self.sent) for index in world.indexes]

    def seal(self) -> None:
        self.world.seal()
        self.sent.update((record.id, record) for record in self.world.records)

    def work(self, draw: random.Random, steps: int) -> None:
        """Programs run on all devices, and nobody hears of it."""
        actions = [action for action in ACTIONS if action != "deliver"]
        for _ in range(steps):
            numbers = (draw.randrange(31) for _ in range(3))
            with suppress(DriveError):
                perform(self.world, (draw.choice(actions), draw.randrange(3), *numbers))
        self.seal()

    def meet(self) -> None:
        """Everybody exchanges with everybody, until the end."""
        one, two, three = self.sides
        for left, right in ((one, two), (two, three), (three, one), (one, two)):
            exchange(left, right)

    def check(self) -> None:
        first = self.sides[0].index
        for side in self.sides[1:]:
            assert not differences(side.index, first)
        for side in self.sides:
            check_view(side.index)


def test_it_converges_wherever_the_link_breaks_and_then_is_silent(pool: DatabasePool) -> None:
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        with pool.borrow(3) as databases, repeatable_ids(b"island%d" % seed):
            found += converge(Island(World(databases)), random.Random(seed))
    assert found["dropped"] >= SEEDS, found
    assert found["broken"] >= SEEDS, found
    assert found["before its backlog"] >= SEEDS, found


def converge(island: Island, draw: random.Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(3):
        island.work(draw, 15)
        for _ in range(3):
            left, right = draw.sample(island.sides, 2)
            steps = draw.randrange(1, 16)
            traffic = exchange(left, right, most_steps=steps)
            found["broken"] += traffic.messages + traffic.records == steps
    island.meet()
    island.check()
    for left in island.sides:
        for right in island.sides:
            if left is not right:
                assert exchange(left, right) == Traffic(messages=1, records=0)
    found["dropped"] = len(island.sent.keys() - island.sides[0].records.keys())
    times = [
        [island.sent[record].writes[0].version.time_us for record in side.order]
        for side in island.sides
    ]
    found["before its backlog"] = sum(
        later < earlier for each in times for earlier, later in pairwise(each)
    )
    return found


def test_the_newest_come_first_and_what_they_cover_is_not_sent(pool: DatabasePool) -> None:
    with pool.borrow(3) as databases, repeatable_ids(b"newest"):
        island = Island(World(databases))
        one, two, _ = island.sides
        one.index.make_folder("d")
        for number in range(20):
            one.index.make_file(f"d/{number}", "first")
            island.seal()
        for round_number in range(5):
            for number in range(10):
                one.index.write(f"d/{number}", f"{round_number}")
                island.seal()
        traffic = exchange(two, one)
        # The folder, and of each file its first record, with the placement; of fifty
        # edits ten live.
        assert traffic.records == len(two.order) == 1 + 20 + 10
        times = [island.sent[record].writes[0].version.time_us for record in two.order]
        assert times == sorted(times, reverse=True)
        assert not differences(one.index, two.index)


def test_a_deletion_reaches_who_had_never_heard_of_the_file(pool: DatabasePool) -> None:
    """And who still has the file does not bring it back to who has seen it deleted."""
    with pool.borrow(3) as databases, repeatable_ids(b"deleted"):
        island = Island(World(databases))
        one, two, three = island.sides
        one.index.make_file("a", "text")
        island.seal()
        exchange(one, two)
        one.index.write("a", "edited")
        island.seal()
        one.index.unlink("a")
        island.seal()
        exchange(three, one)
        assert three.index.paths() == set()
        exchange(three, two)
        assert three.index.paths() == two.index.paths() == set()
        island.meet()
        island.check()
        assert exchange(one, three) == Traffic(messages=1, records=0)
