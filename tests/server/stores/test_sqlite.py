"""What only the SQLite store does: files, migrations, durability and full disks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from server.errors import SettingsError, StorageFullError, StoreUnavailableError
from server.stores.sqlite_connection import Database
from server.stores.sqlite_store import SqliteStore
from tests.server.stores.test_contract import record, registered


def test_what_was_answered_is_there_after_a_restart(tmp_path):
    async def write():
        store = await SqliteStore.open(tmp_path / "db")
        new = await registered(store)
        await store.commit(new.namespace.namespace, [record()])
        facts = await store.secret(), await store.journal_epoch(), new
        await store.close()
        return facts

    async def read(place):
        store = await SqliteStore.open(tmp_path / "db")
        page = await store.delta(place, 0, 10, 1000)
        facts = await store.secret(), await store.journal_epoch(), page.head
        await store.close()
        return facts

    secret, epoch, new = asyncio.run(write())
    assert asyncio.run(read(new.namespace.namespace)) == (secret, epoch, 1)


def test_a_schema_from_the_future_is_refused_with_a_sentence(tmp_path):
    threads = threading.active_count()

    async def open_and_close():
        await (await SqliteStore.open(tmp_path / "db")).close()

    asyncio.run(open_and_close())
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(SettingsError, match=r"has schema 999.*install the release that wrote it"):
        asyncio.run(open_and_close())
    assert threading.active_count() == threads


def test_a_file_that_is_no_database_is_refused_with_a_sentence(tmp_path):
    threads = threading.active_count()
    (tmp_path / "db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match=r"the database .* can not be"):
        asyncio.run(SqliteStore.open(tmp_path / "db"))
    assert threading.active_count() == threads


def test_a_full_database_is_told_apart_and_stays_whole(tmp_path):
    async def fill():
        store = await SqliteStore.open(tmp_path / "db")
        place = (await registered(store)).namespace.namespace
        pages = await store._database.write(
            lambda connection: connection.execute("PRAGMA page_count").fetchone()[0]
        )
        await store._database.write(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        )
        stored = 0
        try:
            while stored < 1000:
                await store.commit(place, [record(stored + 1, wire=bytes(4000))])
                stored += 1
        except StorageFullError:
            pass
        assert stored < 1000
        assert (await store.delta(place, 0, 1000, 10**6)).head == stored > 0
        await store._database.write(
            lambda connection: connection.execute("PRAGMA max_page_count = 1000000")
        )
        await store.commit(place, [record(stored + 1)])
        check = await store._database.read(
            lambda connection: connection.execute("PRAGMA integrity_check").fetchone()
        )
        await store.close()
        return check[0]

    assert asyncio.run(fill()) == "ok"


def test_a_closed_database_says_so(tmp_path):
    async def use_after_close():
        database = await Database.open(tmp_path / "db")
        await database.close()
        await database.close()
        with pytest.raises(StoreUnavailableError):
            await database.write(lambda connection: None)
        with pytest.raises(StoreUnavailableError):
            await database.read(lambda connection: None)

    asyncio.run(use_after_close())


def test_a_bug_in_one_statement_reaches_its_caller_only(tmp_path):
    async def mixed():
        database = await Database.open(tmp_path / "db")

        def good(connection):
            connection.execute("INSERT INTO facts VALUES ('x', 1)")
            return 7

        def bad(connection):
            connection.execute("INSERT INTO facts VALUES ('y', 1)")
            connection.execute("INSERT INTO facts VALUES ('y', 1)")

        results = await asyncio.gather(
            database.write(good), database.write(bad), return_exceptions=True
        )
        rows = await database.read(
            lambda connection: connection.execute("SELECT name FROM facts").fetchall()
        )
        await database.close()
        return results, rows

    results, rows = asyncio.run(mixed())
    assert results[0] == 7
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert rows == [("x",)]
