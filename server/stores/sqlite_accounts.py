"""The statements about accounts, devices and sessions, for `sqlite_store`.

Each function is one operation over a connection inside a transaction that its caller has begun.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from protocol.ids import AccountId, DeviceId, EventId
from server.errors import AlreadyExistsError, InvitationError
from server.stores import sqlite_logs
from server.stores.port import (
    Credentials,
    DeviceChanges,
    DeviceState,
    LogState,
    Registration,
    StoredEvent,
    StoredSession,
)
from server.stores.sqlite_namespaces import create_namespace

MAX_SESSIONS: Final = 256
"""Sessions of one account; the oldest make room."""

EXPIRED_KEPT_S: Final = 3600
"""How long an expired session is remembered, so that its holder hears that it expired."""


def add_invitation(connection: sqlite3.Connection, digest: bytes, expires_s: int) -> None:
    """As `MetadataStore.add_invitation`."""
    connection.execute("INSERT OR IGNORE INTO invitations VALUES (?, ?)", (digest, expires_s))


def register(connection: sqlite3.Connection, registration: Registration) -> None:
    """As `MetadataStore.register`."""
    _use_invitation(connection, registration)
    credentials = registration.credentials
    known = connection.execute(
        "SELECT account = ? FROM accounts WHERE email = ? OR account = ?",
        (credentials.account, registration.email, credentials.account),
    ).fetchone()
    if known is not None:
        raise AlreadyExistsError("account" if known[0] else "email")
    connection.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            credentials.account,
            registration.email,
            credentials.login_public,
            credentials.recovery_login_public,
            credentials.salt,
            credentials.passes,
            credentials.memory_kib,
            credentials.wrapped_root,
            credentials.wrapped_root_recovery,
            registration.now_s,
        ),
    )
    sqlite_logs.insert_events(connection, credentials.account, 0, registration.events)
    _apply_changes(connection, credentials.account, DeviceChanges(enrolled=registration.devices))
    create_namespace(connection, registration.namespace)


def _use_invitation(connection: sqlite3.Connection, registration: Registration) -> None:
    if not registration.needs_invitation:
        return
    if connection.execute("SELECT 1 FROM accounts LIMIT 1").fetchone() is None:
        return
    used = connection.execute(
        "DELETE FROM invitations WHERE digest = ? AND expires_s > ?",
        (registration.invitation, registration.now_s),
    ).rowcount
    if not used:
        raise InvitationError


def credentials(connection: sqlite3.Connection, email: str) -> Credentials | None:
    """As `MetadataStore.credentials`."""
    row = connection.execute(
        "SELECT account, login_public, recovery_login_public, salt, passes, memory_kib,"
        " wrapped_root, wrapped_root_recovery FROM accounts WHERE email = ?",
        (email,),
    ).fetchone()
    return None if row is None else Credentials(AccountId(row[0]), *row[1:])


def device(connection: sqlite3.Connection, wanted: DeviceId) -> DeviceState | None:
    """As `MetadataStore.device`."""
    row = connection.execute(
        "SELECT device, account, signing_public, is_revoked, last_seen_s"
        " FROM devices WHERE device = ?",
        (wanted,),
    ).fetchone()
    return None if row is None else _device_state(row)


def devices(connection: sqlite3.Connection, account: AccountId) -> list[DeviceState]:
    """As `MetadataStore.devices`."""
    rows = connection.execute(
        "SELECT device, account, signing_public, is_revoked, last_seen_s"
        " FROM devices WHERE account = ? ORDER BY number",
        (account,),
    )
    return [_device_state(row) for row in rows]


def _device_state(row: tuple[bytes, bytes, bytes, int, int | None]) -> DeviceState:
    return DeviceState(DeviceId(row[0]), AccountId(row[1]), row[2], bool(row[3]), row[4])


def use_nonce(connection: sqlite3.Connection, digest: bytes, expires_s: int, now_s: int) -> bool:
    """As `MetadataStore.use_nonce`."""
    connection.execute("DELETE FROM used_nonces WHERE expires_s <= ?", (now_s,))
    added = connection.execute(
        "INSERT OR IGNORE INTO used_nonces VALUES (?, ?)", (digest, expires_s)
    )
    return added.rowcount == 1


def add_session(
    connection: sqlite3.Connection, digest: bytes, session: StoredSession, now_s: int
) -> None:
    """As `MetadataStore.add_session`."""
    connection.execute("DELETE FROM sessions WHERE expires_s <= ?", (now_s - EXPIRED_KEPT_S,))
    connection.execute(
        "DELETE FROM sessions WHERE digest IN (SELECT digest FROM sessions WHERE account = ?"
        " ORDER BY expires_s DESC LIMIT -1 OFFSET ?)",
        (session.account, MAX_SESSIONS - 1),
    )
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?)",
        (digest, session.account, session.device, session.expires_s),
    )
    if session.device is not None:
        connection.execute(
            "UPDATE devices SET last_seen_s = ? WHERE device = ?", (now_s, session.device)
        )


def session(connection: sqlite3.Connection, digest: bytes) -> StoredSession | None:
    """As `MetadataStore.session`."""
    row = connection.execute(
        "SELECT sessions.account, sessions.device, sessions.expires_s,"
        " coalesce(devices.is_revoked, 0) FROM sessions LEFT JOIN devices USING (device)"
        " WHERE digest = ?",
        (digest,),
    ).fetchone()
    if row is None:
        return None
    owner = None if row[1] is None else DeviceId(row[1])
    return StoredSession(AccountId(row[0]), owner, row[2], bool(row[3]))


def remove_session(connection: sqlite3.Connection, digest: bytes) -> None:
    """As `MetadataStore.remove_session`."""
    connection.execute("DELETE FROM sessions WHERE digest = ?", (digest,))


def append_account_log(
    connection: sqlite3.Connection,
    account: AccountId,
    expected_head: EventId,
    events: Sequence[StoredEvent],
    changes: DeviceChanges,
) -> LogState:
    """As `MetadataStore.append_account_log`."""
    state = sqlite_logs.append_events(connection, account, expected_head, events)
    _apply_changes(connection, account, changes)
    return state


def _apply_changes(
    connection: sqlite3.Connection, account: AccountId, changes: DeviceChanges
) -> None:
    (number,) = connection.execute(
        "SELECT count(*) FROM devices WHERE account = ?", (account,)
    ).fetchone()
    for index, entry in enumerate(changes.enrolled):
        added = connection.execute(
            "INSERT OR IGNORE INTO devices (device, account, number, signing_public)"
            " VALUES (?, ?, ?, ?)",
            (entry.device, account, number + index, entry.signing_public),
        )
        if added.rowcount != 1:
            raise AlreadyExistsError("device")
    for revoked in changes.revoked:
        connection.execute("UPDATE devices SET is_revoked = 1 WHERE device = ?", (revoked,))
