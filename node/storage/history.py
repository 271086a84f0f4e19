"""Covered contents by age: what the retention time and the bound on their number let go.

What is written to and read from the table by item is in `registers`. Called by the task that keeps
the history.
"""

from __future__ import annotations

from node.storage.database import Database


class History:
    """The replaced contents of all files.

    Concurrency: owned by the node's loop; no method awaits. Each is one transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def date(self, now_us: int, limit: int) -> int:
        """Begin the retention time of versions that were covered since the last call.

        Returns:
            How many there were, up to ``limit``.
        """
        with self._database.transaction():
            self._database.execute(
                "UPDATE history SET covered_us = ? WHERE rowid IN "
                "(SELECT rowid FROM history WHERE covered_us IS NULL LIMIT ?)",
                (now_us, limit),
            )
            return self._database.changes

    def forget_before(self, covered_us: int, limit: int) -> int:
        """Drop versions that were covered before a time; how many, up to ``limit``."""
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM history WHERE rowid IN (SELECT rowid FROM history "
                "WHERE covered_us < ? ORDER BY covered_us LIMIT ?)",
                (covered_us, limit),
            )
            return self._database.changes

    def forget_oldest(self, limit: int) -> int:
        """Drop the versions that were covered first; how many, up to ``limit``."""
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM history WHERE rowid IN (SELECT rowid FROM history "
                "WHERE covered_us IS NOT NULL ORDER BY covered_us, rowid LIMIT ?)",
                (limit,),
            )
            return self._database.changes

    def count(self) -> int:
        """Versions that are kept."""
        row = self._database.row("SELECT count(*) FROM history")
        return int(row[0]) if row else 0
