"""The node's encrypted SQLite database: opening, schema version, transactions.

The only importer of apsw. Used inline on the node's loop: a select costs a few microseconds. It
decides nothing and knows no table but ``meta``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from node.errors import SettingsError, StorageError

SCHEMA_VERSION = 2

CHECKPOINT_PAGES = 1000
"""Pages in the write-ahead log from which on `checkpoint` is worth while: 4 MiB."""

_BACKSTOP_PAGES = 4000  # 16 MiB: whoever commits then makes a checkpoint of its own
_FOLDER = Path(__file__).parent
_KEY_BYTES = 32


class Database:
    """One open database.

    Attributes:
        rollbacks: counts transactions that were taken back: what was read from the database within
            one, or written to it, may no longer be so.

    Concurrency: owned by the node's loop. A transaction must not await.
    """

    def __init__(
        self, path: Path, key: bytes, *, on_long_log: Callable[[], None] = lambda: None
    ) -> None:
        """Open or create the database.

        Args:
            path: its file; ``-wal`` and ``-shm`` appear beside it.
            key: 32 bytes.
            on_long_log: is called by the loop after a commit when `checkpoint` is worth while.

        Raises:
            SettingsError: the key is not the file's, or the schema is of a newer release.
            StorageError: the disk failed.
        """
        if len(key) != _KEY_BYTES:
            raise ValueError("the index key has 32 bytes")
        self._path = path
        self._key = key
        self._on_long_log = on_long_log
        self._checkpoints: apsw.Connection | None = None
        with _translated():
            self._connection = _connect(path, key)
        try:
            with _translated():
                self._connection.execute("PRAGMA journal_mode = WAL")
        except StorageError as error:
            raise SettingsError(
                f"the index {path} can not be opened with this device's key; "
                "restore the 'keys' file that belongs to it, or move the home away and log in again"
            ) from error
        with _translated():
            # The death of the process loses no commit; fsync asks for more through `sync`.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA cache_size = -32768")
            self._connection.execute("PRAGMA temp_store = MEMORY")
            self._connection.set_wal_hook(self._after_commit)
            self._cursor = self._connection.cursor()
        self.rollbacks = 0
        self._migrate()
        self._wal = os.open(f"{path}-wal", os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        """Close; the write-ahead log is folded in."""
        os.close(self._wal)
        with _translated():
            if self._checkpoints is not None:
                self._checkpoints.close()
            self._connection.close()

    def checkpoint(self) -> None:
        """Copy what was committed from the log into the database. Blocks: call it in a thread.

        It holds up neither readers nor writers, and has a connection of its own: a checkpoint
        within a commit would keep the node's loop from answering for a tenth of a second.

        Raises:
            StorageError: the disk is full or failed; the commits stay in the log.
        """
        with _translated():
            if self._checkpoints is None:
                self._checkpoints = _connect(self._path, self._key)
                # Before its first read a connection does not know that there is a log.
                self._checkpoints.execute("PRAGMA schema_version").fetchall()
            self._checkpoints.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _after_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        # After a whole checkpoint the next commit begins the log anew, and counts from there.
        if pages >= _BACKSTOP_PAGES:
            # The commit has succeeded, whatever becomes of this; the other one may be at it.
            with suppress(apsw.Error):
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        elif pages >= CHECKPOINT_PAGES:
            self._on_long_log()
        return int(apsw.SQLITE_OK)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows: bound what may be many.

        Raises:
            StorageError: the disk is full or failed.
        """
        try:
            # One cursor serves all, emptied at once. It costs half of a new one; and apsw 3.54 never
            # frees a cursor of which rows were read one by one while another was made, and searches
            # all that it has at each end of one.
            rows: list[tuple[Any, ...]] = self._cursor.execute(statement, values).fetchall()
        except apsw.Error as error:
            raise _as_storage_error(error) from error
        return rows

    def row(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None; all are read."""
        rows = self.execute(statement, values)
        return rows[0] if rows else None

    @property
    def changes(self) -> int:
        """Rows changed by the last statement."""
        return self._connection.changes()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what the body writes; an inner one takes effect with the outer.

        Raises:
            StorageError: the commit failed; nothing was written.
        """
        is_inner = self._connection.in_transaction
        self.execute("SAVEPOINT inner" if is_inner else "BEGIN IMMEDIATE")
        try:
            yield
            self.execute("RELEASE inner" if is_inner else "COMMIT")
        except BaseException:
            self.rollbacks += 1
            # A full disk may have ended the whole transaction already.
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK TO inner; RELEASE inner" if is_inner else "ROLLBACK")
            raise

    def sync(self) -> None:
        """Make every commit so far survive the loss of power. Blocks: call it in a thread.

        In WAL mode commits live in the log until a checkpoint, which syncs both files itself; so
        the log's own sync is all that is missing.

        Raises:
            StorageError: the disk failed.
        """
        try:
            os.fdatasync(self._wal)
        except OSError as error:
            raise StorageError(error.errno or errno.EIO, f"{self._path}: {error}") from error

    def meta(self, key: str) -> Any:
        """A single value, or None."""
        row = self.row("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else row[0]

    def set_meta(self, key: str, value: Any) -> None:
        """Set a single value."""
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _migrate(self) -> None:
        (version,) = self.row("PRAGMA user_version") or (0,)
        if version > SCHEMA_VERSION:
            raise SettingsError(
                f"the index {self._path} was written by a newer release (schema {version}); "
                "upgrade Atoll on this device"
            )
        if version == SCHEMA_VERSION:
            return
        steps = [_FOLDER / "schema.sql"]
        if version:
            steps = [
                _FOLDER / "migrations" / f"{number}.sql"
                for number in range(version + 1, SCHEMA_VERSION + 1)
            ]
        with self.transaction():
            for step in steps:
                self.execute(step.read_text())
            self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _connect(path: Path, key: bytes) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    # Without it this SQLite, which is built with STAT4, plans many statements anew whenever a value
    # is bound to them: 40 us each time. Plans do not depend on values here, there being no statistics.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.execute("PRAGMA cipher = 'chacha20'")
    connection.execute(f"PRAGMA hexkey = '{key.hex()}'")
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _as_storage_error(error) from error


def _as_storage_error(error: apsw.Error) -> StorageError:
    number = errno.ENOSPC if isinstance(error, apsw.FullError) else errno.EIO
    return StorageError(number, f"the index failed: {error}")
