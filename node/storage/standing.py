"""Where a change stands on the ladder: only here, or on the server."""

from __future__ import annotations

from typing import Literal

from node.storage.database import Database
from protocol.ids import ItemId

Durability = Literal["local", "peer", "server"]


class Standing:
    """Questions about what is not yet sent. Concurrency: owned by the node's loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def durability(self, item: ItemId) -> Durability:
        """The weakest place of an item's live versions."""
        row = self._database.row(
            "SELECT 1 FROM versions AS v LEFT JOIN records AS r ON r.record = v.record "
            "WHERE v.item = ? AND (v.record IS NULL "
            "OR (r.record IS NOT NULL AND r.position IS NULL)) LIMIT 1",
            (item,),
        )
        return "server" if row is None else "local"

    def unsent_bytes(self) -> int:
        """Sum of the sizes of shown contents that are not on the server."""
        # Left to itself, SQLite reads all versions in the order of their items.
        row = self._database.row(
            "SELECT coalesce(sum(size), 0) FROM items WHERE item IN ("
            "SELECT item FROM versions INDEXED BY versions_by_group "
            "WHERE register = 2 AND pending IS NOT NULL UNION SELECT v.item "
            "FROM records AS r INDEXED BY outbox "
            "CROSS JOIN versions AS v INDEXED BY versions_by_record ON v.record = r.record "
            "WHERE r.position IS NULL AND v.register = 2)"
        )
        return 0 if row is None else int(row[0])

    def unsent_blocks(self) -> int:
        """Blocks that unsent records need."""
        row = self._database.row("SELECT count(DISTINCT block) FROM record_blocks")
        return 0 if row is None else int(row[0])
