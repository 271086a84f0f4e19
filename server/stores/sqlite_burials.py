"""The statements about burials and about the records that go, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from protocol.ids import ActorId, ItemId, NamespaceId
from server.stores.port import NumberedBurial, Retention
from server.stores.sqlite_namespaces import number_of

_DOT: Final = "dots.namespace, dots.item, dots.register, dots.actor, dots.n, dots.position"


def add_burial(
    connection: sqlite3.Connection, namespace: NamespaceId, items: Sequence[ItemId], wire: bytes
) -> NumberedBurial:
    """As `MetadataStore.add_burial`."""
    number = number_of(connection, namespace)
    (last,) = connection.execute(
        "SELECT coalesce(max(number), 0) FROM burials WHERE namespace = ?", (number,)
    ).fetchone()
    connection.execute("INSERT INTO burials VALUES (?, ?, ?)", (number, last + 1, wire))
    connection.executemany(
        "INSERT OR IGNORE INTO buried VALUES (?, ?)", [(number, item) for item in items]
    )
    return NumberedBurial(last + 1, wire)


def burials(
    connection: sqlite3.Connection, namespace: NamespaceId, after: int, limit: int
) -> list[NumberedBurial]:
    """As `MetadataStore.burials`."""
    rows = connection.execute(
        "SELECT number, wire FROM burials WHERE namespace = ? AND number > ?"
        " ORDER BY number LIMIT ?",
        (number_of(connection, namespace), after, limit),
    )
    return [NumberedBurial(number, wire) for number, wire in rows]


def drop_writes(connection: sqlite3.Connection, limit: int, retention: Retention) -> int:
    """As `MetadataStore.drop_writes`."""
    dots = connection.execute(
        f"SELECT {_DOT} FROM buried CROSS JOIN dots"
        " ON dots.namespace = buried.namespace AND dots.item = buried.item LIMIT ?",
        (limit,),
    ).fetchall()
    dots += connection.execute(
        f"SELECT {_DOT} FROM dots WHERE covered_s < ? AND NOT EXISTS (SELECT 1 FROM buried"
        " WHERE buried.namespace = dots.namespace AND buried.item = dots.item) LIMIT ?",
        (retention.covered_before_s, limit - len(dots)),
    ).fetchall()
    connection.executemany(
        "DELETE FROM dots WHERE namespace = ? AND item = ? AND register = ? AND actor = ? AND n = ?",
        [dot[:5] for dot in dots],
    )
    for number, position in sorted({(dot[0], dot[5]) for dot in dots}):
        _drop_if_empty(connection, number, position)
    return len(dots)


def last_dropped(connection: sqlite3.Connection, number: int, actor: ActorId) -> int:
    """The greatest number of a dropped record of an actor; 0 when there is none."""
    row = connection.execute(
        "SELECT sequence FROM dropped WHERE namespace = ? AND actor = ?", (number, actor)
    ).fetchone()
    return 0 if row is None else int(row[0])


def _drop_if_empty(connection: sqlite3.Connection, number: int, position: int) -> None:
    is_needed = connection.execute(
        "SELECT 1 FROM dots WHERE namespace = ? AND position = ? LIMIT 1", (number, position)
    ).fetchone()
    if is_needed is not None:
        return
    actor, sequence = connection.execute(
        "DELETE FROM records WHERE namespace = ? AND position = ? RETURNING actor, sequence",
        (number, position),
    ).fetchone()
    connection.execute(
        "INSERT INTO dropped VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET sequence = max(sequence, excluded.sequence)",
        (number, actor, sequence),
    )
    connection.execute(
        "DELETE FROM record_blocks WHERE namespace = ? AND position = ?", (number, position)
    )
