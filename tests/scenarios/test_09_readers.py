"""Scenario 9: who reads is never shown a mixture, whatever arrives, and nothing that they write is lost.

Sources: the issue's list, number 9; DESIGN section 4, "A reader never sees a mixture"; "Database File
Format" and "Write-Ahead Logging" (sqlite.org) for what belongs together.
"""

from __future__ import annotations

import mmap
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import eventually
from tests.system.world import Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

MIB = 1 << 20
REPLACES = 10


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Device, Device]]:
    """Two devices that run for all these tests; each test has a file of its own."""
    with World(tmp_path_factory.mktemp("readers") / "world", deadline_s=300) as world:
        world.server.start()
        a, b = world.enrolled("a", "b")
        a.start()
        b.start()
        yield a, b


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def conflicts_of(device: Device, name: str) -> list[Any]:
    return [found for found in device.conflicts() if name in str(found)]


def version(number: int) -> bytes:
    """Bytes of which every 4 KiB say which version they are of."""
    return (b"version %4d\n" % number).ljust(4096, b"%d" % (number % 10)) * (3 * MIB // 4096)


def versions_in(data: bytes) -> set[bytes]:
    return {data[start : start + 12] for start in range(0, len(data), 4096)}


def both_have(a: Device, b: Device) -> None:
    a.wait()
    b.wait()


def begins_with(file: Path, data: bytes) -> bool:
    with file.open("rb", buffering=0) as opened:
        return opened.read(len(data)) == data


def collect(device: Device) -> None:
    """`atoll server collect`, for which the server is stopped."""
    server = device.world.server
    server.stop()
    done = device.world.command("server", "collect", "--data", server.data)
    assert done.returncode == 0, done.stderr
    server.start()
    device.wait()


def replace_ten_times(a: Device, b: Device, name: str) -> None:
    for number in range(1, REPLACES + 1):
        new = a.mount / f"{name}.new"
        new.write_bytes(version(number))
        new.rename(a.mount / name)
        shown = b"version %4d" % number
        eventually(partial(begins_with, b.mount / name, shown), f"version {number} is there", 20)


def test_a_reader_of_a_file_that_was_never_read_here_gets_one_version(
    two: tuple[Device, Device], name: str
) -> None:
    """Not hydrated: the blocks of the opened version are fetched after it was replaced ten times.

    Meanwhile the server collects what nothing needs: not what was replaced lately.
    """
    a, b = two
    (a.mount / name).write_bytes(version(0))
    both_have(a, b)
    with (b.mount / name).open("rb", buffering=0) as reader:
        replace_ten_times(a, b, name)
        collect(a)
        assert versions_in(reader.read()) == {b"version    0"}
    assert versions_in((b.mount / name).read_bytes()) == {b"version   10"}


def test_a_mapping_shows_one_version(two: tuple[Device, Device], name: str) -> None:
    """mmap: pages that are touched late are of the version that was mapped."""
    a, b = two
    (a.mount / name).write_bytes(version(0))
    both_have(a, b)
    with (b.mount / name).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert mapped[:12] == b"version    0"
    replace_ten_times(a, b, name)
    assert versions_in(mapped[:]) == {b"version    0"}
    mapped.close()
    assert versions_in((b.mount / name).read_bytes()) == {b"version   10"}


def test_what_is_written_back_after_the_close_is_a_conflict_and_not_lost(
    two: tuple[Device, Device], name: str
) -> None:
    """A shared mapping is written to after ten replaces; its file is closed long before it is unmapped."""
    a, b = two
    (a.mount / name).write_bytes(version(0))
    both_have(a, b)
    with (b.mount / name).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    replace_ten_times(a, b, name)
    mapped[4096:4116] = b"written through mmap"
    mapped.flush()
    mapped.close()
    eventually(lambda: len(conflicts_of(b, name)) == 1, "the write is a version of its own", 15)
    both_have(a, b)
    for device in two:
        assert len(conflicts_of(device, name)) == 1
        found = [
            path.read_bytes() for path in (device.mount / ".atoll" / "conflicts" / name).iterdir()
        ]
        shown = (device.mount / name).read_bytes()
        assert {b"written through mmap" in data for data in (*found, shown)} == {True, False}
        written = next(data for data in (*found, shown) if b"written through mmap" in data)
        assert versions_in(written) == {b"version    0", b"written thro"}


# SQLite


def connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def rows(file: Path) -> int:
    with closing(sqlite3.connect(file, timeout=5)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM notes").fetchone()
    assert isinstance(count, int)
    return count


def has_rows(file: Path, wanted: int) -> bool:
    return rows(file) == wanted


@pytest.fixture
def database(two: tuple[Device, Device], name: str) -> str:
    a, b = two
    with closing(connect(a.mount / f"{name}.db")) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 2000,)] * 100)
    both_have(a, b)
    return f"{name}.db"


def test_a_database_is_not_replaced_while_it_is_open_here(
    two: tuple[Device, Device], database: str
) -> None:
    a, b = two
    with closing(connect(b.mount / database)) as reader:
        assert reader.execute("SELECT count(*) FROM notes").fetchone() == (100,)
        with closing(connect(a.mount / database)) as writer:
            for _ in range(20):
                writer.execute("INSERT INTO notes VALUES (?)", ("y" * 2000,))
        a.wait()
        eventually(lambda: b.status()["deferred"] > 0, "the change waits", 15)
        assert any("database" in sentence for sentence in b.status()["alarms"])
        assert reader.execute("SELECT count(*) FROM notes").fetchone() == (100,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with closing(sqlite3.connect(b.mount / database)) as another:
            assert another.execute("SELECT count(*) FROM notes").fetchone() == (100,)
    eventually(partial(has_rows, b.mount / database, 120), "the change has taken effect", 15)
    assert b.status()["deferred"] == 0
    assert conflicts_of(b, database) == []


def test_a_deferred_change_survives_the_death_of_the_node(
    two: tuple[Device, Device], database: str
) -> None:
    a, b = two
    reader = connect(b.mount / database)
    assert reader.execute("SELECT count(*) FROM notes").fetchone() == (100,)
    with closing(connect(a.mount / database)) as writer:
        writer.execute("INSERT INTO notes VALUES ('y')")
    a.wait()
    eventually(lambda: b.status()["deferred"] > 0, "the change waits", 15)
    b.kill()
    reader.close()
    b.start()
    eventually(partial(has_rows, b.mount / database, 101), "the change has taken effect", 15)


def test_a_database_that_stays_open_arrives_with_its_log(
    two: tuple[Device, Device], database: str, tmp_path: Path
) -> None:
    """A program writes and checkpoints and never closes; the other device has all of it each time."""
    a, b = two
    with closing(connect(a.mount / database)) as writer:
        for number in range(1, 4):
            writer.executemany("INSERT INTO notes VALUES (?)", [("z" * 3000,)] * 30)
            if number == 2:
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            both_have(a, b)
            copy = tmp_path / f"copy {number}"
            copy.mkdir()
            for name in (database, f"{database}-wal"):
                shutil.copy(b.mount / name, copy / name)
            assert rows(copy / database) == 100 + number * 30
