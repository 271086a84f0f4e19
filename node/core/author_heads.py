"""Whether a record continues what its author is known to have written: forks and broken chains. Pure.

Every run of a device numbers its records from 1 and each names the one before it. Two records with
one number, or one that names another predecessor than the known one, can not come from one honest
run: the device was cloned, a snapshot of it was resumed, its key is in other hands, or somebody hides
records. Called by `node.storage.author_heads`, which remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocol.ids import RecordId
from protocol.records import NO_RECORD


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One record in the chain of its author."""

    sequence: int
    record: RecordId
    previous: RecordId


@dataclass(frozen=True, slots=True)
class Head:
    """The record up to which a chain is whole: all before it were taken in."""

    sequence: int
    record: RecordId


BEFORE_THE_FIRST = Head(0, NO_RECORD)


class Verdict(StrEnum):
    """What a record is to its author's known chain."""

    NEXT = "next"
    """It follows the head."""
    AHEAD = "ahead"
    """It lies beyond a gap: large records are overtaken by small ones, covered ones are dropped."""
    AGAIN = "again"
    """It is known."""
    BEHIND = "behind"
    """Its place was taken in before; by which record is not remembered. One that writes anything new
    is another one."""
    FORK = "fork"
    """Another record has its number."""
    BROKEN = "broken"
    """It and its neighbour do not name each other."""


def judge(link: ChainLink, head: Head, beside: Mapping[int, ChainLink]) -> Verdict:
    """What a record is to what is known.

    Args:
        link: the record.
        head: of its author.
        beside: records beyond the head with the numbers before, at and after this one, if known.
    """
    if link.sequence < head.sequence:
        return Verdict.BEHIND
    same = head if link.sequence == head.sequence else beside.get(link.sequence)
    if same is not None:
        return Verdict.AGAIN if same.record == link.record else Verdict.FORK
    before = head if link.sequence == head.sequence + 1 else beside.get(link.sequence - 1)
    after = beside.get(link.sequence + 1)
    if before is not None and before.record != link.previous:
        return Verdict.BROKEN
    if after is not None and after.previous != link.record:
        return Verdict.BROKEN
    return Verdict.NEXT if link.sequence == head.sequence + 1 else Verdict.AHEAD
