"""The disk of a simulated device: which bytes and names a loss of power would leave.

A file's bytes last when it was synced, its name when its folder was; everything else may or may not.
Owns the patch of `os.fsync` and `os.fdatasync` by which it knows. Called by the devices.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw

from node.storage import database
from node.storage.database import Database

INDEX, LOG = "index.db", "index.db-wal"
_UNLOSABLE = ("keys", "lock")


class Disk:
    """The files below one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._synced: dict[str, bytes] = {}
        self._named: set[str] = set()
        self._log_bytes = 0  # of the log, which only grows until it is begun anew

    def all_synced(self) -> None:
        """Whatever is here by now lasts."""
        self._synced = {name: (self.home / name).read_bytes() for name in self._names()}
        self._named = set(self._synced)
        self._log_bytes = len(self._synced.pop(LOG, b""))

    def note_sync(self, path: Path) -> None:
        """A file or a folder was synced."""
        if path.is_dir():
            folder = path.relative_to(self.home).as_posix()
            inside = {name for name in self._named if Path(name).parent.as_posix() == folder}
            self._named -= inside
            self._named |= {
                entry.relative_to(self.home).as_posix()
                for entry in path.iterdir()
                if entry.is_file()
            }
        elif path.exists():
            name = path.relative_to(self.home).as_posix()
            if name == LOG:
                self._log_bytes = path.stat().st_size
            else:
                self._synced[name] = path.read_bytes()

    def copied_to(self, home: Path) -> Disk:
        """The same files elsewhere, as the death of a process leaves them."""
        for name in self._names():
            target = home / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(self.home / name, target)
            target.chmod(0o600)
        copy = Disk(home)
        copy._synced, copy._named = dict(self._synced), set(self._named)
        copy._log_bytes = self._log_bytes
        return copy

    def lose_power(self, draw: random.Random) -> int:
        """Take back what was not synced, or a part of that; how many files lost something."""
        lost = 0
        for name in sorted({*self._names(), *self._named}):
            if name in _UNLOSABLE:
                continue
            path = self.home / name
            before = path.read_bytes() if path.exists() else None
            after = self._after_loss(name, before, draw)
            if after == before:
                continue
            lost += 1
            path.unlink(missing_ok=True)
            if after is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_bytes(after)
                path.chmod(0o600)
        self.all_synced()
        return lost

    def _after_loss(self, name: str, before: bytes | None, draw: random.Random) -> bytes | None:
        synced = self._synced.get(name, b"")
        if name in (INDEX, LOG):
            if before is None or name == INDEX:
                return before
            low, high = min(self._log_bytes, len(before)), len(before)
            return before[: draw.choice((low, draw.randint(low, high)))]
        if before is None:
            return draw.choice((None, synced))
        if name not in self._named and draw.random() < 0.5:
            return None
        return synced if draw.random() < 0.7 else before

    def _names(self) -> list[str]:
        return [
            path.relative_to(self.home).as_posix()
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and not path.name.endswith("-shm")
        ]


def _connect(path: Path, _key: bytes) -> apsw.Connection:
    """No cipher, whose key takes 50 ms to derive, and no locks: nobody else opens the index."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


class Disks:
    """All disks of a simulation, and the operating system's part in them."""

    def __init__(self) -> None:
        self._disks: dict[str, Disk] = {}

    def add(self, disk: Disk) -> Disk:
        self._disks[str(disk.home)] = disk
        return disk

    def remove(self, disk: Disk) -> None:
        del self._disks[str(disk.home)]

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Sync calls of the node are noted instead of carried out; its index is opened plainly."""

        def note(descriptor: int) -> None:
            self._note(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

        def noted_checkpoint(index: Database) -> None:
            index._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._note(index._path)
            self._note(Path(f"{index._path}-wal"))

        with (
            patch.object(os, "fsync", note),
            patch.object(os, "fdatasync", note),
            patch.object(database, "_connect", _connect),
            patch.object(Database, "checkpoint", noted_checkpoint),
        ):
            yield

    def _note(self, path: Path) -> None:
        for folder in (path, *path.parents):
            disk = self._disks.get(str(folder))
            if disk is not None:
                disk.note_sync(path)
                return
