"""The statements about compaction, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from protocol.ids import AccountId, DeviceId, ItemId, NamespaceId, RecordId
from server.errors import PlanChangedError
from server.stores.port import Compaction, LogState, Place
from server.stores.sqlite_namespaces import append_namespace_log, number_of

DROPPED: Final = b""
"""The wire of a record that was dropped."""

_START: Final = Place(ItemId(bytes(16)), -1)


def acknowledge(
    connection: sqlite3.Connection, namespace: NamespaceId, device: DeviceId, wire: bytes
) -> None:
    """As `MetadataStore.acknowledge`."""
    connection.execute(
        "INSERT OR REPLACE INTO acknowledgements VALUES (?, ?, ?)",
        (number_of(connection, namespace), device, wire),
    )


def acknowledgements(connection: sqlite3.Connection, namespace: NamespaceId) -> list[bytes]:
    """As `MetadataStore.acknowledgements`."""
    rows = connection.execute(
        "SELECT wire FROM acknowledgements WHERE namespace = ? ORDER BY device",
        (number_of(connection, namespace),),
    )
    return [wire for (wire,) in rows]


def rewritten_places(
    connection: sqlite3.Connection, namespace: NamespaceId, after: Place | None, limit: int
) -> list[Place]:
    """As `MetadataStore.rewritten_places`."""
    start = after or _START
    rows = connection.execute(
        "SELECT item, register FROM dots WHERE namespace = ? AND (item, register) > (?, ?)"
        " GROUP BY item, register HAVING count(*) > 1 ORDER BY item, register LIMIT ?",
        (number_of(connection, namespace), start.item, start.register, limit),
    )
    return [Place(ItemId(item), register) for item, register in rows]


def positions_of(
    connection: sqlite3.Connection, namespace: NamespaceId, places: Sequence[Place]
) -> list[int]:
    """As `MetadataStore.positions_of`."""
    number = number_of(connection, namespace)
    positions: set[int] = set()
    for place in places:
        rows = connection.execute(
            "SELECT position FROM dots WHERE namespace = ? AND item = ? AND register = ?",
            (number, place.item, place.register),
        )
        positions.update(position for (position,) in rows)
    return sorted(positions)


def records_at(
    connection: sqlite3.Connection, namespace: NamespaceId, positions: Sequence[int]
) -> list[tuple[int, bytes]]:
    """As `MetadataStore.records_at`."""
    number = number_of(connection, namespace)
    found = []
    for position in positions:
        row = connection.execute(
            "SELECT wire FROM records WHERE namespace = ? AND position = ?", (number, position)
        ).fetchone()
        if row is not None and row[0] != DROPPED:
            found.append((position, bytes(row[0])))
    return found


def record_ids(
    connection: sqlite3.Connection, namespace: NamespaceId, after: int, last: int, limit: int
) -> list[tuple[int, RecordId]]:
    """As `MetadataStore.record_ids`."""
    rows = connection.execute(
        "SELECT position, record FROM records WHERE namespace = ? AND position > ?"
        " AND position <= ? AND wire <> x'' ORDER BY position LIMIT ?",
        (number_of(connection, namespace), after, last, limit),
    )
    return [(position, RecordId(record)) for position, record in rows]


def compact(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    compaction: Compaction,
    members: Mapping[AccountId, int],
) -> LogState:
    """As `MetadataStore.compact`."""
    number = number_of(connection, namespace)
    (epoch,) = connection.execute("SELECT value FROM facts WHERE name = 'journal_epoch'").fetchone()
    if epoch != compaction.journal_epoch:
        raise PlanChangedError("the journal has another epoch by now")
    for item in compaction.items:
        above = connection.execute(
            "SELECT 1 FROM dots WHERE namespace = ? AND item = ? AND position > ? LIMIT 1",
            (number, item, compaction.floor),
        ).fetchone()
        if above is not None:
            raise PlanChangedError(f"{item} was written to meanwhile")
    state = append_namespace_log(
        connection, namespace, compaction.expected_head, (compaction.event,), members
    )
    for dropped in compaction.dropped:
        connection.execute(
            "UPDATE records SET wire = x'', is_indexed = 1 WHERE namespace = ? AND position = ?",
            (number, dropped.position),
        )
        connection.executemany(
            "DELETE FROM dots WHERE namespace = ? AND item = ? AND register = ? AND actor = ?"
            " AND n = ?",
            [(number, item, register, dropped.actor, n) for item, register, n in dropped.dots],
        )
        connection.executemany(
            "DELETE FROM record_blocks WHERE namespace = ? AND block = ? AND position = ?",
            [(number, block, dropped.position) for block in dropped.blocks],
        )
    return state
