import resource

import pytest

from node.errors import SettingsError, StorageError
from node.storage.database import SCHEMA_VERSION, Database

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
