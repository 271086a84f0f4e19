"""What is on its way: groups of local changes, sealed records, the cursor into the server's journal.

Called by the drive (groups), the publisher (groups, outbox) and the puller (records, cursor), inside
their transactions where they write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from node.storage.database import Database
from protocol import codec
from protocol.ids import BlockId, DeviceId, ItemId, RecordId
from protocol.limits import MAX_EVENT_BYTES, MAX_RECORD_BYTES
from protocol.records import FolderChange, SignedRecord

_NEVER_US = 2**62
_MAX_REJECTED = 10_000  # a hostile server must not fill the disk
_MAX_ALARMS = 1_000
_MAX_EVIDENCE = 3  # signed records or events that one alarm keeps
_MAX_EVIDENCE_BYTES = 4 * max(MAX_RECORD_BYTES, MAX_EVENT_BYTES)


@dataclass(frozen=True, slots=True)
class Group:
    """Local changes that will travel in one record; fields as in schema.sql."""

    id: int
    first_us: int
    last_us: int
    is_urgent: bool
    is_approved: bool


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """A sealed record that the server has not acknowledged."""

    id: RecordId
    wire: bytes
    blocks: tuple[BlockId, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a user must know of.

    Attributes:
        evidence: signed records or events that prove it; the one known first comes first.
    """

    id: int
    kind: str
    message: str
    time_us: int
    evidence: tuple[bytes, ...]


