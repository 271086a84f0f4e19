"""Tells the kernel what it must forget, through a process of its own.

Owns the encoding of invalidations as FUSE notifications, and the life of the process that hands them
to the kernel (`fusefs.notifier_process` says why it is one). Refuses to know why something is stale.
Built and ended by `fusefs.mount`.

Dirty pages (of a writable mapping) are written back to the drive by the kernel before they are
dropped, never lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterable
from pathlib import Path

import structlog
import trio

from node.drive import Invalidation, StaleEntry, StaleInode

_log = structlog.get_logger(__name__)

MAX_UNANSWERED = 128
"""Messages that the process has and the kernel has not answered. Beyond, the drive's channel fills:
a kernel that waits cannot make memory grow."""

_PROGRAM = Path(__file__).with_name("notifier_process.py")
_RESTART_PAUSE_S = 1.0

# struct fuse_out_header, fuse_notify_inval_inode_out, fuse_notify_inval_entry_out and their codes
# (include/uapi/linux/fuse.h). A notification is a reply to nothing, with the code for an error.
_HEADER = struct.Struct("=IiQ")
_INODE = struct.Struct("=Qqq")
_ENTRY = struct.Struct("=QII")
_ANSWER = struct.Struct("=i")
_INVALIDATE_INODE = 2
_INVALIDATE_ENTRY = 3
_ATTRIBUTES_ONLY = -1
_WHOLE_FILE = 0

_CLONE_DEVICE = 0x8004E500
"""FUSE_DEV_IOC_CLONE: _IOR(229, 0, uint32_t)."""

# The kernel does not know the inode or name: there was nothing to forget.
_NOTHING_CACHED = frozenset({0, errno.ENOENT, errno.ENOTDIR})


def encode(invalidation: Invalidation) -> bytes:
    """One notification, ready to be written to a FUSE device in one piece."""
    match invalidation:
        case StaleInode(inode, data):
            body = _INODE.pack(inode, _WHOLE_FILE if data else _ATTRIBUTES_ONLY, 0)
            return _HEADER.pack(_HEADER.size + len(body), _INVALIDATE_INODE, 0) + body
        case StaleEntry(parent, name):
            body = _ENTRY.pack(parent, len(name), 0) + name + b"\0"
            return _HEADER.pack(_HEADER.size + len(body), _INVALIDATE_ENTRY, 0) + body


def clone_device(device: int) -> int:
    """A second descriptor for the mount behind `device`, with its own queue of requests taken.

    Raises:
        OSError: the device is no FUSE mount, or cannot be opened.
    """
    clone = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(clone, _CLONE_DEVICE, struct.pack("=I", device))
    except OSError:
        os.close(clone)
        raise
    return clone


class Invalidator:
    """Passes invalidations to the kernel, in order, and starts the process again if it dies.

    Concurrency: owned by the mount's tasks.
    """

    def __init__(self, device: int) -> None:
        """Takes over `device`, a descriptor of its own on the mount."""
        self._device = device
        self._process: trio.Process | None = None
        self._channel: trio.socket.SocketType | None = None
        self._unanswered: deque[bytes] = deque()
        self._room = trio.Semaphore(MAX_UNANSWERED, max_value=MAX_UNANSWERED)
        # Held while messages go out, so that those sent again after a restart stay in order.
        self._sending = trio.Lock()

    async def start(self) -> None:
        """Starts the process; `run` then passes invalidations on.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self._process = await trio.lowlevel.open_process(
                # Isolated and without site: the standard library is all it uses.
                [sys.executable, "-I", "-S", os.fspath(_PROGRAM), str(self._device)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                pass_fds=(self._device,),
                start_new_session=True,
            )
            self._channel = trio.socket.from_stdlib_socket(ours.dup())

    async def run(self, invalidations: AsyncIterable[Invalidation]) -> None:
        """Passes everything on until the drive's channel ends.

        Cancellation loses what was not yet passed on, which is what a mount that ends wants.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_answers)
            async for invalidation in invalidations:
                await self._room.acquire()
                async with self._sending:
                    self._unanswered.append(encode(invalidation))
                    await self._send(self._unanswered[-1])

    async def close(self, deadline_s: float) -> bool:
        """Ends the process, which ends the mount if nothing else holds it.

        Returns:
            False when it is still inside the kernel after `deadline_s`.
        """
        if self._channel is not None:
            self._channel.close()
        os.close(self._device)
        if self._process is None:
            return True
        with trio.move_on_after(deadline_s):
            await self._process.wait()
        return self._process.returncode is not None

    async def _send(self, message: bytes) -> None:
        assert self._channel is not None
        try:
            await self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            # `_take_answers` sees the same, and sends everything unanswered to the next process.
            pass

    async def _take_answers(self) -> None:
        while True:
            answer = await self._answer()
            if not answer:
                await self._restart()
                continue
            (number,) = _ANSWER.unpack(answer)
            self._unanswered.popleft()
            self._room.release()
            if number not in _NOTHING_CACHED:
                _log.warning("kernel refused an invalidation", errno=number)

    async def _answer(self) -> bytes:
        assert self._channel is not None
        try:
            return await self._channel.recv(_ANSWER.size)
        except ConnectionResetError:
            return b""

    async def _restart(self) -> None:
        assert self._channel is not None
        async with self._sending:
            self._channel.close()
            while True:
                _log.error("the process that invalidates died, another one is started")
                await trio.sleep(_RESTART_PAUSE_S)
                try:
                    await self.start()
                    break
                except OSError as error:
                    _log.error("no process can be started", errno=error.errno)
            for message in self._unanswered:
                await self._send(message)
