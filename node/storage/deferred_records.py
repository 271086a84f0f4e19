"""Records of other devices that wait until what they change is no longer in use here.

Called by the intake and by `node.sync.deferred_changes`, inside their transactions.
"""

from __future__ import annotations

from node.storage.database import Database
from node.storage.emptiness import Emptiness
from protocol.ids import RecordId
from protocol.records import SignedRecord


class DeferredRecords:
    """The table ``deferred``. Concurrency: owned by the node's loop; no method awaits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_empty = Emptiness(database, "SELECT 1 FROM deferred LIMIT 1")

    def put(self, signed: SignedRecord, position: int) -> None:
        """Keep a record for later."""
        self._is_empty.end()
        self._database.execute(
            "INSERT OR REPLACE INTO deferred VALUES (?,?,?)",
            (signed.id, position, signed.to_wire()),
        )

    def has(self, record: RecordId) -> bool:
        """Whether a record waits."""
        if self._is_empty:
            return False
        return self._database.row("SELECT 1 FROM deferred WHERE record = ?", (record,)) is not None

    def drop(self, record: RecordId) -> None:
        """A record takes effect."""
        self._database.execute("DELETE FROM deferred WHERE record = ?", (record,))

    def all(self) -> list[tuple[int, SignedRecord]]:
        """Position and record of all that wait, in the order of the server's journal."""
        rows = self._database.execute("SELECT position, wire FROM deferred ORDER BY position")
        return [(position, SignedRecord.from_wire(wire)) for position, wire in rows]

    def count(self) -> int:
        """How many wait."""
        row = self._database.row("SELECT count(*) FROM deferred")
        return 0 if row is None else int(row[0])
