"""Which conflicts were found to be unmergeable, so that a start of the node does not read them again.

A verdict holds for one state of a file: the same siblings, and as many known versions beside them.
Called by the merger, and by the task that keeps the history.
"""

from __future__ import annotations

import hashlib

from node.storage.database import Database
from node.storage.registers import Registers
from protocol import codec
from protocol.ids import ItemId


class Verdicts:
    """What was found of the conflicts of one namespace.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database, registers: Registers) -> None:
        self._database = database
        self._registers = registers

    def state(self, item: ItemId) -> bytes:
        """The present state of a file, as far as a merge depends on it."""
        dots = sorted(list(version.dot) for version in self._registers.contents(item))
        known = self._database.row("SELECT count(*) FROM history WHERE item = ?", (item,)) or (0,)
        return hashlib.blake2b(codec.encode([dots, known[0]]), digest_size=16).digest()

    def reason(self, item: ItemId) -> str | None:
        """Why the file can not be merged as it is now, as a clause; None when that is not known."""
        row = self._database.row("SELECT state, reason FROM unmergeable WHERE item = ?", (item,))
        return str(row[1]) if row is not None and row[0] == self.state(item) else None

    def note(self, item: ItemId, state: bytes, reason: str) -> None:
        """Remember that a file can not be merged in that state."""
        self._database.execute(
            "INSERT OR REPLACE INTO unmergeable VALUES (?,?,?)", (item, state, reason)
        )

    def sweep(self) -> None:
        """Forget what was found of files that have no conflict any more."""
        self._database.execute(
            "DELETE FROM unmergeable WHERE item NOT IN (SELECT item FROM items WHERE conflicts > 0)"
        )
