"""One SQLite database: connections on their own threads, migrations, and grouped transactions.

Owns pragmas, the schema's version and the translation of SQLite's errors. Knows no table but
SQLite's own. Called by `sqlite_store`, which hands in functions over a `sqlite3.Connection`; each
runs as a whole on the connection's thread, so an operation costs one hop however many statements it
has.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import aiosqlite

from server.errors import (
    SettingsError,
    StorageFullError,
    StoreError,
    StoreUnavailableError,
)

Result = TypeVar("Result")
Operation = Callable[[sqlite3.Connection], Result]

READERS: Final = 2
"""Reader connections. A read takes some 20 us of its thread; more than two only queue for the GIL."""

MAX_GROUP: Final = 64
"""Operations in one transaction: enough to share its fsync, few enough to answer the first soon."""

MAX_WAITING: Final = 4096
"""Writes waiting for their turn; above it the store says that it is busy."""

_BUSY_TIMEOUT_MS: Final = 5000
_FULL_CODES: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Connection(aiosqlite.Connection):
    """A connection that runs whole operations on its thread."""

    async def close(self) -> None:
        """Close it; its thread has ended when this returns."""
        await super().close()
        self.join()

    def join(self) -> None:
        """Wait for the thread, which has been told to end and takes microseconds."""
        self._thread.join()

    async def run(self, operation: Operation[Result]) -> Result:
        """Run the operation and wait for it. It runs to its end also when the caller is cancelled.

        Raises:
            StorageFullError: no space left.
            StoreUnavailableError: locked for too long, closed, or the disk fails.
            StoreError: whatever the operation itself raises.
        """
        try:
            # The executor is missing in aiosqlite's annotations.
            return cast("Result", await self._execute(lambda: operation(self._conn)))  # type: ignore[no-untyped-call]
        except sqlite3.Error as error:
            raise translated(error) from error
        except ValueError as error:
            if str(error) != "Connection closed":
                raise
            raise StoreUnavailableError("the database is closed") from error


def translated(error: sqlite3.Error) -> StoreError:
    """The store's error for one of SQLite's; a bug in a statement stays what it is."""
    code = getattr(error, "sqlite_errorcode", None)
    if code in _FULL_CODES:
        return StorageFullError("the database's disk is full")
    if isinstance(error, sqlite3.OperationalError):
        return StoreUnavailableError(f"the database does not answer: {error}")
    raise error


class Database:
    """A database file: one writer, several readers.

    Concurrency: made and closed by one task; `read` and `write` are for any task of its loop. The
    writer's task owns the writer connection; only it begins and ends transactions.
    """

    def __init__(self, writer: Connection, readers: list[Connection]) -> None:
        self._writer = writer
        self._readers = readers
        self._next_reader = 0
        self._waiting: deque[tuple[Operation[Any], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._write_groups())
        self._is_closed = False

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create the database and bring its schema up to date.

        Raises:
            SettingsError: it is no database, can not be written, or its schema is of a later
                release.
        """
        try:
            writer = await _connect(path, is_reader=False)
        except (sqlite3.Error, OSError) as error:
            raise SettingsError(f"the database {path} can not be opened: {error}") from error
        readers: list[Connection] = []
        try:
            try:
                await writer.run(_migrate)
                for _ in range(READERS):
                    reader = await _connect(path, is_reader=True)
                    readers.append(reader)
            except (sqlite3.Error, StoreError) as error:
                raise SettingsError(f"the database {path} can not be used: {error}") from error
        except BaseException:
            for connection in (writer, *readers):
                await connection.close()
            raise
        return cls(writer, readers)

    async def read(self, operation: Operation[Result]) -> Result:
        """Run an operation in a transaction that sees one moment and changes nothing."""
        self._next_reader = (self._next_reader + 1) % len(self._readers)
        reader = self._readers[self._next_reader]
        return await reader.run(lambda connection: _in_snapshot(connection, operation))

    async def write(self, operation: Operation[Result]) -> Result:
        """Run an operation in a transaction; durable when this returns.

        Operations of concurrent callers share a transaction, each under a savepoint of its own: one
        that raises leaves no trace and does not disturb the others. A caller that is cancelled
        while it waits does not know whether its operation took effect.
        """
        if self._is_closed:
            raise StoreUnavailableError("the database is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailableError("too many writes are waiting")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Finish the writes that wait, then close. Calling it again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wake.set()
        await self._task
        for connection in (*self._readers, self._writer):
            await connection.close()

    async def _write_groups(self) -> None:
        while self._waiting or not self._is_closed:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            group = [entry for entry in group if not entry[1].cancelled()]
            operations = [operation for operation, _ in group]
            try:
                results = await self._writer.run(
                    lambda connection, each=operations: _in_one_transaction(connection, each)  # type: ignore[misc]
                )
            except Exception as error:  # noqa: BLE001 (every waiter of the group must hear of it)
                results = [error] * len(group)
            for (_, future), result in zip(group, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)


def _in_snapshot(connection: sqlite3.Connection, operation: Operation[Result]) -> Result:
    connection.execute("BEGIN")
    try:
        return operation(connection)
    finally:
        connection.execute("ROLLBACK")


def _in_one_transaction(
    connection: sqlite3.Connection, operations: list[Operation[Any]]
) -> list[Any]:
    """Results of the operations, or for one that raised its exception.

    Raises:
        sqlite3.Error: the transaction as a whole failed and nothing happened.
    """
    results: list[Any] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for operation in operations:
            connection.execute("SAVEPOINT one")
            try:
                result = operation(connection)
            except StoreError as error:
                connection.execute("ROLLBACK TO one")
                result = error
            except sqlite3.Error as error:
                # A full disk may have ended the transaction already; then all of it failed.
                if not connection.in_transaction:
                    raise
                connection.execute("ROLLBACK TO one")
                result = _kept(error)
            connection.execute("RELEASE one")
            results.append(result)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
    return results


def _kept(error: sqlite3.Error) -> Exception:
    try:
        return translated(error)
    except sqlite3.Error as bug:
        return bug


async def _connect(path: Path, *, is_reader: bool) -> Connection:
    def connector() -> sqlite3.Connection:
        # Transactions are begun by hand; the sqlite3 module starts none of its own.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit is durable when it returns, also through a loss of power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -32768")
        # 4 MiB of log between checkpoints: few of them while thousands of records come in.
        connection.execute("PRAGMA wal_autocheckpoint = 1024")
        if is_reader:
            connection.execute("PRAGMA query_only = ON")
        return connection

    connection = Connection(connector, 64)
    try:
        await connection
    except BaseException:
        connection.join()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply the numbered scripts that the database lacks, each in a transaction of its own."""
    scripts = sorted(_MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    present = connection.execute("PRAGMA user_version").fetchone()[0]
    if present > len(scripts):
        raise SettingsError(
            f"the database has schema {present}, this release knows {len(scripts)}: "
            "install the release that wrote it, or a later one"
        )
    for number, script in enumerate(scripts, start=1):
        if int(script.name[:4]) != number:
            raise AssertionError(f"migrations are not numbered in a row: {script.name}")
        if number <= present:
            continue
        # The version is read again under the write lock: another process may migrate just now.
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] < number:
                for statement in _statements(script.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
