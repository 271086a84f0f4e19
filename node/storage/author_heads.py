"""The heads of all authors on disk: what was taken in of each, to judge what comes next.

Called by the puller for every record that it takes in, and by the publisher for every own one, inside
their transactions.
"""

from __future__ import annotations

from node.core.author_heads import BEFORE_THE_FIRST, ChainLink, Head, Verdict, judge
from node.storage.database import Database
from protocol.ids import ActorId, DeviceId, RecordId
from protocol.records import SignedRecord

_KEPT_AHEAD = 1024  # records beyond a gap whose links are kept for each author, the latest ones


class AuthorHeads:
    """The head of each author, and the links of what came beyond a gap.

    Concurrency: owned by the node's loop; no method awaits. Heads that `take` moves are in memory
    until `flush`: many records of one author in one transaction cost one statement.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._moved: dict[ActorId, DeviceId] = {}
        self._heads: dict[ActorId, Head] = {}
        self._with_gap: set[ActorId] = set()

    def take(self, signed: SignedRecord) -> Verdict:
        """Judge a record whose signature is verified, and note it if it fits."""
        record = signed.record
        actor = record.actor
        head = self.head(actor)
        link = ChainLink(record.sequence, signed.id, record.previous)
        is_next = link.sequence == head.sequence + 1
        needs_beside = link.sequence > head.sequence and (not is_next or actor in self._with_gap)
        beside = self._beside(actor, link.sequence) if needs_beside else {}
        verdict = judge(link, head, beside)
        match verdict:
            case Verdict.NEXT:
                self._move(actor, record.device, Head(link.sequence, link.record))
            case Verdict.AHEAD:
                self._keep_ahead(actor, link)
            case _:
                pass
        return verdict

    def note_own(self, signed: SignedRecord) -> None:
        """A record was sealed here."""
        record = signed.record
        self._store(record.actor, record.device, Head(record.sequence, signed.id))

    def cut_back(self, actor: ActorId, device: DeviceId, sequence: int, record: RecordId) -> None:
        """Forget what came after a record of an author; ``sequence`` 0 for all of it."""
        self.forget()
        self._database.execute("DELETE FROM heads WHERE actor = ?", (actor,))
        self._database.execute(
            "DELETE FROM heads_ahead WHERE actor = ? AND sequence > ?", (actor, sequence)
        )
        if sequence:
            self._store(actor, device, Head(sequence, record))

    def head(self, actor: ActorId) -> Head:
        """The record up to which everything of an author was taken in."""
        head = self._heads.get(actor)
        if head is None:
            row = self._database.row("SELECT sequence, record FROM heads WHERE actor = ?", (actor,))
            head = BEFORE_THE_FIRST if row is None else Head(row[0], RecordId(row[1]))
            self._heads[actor] = head
            if self._database.row("SELECT 1 FROM heads_ahead WHERE actor = ? LIMIT 1", (actor,)):
                self._with_gap.add(actor)
        return head

    def record_at(self, actor: ActorId, sequence: int) -> RecordId | None:
        """The record with that number, if its id is kept: it is the head or beyond a gap."""
        head = self.head(actor)
        if head.sequence == sequence:
            return head.record
        link = self._beside(actor, sequence).get(sequence)
        return None if link is None else link.record

    def flush(self) -> None:
        """Write what was moved; at the end of the transaction."""
        for actor, device in self._moved.items():
            self._store(actor, device, self._heads[actor])
        self.forget()

    def forget(self) -> None:
        """Drop what is in memory: after `flush`, or because the transaction is taken back."""
        self._moved.clear()
        self._heads.clear()
        self._with_gap.clear()

    def _move(self, actor: ActorId, device: DeviceId, head: Head) -> None:
        if actor in self._with_gap:
            head = self._over_closed_gap(actor, head)
        self._heads[actor] = head
        self._moved[actor] = device

    def _over_closed_gap(self, actor: ActorId, head: Head) -> Head:
        """The head moves on over what had come beyond the gap."""
        while (after := self._beside(actor, head.sequence).get(head.sequence + 1)) is not None:
            head = Head(after.sequence, after.record)
        self._database.execute(
            "DELETE FROM heads_ahead WHERE actor = ? AND sequence <= ?", (actor, head.sequence)
        )
        if not self._database.row("SELECT 1 FROM heads_ahead WHERE actor = ? LIMIT 1", (actor,)):
            self._with_gap.discard(actor)
        return head

    def _beside(self, actor: ActorId, sequence: int) -> dict[int, ChainLink]:
        rows = self._database.execute(
            "SELECT sequence, record, previous FROM heads_ahead "
            "WHERE actor = ? AND sequence BETWEEN ? AND ?",
            (actor, sequence - 1, sequence + 1),
        )
        return {row[0]: ChainLink(row[0], RecordId(row[1]), RecordId(row[2])) for row in rows}

    def _keep_ahead(self, actor: ActorId, link: ChainLink) -> None:
        self._database.execute(
            "INSERT INTO heads_ahead VALUES (?,?,?,?)",
            (actor, link.sequence, link.record, link.previous),
        )
        self._with_gap.add(actor)
        if link.sequence % (_KEPT_AHEAD // 4) == 0:
            self._database.execute(
                "DELETE FROM heads_ahead WHERE actor = ?1 AND sequence <= (SELECT sequence "
                "FROM heads_ahead WHERE actor = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
                (actor, _KEPT_AHEAD),
            )

    def _store(self, actor: ActorId, device: DeviceId, head: Head) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO heads VALUES (?,?,?,?)",
            (actor, device, head.sequence, head.record),
        )
