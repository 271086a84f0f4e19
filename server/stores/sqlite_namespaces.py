"""The statements about namespaces, their members and their blocks, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from protocol.ids import AccountId, BlockId, EventId, NamespaceId
from server.errors import AlreadyExistsError, StoreError
from server.stores import sqlite_logs
from server.stores.port import LogState, NamespaceState, NewNamespace, Progress, StoredEvent

RENEW_LEASE_BELOW_S = 3600
"""A lease that ends at most this much before the wanted end is left alone: answering "which are
missing" again and again need not write."""


def number_of(connection: sqlite3.Connection, namespace: NamespaceId) -> int:
    """The namespace's short name in this database.

    Raises:
        StoreError: there is no such namespace.
    """
    row = connection.execute(
        "SELECT number FROM namespaces WHERE namespace = ?", (namespace,)
    ).fetchone()
    if row is None:
        raise StoreError(f"there is no {namespace}")
    return int(row[0])


def create_namespace(connection: sqlite3.Connection, new: NewNamespace) -> LogState:
    """As `MetadataStore.create_namespace`."""
    added = connection.execute(
        "INSERT OR IGNORE INTO namespaces (namespace) VALUES (?)", (new.namespace,)
    )
    if added.rowcount != 1:
        raise AlreadyExistsError("namespace")
    sqlite_logs.insert_events(connection, new.namespace, 0, new.events)
    _replace_members(connection, new.namespace, new.members)
    return LogState(new.events[-1].id, len(new.events))


def role(connection: sqlite3.Connection, namespace: NamespaceId, account: AccountId) -> int | None:
    """As `MetadataStore.role`."""
    row = connection.execute(
        "SELECT role FROM members JOIN namespaces ON members.namespace = namespaces.number"
        " WHERE namespaces.namespace = ? AND account = ?",
        (namespace, account),
    ).fetchone()
    return None if row is None else int(row[0])


def append_namespace_log(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    expected_head: EventId,
    events: Sequence[StoredEvent],
    members: Mapping[AccountId, int],
) -> LogState:
    """As `MetadataStore.append_namespace_log`."""
    state = sqlite_logs.append_events(connection, namespace, expected_head, events)
    _replace_members(connection, namespace, members)
    return state


def _replace_members(
    connection: sqlite3.Connection, namespace: NamespaceId, members: Mapping[AccountId, int]
) -> None:
    number = number_of(connection, namespace)
    connection.execute("DELETE FROM members WHERE namespace = ?", (number,))
    connection.executemany(
        "INSERT INTO members VALUES (?, ?, ?)",
        [(number, account, role) for account, role in members.items()],
    )


def members(connection: sqlite3.Connection, namespace: NamespaceId) -> list[AccountId]:
    """As `MetadataStore.members`."""
    rows = connection.execute(
        "SELECT account FROM members JOIN namespaces ON members.namespace = namespaces.number"
        " WHERE namespaces.namespace = ? ORDER BY account",
        (namespace,),
    )
    return [AccountId(row[0]) for row in rows]


def shares_namespace(connection: sqlite3.Connection, account: AccountId, other: AccountId) -> bool:
    """As `MetadataStore.shares_namespace`."""
    row = connection.execute(
        "SELECT 1 FROM members AS mine JOIN members AS theirs USING (namespace)"
        " WHERE mine.account = ? AND theirs.account = ? LIMIT 1",
        (account, other),
    ).fetchone()
    return row is not None


def progress(connection: sqlite3.Connection, account: AccountId, journal_epoch: str) -> Progress:
    """As `MetadataStore.progress`."""
    rows = connection.execute(
        "SELECT namespaces.namespace, role, head,"
        " (SELECT max(log_events.number) + 1 FROM log_events WHERE log = namespaces.namespace)"
        " FROM members JOIN namespaces ON members.namespace = namespaces.number"
        " WHERE account = ? ORDER BY namespaces.namespace",
        (account,),
    )
    namespaces = tuple(NamespaceState(NamespaceId(row[0]), *row[1:]) for row in rows)
    state = sqlite_logs.log_state(connection, account)
    return Progress(journal_epoch, 0 if state is None else state.length, namespaces)


def missing_blocks(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    blocks: Sequence[BlockId],
    lease_until_s: int,
) -> tuple[list[BlockId], list[BlockId]]:
    """Which blocks the namespace lacks, and which it has with a lease that wants renewal."""
    number = number_of(connection, namespace)
    missing, stale = [], []
    for block in blocks:
        row = connection.execute(
            "SELECT lease_until_s, condemned_s FROM blocks WHERE namespace = ? AND block = ?",
            (number, block),
        ).fetchone()
        if row is None:
            missing.append(block)
        elif row[0] < lease_until_s - RENEW_LEASE_BELOW_S or row[1] is not None:
            stale.append(block)
    return missing, stale


def renew_leases(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    blocks: Sequence[BlockId],
    lease_until_s: int,
) -> list[BlockId]:
    """Lease blocks that the namespace has; which of them it lacks by now."""
    number = number_of(connection, namespace)
    missing = []
    for block in blocks:
        renewed = connection.execute(
            "UPDATE blocks SET lease_until_s = max(lease_until_s, ?), condemned_s = NULL"
            " WHERE namespace = ? AND block = ?",
            (lease_until_s, number, block),
        )
        if renewed.rowcount != 1:
            missing.append(block)
    return missing


def add_block(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    block: BlockId,
    size_bytes: int,
    lease_until_s: int,
    children: Sequence[BlockId],
) -> None:
    """As `MetadataStore.add_block`."""
    number = number_of(connection, namespace)
    connection.execute(
        "INSERT INTO blocks (namespace, block, size_bytes, lease_until_s, are_children_known)"
        " VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE"
        " SET lease_until_s = max(lease_until_s, excluded.lease_until_s), condemned_s = NULL,"
        " are_children_known = 1",
        (number, block, size_bytes, lease_until_s),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO block_children VALUES (?, ?, ?)",
        [(number, child, block) for child in children],
    )


def has_block(connection: sqlite3.Connection, namespace: NamespaceId, block: BlockId) -> bool:
    """As `MetadataStore.has_block`."""
    row = connection.execute(
        "SELECT 1 FROM blocks JOIN namespaces ON blocks.namespace = namespaces.number"
        " WHERE namespaces.namespace = ? AND block = ?",
        (namespace, block),
    ).fetchone()
    return row is not None
