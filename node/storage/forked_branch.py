"""What this device wrote after a fork of one of its runs, and how it gets another author.

Where a machine's snapshot was resumed, or a state was copied with the run that used it, two nodes
number records and dots alike. The server keeps the records of whoever came first; the others' writes
are given dots that nobody else can have. The old dots are forgotten wherever this device named them:
on all other devices they stand for the other branch, which was never seen here. Called by
`node.sync.reissue`, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from node.storage.database import Database
from node.storage.registers import Registers
from protocol.errors import ProtocolError
from protocol.ids import ActorId, ItemId, RecordId
from protocol.records import Register, SignedRecord
from protocol.values import Content, Placement
from protocol.version_vector import Context, Dot

_Place = tuple[ItemId, Register]


@dataclass(frozen=True, slots=True)
class _Renamed:
    """Dots of the branch in one register: all of them, and the new ones of those that live."""

    old: frozenset[Dot]
    new: Mapping[Dot, Dot]

    def strip(self, context: Context) -> Context:
        """A context without what it can not have meant."""
        for dot in sorted(self.old, reverse=True):
            context = context.without(dot)
        return context

    def rename(self, context: Context) -> Context:
        """A set of dots that names the live ones anew."""
        named = [new for old, new in self.new.items() if context.covers(old)]
        return self.strip(context).add(named)


class ForkedBranches:
    """Finds and loosens branches.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database, registers: Registers) -> None:
        self._database = database
        self._registers = registers

    def records(self, actor: ActorId, sequence: int) -> list[SignedRecord]:
        """The stored records of a branch that begins at a sequence, in order."""
        rows = self._database.execute(
            "SELECT wire FROM records WHERE actor = ? AND sequence >= ? ORDER BY sequence",
            (actor, sequence),
        )
        return [SignedRecord.from_wire(wire) for (wire,) in rows]

    def loosen(self, branch: Iterable[SignedRecord], groups: Mapping[RecordId, int]) -> None:
        """Let the writes of a branch wait in groups, as writes of the present run.

        Args:
            groups: for each record of the branch.
        """
        places: dict[_Place, set[Dot]] = {}
        new: dict[_Place, dict[Dot, Dot]] = {}
        for signed in branch:
            for write in signed.record.writes:
                place = (write.item, write.register)
                dot = Dot(signed.record.actor, write.n)
                places.setdefault(place, set()).add(dot)
                given = self._registers.loosen(*place, dot, signed.id, groups[signed.id])
                if given is not None:
                    new.setdefault(place, {})[dot] = given
            self._forget_record(signed.id)
        renamed = {
            place: _Renamed(frozenset(dots), new.get(place, {})) for place, dots in places.items()
        }
        for (item, register), dots in renamed.items():
            self._registers.uncover(item, register, dots.strip)
            if register is Register.CONTENT:
                self._forget_history(item, dots.old)
        for item in {item for item, _ in places}:
            self._name_anew(item, renamed.get((item, Register.CONTENT)))

    def _forget_history(self, item: ItemId, dots: Iterable[Dot]) -> None:
        """To everybody else these are contents of the other branch."""
        for dot in dots:
            self._database.execute(
                "DELETE FROM history WHERE item = ? AND actor = ? AND n = ?",
                (item, dot.actor, dot.n),
            )

    def _name_anew(self, item: ItemId, contents: _Renamed | None) -> None:
        """Values of waiting writes that name contents of the branch."""
        if contents is None:
            return
        waiting = self._registers.waiting_dots(item, Register.PLACEMENT)
        for version in self._registers.placements(item):
            placement = version.value
            seen = contents.rename(placement.seen)
            if seen != placement.seen and version.dot in waiting:
                self._registers.replace_value(
                    item,
                    Register.PLACEMENT,
                    version.dot,
                    Placement(placement.links, placement.former, seen),
                )
        waiting = self._registers.waiting_dots(item, Register.CONTENT)
        for content in self._registers.contents(item):
            if content.value.origin in contents.old and content.dot in waiting:
                value: Content = replace(content.value, origin=None)
                self._registers.replace_value(item, Register.CONTENT, content.dot, value)

    def _forget_record(self, record: RecordId) -> None:
        self._database.execute("DELETE FROM records WHERE record = ?", (record,))
        self._database.execute("DELETE FROM record_blocks WHERE record = ?", (record,))

    def forget_rejected(self, actor: ActorId, sequence: int) -> None:
        """The other branch was rejected if it came first: it is to be taken in when it comes again."""
        for record, wire in list(self._database.execute("SELECT record, wire FROM rejected")):
            try:
                other = SignedRecord.from_wire(wire).record
            except ProtocolError:
                continue
            if other.actor == actor and other.sequence >= sequence:
                self._database.execute("DELETE FROM rejected WHERE record = ?", (record,))
