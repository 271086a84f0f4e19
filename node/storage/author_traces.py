"""What an author left in the index, and how it is taken out again.

Contexts that name an author's dots hide what those had covered, so it is not enough to delete its
versions: whole registers are emptied, to be filled anew from the journal. Called by
`node.sync.withdrawal`, inside its transactions.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.storage.database import Database
from protocol import codec, limits
from protocol.ids import ActorId, DeviceId, ItemId
from protocol.version_vector import EMPTY_CONTEXT, Context


class AuthorTraces:
    """Finds and removes what authors wrote.

    Concurrency: owned by the node's loop; no method awaits. Reads through whole tables: for rare use.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def actors_of(self, device: DeviceId) -> list[ActorId]:
        """The runs of a device of which something is known."""
        rows = self._database.execute(
            "SELECT actor FROM heads WHERE device = ?1 UNION "
            "SELECT actor FROM versions WHERE device = ?1",
            (device,),
        )
        return [ActorId(actor) for (actor,) in rows]

    def reach(self, actor: ActorId) -> int:
        """The highest sequence of an actor of which a record was taken in."""
        row = self._database.row(
            "SELECT max(sequence) FROM (SELECT sequence FROM heads WHERE actor = ?1 "
            "UNION ALL SELECT sequence FROM heads_ahead WHERE actor = ?1 "
            "UNION ALL SELECT sequence FROM records WHERE actor = ?1)",
            (actor,),
        )
        return int(row[0] or 0) if row else 0

    def touched_items(self, actors: Iterable[ActorId]) -> list[ItemId]:
        """Items with a register in which a dot of the actors lives or is covered."""
        found: dict[ItemId, None] = {}
        for actor in actors:
            rows = self._database.execute(
                "SELECT item FROM versions WHERE actor = ?1 UNION "
                "SELECT item FROM covered WHERE instr(context, ?1) > 0",
                (actor,),
            )
            found.update((ItemId(item), None) for (item,) in rows)
        return sorted(found)

    def empty(self, item: ItemId) -> None:
        """Forget all that records brought for an item; what is not yet sent stays."""
        self._database.execute(
            "DELETE FROM versions WHERE item = ? AND pending IS NULL AND NOT EXISTS (SELECT 1 "
            "FROM records WHERE records.record = versions.record AND position IS NULL)",
            (item,),
        )
        kept: dict[int, Context] = {}
        rows = self._database.execute(
            "SELECT register, context FROM versions WHERE item = ?", (item,)
        )
        for register, context in list(rows):
            parsed = Context.from_value(codec.decode(context, limits.MAX_RECORD_BYTES))
            kept[register] = kept.get(register, EMPTY_CONTEXT).join(parsed)
        self._database.execute("DELETE FROM covered WHERE item = ?", (item,))
        for register, context in kept.items():
            if context.vector:
                self._database.execute(
                    "INSERT INTO covered VALUES (?,?,?)",
                    (item, register, codec.encode(context.to_value())),
                )
