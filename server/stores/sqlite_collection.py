"""The statements about which blocks are needed, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from protocol.ids import ActorId, BlockId, NamespaceId
from protocol.records import Register
from protocol.version_vector import Dot
from server.stores.port import (
    BlockOfNamespace,
    CollectedBlock,
    Cover,
    Retention,
    StoredRecord,
)
from server.stores.sqlite_namespaces import number_of

_CONTENT: Final = int(Register.CONTENT)

# Of one row of blocks as `held`: whether anything needs it. :now_s and :covered_before_s are bound.
_IS_NEEDED: Final = (
    "(held.lease_until_s >= :now_s"
    " OR EXISTS (SELECT 1 FROM block_children AS page"
    "   WHERE page.namespace = held.namespace AND page.child = held.block)"
    " OR EXISTS (SELECT 1 FROM record_blocks AS listed JOIN dots"
    "   ON dots.namespace = listed.namespace AND dots.position = listed.position"
    f"  WHERE listed.namespace = held.namespace AND listed.block = held.block"
    f"  AND dots.register = {_CONTENT}"
    "   AND (dots.covered_s IS NULL OR dots.covered_s >= :covered_before_s)))"
)


def note_record(
    connection: sqlite3.Connection,
    number: int,
    position: int,
    blocks: Sequence[BlockId],
    covers: Sequence[Cover],
    covered_s: int,
) -> None:
    """Note what a record lists and covers."""
    connection.executemany(
        "INSERT OR IGNORE INTO record_blocks VALUES (?, ?, ?)",
        [(number, block, position) for block in blocks],
    )
    for cover in covers:
        _note_cover(connection, number, cover, covered_s)
    connection.execute(
        "UPDATE records SET is_indexed = 1 WHERE namespace = ? AND position = ?",
        (number, position),
    )


def _note_cover(connection: sqlite3.Connection, number: int, cover: Cover, covered_s: int) -> None:
    rows = connection.execute(
        "SELECT actor, n FROM dots WHERE namespace = ? AND item = ? AND register = ?"
        " AND covered_s IS NULL",
        (number, cover.item, cover.register),
    ).fetchall()
    covered = [
        (covered_s, number, cover.item, cover.register, actor, n)
        for actor, n in rows
        if cover.context.covers(Dot(ActorId(actor), n))
    ]
    connection.executemany(
        "UPDATE dots SET covered_s = ? WHERE namespace = ? AND item = ? AND register = ?"
        " AND actor = ? AND n = ?",
        covered,
    )


def records_not_indexed(connection: sqlite3.Connection, limit: int) -> list[StoredRecord]:
    """As `MetadataStore.records_not_indexed`."""
    rows = connection.execute(
        "SELECT namespaces.namespace, position, wire FROM records JOIN namespaces"
        " ON namespaces.number = records.namespace WHERE is_indexed = 0 ORDER BY id LIMIT ?",
        (limit,),
    )
    return [StoredRecord(NamespaceId(row[0]), row[1], row[2]) for row in rows]


def index_record(
    connection: sqlite3.Connection,
    record: StoredRecord,
    blocks: Sequence[BlockId],
    covers: Sequence[Cover],
    covered_s: int,
) -> None:
    """As `MetadataStore.index_record`."""
    number = number_of(connection, record.namespace)
    note_record(connection, number, record.position, blocks, covers, covered_s)


def blocks_not_indexed(connection: sqlite3.Connection, limit: int) -> list[BlockOfNamespace]:
    """As `MetadataStore.blocks_not_indexed`."""
    rows = connection.execute(
        "SELECT namespaces.namespace, block FROM blocks JOIN namespaces"
        " ON namespaces.number = blocks.namespace WHERE are_children_known = 0 LIMIT ?",
        (limit,),
    )
    return [BlockOfNamespace(NamespaceId(row[0]), BlockId(row[1])) for row in rows]


def note_children(
    connection: sqlite3.Connection, held: BlockOfNamespace, children: Sequence[BlockId]
) -> None:
    """As `MetadataStore.index_block`."""
    number = number_of(connection, held.namespace)
    connection.executemany(
        "INSERT OR IGNORE INTO block_children VALUES (?, ?, ?)",
        [(number, child, held.block) for child in children],
    )
    connection.execute(
        "UPDATE blocks SET are_children_known = 1 WHERE namespace = ? AND block = ?",
        (number, held.block),
    )


def condemn_blocks(
    connection: sqlite3.Connection,
    after: BlockOfNamespace | None,
    limit: int,
    retention: Retention,
) -> BlockOfNamespace | None:
    """As `MetadataStore.condemn_blocks`."""
    place = (0, b"") if after is None else (number_of(connection, after.namespace), after.block)
    rows = connection.execute(
        "SELECT namespace, block FROM blocks WHERE (namespace, block) > (?, ?)"
        " ORDER BY namespace, block LIMIT ?",
        (*place, limit),
    ).fetchall()
    if not rows:
        return None
    connection.execute(
        "UPDATE blocks AS held SET condemned_s ="
        f" CASE WHEN {_IS_NEEDED} THEN NULL ELSE coalesce(condemned_s, :now_s) END"
        " WHERE (namespace, block) > (:number, :block)"
        " AND (namespace, block) <= (:last_number, :last_block)"
        f" AND (condemned_s IS NOT NULL OR NOT {_IS_NEEDED})",
        {
            "now_s": retention.now_s,
            "covered_before_s": retention.covered_before_s,
            "number": place[0],
            "block": place[1],
            "last_number": rows[-1][0],
            "last_block": rows[-1][1],
        },
    )
    (namespace,) = connection.execute(
        "SELECT namespace FROM namespaces WHERE number = ?", (rows[-1][0],)
    ).fetchone()
    return BlockOfNamespace(NamespaceId(namespace), BlockId(rows[-1][1]))


def drop_condemned(
    connection: sqlite3.Connection, condemned_before_s: int, limit: int, retention: Retention
) -> list[CollectedBlock]:
    """As `MetadataStore.drop_condemned`."""
    rows = connection.execute(
        "SELECT namespace, block, size_bytes FROM blocks AS held"
        f" WHERE condemned_s < :condemned_before_s AND NOT {_IS_NEEDED} LIMIT :limit",
        {
            "condemned_before_s": condemned_before_s,
            "limit": limit,
            "now_s": retention.now_s,
            "covered_before_s": retention.covered_before_s,
        },
    ).fetchall()
    for number, block, _ in rows:
        connection.execute("DELETE FROM blocks WHERE namespace = ? AND block = ?", (number, block))
        connection.execute(
            "DELETE FROM block_children WHERE namespace = ? AND parent = ?", (number, block)
        )
    return [CollectedBlock(BlockId(block), size_bytes) for _, block, size_bytes in rows]


def is_held(connection: sqlite3.Connection, block: BlockId) -> bool:
    """As `MetadataStore.is_held`."""
    row = connection.execute("SELECT 1 FROM blocks WHERE block = ? LIMIT 1", (block,)).fetchone()
    return row is not None
