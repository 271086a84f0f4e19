"""The statements about the journal, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from protocol.ids import AccountId, BlockId, DeviceId, NamespaceId, RecordId
from protocol.records import NO_RECORD
from server.stores.port import (
    Commit,
    CommitContext,
    CommitKind,
    CommitOutcome,
    JournalPage,
    LogState,
    NewRecord,
)
from server.stores.sqlite_burials import last_dropped
from server.stores.sqlite_collection import note_record
from server.stores.sqlite_logs import log_state, while_they_fit
from server.stores.sqlite_namespaces import number_of


def journal_epoch(connection: sqlite3.Connection) -> str:
    """As `MetadataStore.journal_epoch`."""
    (value,) = connection.execute("SELECT value FROM facts WHERE name = 'journal_epoch'").fetchone()
    return str(value)


def commit_context(
    connection: sqlite3.Connection, namespace: NamespaceId, devices: Sequence[DeviceId]
) -> CommitContext:
    """As `MetadataStore.commit_context`."""
    accounts: dict[DeviceId, AccountId] = {}
    logs: dict[AccountId, LogState] = {}
    for device in devices:
        row = connection.execute(
            "SELECT account FROM devices WHERE device = ?", (device,)
        ).fetchone()
        if row is None:
            continue
        account = accounts[device] = AccountId(row[0])
        state = log_state(connection, account) if account not in logs else None
        if state is not None:
            logs[account] = state
    return CommitContext(log_state(connection, namespace), accounts, logs)


def commit(
    connection: sqlite3.Connection, namespace: NamespaceId, records: Sequence[NewRecord]
) -> Commit:
    """As `MetadataStore.commit`."""
    number = number_of(connection, namespace)
    outcomes: list[CommitOutcome] = []
    refused: dict[RecordId, bytes] = {}
    for record in records:
        outcome = _commit_next(connection, number, record, refused)
        if outcome.kind in (CommitKind.FORK, CommitKind.DOT_REUSED):
            refused[record.id] = outcome.evidence
        outcomes.append(outcome)
    return Commit(journal_epoch(connection), tuple(outcomes))


def _commit_next(
    connection: sqlite3.Connection,
    number: int,
    record: NewRecord,
    refused: Mapping[RecordId, bytes],
) -> CommitOutcome:
    """What continues a branch that is refused is refused with it.

    It claims to have seen dots that stand for other values here.
    """
    if (evidence := refused.get(record.previous)) is not None:
        return CommitOutcome(CommitKind.FORK, evidence=evidence)
    return _commit_one(connection, number, record)


def _commit_one(connection: sqlite3.Connection, number: int, record: NewRecord) -> CommitOutcome:
    same = connection.execute(
        "SELECT record, position, wire FROM records"
        " WHERE namespace = ? AND actor = ? AND sequence = ?",
        (number, record.actor, record.sequence),
    ).fetchone()
    if same is not None:
        if same[0] == record.id:
            return CommitOutcome(CommitKind.STORED, position=same[1])
        return CommitOutcome(CommitKind.FORK, evidence=same[2])
    if record.sequence <= last_dropped(connection, number, record.actor):
        return CommitOutcome(CommitKind.DROPPED)
    if (neighbour := _other_neighbour(connection, number, record)) is not None:
        return CommitOutcome(CommitKind.FORK, evidence=neighbour)
    missing = _missing(connection, number, record.blocks)
    if missing:
        return CommitOutcome(CommitKind.BLOCKS_MISSING, missing=missing)
    for item, register, n in record.dots:
        other = connection.execute(
            "SELECT wire FROM dots JOIN records USING (namespace, position) WHERE namespace = ?"
            " AND item = ? AND register = ? AND dots.actor = ? AND n = ?",
            (number, item, register, record.actor, n),
        ).fetchone()
        if other is not None:
            return CommitOutcome(CommitKind.DOT_REUSED, evidence=other[0])
    (position,) = connection.execute(
        "UPDATE namespaces SET head = head + 1 WHERE number = ? RETURNING head", (number,)
    ).fetchone()
    connection.execute(
        "INSERT INTO records (namespace, position, record, actor, sequence, previous, wire)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            position,
            record.id,
            record.actor,
            record.sequence,
            record.previous,
            record.wire,
        ),
    )
    connection.executemany(
        "INSERT INTO dots (namespace, item, register, actor, n, position) VALUES (?, ?, ?, ?, ?, ?)",
        [(number, item, register, record.actor, n, position) for item, register, n in record.dots],
    )
    note_record(connection, number, position, record.blocks, record.covers, record.accepted_s)
    return CommitOutcome(CommitKind.STORED, position=position, is_new=True)


def _other_neighbour(
    connection: sqlite3.Connection, number: int, record: NewRecord
) -> bytes | None:
    """A record beside this one in its actor's numbers that is of another branch."""
    rows = connection.execute(
        "SELECT sequence, record, previous, wire FROM records"
        " WHERE namespace = ? AND actor = ? AND sequence IN (?, ?)",
        (number, record.actor, record.sequence - 1, record.sequence + 1),
    )
    for sequence, other, previous, wire in rows:
        is_before = sequence < record.sequence
        named, is_named = (record.previous, other) if is_before else (previous, record.id)
        if named not in (NO_RECORD, is_named):
            return bytes(wire)
    return None


def _missing(
    connection: sqlite3.Connection, number: int, blocks: Sequence[BlockId]
) -> tuple[BlockId, ...]:
    return tuple(
        block
        for block in blocks
        if connection.execute(
            "SELECT 1 FROM blocks WHERE namespace = ? AND block = ?", (number, block)
        ).fetchone()
        is None
    )


def delta(
    connection: sqlite3.Connection,
    namespace: NamespaceId,
    after: int,
    max_records: int,
    max_bytes: int,
) -> JournalPage:
    """As `MetadataStore.delta`."""
    number, head = connection.execute(
        "SELECT number, head FROM namespaces WHERE number = ?",
        (number_of(connection, namespace),),
    ).fetchone()
    rows = connection.execute(
        "SELECT position, wire FROM records WHERE namespace = ? AND position > ?"
        " ORDER BY position LIMIT ?",
        (number, after, max_records),
    ).fetchall()
    count = len(list(while_they_fit((wire for _, wire in rows), max_bytes)))
    records = tuple((position, wire) for position, wire in rows[:count])
    is_whole = count == len(rows) < max_records
    last = head if is_whole else records[-1][0]
    return JournalPage(journal_epoch(connection), records, last, head)
