"""Tells the kernel what it must forget, on a thread of its own.

Owns the queue between the drive's invalidations and the kernel, and the thread that empties it.
Refuses to know why something is stale. Built and ended by `fusefs.mount`.

Why a thread: invalidating an entry waits for the folder's lock, which the kernel holds while a
program's request on that folder waits for our answer; invalidating data waits for pages that a
program's read, which we have yet to answer, has locked. The event loop must go on meanwhile, and the
thread holds nothing that a handler could want: the two share one short-lived lock around a dict.
Dirty pages (of a writable mapping) are written back to the drive by the kernel before they are
dropped, never lost.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import AsyncIterable, Callable

import pyfuse3
import structlog
import trio

from node.drive import Invalidation, StaleEntry, StaleInode

_log = structlog.get_logger(__name__)

MAX_PENDING = 4096
"""Invalidations that wait for the kernel. Beyond, the drive's channel fills: a folder of 10,000
changed entries passes through, but a kernel that does not answer cannot make memory grow."""

# The kernel does not know the inode or name: there was nothing to forget.
_NOTHING_CACHED = frozenset({errno.ENOENT, errno.ENOTDIR})
# The mount is gone, or going.
_MOUNT_ENDED = frozenset({errno.ENODEV, errno.ENOTCONN, errno.EBADF, errno.EINVAL, errno.EPERM})


def forget_in_kernel(invalidation: Invalidation) -> None:
    """Carries out one invalidation; may block for as long as the kernel's locks are held.

    Raises:
        OSError: the kernel refused; ENOENT when it knew nothing of it.
    """
    match invalidation:
        case StaleInode(inode, data):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=not data)
        case StaleEntry(parent, name):
            pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), name)


class Invalidator:
    """A bounded, coalescing queue and the thread behind it.

    An invalidation that still waits covers an equal one that comes later: it reaches the kernel
    after both changes.

    Concurrency: `run` and `stop` belong to the event loop's thread; `_work` is the other thread.
    `_pending` and `_stopping` are guarded by `_changed`.
    """

    def __init__(
        self,
        forget: Callable[[Invalidation], None] = forget_in_kernel,
        *,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._forget = forget
        self._pending: dict[Invalidation, None] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._room = trio.Semaphore(max_pending, max_value=max_pending)
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self, invalidations: AsyncIterable[Invalidation]) -> None:
        """Passes everything on until the drive's channel ends.

        Cancellation loses what was not yet passed on, which is what a mount that ends wants.
        """
        self._start()
        async for invalidation in invalidations:
            await self._room.acquire()
            with self._changed:
                is_new = invalidation not in self._pending
                self._pending[invalidation] = None
                self._changed.notify()
            if not is_new:
                self._room.release()

    async def stop(self) -> None:
        """Drops what still waits and returns when the thread has ended.

        It may be inside the kernel for as long as a program's request is not answered. Cancellation
        leaves it ending; `stop` can be called again.
        """
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)

    def _start(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        # A daemon, so that a kernel that never answers cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name="fuse-invalidator", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (invalidation := self._next()) is not None:
            try:
                self._forget(invalidation)
            except OSError as error:
                if error.errno in _MOUNT_ENDED:
                    _log.debug("invalidation after the mount ended", errno=error.errno)
                elif error.errno not in _NOTHING_CACHED:
                    _log.warning(
                        "kernel refused an invalidation",
                        what=type(invalidation).__name__,
                        errno=error.errno,
                    )
            except Exception as error:  # noqa: BLE001 - later invalidations must still go out
                _log.error("invalidation failed", error=type(error).__name__)

    def _next(self) -> Invalidation | None:
        """Waits for the oldest invalidation and takes it; None when the thread is to end."""
        with self._changed:
            while not self._pending and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            invalidation = next(iter(self._pending))
            del self._pending[invalidation]
        self._give_room()
        return invalidation

    def _give_room(self) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(self._room.release)
        except trio.RunFinishedError:
            pass
