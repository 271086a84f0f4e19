"""What a disk still has after its machine lost power: what was synced, and nothing else.

Owns the record of what was synced, by catching the calls of `os` that ask for it, and the making of
the folder that a node finds afterwards. Pessimistic: every byte that nobody asked to be kept is gone.
SQLite's own syncs can not be caught; it syncs the write-ahead log only with a checkpoint, which small
worlds never reach, so the log ends where `Database.sync` last found its end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

_LOG = "index.db-wal"
_LOG_HEADER_BYTES = 32
_NEVER_COPIED = ("lock", "index.db-shm")

_synced: dict[str, int] = {}
_real_fsync, _real_fdatasync = os.fsync, os.fdatasync


@contextmanager
def watched_disk() -> Iterator[None]:
    """Syncs are noted instead of carried out while this lasts."""
    _synced.clear()
    with patch("os.fsync", _note_synced), patch("os.fdatasync", _note_synced):
        yield


def _note_synced(descriptor: int) -> None:
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    _synced[path] = os.fstat(descriptor).st_size
    if os.path.isdir(path):
        # A folder's sync keeps its names; of a file that was never synced, an empty one.
        for name in os.listdir(path):
            _synced.setdefault(f"{path}/{name}", 0)


def copy_after_death(home: Path, target: Path, *, loses_power: bool) -> None:
    """The state directory as the next run of the node finds it.

    Args:
        home: of a node at any moment of its life.
        target: does not exist; what is in it has the same chances at the next loss of power.
        loses_power: else only the process died, and the system writes out what it was given.
    """
    target.mkdir(mode=0o700)
    for folder, folders, files in os.walk(home):
        here = Path(folder)
        there = target / here.relative_to(home)
        for name in folders:
            (there / name).mkdir(mode=0o700)
        for name in files:
            if name not in _NEVER_COPIED:
                _copy(here / name, there / name, loses_power=loses_power)


def _copy(source: Path, target: Path, *, loses_power: bool) -> None:
    kept = _synced.get(str(source))
    if source.name in ("keys", "index.db"):
        shutil.copy2(source, target)
        return
    if kept is not None:
        _synced[str(target)] = kept
    if not loses_power:
        shutil.copy2(source, target)
        return
    if source.name == _LOG:
        kept = kept or 0
    if kept is None:
        return
    shutil.copy2(source, target)
    if source.name == _LOG and kept <= _LOG_HEADER_BYTES:
        kept = 0
    if target.stat().st_size > kept:
        os.truncate(target, kept)
    _synced[str(target)] = kept
