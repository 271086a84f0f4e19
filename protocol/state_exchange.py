"""How two devices that know different things find out what, and hand over only that. Sans-IO.

Each side has an `Exchange`; what one returns is given to the other, in any transport. One message
says that both know the same. Else they go down by prefixes of item ids to the buckets that differ, list
their live writes there, and ask for the records of those that they neither have nor know to be
covered. Records come newest first, and each is complete: a link that breaks anywhere leaves both
sides with what arrived, and the next exchange finds the rest.

It decides nothing about trust: whoever takes a record in verifies it, wherever it came from. Called by
the tasks that talk to peers, and by tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.ids import RecordId
from protocol.state_digest import PREFIX_BYTES, LiveWrite

LIST_WRITES: Final = 64
"""A prefix with so few writes on one side is listed at once: that costs less than more questions."""

PAGE_RECORDS: Final = 256
"""Records handed over in one message: far below what a frame may hold."""


class KnownState(Protocol):
    """What is known on one side."""

    def count(self, prefix: bytes) -> int:
        """Live writes below a prefix."""

    def digest(self, prefix: bytes) -> bytes:
        """Their digest."""

    def children(self, prefix: bytes) -> dict[int, bytes]:
        """The digests one byte further down."""

    def live_writes(self, prefix: bytes) -> Iterable[LiveWrite]:
        """The live writes of items whose ids begin with a prefix."""

    def knows(self, write: LiveWrite) -> bool:
        """Whether a write lives here, or is covered."""

    def newest_first(self, records: Iterable[RecordId]) -> Sequence[RecordId]:
        """Those of the records that are here, by descending hybrid time."""


@dataclass(frozen=True, slots=True)
class Compare:
    """The sender's digest of everything: the first message, and the only one between equals."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Children:
    """The sender's digests below a prefix that differs."""

    prefix: bytes
    digests: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Writes:
    """The sender's live writes below a prefix.

    Attributes:
        is_answer: the other side has sent its own already.
    """

    prefix: bytes
    writes: tuple[LiveWrite, ...]
    is_answer: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Records that the sender asks for."""

    records: tuple[RecordId, ...]


@dataclass(frozen=True, slots=True)
class Give:
    """Records that the other side asked for; the transport adds their bytes."""

    records: tuple[RecordId, ...]


Message = Compare | Children | Writes | Want | Give


class Exchange:
    """One side of an exchange: each message is answered from the present state.

    Two sides that differ and have nothing to give each other end it without a record, which only a
    dishonest writer can bring about; whoever begins exchanges need not compare the same two digests
    again.
    """

    def __init__(self, state: KnownState) -> None:
        self._state = state
        self._asked: set[RecordId] = set()

    def begin(self) -> Compare:
        """The first message of whichever side begins."""
        return Compare(self._state.digest(b""))

    def receive(self, message: Message) -> list[Message]:
        """Answer a message of the other side; nothing more to say is no answer."""
        match message:
            case Compare(digest):
                return [] if digest == self._state.digest(b"") else [self._look_below(b"")]
            case Children(prefix, digests):
                return self._compare_below(prefix, dict(digests))
            case Writes():
                return self._compare_writes(message)
            case Want(records):
                ordered = self._state.newest_first(records)
                return [
                    Give(tuple(ordered[start : start + PAGE_RECORDS]))
                    for start in range(0, len(ordered), PAGE_RECORDS)
                ]
            case Give():
                return []

    def _look_below(self, prefix: bytes) -> Message:
        if len(prefix) == PREFIX_BYTES or self._state.count(prefix) <= LIST_WRITES:
            return Writes(prefix, tuple(self._state.live_writes(prefix)), is_answer=False)
        return Children(prefix, tuple(self._state.children(prefix).items()))

    def _compare_below(self, prefix: bytes, theirs: dict[int, bytes]) -> list[Message]:
        own = self._state.children(prefix)
        return [
            self._look_below(prefix + bytes([byte]))
            for byte in sorted(own.keys() | theirs.keys())
            if own.get(byte) != theirs.get(byte)
        ]

    def _compare_writes(self, message: Writes) -> list[Message]:
        theirs = set(message.writes)
        answers: list[Message] = []
        wanted = dict.fromkeys(
            write.record
            for write in message.writes
            if write.record not in self._asked and not self._state.knows(write)
        )
        if wanted:
            self._asked.update(wanted)  # a record writes items of several buckets
            answers.append(Want(tuple(wanted)))
        if not message.is_answer:
            lacking = [w for w in self._state.live_writes(message.prefix) if w not in theirs]
            if lacking:
                answers.append(Writes(message.prefix, tuple(lacking), is_answer=True))
        return answers
