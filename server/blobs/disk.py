"""Blocks as files: ``blocks/ab/<hex id>``, written beside in ``incoming/`` and renamed when whole.

Owns the durability of a block: its bytes are synced before it has its name, and the name is synced
before anyone hears that it is stored. A piece of `PIECE_BYTES` is all that is held of a block in
memory. Hashing, writing and syncing happen on worker threads; they release the GIL.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from protocol.crypto.block_header import (
    FIXED_HEADER_BYTES,
    MAX_BLOCK_FRAME_BYTES,
    BlockHeader,
    header_length,
    parse_header,
)
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId
from server.errors import (
    BlockError,
    BlockNotFoundError,
    SettingsError,
    StorageFullError,
    StoreUnavailableError,
)

Result = TypeVar("Result")

PIECE_BYTES: Final = 512 * 1024
"""What is hashed, written or read in one go: a hop to a thread costs as much as hashing 150 KiB."""

THREADS: Final = 16
"""Operations on the disk at once: enough for the file system to join their syncs."""

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class DiskBlockStore:
    """`BlockStore` in a directory.

    Args:
        directory: made if absent. Only one server uses it: what a former one left unfinished is
            removed.
        reserve_bytes: free space that is left to the database; blocks are refused below it.

    Raises:
        SettingsError: the directory can not be made or written.
    """

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._blocks = directory / "blocks"
        self._incoming = directory / "incoming"
        self._reserve_bytes = reserve_bytes
        self._threads = anyio.CapacityLimiter(THREADS)
        try:
            shutil.rmtree(self._incoming, ignore_errors=True)
            for made in (self._blocks, self._incoming):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(directory)
        except OSError as error:
            raise SettingsError(
                f"the block directory {directory} can not be used: {error.strerror}"
            ) from error

    @asynccontextmanager
    async def receive(self, block: BlockId) -> AsyncIterator["_IncomingFile"]:
        """As the port."""
        incoming = _IncomingFile(
            block, self._incoming / secrets.token_hex(8), self._path(block), self
        )
        try:
            yield incoming
        finally:
            incoming.discard()

    @asynccontextmanager
    async def open(self, block: BlockId) -> AsyncIterator["_OpenFile"]:
        """As the port."""
        opened = await self.run(lambda: _OpenFile(self._path(block), self))
        try:
            yield opened
        finally:
            opened.close()

    async def remove(self, block: BlockId) -> None:
        """As the port."""

        def remove() -> None:
            with _disk_errors():
                self._path(block).unlink(missing_ok=True)

        await self.run(remove)

    async def stored(self) -> AsyncIterator[BlockId]:
        """As the port."""
        for folder in await self.run(lambda: sorted(self._blocks.iterdir())):
            for name in await self.run(lambda folder=folder: os.listdir(folder)):  # type: ignore[misc]
                with suppress(RemoteProtocolError):
                    yield BlockId.parse(name)

    async def is_ready(self) -> bool:
        """As the port."""

        def probe() -> bool:
            probed = self._incoming / f"ready-{secrets.token_hex(8)}"
            try:
                self.check_space(MAX_BLOCK_FRAME_BYTES)
                probed.touch()
                probed.unlink()
            except (OSError, StorageFullError):
                return False
            return True

        return await self.run(probe)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run a function on a worker thread of this store.

        It runs to its end also when the caller is cancelled; the caller waits for that.
        """
        return await anyio.to_thread.run_sync(function, limiter=self._threads)

    def check_space(self, size_bytes: int) -> None:
        """Raise `StorageFullError` when a file of that size would use up the reserve."""
        free = os.statvfs(self._incoming)
        if free.f_bavail * free.f_frsize < size_bytes + self._reserve_bytes:
            raise StorageFullError("the block store has no space left")

    def _path(self, block: BlockId) -> Path:
        name = str(block)
        return self._blocks / name[:2] / name


class _IncomingFile:
    """`IncomingBlock` as a file without its name.

    Concurrency: belongs to the task that receives the block.
    """

    def __init__(self, block: BlockId, temporary: Path, final: Path, store: DiskBlockStore) -> None:
        self._block = block
        self._temporary = temporary
        self._final = final
        self._store = store
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._received = 0
        self._header: BlockHeader | None = None
        self._descriptor = -1

    async def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._received += len(data)
        if self._header is None:
            self._header = self._parse_header()
        if self._header is not None and self._received > self._header.frame_length:
            length = self._header.frame_length
            raise BlockError(f"the block is longer than the {length} bytes of its header")
        if self._pending_bytes >= PIECE_BYTES:
            await self._store.run(self._drain)

    def header(self) -> BlockHeader:
        if self._header is None or self._received != self._header.frame_length:
            raise BlockError(f"the block ends early, after {self._received} bytes")
        return self._header

    async def keep(self) -> int:
        self.header()
        await self._store.run(self._publish)
        return self._received

    def discard(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(FileNotFoundError):
                self._temporary.unlink()

    def _parse_header(self) -> BlockHeader | None:
        """The header, once all of it is here; it always fits the first piece."""
        prefix = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        try:
            if len(prefix) < FIXED_HEADER_BYTES or len(prefix) < header_length(prefix):
                return None
            return parse_header(prefix)
        except RemoteProtocolError as error:
            raise BlockError(str(error)) from error

    def _drain(self) -> None:
        with _disk_errors():
            if self._descriptor < 0:
                # The header fits the first piece, so the size is known by now.
                self._store.check_space(self._header.frame_length if self._header else 0)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._temporary, flags, 0o600)
            for part in self._pending:
                self._digest.update(part)
                view = memoryview(part)
                while view:
                    view = view[os.write(self._descriptor, view) :]
        self._pending = []
        self._pending_bytes = 0

    def _publish(self) -> None:
        self._drain()
        if self._digest.digest() != self._block:
            raise BlockError("the bytes are not those of the block's id")
        with _disk_errors():
            os.fdatasync(self._descriptor)
            try:
                self._temporary.rename(self._final)
            except FileNotFoundError:
                self._final.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_directory(self._final.parent.parent)
                self._temporary.rename(self._final)
            _sync_directory(self._final.parent)
            os.close(self._descriptor)
            self._descriptor = -1


class _OpenFile:
    """`StoredBlock` as an open file. Built on a worker thread."""

    def __init__(self, path: Path, store: DiskBlockStore) -> None:
        self._store = store
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlockNotFoundError("the block is not here") from error
        self.size_bytes = os.fstat(self._descriptor).st_size

    async def read(self, offset: int, size: int) -> bytes:
        def read() -> bytes:
            with _disk_errors():
                return os.pread(self._descriptor, size, offset)

        return await self._store.run(read)

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError("the block store has no space left") from error
        raise StoreUnavailableError(f"the block store fails: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
