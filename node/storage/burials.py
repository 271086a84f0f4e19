"""Deleted items that were buried: what was ever written to them has no effect any more.

Called by the tree and the intake for everything that comes, and by the task that buries; writers are
inside transactions.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.storage.database import Database
from node.storage.emptiness import Emptiness
from protocol.ids import ItemId, RecordId

_NO_LINKS = "register = 0 AND substr(value, 1, 2) = x'9390'"
"""A placement without links, by the first two bytes of its canonical value."""


class Burials:
    """The table ``buried``, and what the index still has of such items.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_empty = Emptiness(database, "SELECT 1 FROM buried LIMIT 1")

    # What was buried

    def holds(self, item: ItemId) -> bool:
        """Whether an item is buried, and nothing of it is here any more."""
        if self._is_empty:
            return False
        row = self._database.row("SELECT 1 FROM buried WHERE item = ? AND is_done = 1", (item,))
        return row is not None

    def note(self, items: Iterable[ItemId]) -> None:
        """The server has a burial of these items."""
        self._is_empty.end()
        for item in items:
            self._database.execute(
                "INSERT INTO buried VALUES (?, 0, 1) ON CONFLICT DO UPDATE SET is_given = 1",
                (item,),
            )

    def waiting(self) -> list[ItemId]:
        """Buried items that may still be here."""
        rows = self._database.execute("SELECT item FROM buried WHERE is_done = 0")
        return [ItemId(item) for (item,) in rows]

    def finish(self, item: ItemId) -> list[RecordId]:
        """Forget everything that was written to a buried item that the view does not show.

        Returns:
            The records that carried it; some may be needed for other items.
        """
        rows = self._database.execute(
            "SELECT DISTINCT record FROM versions WHERE item = ? AND record IS NOT NULL", (item,)
        )
        for table in ("versions", "covered", "history", "unmergeable"):
            self._database.execute(f"DELETE FROM {table} WHERE item = ?", (item,))
        self._database.execute("UPDATE buried SET is_done = 1 WHERE item = ?", (item,))
        return [RecordId(record) for (record,) in rows]

    # The server's list

    @property
    def last_number(self) -> int:
        """The number of the last burial that was read."""
        return int(self._database.meta("burials_read") or 0)

    def set_last_number(self, number: int) -> None:
        """Every burial up to this number was read."""
        self._database.set_meta("burials_read", number)

    def read_again(self) -> None:
        """The server may have lost burials: what it does not give again is buried again."""
        self._database.set_meta("burials_read", 0)
        self._database.execute("UPDATE buried SET is_given = 0")

    def lost(self, limit: int) -> list[ItemId]:
        """Items that were buried and of which the server says nothing, in the order of their ids."""
        rows = self._database.execute(
            "SELECT item FROM buried WHERE is_given = 0 ORDER BY item LIMIT ?", (limit,)
        )
        return [ItemId(item) for (item,) in rows]

    # What may be buried

    def last_row(self) -> int:
        """Where `deletions` ends."""
        row = self._database.row("SELECT max(rowid) FROM versions")
        return int(row[0] or 0) if row else 0

    def deletions(self, after: int, last: int) -> list[ItemId]:
        """Items that some write in a stretch of the index deletes; other writes may revive them."""
        rows = self._database.execute(
            f"SELECT item FROM versions WHERE rowid > ? AND rowid <= ? AND {_NO_LINKS}",
            (after, last),
        )
        return [ItemId(item) for (item,) in rows]

    def is_settled(self, item: ItemId, before_us: int) -> bool:
        """Whether all that lives of an item was written before, and the server has it."""
        row = self._database.row(
            "SELECT 1 FROM versions AS v LEFT JOIN records AS r ON r.record = v.record "
            "WHERE v.item = ? AND (v.record IS NULL OR v.time_us >= ? "
            "OR (r.record IS NOT NULL AND r.position IS NULL)) LIMIT 1",
            (item, before_us),
        )
        return row is None

    def is_waiting(self, item: ItemId) -> bool:
        """Whether something of an item was not yet sealed."""
        row = self._database.row(
            "SELECT 1 FROM versions WHERE item = ? AND pending IS NOT NULL LIMIT 1", (item,)
        )
        return row is not None
