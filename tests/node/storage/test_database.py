import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from node.errors import SettingsError, StorageError
from node.storage.database import CHECKPOINT_PAGES, SCHEMA_VERSION, Database

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("index") / "index.db"


@pytest.fixture
def database(path):
    opened = Database(path, KEY)
    opened.execute("DELETE FROM meta")
    yield opened
    opened.close()


class FailedError(Exception):
    pass


def fail_half_way(database):
    with database.transaction():
        database.set_meta("name", "half")
        raise FailedError


def fail_after_an_inner_transaction(database):
    with database.transaction():
        with database.transaction():
            database.set_meta("name", "inner")
        raise FailedError


def fill(database):
    with database.transaction():
        for number in range(100):
            database.set_meta(f"name {number}", bytes(64 * 1024))


def test_single_values_are_kept_and_replaced(path, database):
    assert database.meta("name") is None
    database.set_meta("name", "one")
    database.set_meta("name", b"\0two")
    assert database.meta("name") == b"\0two"


def test_what_was_committed_is_there_after_a_restart(tmp_path):
    first = Database(tmp_path / "index.db", KEY)
    first.set_meta("name", "kept")
    first.close()
    second = Database(tmp_path / "index.db", KEY)
    assert second.meta("name") == "kept"
    assert second.row("PRAGMA user_version") == (SCHEMA_VERSION,)
    second.close()


def test_a_transaction_that_fails_leaves_nothing(database):
    with pytest.raises(FailedError):
        fail_half_way(database)
    assert database.meta("name") is None
    with database.transaction():
        database.set_meta("name", "whole")
    assert database.meta("name") == "whole"


def test_an_inner_transaction_is_part_of_the_outer_one(database):
    with pytest.raises(FailedError):
        fail_after_an_inner_transaction(database)
    assert database.meta("name") is None


def test_an_inner_transaction_that_fails_takes_back_its_own(database):
    with database.transaction():
        database.set_meta("before", 1)
        with pytest.raises(FailedError):
            fail_half_way(database)
        database.set_meta("after", 1)
    assert [database.meta(name) for name in ("before", "name", "after")] == [1, None, 1]


def test_another_key_is_told_from_a_failed_disk(path, database):
    database.set_meta("name", "x")
    with pytest.raises(SettingsError, match="key"):
        Database(path, bytes(32))


def test_a_key_has_thirty_two_bytes(path):
    with pytest.raises(ValueError, match="32"):
        Database(path, b"short")


def test_a_newer_schema_is_refused_with_advice(tmp_path):
    newer = Database(tmp_path / "index.db", KEY)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(SettingsError, match="upgrade"):
        Database(tmp_path / "index.db", KEY)


def test_nothing_stands_in_clear(tmp_path):
    database = Database(tmp_path / "index.db", KEY)
    database.set_meta("a name to be found", "a value to be found")
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    database.close()
    written += (tmp_path / "index.db").read_bytes()
    assert len(written) > 4096
    for part in (b"to be found", b"CREATE TABLE", b"SQLite format"):
        assert part not in written


def test_sync_reaches_the_log(database):
    database.set_meta("name", "x")
    database.sync()


def test_a_file_that_may_not_grow_says_so_and_stays_whole(tmp_path):
    database = Database(tmp_path / "index.db", KEY)
    database.set_meta("name", "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        with pytest.raises(StorageError):
            fill(database)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert database.meta("name") == "before"
    assert database.meta("name 0") is None
    database.set_meta("name", "after")
    assert database.meta("name") == "after"
    database.close()


def described(database):
    """Every table with its columns and indexes, and whether it keeps rowids."""
    tables = [
        row for row in database.execute("PRAGMA table_list") if not row[1].startswith("sqlite")
    ]
    found = {}
    for _, name, *kind in tables:
        columns = {
            (column, kind, must, default, key)
            for _, column, kind, must, default, key in database.execute(
                f"PRAGMA table_info({name})"
            )
        }
        indexes = {
            (index, *(part[2] for part in database.execute(f"PRAGMA index_info('{index}')")))
            for _, index, *_ in database.execute(f"PRAGMA index_list({name})")
        }
        found[name] = (kind[0], kind[2:], columns, indexes)
    return found


def database_of_schema_1(path):
    old = Path(__file__).parent / "schemas" / "1.sql"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA cipher = 'chacha20'")
    connection.execute(f"PRAGMA hexkey = '{KEY.hex()}'")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(old.read_text())
    connection.execute("PRAGMA user_version = 1")
    return connection


def test_an_index_of_the_first_schema_becomes_like_a_new_one_and_keeps_its_rows(tmp_path):
    connection = database_of_schema_1(tmp_path / "old.db")
    connection.execute("INSERT INTO groups (first_us, last_us) VALUES (1, 2)")
    connection.execute("INSERT INTO alarms (time_us, kind, message) VALUES (1, 'log', 'old')")
    connection.close()
    migrated = Database(tmp_path / "old.db", KEY)
    fresh = Database(tmp_path / "new.db", KEY)
    assert described(migrated) == described(fresh)
    triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"
    assert list(migrated.execute(triggers)) == list(fresh.execute(triggers))
    assert migrated.row("SELECT * FROM totals") == fresh.row("SELECT * FROM totals")
    assert migrated.row("SELECT first_us, held FROM groups") == (1, 0)
    assert migrated.row("SELECT message, evidence FROM alarms") == ("old", None)
    assert migrated.row("PRAGMA user_version") == (SCHEMA_VERSION,)


def test_a_long_log_is_told_and_a_checkpoint_beside_the_writer_shortens_it(tmp_path):
    told = []
    database = Database(tmp_path / "index.db", KEY, on_long_log=lambda: told.append(True))
    size_before = (tmp_path / "index.db").stat().st_size
    for number in range(CHECKPOINT_PAGES):
        database.set_meta(f"name {number}", bytes(5000))
    assert told
    before = len(told)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(database.checkpoint).result()
    assert (tmp_path / "index.db").stat().st_size > size_before
    database.set_meta("name", "in a log that began anew")
    assert len(told) == before
    database.close()
    reopened = Database(tmp_path / "index.db", KEY)
    assert reopened.meta("name") == "in a log that began anew"
    assert reopened.meta(f"name {CHECKPOINT_PAGES - 1}") == bytes(5000)
    reopened.close()


def test_reading_and_writing_by_turns_keeps_nothing_in_memory(database):
    """apsw 3.54 never frees a cursor that was read row by row while another one was made."""
    before = sum(isinstance(each, apsw.Cursor) for each in gc.get_objects())
    for number in range(300):
        database.set_meta(f"name {number}", number)
        rows = database.execute("SELECT value FROM meta WHERE key = ?", (f"name {number}",))
        values = [value for (value,) in rows]
        database.set_meta("last", values[0])
    cursors = sum(isinstance(each, apsw.Cursor) for each in gc.get_objects())
    assert cursors < before + 20
