"""The staging directory and its files as the operating system sees them: open, read, write, sync.

Owns descriptors and the translation of `OSError`. Refuses to know what a slot holds. Called by
`StagingFile`, its snapshots and the recovery.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from node.errors import StorageError
from node.storage.staging_format import SLOT_STRIDE

_PADDING = bytes(SLOT_STRIDE)
_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)
_SYNC_FILE_RANGE_WRITE = 2


class StagingDirectory:
    """The directory and a bounded number of open descriptors of its files.

    Concurrency: used under the store's lock, except `sync_entries`.
    """

    def __init__(self, path: Path, descriptor_limit: int) -> None:
        self.path = path
        self._limit = descriptor_limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def names(self) -> list[str]:
        """The names of all files in the directory."""
        try:
            return sorted(os.listdir(self.path))
        except OSError as error:
            raise StorageError.from_os_error(error, "list the staged files") from error

    def descriptor(self, name: str, *, create: bool = False) -> int:
        """A descriptor to read and write the file, valid until another file is asked for.

        Raises:
            StorageError: the file can not be opened, or with ``create`` exists already.
        """
        descriptor = self._open.get(name)
        if descriptor is not None:
            self._open.move_to_end(name)
            return descriptor
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            descriptor = os.open(self.path / name, flags, 0o600)
        except OSError as error:
            raise StorageError.from_os_error(error, "open a staged file") from error
        self._open[name] = descriptor
        if len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close_file(self, name: str) -> None:
        """Closes the file's descriptor, if it is open."""
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Closes all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1])

    def sync_entries(self) -> None:
        """Makes creations durable; blocks until the disk has them.

        Raises:
            StorageError: the disk refused.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError.from_os_error(error, "sync the staging directory") from error


class SlotFile:
    """One staging file; it comes to be with the first write.

    Concurrency: used under the store's lock.
    """

    def __init__(self, directory: StagingDirectory, name: str, *, exists: bool) -> None:
        self.directory = directory
        self.name = name
        self.exists = exists

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.directory.path / self.name

    def write_slots(self, first: int, slots: Sequence[tuple[bytes, bytes]]) -> int:
        """Writes neighbouring slots, each given as its clear and its sealed part.

        Returns:
            How many of them were written whole. Fewer than all when the disk was full: asked
            again with the others, it raises.

        Raises:
            StorageError: not one slot could be written whole.
        """
        buffers: list[bytes | memoryview] = []
        for header, sealed in slots[:-1]:
            # Without a gap between them the file system allocates and writes in one piece.
            padding = memoryview(_PADDING)[: SLOT_STRIDE - len(header) - len(sealed)]
            buffers += (header, sealed, padding)
        buffers += slots[-1]
        total = sum(len(buffer) for buffer in buffers)
        descriptor = self._descriptor()
        offset, done = first * SLOT_STRIDE, 0
        try:
            while done < total:
                count = os.pwritev(descriptor, _rest(buffers, done), offset + done)
                if count == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += count
        except OSError as error:
            whole = sum(
                done >= index * SLOT_STRIDE + len(header) + len(sealed)
                for index, (header, sealed) in enumerate(slots)
            )
            if whole == 0:
                raise StorageError.from_os_error(error, "write staged bytes") from error
            return whole
        return len(slots)

    def read_slot(self, slot: int, length: int) -> bytes:
        """The first bytes of a slot; fewer when the file ends before."""
        return read_slot(self._descriptor(), slot, length)

    def size_bytes(self) -> int:
        """The length of the file."""
        try:
            return os.fstat(self._descriptor()).st_size
        except OSError as error:
            raise StorageError.from_os_error(error, "examine a staged file") from error

    def shorten(self, slots: int) -> None:
        """Gives the room behind so many slots back to the file system."""
        try:
            os.ftruncate(self._descriptor(), slots * SLOT_STRIDE)
        except OSError as error:
            raise StorageError.from_os_error(error, "shorten a staged file") from error

    def duplicate(self) -> int:
        """A descriptor of the caller's own, which outlives this object and the file's name."""
        try:
            return os.dup(self._descriptor())
        except OSError as error:
            raise StorageError.from_os_error(error, "open a staged file again") from error

    def remove(self) -> None:
        """Removes the file; duplicated descriptors still read it."""
        self.directory.close_file(self.name)
        if not self.exists:
            return
        try:
            self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError.from_os_error(error, "remove a staged file") from error
        self.exists = False

    def _descriptor(self) -> int:
        descriptor = self.directory.descriptor(self.name, create=not self.exists)
        self.exists = True
        return descriptor


def read_slot(descriptor: int, slot: int, length: int) -> bytes:
    """The first bytes of a slot, from any thread; fewer when the file ends before.

    Raises:
        StorageError: the disk could not read them.
    """
    try:
        return os.pread(descriptor, length, slot * SLOT_STRIDE)
    except OSError as error:
        raise StorageError.from_os_error(error, "read staged bytes") from error


def sync_data(descriptor: int) -> None:
    """Blocks until the bytes of the file are on the disk.

    Raises:
        StorageError: the disk refused; which bytes it has is unknown.
    """
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise StorageError.from_os_error(error, "sync staged bytes") from error


def start_write_out(descriptor: int) -> None:
    """Has the kernel begin to write the file's pages to the disk, and waits for none of them.

    With this flag alone no error of an earlier write is taken notice of: `sync_data` still reports
    it (sync_file_range(2)). Elsewhere than on Linux nothing happens.
    """
    if _SYNC_FILE_RANGE is not None:
        whole = ctypes.c_int64(0)
        _SYNC_FILE_RANGE(descriptor, whole, whole, _SYNC_FILE_RANGE_WRITE)


def _rest(buffers: Sequence[bytes | memoryview], done: int) -> Sequence[bytes | memoryview]:
    if done == 0:
        return buffers
    return [memoryview(b"".join(buffers))[done:]]
