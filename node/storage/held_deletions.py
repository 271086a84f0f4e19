"""What the deletion guard remembers: its window, and the records and groups that it holds.

Called by the deletion guard and the approvals of `node.sync`, inside their transactions.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.core.deletion_guard import WINDOW_US
from node.storage.database import Database
from node.storage.emptiness import Emptiness
from protocol.ids import DeviceId, ItemId, RecordId
from protocol.records import SignedRecord

_SLOT_US = 10_000_000  # so that a window is 60 rows at most for each device
_WINDOW_SLOTS = WINDOW_US // _SLOT_US
_NO_LINKS = "register = 0 AND substr(value, 1, 2) = x'9390'"
"""A placement without links, by the first two bytes of its canonical value."""


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record without effect until somebody approves; fields as in schema.sql."""

    id: RecordId
    device: DeviceId
    time_us: int
    deletions: int
    position: int
    wire: bytes


class HeldDeletions:
    """The tables ``held`` and ``deletions``, and which groups are held.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_empty = Emptiness(database, "SELECT 1 FROM held LIMIT 1")

    def counted(self, device: DeviceId, time_us: int) -> tuple[int, int]:
        """Items that a device deleted around a time, and those whose deletion is held."""
        slot = time_us // _SLOT_US
        counts = dict(
            self._database.execute(
                "SELECT held, sum(items) FROM deletions "
                "WHERE device = ? AND slot BETWEEN ? AND ? GROUP BY held",
                (device, slot - _WINDOW_SLOTS, slot + _WINDOW_SLOTS),
            )
        )
        return int(counts.get(0, 0)), int(counts.get(1, 0))

    def count(self, device: DeviceId, time_us: int, items: int, *, is_held: bool) -> None:
        """A device deleted items, or is held back from doing so."""
        slot = time_us // _SLOT_US
        self._database.execute(
            "INSERT INTO deletions VALUES (?,?,?,?) "
            "ON CONFLICT DO UPDATE SET items = items + excluded.items",
            (device, slot, int(is_held), items),
        )
        self._database.execute(
            "DELETE FROM deletions WHERE device = ? AND slot < ?",
            (device, slot - 2 * _WINDOW_SLOTS),
        )

    def forget(self, device: DeviceId) -> None:
        """What a device deleted was decided about: count from nothing."""
        self._database.execute("DELETE FROM deletions WHERE device = ?", (device,))

    def deleted_since(self, device: DeviceId, time_us: int) -> list[ItemId]:
        """Items that records of a device deleted since a time; reads through all there is."""
        rows = self._database.execute(
            f"SELECT item FROM versions WHERE {_NO_LINKS} AND record IS NOT NULL "
            "AND device = ? AND time_us >= ?",
            (device, time_us),
        )
        return [ItemId(item) for (item,) in rows]

    # Records of other devices

    def hold_record(self, signed: SignedRecord, deletions: int, position: int) -> None:
        """Keep a record until somebody decides."""
        self._is_empty.end()
        record = signed.record
        self._database.execute(
            "INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?)",
            (
                signed.id,
                record.device,
                record.hybrid_time_us,
                deletions,
                position,
                signed.to_wire(),
            ),
        )

    def has_moved(self, record: RecordId, position: int) -> bool:
        """Note where the server's present journal has a record; False when it is not held."""
        if self._is_empty:
            return False
        self._database.execute("UPDATE held SET position = ? WHERE record = ?", (position, record))
        return self._database.changes > 0

    def drop(self, record: RecordId) -> None:
        """The record was decided about."""
        self._database.execute("DELETE FROM held WHERE record = ?", (record,))

    def next_record(self) -> HeldRecord | None:
        """The oldest held record."""
        return next(iter(self.records(1)), None)

    def records(self, limit: int) -> list[HeldRecord]:
        """The oldest held records."""
        rows = self._database.execute(
            "SELECT record, device, time_us, deletions, position, wire FROM held "
            "ORDER BY position, record LIMIT ?",
            (limit,),
        )
        return [HeldRecord(RecordId(row[0]), DeviceId(row[1]), *row[2:]) for row in rows]

    def by_device(self) -> list[tuple[DeviceId, int]]:
        """Devices whose records are held, and how many items these delete."""
        rows = self._database.execute(
            "SELECT device, sum(deletions) FROM held GROUP BY device ORDER BY device"
        )
        return [(DeviceId(device), int(deletions)) for device, deletions in rows]

    def first_held(self) -> dict[DeviceId, int]:
        """Devices whose records are held, and the time of the first one."""
        rows = self._database.execute("SELECT device, min(time_us) FROM held GROUP BY device")
        return {DeviceId(device): time_us for device, time_us in rows}

    # Groups of this device

    def first_held_here(self) -> int | None:
        """The time of the first group that is held."""
        row = self._database.row("SELECT min(first_us) FROM groups WHERE held = 1")
        return None if row is None else row[0]

    def count_waiting(self) -> int:
        """Items that groups delete which are neither sealed nor held nor approved."""
        row = self._database.row(
            f"SELECT count(*) FROM versions WHERE pending IS NOT NULL AND {_NO_LINKS} "
            "AND pending IN (SELECT id FROM groups WHERE held = 0)"
        )
        return int(row[0]) if row else 0

    def hold_group(self, group: int) -> None:
        """Do not seal a group until somebody decides."""
        self._database.execute("UPDATE groups SET held = 1 WHERE id = ?", (group,))

    def held_groups(self) -> list[int]:
        """The groups that are not sealed, oldest first."""
        return [row[0] for row in self._database.execute("SELECT id FROM groups WHERE held = 1")]

    def approve_groups(self) -> None:
        """Let all held groups be sealed."""
        self._database.execute("UPDATE groups SET held = 2 WHERE held = 1")

    def count_local(self) -> int:
        """Items that held groups delete."""
        row = self._database.row(
            "SELECT count(DISTINCT item) FROM versions WHERE register = 0 "
            "AND pending IN (SELECT id FROM groups WHERE held = 1)"
        )
        return int(row[0]) if row else 0
