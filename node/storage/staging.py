"""What programs wrote and nobody published yet: one sealed file per changed inode.

Owns the staging directory: makes staging files, finds them again after a crash, and bounds what
they keep in memory and open together. Refuses to know items and namespaces: the label of a file
says to its caller whose bytes it holds. Called by ``node.drive``.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.storage.staging_disk import SlotFile, StagingDirectory
from node.storage.staging_file import StagingFile
from node.storage.staging_format import (
    MAX_LABEL_BYTES,
    SEGMENT_BYTES,
    STAGING_ID_BYTES,
    FileState,
    SlotSeal,
)
from node.storage.staging_log import SegmentLog, StagedContent
from node.storage.staging_memory import RecentSegments
from node.storage.staging_recovery import recover, was_never_flushed
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label

MEMORY_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Written bytes kept in memory over all files: joins small writes, and is soon written at a flush."""

DESCRIPTOR_LIMIT: Final = 128
"""Staging files open at once; thousands may wait to be published under a limit of 1,024."""

_NAME: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found in the staging directory.

    Attributes:
        files: Staging files as they were last flushed, or a little later.
        damaged: Files that hold something of which nothing verifies; they are left where they are.
    """

    files: tuple[StagingFile, ...]
    damaged: tuple[Path, ...]


class StagingStore:
    """The staging files of one node.

    Concurrency: every method may be called from any thread.
    """

    def __init__(
        self,
        directory: Path,
        key: bytes,
        *,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        descriptor_limit: int = DESCRIPTOR_LIMIT,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Takes over a directory that exists.

        Args:
            directory: used by nobody else.
            key: 32 secret bytes; every file gets a key of its own derived from it.
            memory_limit_bytes: bound on unflushed bytes over all files.
            descriptor_limit: bound on open files, snapshots not counted.
            token_bytes: gives the names of files.
        """
        self._key = key
        self._token_bytes = token_bytes
        self._directory = StagingDirectory(directory, descriptor_limit)
        self._recent: RecentSegments[StagingFile] = RecentSegments(
            max(1, memory_limit_bytes // SEGMENT_BYTES)
        )
        self._lock = threading.RLock()

    @property
    def unflushed_segments(self) -> int:
        """Segments of 64 KiB that are in memory only."""
        return len(self._recent)

    def create(self, base_size: int, label: bytes) -> StagingFile:
        """A staging file in which nothing differs from its base yet.

        It appears on the disk with its first flush, so a crash before that leaves nothing.

        Args:
            base_size: length of the base in bytes; 0 for a file that is new.
            label: at most 64 bytes that tell the caller after a crash whose bytes these are.
        """
        assert len(label) <= MAX_LABEL_BYTES
        identity = self._token_bytes(STAGING_ID_BYTES)
        state = FileState(size=base_size, base_limit=base_size, floor=0, label=label)
        return self._to_file(identity, StagedContent(state), exists=False)

    def open_all(self) -> Recovery:
        """Finds all staging files; called once, before any is created.

        What a crash during a file's very first write left is removed: nothing of it was flushed.

        Raises:
            StorageError: the directory or a file can not be read.
        """
        files: list[StagingFile] = []
        damaged: list[Path] = []
        with self._lock:
            for name in filter(_NAME.fullmatch, self._directory.names()):
                identity = bytes.fromhex(name)
                disk = SlotFile(self._directory, name, exists=True)
                content = recover(disk, self._seal(identity))
                if content is not None:
                    files.append(self._to_file(identity, content, exists=True))
                elif was_never_flushed(disk):
                    disk.remove()
                else:
                    damaged.append(disk.path)
        return Recovery(tuple(files), tuple(damaged))

    def close(self) -> None:
        """Closes all files; what was not flushed is lost."""
        with self._lock:
            self._directory.close()

    def _seal(self, identity: bytes) -> SlotSeal:
        return SlotSeal(derive(self._key, Label.STAGING_FILE, identity), identity)

    def _to_file(self, identity: bytes, content: StagedContent, *, exists: bool) -> StagingFile:
        disk = SlotFile(self._directory, identity.hex(), exists=exists)
        log = SegmentLog(disk, self._seal(identity), content)
        return StagingFile(identity, log, self._recent, self._lock, content.unreadable_slots)
