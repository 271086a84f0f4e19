"""The whole system: real files travel between two devices through a server that can read nothing."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.system.content import (
    add_oddities,
    clone_repository,
    copy_library,
    git,
    marked_file,
    read_database,
    write_database,
)
from tests.system.processes import eventually
from tests.system.trees import differences, files_with, snapshot
from tests.system.world import CHECKOUT, Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

IS_FULL = bool(os.environ.get("ATOLL_TEST_FULL"))
BIG_BYTES = (1024 if IS_FULL else 256) * 1024 * 1024
ENTRIES = 10_000 if IS_FULL else 1_000
LONG_S = 600 if IS_FULL else 180


def both_synced(*devices: Device) -> None:
    """What the first has sent is announced when it is done, so the others can wait for it."""
    for device in devices:
        device.wait("synced", LONG_S)


def assert_same(first: Path, second: Path) -> None:
    found = differences(snapshot(first), snapshot(second))
    assert not found, "\n".join(found)


def copy_into(source: Path, folder: Path) -> None:
    subprocess.run(["cp", "-a", source, folder], check=True, timeout=LONG_S)


@pytest.mark.deadline(3600 if IS_FULL else 600)
def test_real_files_travel_and_nobody_else_can_read_them(world: World) -> None:
    name, text, noise = (f"marker{secrets.token_hex(12)}" for _ in range(3))
    environment = world.environment()
    native = world.root / "native"
    native.mkdir()
    files = copy_library(native / "library", IS_FULL)
    assert files > 1000, "a tree of thousands of real files is what this is about"
    add_oddities(native / f"{name}-oddities", name)
    marked_file(native / "big", BIG_BYTES, noise.encode(), is_compressible=False)
    marked_file(native / "text", 3_000_000, text.encode(), is_compressible=True)
    (native / "small").write_text(f"{text}\n")

    a, b = world.device("a"), world.device("b")
    world.server.start()
    a.start()
    b.start()

    # A receives.
    for source in native.iterdir():
        copy_into(source, a.mount)
    for source in native.iterdir():
        assert_same(source, a.mount / source.name)
    clone_repository(CHECKOUT, a.mount / "clone", environment)
    (a.mount / "databases").mkdir()
    databases = {
        mode: write_database(a.mount / "databases" / f"{mode}.db", mode, text)
        for mode in ("delete", "wal")
    }
    both_synced(a, b)

    # B has the same, and can work with it.
    assert_same(a.mount, b.mount)
    for source in native.iterdir():
        assert_same(source, b.mount / source.name)
    for mode, rows in databases.items():
        assert read_database(b.mount / "databases" / f"{mode}.db") == rows
    assert git(b.mount / "clone", environment, "status", "--porcelain") == ""
    git(b.mount / "clone", environment, "fsck", "--full", "--strict")
    shutil.rmtree(native)

    # B edits, A follows.
    with (b.mount / "text").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"edited in the middle")
    with (b.mount / "small").open("a") as file:
        file.write("and one more line\n")
    subprocess.run(["sed", "-i", "s/import/IMPORT/", b.mount / "library/os.py"], check=True)
    git(b.mount / "clone", environment, "checkout", "--quiet", "-b", "another")
    (b.mount / "clone/README.md").chmod(0o600)
    both_synced(b, a)
    assert_same(b.mount, a.mount)
    assert (a.mount / "small").read_text().endswith("and one more line\n")

    # A folder of many entries is renamed with one record.
    many = b.mount / f"{name}-many"
    many.mkdir()
    for number in range(ENTRIES):
        (many / f"entry-{number}").write_bytes(b"%d" % number)
    both_synced(b, a)
    before = b.status()["server"]["cursor"]
    many.rename(b.mount / "library" / f"{name}-renamed")
    both_synced(b, a)
    assert b.status()["server"]["cursor"] - before == 1
    assert len(list((a.mount / "library" / f"{name}-renamed").iterdir())) == ENTRIES
    assert not (a.mount / f"{name}-many").exists()

    # B deletes, A follows.
    shutil.rmtree(b.mount / "library" / "email")
    (b.mount / "big").unlink()
    both_synced(b, a)
    assert not (a.mount / "big").exists()
    assert not (a.mount / "library/email").exists()
    assert_same(b.mount, a.mount)

    # Nothing changes by stopping and starting.
    last = snapshot(a.mount)
    a.stop()
    b.unmount()
    a.start()
    b.start()
    both_synced(a, b)
    for device in (a, b):
        found = differences(last, snapshot(device.mount))
        assert not found, "\n".join(found)
    assert a.conflicts() == b.conflicts() == []
    for device in (a, b):
        assert device.status()["alarms"] == []

    # What is stored says nothing, while they run and when they have ended.
    stored = [world.server.data, a.home, b.home, world.logs / "server.log"]
    markers = [marker.encode() for marker in (name, text, noise)]
    markers += [b"_collections_abc", b"entry-99", b"def __init__", b"edited in the middle"]
    assert files_with(stored, markers) == []
    a.stop()
    b.stop()
    assert files_with(stored, markers) == []
    assert_search_finds(world.root / "plain", noise.encode())


def assert_search_finds(folder: Path, marker: bytes) -> None:
    """The search above would have found a plain copy."""
    folder.mkdir()
    (folder / "stored").write_bytes(os.urandom((1 << 20) - 7) + marker + os.urandom(100))
    assert files_with([folder], [marker]) != []


def test_a_change_shows_on_the_other_device_while_a_program_looks(world: World) -> None:
    a, b = world.device("a"), world.device("b")
    world.server.start()
    a.start()
    b.start()
    file = a.mount / "note"
    there = b.mount / "note"
    for turn in range(20):
        text = f"turn {turn}"
        file.write_text(text)
        eventually(partial(_reads, there, text), f"B sees {text}", within_s=10)
    file.unlink()
    eventually(lambda: not (b.mount / "note").exists(), "B sees the removal", within_s=10)


def _reads(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text
