"""The metadata store of the embedded server: SQLite in WAL mode, through aiosqlite.

Owns which operations read and which write; the statements stand in the modules beside it. Checked,
as its in-memory twin, by the contract suite of the port. Opened by ``server.main``.
"""

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

from protocol.ids import AccountId, BlockId, DeviceId, EventId, ItemId, NamespaceId
from server.stores import (
    sqlite_accounts,
    sqlite_burials,
    sqlite_collection,
    sqlite_journal,
    sqlite_logs,
    sqlite_namespaces,
)
from server.stores.port import (
    BlockOfNamespace,
    CollectedBlock,
    Commit,
    CommitContext,
    Cover,
    Credentials,
    DeviceChanges,
    DeviceState,
    JournalPage,
    LogPage,
    LogState,
    NewNamespace,
    NewRecord,
    NumberedBurial,
    Progress,
    Registration,
    Retention,
    StoredEvent,
    StoredRecord,
    StoredSession,
)
from server.stores.sqlite_connection import Database

SECRET_BYTES: Final = 32


class SqliteStore:
    """`MetadataStore` over one SQLite file.

    Concurrency: as `Database`.
    """

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create the database.

        Raises:
            SettingsError: as `Database.open`.
        """
        database = await Database.open(path)
        try:
            secret = await database.write(_first_facts)
        except BaseException:
            await database.close()
            raise
        return cls(database, secret)

    async def secret(self) -> bytes:
        """As the port."""
        return self._secret

    async def journal_epoch(self) -> str:
        """As the port."""
        return await self._database.read(sqlite_journal.journal_epoch)

    async def replace_journal_epoch(self) -> str:
        """As the port."""
        return await self._database.write(_replace_journal_epoch)

    async def is_ready(self) -> bool:
        """As the port."""
        return bool(await self._database.read(sqlite_journal.journal_epoch))

    async def add_invitation(self, digest: bytes, expires_s: int) -> None:
        """As the port."""
        await self._database.write(
            partial(sqlite_accounts.add_invitation, digest=digest, expires_s=expires_s)
        )

    async def register(self, registration: Registration) -> None:
        """As the port."""
        await self._database.write(partial(sqlite_accounts.register, registration=registration))

    async def credentials(self, email: str) -> Credentials | None:
        """As the port."""
        return await self._database.read(partial(sqlite_accounts.credentials, email=email))

    async def device(self, device: DeviceId) -> DeviceState | None:
        """As the port."""
        return await self._database.read(partial(sqlite_accounts.device, wanted=device))

    async def devices(self, account: AccountId) -> Sequence[DeviceState]:
        """As the port."""
        return await self._database.read(partial(sqlite_accounts.devices, account=account))

    async def use_nonce(self, digest: bytes, expires_s: int, now_s: int) -> bool:
        """As the port."""
        return await self._database.write(
            partial(sqlite_accounts.use_nonce, digest=digest, expires_s=expires_s, now_s=now_s)
        )

    async def add_session(self, digest: bytes, session: StoredSession, now_s: int) -> None:
        """As the port."""
        await self._database.write(
            partial(sqlite_accounts.add_session, digest=digest, session=session, now_s=now_s)
        )

    async def session(self, digest: bytes) -> StoredSession | None:
        """As the port."""
        return await self._database.read(partial(sqlite_accounts.session, digest=digest))

    async def remove_session(self, digest: bytes) -> None:
        """As the port."""
        await self._database.write(partial(sqlite_accounts.remove_session, digest=digest))

    async def account_log(self, account: AccountId, start: int, max_bytes: int) -> LogPage | None:
        """As the port."""
        return await self._database.read(
            partial(sqlite_logs.log_page, log=account, start=start, max_bytes=max_bytes)
        )

    async def append_account_log(
        self,
        account: AccountId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        changes: DeviceChanges,
    ) -> LogState:
        """As the port."""
        return await self._database.write(
            partial(
                sqlite_accounts.append_account_log,
                account=account,
                expected_head=expected_head,
                events=events,
                changes=changes,
            )
        )

    async def shares_namespace(self, account: AccountId, other: AccountId) -> bool:
        """As the port."""
        return await self._database.read(
            partial(sqlite_namespaces.shares_namespace, account=account, other=other)
        )

    async def create_namespace(self, namespace: NewNamespace) -> LogState:
        """As the port."""
        return await self._database.write(
            partial(sqlite_namespaces.create_namespace, new=namespace)
        )

    async def role(self, namespace: NamespaceId, account: AccountId) -> int | None:
        """As the port."""
        return await self._database.read(
            partial(sqlite_namespaces.role, namespace=namespace, account=account)
        )

    async def namespace_log(
        self, namespace: NamespaceId, start: int, max_bytes: int
    ) -> LogPage | None:
        """As the port."""
        return await self._database.read(
            partial(sqlite_logs.log_page, log=namespace, start=start, max_bytes=max_bytes)
        )

    async def append_namespace_log(
        self,
        namespace: NamespaceId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        members: Mapping[AccountId, int],
    ) -> LogState:
        """As the port."""
        return await self._database.write(
            partial(
                sqlite_namespaces.append_namespace_log,
                namespace=namespace,
                expected_head=expected_head,
                events=events,
                members=members,
            )
        )

    async def members(self, namespace: NamespaceId) -> Sequence[AccountId]:
        """As the port."""
        return await self._database.read(partial(sqlite_namespaces.members, namespace=namespace))

    async def progress(self, account: AccountId) -> Progress:
        """As the port."""

        def operation(connection: sqlite3.Connection) -> Progress:
            epoch = sqlite_journal.journal_epoch(connection)
            return sqlite_namespaces.progress(connection, account, epoch)

        return await self._database.read(operation)

    async def commit_context(
        self, namespace: NamespaceId, devices: Sequence[DeviceId]
    ) -> CommitContext:
        """As the port."""
        return await self._database.read(
            partial(sqlite_journal.commit_context, namespace=namespace, devices=devices)
        )

    async def commit(self, namespace: NamespaceId, records: Sequence[NewRecord]) -> Commit:
        """As the port."""
        return await self._database.write(
            partial(sqlite_journal.commit, namespace=namespace, records=records)
        )

    async def delta(
        self, namespace: NamespaceId, after: int, max_records: int, max_bytes: int
    ) -> JournalPage:
        """As the port."""
        return await self._database.read(
            partial(
                sqlite_journal.delta,
                namespace=namespace,
                after=after,
                max_records=max_records,
                max_bytes=max_bytes,
            )
        )

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId], lease_until_s: int
    ) -> Sequence[BlockId]:
        """As the port."""
        missing, stale = await self._database.read(
            partial(
                sqlite_namespaces.missing_blocks,
                namespace=namespace,
                blocks=blocks,
                lease_until_s=lease_until_s,
            )
        )
        if stale:
            # What was collected since it was looked up is missing after all.
            missing += await self._database.write(
                partial(
                    sqlite_namespaces.renew_leases,
                    namespace=namespace,
                    blocks=stale,
                    lease_until_s=lease_until_s,
                )
            )
        return missing

    async def add_block(
        self,
        namespace: NamespaceId,
        block: BlockId,
        size_bytes: int,
        lease_until_s: int,
        children: Sequence[BlockId] = (),
    ) -> None:
        """As the port."""
        await self._database.write(
            partial(
                sqlite_namespaces.add_block,
                namespace=namespace,
                block=block,
                size_bytes=size_bytes,
                lease_until_s=lease_until_s,
                children=children,
            )
        )

    async def has_block(self, namespace: NamespaceId, block: BlockId) -> bool:
        """As the port."""
        return await self._database.read(
            partial(sqlite_namespaces.has_block, namespace=namespace, block=block)
        )

    async def add_burial(
        self, namespace: NamespaceId, items: Sequence[ItemId], wire: bytes
    ) -> NumberedBurial:
        """As the port."""
        return await self._database.write(
            partial(sqlite_burials.add_burial, namespace=namespace, items=items, wire=wire)
        )

    async def burials(
        self, namespace: NamespaceId, after: int, limit: int
    ) -> Sequence[NumberedBurial]:
        """As the port."""
        return await self._database.read(
            partial(sqlite_burials.burials, namespace=namespace, after=after, limit=limit)
        )

    async def drop_writes(self, limit: int, retention: Retention) -> int:
        """As the port."""
        return await self._database.write(
            partial(sqlite_burials.drop_writes, limit=limit, retention=retention)
        )

    async def records_not_indexed(self, limit: int) -> Sequence[StoredRecord]:
        """As the port."""
        return await self._database.read(
            partial(sqlite_collection.records_not_indexed, limit=limit)
        )

    async def index_record(
        self,
        record: StoredRecord,
        blocks: Sequence[BlockId],
        covers: Sequence[Cover],
        covered_s: int,
    ) -> None:
        """As the port."""
        await self._database.write(
            partial(
                sqlite_collection.index_record,
                record=record,
                blocks=blocks,
                covers=covers,
                covered_s=covered_s,
            )
        )

    async def blocks_not_indexed(self, limit: int) -> Sequence[BlockOfNamespace]:
        """As the port."""
        return await self._database.read(partial(sqlite_collection.blocks_not_indexed, limit=limit))

    async def index_block(self, held: BlockOfNamespace, children: Sequence[BlockId]) -> None:
        """As the port."""
        await self._database.write(
            partial(sqlite_collection.note_children, held=held, children=children)
        )

    async def condemn_blocks(
        self, after: BlockOfNamespace | None, limit: int, retention: Retention
    ) -> BlockOfNamespace | None:
        """As the port."""
        return await self._database.write(
            partial(sqlite_collection.condemn_blocks, after=after, limit=limit, retention=retention)
        )

    async def drop_condemned(
        self, condemned_before_s: int, limit: int, retention: Retention
    ) -> Sequence[CollectedBlock]:
        """As the port."""
        return await self._database.write(
            partial(
                sqlite_collection.drop_condemned,
                condemned_before_s=condemned_before_s,
                limit=limit,
                retention=retention,
            )
        )

    async def is_held(self, block: BlockId) -> bool:
        """As the port."""
        return await self._database.read(partial(sqlite_collection.is_held, block=block))

    async def close(self) -> None:
        """As the port."""
        await self._database.close()


def _first_facts(connection: sqlite3.Connection) -> bytes:
    connection.execute(
        "INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_bytes(SECRET_BYTES),)
    )
    connection.execute(
        "INSERT OR IGNORE INTO facts VALUES ('journal_epoch', ?)", (secrets.token_hex(8),)
    )
    (secret,) = connection.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
    return bytes(secret)


def _replace_journal_epoch(connection: sqlite3.Connection) -> str:
    epoch = secrets.token_hex(8)
    connection.execute("UPDATE facts SET value = ? WHERE name = 'journal_epoch'", (epoch,))
    return epoch
