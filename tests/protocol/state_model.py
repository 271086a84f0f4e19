"""Devices that keep a state in memory, with digests, and a link between two of them that may break."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, TypeVar

from protocol.ids import ActorId, ItemId, RecordId
from protocol.lattice import RegisterState
from protocol.records import Register
from protocol.state_digest import LiveWrite, StateDigest
from protocol.state_exchange import Exchange, Give, KnownState, Message
from protocol.version_vector import Context, Dot

Place = tuple[ItemId, Register]


@dataclass(frozen=True)
class ModelWrite:
    place: Place
    dot: Dot
    context: Context


@dataclass(frozen=True)
class ModelRecord:
    id: RecordId
    time_us: int
    writes: tuple[ModelWrite, ...]


@dataclass
class Device:
    """What one device knows; it keeps the records of which a write lives, and no others."""

    number: int
    state: dict[Place, RegisterState[RecordId]] = field(default_factory=dict)
    records: dict[RecordId, ModelRecord] = field(default_factory=dict)
    digests: StateDigest = field(default_factory=StateDigest)
    made: int = 0

    def apply(self, record: ModelRecord) -> None:
        self.records[record.id] = record
        for write in record.writes:
            before = self.state.get(write.place, RegisterState())
            after = before.apply(write.dot, write.context, record.id)
            self.state[write.place] = after
            for dot in before.live.keys() - after.live.keys():
                self.digests.remove(LiveWrite(*write.place, dot, before.live[dot]))
            for dot in after.live.keys() - before.live.keys():
                self.digests.add(LiveWrite(*write.place, dot, after.live[dot]))
        living = {record for state in self.state.values() for record in state.live.values()}
        self.records = {name: kept for name, kept in self.records.items() if name in living}

    def write(self, places: Iterable[Place], draw: Random) -> ModelRecord:
        """Write some registers, each over all siblings or over one of them."""
        self.made += 1
        actor = ActorId(bytes([self.number]) * 16)
        writes = []
        for place in places:
            state: RegisterState[RecordId] = self.state.get(place, RegisterState())
            context = state.seen
            if len(state.live) > 1 and draw.random() < 0.5:
                context = self._context_of(place, draw.choice(sorted(state.live)))
            own = state.seen.vector.get(actor, 0) + 1
            writes.append(ModelWrite(place, Dot(actor, own), context))
        name = RecordId(bytes([self.number]) * 16 + self.made.to_bytes(16, "big"))
        record = ModelRecord(name, draw.randrange(10_000), tuple(writes))
        self.apply(record)
        return record

    def _context_of(self, place: Place, dot: Dot) -> Context:
        record = self.records[self.state[place].live[dot]]
        write = next(write for write in record.writes if write.place == place)
        return write.context.add([dot])

    # What an exchange asks

    def count(self, prefix: bytes) -> int:
        return self.digests.count(prefix)

    def digest(self, prefix: bytes) -> bytes:
        return self.digests.digest(prefix)

    def children(self, prefix: bytes) -> dict[int, bytes]:
        return self.digests.children(prefix)

    def live_writes(self, prefix: bytes) -> Iterator[LiveWrite]:
        for (item, register), state in self.state.items():
            if item.startswith(prefix):
                for dot, record in state.live.items():
                    yield LiveWrite(item, register, dot, record)

    def knows(self, write: LiveWrite) -> bool:
        state = self.state.get((write.item, write.register))
        return state is not None and state.knows(write.dot)

    def newest_first(self, records: Iterable[RecordId]) -> Sequence[RecordId]:
        here = [record for record in records if record in self.records]
        return sorted(here, key=lambda record: (-self.records[record].time_us, record))


@dataclass(frozen=True)
class Traffic:
    """What went over a link, both ways together."""

    messages: int
    records: int


Body = TypeVar("Body")


class Party(KnownState, Protocol[Body]):
    """Whoever exchanges: what it knows, and the records that it can hand over."""

    @property
    def records(self) -> Mapping[RecordId, Body]: ...

    def apply(self, record: Body) -> None: ...


def exchange(one: Party[Body], two: Party[Body], most_steps: int = 1 << 30) -> Traffic:
    """Let two devices compare and hand over; after so many messages or records the link breaks."""
    sides = {id(one): Exchange(one), id(two): Exchange(two)}
    waiting: list[tuple[Party[Body], Party[Body], Message]] = [(one, two, sides[id(one)].begin())]
    messages = records = 0
    while waiting and messages + records < most_steps:
        source, target, message = waiting.pop(0)
        messages += 1
        if isinstance(message, Give):
            for record in message.records:
                if messages + records >= most_steps:
                    break
                if record in source.records:
                    target.apply(source.records[record])
                    records += 1
        answers = sides[id(target)].receive(message)
        waiting += [(target, source, answer) for answer in answers]
    return Traffic(messages, records)


def is_same(one: Device, two: Device) -> bool:
    """Whether both know the same of every register."""
    return {p: s for p, s in one.state.items() if s.seen.vector} == {
        p: s for p, s in two.state.items() if s.seen.vector
    }