class Journal:
    """Groups, outbox, received records, cursor and alarms.

    Attributes:
        on_outbox: is called when something that was sent once is to be sent again.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.on_outbox: Callable[[], None] = lambda: None

    # Groups

    def open_group(self, time_us: int, joined: Sequence[int]) -> int:
        """The group for a change made now: the first of ``joined``, with the others merged in.

        A group that was held or approved is judged anew with what joins it.

        Args:
            time_us: of the change, by this device's clock.
            joined: groups that the change touches, ascending; may be empty.
        """
        if not joined:
            self._database.execute(
                "INSERT INTO groups (first_us, last_us) VALUES (?,?)", (time_us, time_us)
            )
            row = self._database.row("SELECT last_insert_rowid()")
            assert row is not None
            return int(row[0])
        kept = joined[0]
        for other in joined[1:]:
            self._database.execute(
                "UPDATE versions SET pending = ? WHERE pending = ?", (kept, other)
            )
            self._database.execute(
                "INSERT INTO group_folders SELECT ?1, folder, time_us, before_us FROM group_folders "
                "WHERE pending = ?2 ON CONFLICT DO UPDATE SET time_us = max(time_us, "
                "excluded.time_us)",
                (kept, other),
            )
            self._database.execute(
                "UPDATE groups SET urgent = max(urgent, (SELECT urgent FROM groups WHERE id = ?2)) "
                "WHERE id = ?1",
                (kept, other),
            )
            self.close_group(other)
        self._database.execute(
            "UPDATE groups SET last_us = max(last_us, ?), held = 0 WHERE id = ?", (time_us, kept)
        )
        return kept

    def note_folder(self, group: int, folder: ItemId, time_us: int, before_us: int) -> None:
        """The group changes the entries of a folder, whose time was ``before_us``."""
        row = self._database.row(
            "SELECT min(before_us) FROM group_folders WHERE folder = ?", (folder,)
        )
        if row is not None and row[0] is not None:
            before_us = row[0]  # the present time comes from a group that waits as well
        self._database.execute(
            "INSERT INTO group_folders VALUES (?,?,?,?) "
            "ON CONFLICT DO UPDATE SET time_us = max(time_us, excluded.time_us)",
            (group, folder, time_us, before_us),
        )

    def note_published(self, folder: ItemId, time_us: int) -> None:
        """A record, of this device or another, changed the entries of a folder."""
        self._database.execute(
            "UPDATE group_folders SET before_us = ? WHERE folder = ? AND before_us < ?",
            (time_us, folder, time_us),
        )

    def folders_without(self, group: int) -> list[tuple[ItemId, int, int]]:
        """Folders that a group changed: the time of the change, and the folder's without it."""
        rows = self._database.execute(
            "SELECT folder, time_us, max(before_us, coalesce((SELECT max(other.time_us) "
            "FROM group_folders AS other WHERE other.folder = one.folder "
            "AND other.pending <> one.pending), 0)) FROM group_folders AS one WHERE pending = ?",
            (group,),
        )
        return [(ItemId(folder), time_us, before_us) for folder, time_us, before_us in rows]

    def groups_changing(self, folder: ItemId) -> list[int]:
        """The groups that change entries of a folder."""
        rows = self._database.execute(
            "SELECT pending FROM group_folders WHERE folder = ? ORDER BY pending", (folder,)
        )
        return [pending for (pending,) in rows]

    def make_urgent(self, groups: Iterable[int]) -> None:
        """These groups do not wait for the settle time."""
        for group in groups:
            self._database.execute("UPDATE groups SET urgent = 1 WHERE id = ?", (group,))

    def groups(
        self, settled_before_us: int, begun_before_us: int, limit: int, now_us: int = _NEVER_US
    ) -> list[Group]:
        """Groups that may be sealed, oldest first.

        They are urgent, or unchanged since ``settled_before_us``, or so old (begun before
        ``begun_before_us``) that a program that keeps changing them must not hold them back, or
        changed after ``now_us``: the clock has gone back since.
        """
        rows = self._database.execute(
            "SELECT id, first_us, last_us, urgent, held = 2 FROM groups "
            "WHERE held <> 1 AND (urgent = 1 OR last_us <= ? OR first_us <= ? "
            "OR last_us > ?) ORDER BY id LIMIT ?",
            (settled_before_us, begun_before_us, now_us, limit),
        )
        return [Group(row[0], row[1], row[2], bool(row[3]), bool(row[4])) for row in rows]

    def group(self, group: int) -> Group | None:
        """One group, or None when it was sealed, merged into another or dropped."""
        row = self._database.row(
            "SELECT id, first_us, last_us, urgent, held = 2 FROM groups WHERE id = ?", (group,)
        )
        return None if row is None else Group(row[0], row[1], row[2], bool(row[3]), bool(row[4]))

    def group_folders(self, group: int) -> tuple[FolderChange, ...]:
        """The folders whose entries a group changes."""
        rows = self._database.execute(
            "SELECT folder, time_us FROM group_folders WHERE pending = ? ORDER BY folder", (group,)
        )
        return tuple(FolderChange(ItemId(folder), time_us) for folder, time_us in rows)

    def close_group(self, group: int) -> None:
        """The group's writes are sealed, moved or gone."""
        self._database.execute("DELETE FROM groups WHERE id = ?", (group,))
        self._database.execute("DELETE FROM group_folders WHERE pending = ?", (group,))

    def count_groups(self) -> int:
        """Groups that wait to be sealed, without those that wait for an approval."""
        row = self._database.row("SELECT count(*) FROM groups WHERE held <> 1")
        return int(row[0]) if row else 0

    # Records

    def add_own(self, record: SignedRecord, blocks: Iterable[BlockId]) -> None:
        """Put a record that was just sealed into the outbox.

        Args:
            blocks: all blocks that the server must hold before it, with the children of pages.
        """
        self._database.execute(
            "INSERT INTO records VALUES (?,?,?,NULL,?,0,0)",
            (record.id, record.record.actor, record.record.sequence, record.to_wire()),
        )
        for block in blocks:
            self._database.execute(
                "INSERT OR IGNORE INTO record_blocks VALUES (?,?)", (record.id, block)
            )

    def add_received(self, record: SignedRecord, position: int) -> None:
        """Keep a record that came from the server, or note that it has an own one."""
        self._database.execute(
            "INSERT INTO records VALUES (?,?,?,?,?,0,1) "
            "ON CONFLICT DO UPDATE SET position = excluded.position, doubted = 0, "
            "may_be_elsewhere = 1 WHERE position IS NULL",
            (record.id, record.record.actor, record.record.sequence, position, record.to_wire()),
        )

    def knows(self, record: RecordId) -> bool:
        """Whether the record is stored here."""
        return self._database.row("SELECT 1 FROM records WHERE record = ?", (record,)) is not None

    def drop_if_dead(self, record: RecordId) -> None:
        """Forget an acknowledged record of which no write lives."""
        self._database.execute(
            "DELETE FROM records WHERE record = ?1 AND position IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM versions WHERE record = ?1)",
            (record,),
        )

    def give_up_dead(self, record: RecordId) -> bool:
        """Forget a record of which no write lives, though the server never had it.

        Returns:
            False if one lives: it is kept.
        """
        self._database.execute(
            "DELETE FROM records WHERE record = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM versions WHERE record = ?1)",
            (record,),
        )
        if not self._database.changes:
            return False
        self._database.execute("DELETE FROM record_blocks WHERE record = ?", (record,))
        return True

    def outbox(self, limit: int, skip: int = 0) -> list[OutboxRecord]:
        """Records to be sent now, in the order in which they were made."""
        rows = list(
            self._database.execute(
                "SELECT record, wire FROM records WHERE position IS NULL AND doubted = 0 "
                "ORDER BY actor, sequence LIMIT ? OFFSET ?",
                (limit, skip),
            )
        )
        return [
            OutboxRecord(RecordId(record), wire, self.blocks_of(record)) for record, wire in rows
        ]

    def blocks_of(self, record: bytes) -> tuple[BlockId, ...]:
        """What the server must hold before a record of the outbox."""
        rows = self._database.execute("SELECT block FROM record_blocks WHERE record = ?", (record,))
        return tuple(BlockId(block) for (block,) in rows)

    def acknowledge(self, record: RecordId, position: int) -> None:
        """The server holds the record for good."""
        self._database.execute(
            "UPDATE records SET position = ?, doubted = 0, may_be_elsewhere = 1 WHERE record = ?",
            (position, record),
        )
        self._database.execute("DELETE FROM record_blocks WHERE record = ?", (record,))
        self.drop_if_dead(record)

    def is_only_here(self, record: RecordId) -> bool:
        """Whether a record was made here and nobody else can have it or its blocks."""
        row = self._database.row(
            "SELECT 1 FROM records WHERE record = ? AND may_be_elsewhere = 0", (record,)
        )
        return row is not None

    def count_outbox(self) -> int:
        """Sealed records that the server has not acknowledged."""
        row = self._database.row("SELECT count(*) FROM records WHERE position IS NULL")
        return int(row[0]) if row else 0

    def unsent_blocks(self) -> list[BlockId]:
        """Blocks that unsent records need: they must not leave this device's cache."""
        rows = self._database.execute("SELECT DISTINCT block FROM record_blocks")
        return [BlockId(block) for (block,) in rows]

    def needs_block(self, block: BlockId) -> bool:
        """Whether an unsent record needs the block."""
        return (
            self._database.row("SELECT 1 FROM record_blocks WHERE block = ? LIMIT 1", (block,))
            is not None
        )

    def is_sent(self, record: bytes) -> bool:
        """Whether the server has acknowledged the record that carries a version."""
        row = self._database.row(
            "SELECT 1 FROM records WHERE record = ? AND position IS NULL", (record,)
        )
        return row is None

    def send_all_again(self) -> None:
        """Put every stored record back into the outbox: the server may have lost any of them.

        A record that the server still has is acknowledged with its present position when its journal
        is read anew; the rest goes when that is done. What was never sent goes meanwhile.
        """
        # The former server may have handed on what it had not yet acknowledged.
        self._database.execute("UPDATE records SET may_be_elsewhere = 1")
        rows = self._database.execute("SELECT record FROM records WHERE position IS NOT NULL")
        for (record,) in list(rows):
            self._database.execute("UPDATE records SET doubted = 1 WHERE record = ?", (record,))
            self.send_again(RecordId(record))

    def send_again(self, record: RecordId) -> None:
        """Put a stored record back into the outbox."""
        wire = self.wire(record)
        if wire is None:
            return
        for block in SignedRecord.from_wire(wire).record.blocks:
            self._database.execute(
                "INSERT OR IGNORE INTO record_blocks VALUES (?,?)", (record, block)
            )
        self._database.execute("UPDATE records SET position = NULL WHERE record = ?", (record,))
        self.on_outbox()

    def note_missed(self, records: Iterable[RecordId]) -> None:
        """The server should have given these records by now, and did not."""
        missed = [*self._missed(), *records]
        self._database.set_meta("missed_records", b"".join(missed))

    @property
    def has_missed(self) -> bool:
        """Whether any was noted as missed."""
        return bool(self._missed())

    def take_missed(self) -> list[RecordId]:
        """What was noted as missed, once."""
        missed = self._missed()
        if missed:
            self._database.execute("DELETE FROM meta WHERE key = 'missed_records'")
        return missed

    def _missed(self) -> list[RecordId]:
        joined = self._database.meta("missed_records") or b""
        size = RecordId.size_bytes
        return [RecordId(joined[at : at + size]) for at in range(0, len(joined), size)]

    def acknowledged_within(self, after: int, last: int) -> list[tuple[RecordId, bytes]]:
        """Stored records with positions after ``after`` up to ``last``, and how they travel."""
        rows = self._database.execute(
            "SELECT record, wire FROM records WHERE position > ? AND position <= ?", (after, last)
        )
        return [(RecordId(record), wire) for record, wire in rows]

    def latest_acknowledged(self, limit: int) -> list[bytes]:
        """The stored records with the last positions in the server's journal, as they travel."""
        rows = self._database.execute(
            "SELECT wire FROM records WHERE position IS NOT NULL ORDER BY position DESC LIMIT ?",
            (limit,),
        )
        return [wire for (wire,) in rows]

    def wire(self, record: RecordId) -> bytes | None:
        """A record as it travels, if it is stored here."""
        row = self._database.row("SELECT wire FROM records WHERE record = ?", (record,))
        return None if row is None else bytes(row[0])

    def reject(self, record: RecordId, wire: bytes, reason: str) -> None:
        """Keep a record that can not take effect, unless too many of them are kept."""
        row = self._database.row("SELECT count(*) FROM rejected")
        if row is not None and row[0] < _MAX_REJECTED:
            self._database.execute(
                "INSERT OR REPLACE INTO rejected VALUES (?,?,?)", (record, reason, wire)
            )

    def has_rejected(self, record: RecordId) -> bool:
        """Whether the record was rejected here."""
        row = self._database.row("SELECT 1 FROM rejected WHERE record = ?", (record,))
        return row is not None

    # Cursor, devices, alarms

    @property
    def cursor(self) -> tuple[str, int]:
        """Journal epoch of the server ('' before the first contact) and position reached."""
        epoch = self._database.meta("journal_epoch") or ""
        return epoch, int(self._database.meta("journal_position") or 0)

    def set_cursor(self, epoch: str, position: int) -> None:
        """Everything up to ``position`` of that journal epoch is applied."""
        self._database.set_meta("journal_epoch", epoch)
        self._database.set_meta("journal_position", position)

    @property
    def is_first_reading(self) -> bool:
        """Whether the server's journal was never read to its end.

        Own records of former runs are no surprise then.
        """
        return self._database.meta("journal_read") is None

    @property
    def is_reading_again(self) -> bool:
        """Whether the journal is being read a second time to fill registers that were emptied."""
        return self._database.meta("journal_reading_again") is not None

    @property
    def is_to_be_read_again(self) -> bool:
        """Whether `read_again` waits for the puller."""
        return self._database.meta("journal_read_again") is not None

    def read_again(self) -> None:
        """The server's journal is to be read from its start, though its epoch is the same."""
        self._database.set_meta("journal_read_again", 1)

    def begin_again(self) -> None:
        """Put the cursor to the start of the journal."""
        self._database.execute("DELETE FROM meta WHERE key = 'journal_read_again'")
        self._database.set_meta("journal_reading_again", 1)
        self.set_cursor(self.cursor[0], 0)

    def end_reading(self) -> None:
        """The server's journal was read to its end: what it lacks of former records goes now."""
        self._database.execute(
            "UPDATE records SET doubted = 0 WHERE position IS NULL AND doubted = 1"
        )
        if self._database.changes:
            self.on_outbox()
        if self.is_reading_again:
            self._database.execute("DELETE FROM meta WHERE key = 'journal_reading_again'")
        if self.is_first_reading:
            self._database.set_meta("journal_read", 1)

    def advance(self, epoch: str, position: int) -> None:
        """Move the cursor over a record of this device, if it stands right before it."""
        if self.cursor == (epoch, position - 1):
            self._database.set_meta("journal_position", position)

    def add_device(
        self, device: DeviceId, account: bytes, signing_public: bytes, name: str
    ) -> None:
        """Remember a device from a verified account log."""
        self._database.execute(
            "INSERT OR REPLACE INTO devices VALUES (?,?,?,?)",
            (device, account, signing_public, name),
        )

    def raise_alarm(
        self, kind: str, message: str, time_us: int, evidence: Sequence[bytes] = ()
    ) -> None:
        """Tell the user; the same alarm is raised once, and a thousand are enough."""
        self._database.execute(
            "INSERT OR IGNORE INTO alarms (time_us, kind, message, evidence) "
            "SELECT ?,?,?,? WHERE (SELECT count(*) FROM alarms) < ?",
            (time_us, kind, message, _packed(evidence), _MAX_ALARMS),
        )

    def settle_alarms(self, kind: str) -> None:
        """What these alarms told of is over."""
        self._database.execute("DELETE FROM alarms WHERE kind = ?", (kind,))

    def alarms(self) -> list[Alarm]:
        """What the user must know of, oldest first."""
        rows = self._database.execute(
            "SELECT id, kind, message, time_us, evidence FROM alarms ORDER BY id"
        )
        return [
            Alarm(number, kind, message, time_us, _unpacked(evidence))
            for number, kind, message, time_us, evidence in rows
        ]

    def clear_alarm(self, alarm: int) -> bool:
        """Forget an alarm that the user has dealt with; False when there is none of that number."""
        self._database.execute("DELETE FROM alarms WHERE id = ?", (alarm,))
        return self._database.changes > 0


def _packed(evidence: Sequence[bytes]) -> bytes | None:
    return codec.encode(list(evidence)) if evidence else None


def _unpacked(stored: bytes | None) -> tuple[bytes, ...]:
    if stored is None:
        return ()
    return tuple(
        codec.as_list(codec.decode(stored, _MAX_EVIDENCE_BYTES), "evidence", _MAX_EVIDENCE)
    )
