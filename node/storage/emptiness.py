"""Whether a table that is mostly empty is so, known without asking it each time.

Owned by the one class that writes the table, which says when a row comes.
"""

from __future__ import annotations

from node.storage.database import Database


class Emptiness:
    """Remembers that a query has no row.

    Concurrency: as the table's owner.
    """

    def __init__(self, database: Database, query: str) -> None:
        """Remember nothing yet.

        Args:
            query: has a row when the table is not empty; ends with LIMIT 1.
        """
        self._database = database
        self._query = query
        self._is_known = False
        self._rollbacks = 0

    def __bool__(self) -> bool:
        """Whether there is no row."""
        # A deletion that was taken back brings rows that nobody announced.
        if not self._is_known or self._rollbacks != self._database.rollbacks:
            self._is_known = self._database.row(self._query) is None
            self._rollbacks = self._database.rollbacks
        return self._is_known

    def end(self) -> None:
        """A row comes."""
        self._is_known = False
