"""The statements about account and namespace logs, for the other modules of the SQLite store.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from protocol.ids import EventId
from server.errors import HeadMismatchError
from server.stores.port import LogPage, LogState, StoredEvent


def log_state(connection: sqlite3.Connection, log: bytes) -> LogState | None:
    """The head and length of a log, None when there is no such log."""
    row = connection.execute(
        "SELECT event, number FROM log_events WHERE log = ? ORDER BY number DESC LIMIT 1", (log,)
    ).fetchone()
    return None if row is None else LogState(EventId(row[0]), row[1] + 1)


def log_page(
    connection: sqlite3.Connection, log: bytes, start: int, max_bytes: int
) -> LogPage | None:
    """As `MetadataStore.account_log`, for any log."""
    state = log_state(connection, log)
    if state is None:
        return None
    rows = connection.execute(
        "SELECT wire FROM log_events WHERE log = ? AND number >= ? ORDER BY number", (log, start)
    )
    return LogPage(tuple(while_they_fit((row[0] for row in rows), max_bytes)), state)


def while_they_fit(parts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """The first part, and more as long as their sum stays within the bound."""
    total = 0
    for part in parts:
        total += len(part)
        if total > max_bytes and total > len(part):
            return
        yield part


def append_events(
    connection: sqlite3.Connection,
    log: bytes,
    expected_head: EventId,
    events: Sequence[StoredEvent],
) -> LogState:
    """Append to a log whose head is the expected one; `HeadMismatchError` otherwise."""
    state = log_state(connection, log)
    if state is None or state.head != expected_head:
        raise HeadMismatchError(b"" if state is None else state.head)
    insert_events(connection, log, state.length, events)
    return LogState(events[-1].id, state.length + len(events))


def insert_events(
    connection: sqlite3.Connection, log: bytes, start: int, events: Sequence[StoredEvent]
) -> None:
    """Insert events as the numbers from ``start`` on."""
    connection.executemany(
        "INSERT INTO log_events (log, number, event, wire) VALUES (?, ?, ?, ?)",
        [(log, start + index, event.id, event.wire) for index, event in enumerate(events)],
    )
