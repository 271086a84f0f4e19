"""Every FUSE request, translated into at most one call of the drive.

Owns the handlers that pyfuse3 calls, the kernel's lookup counts (each entry handed out is
remembered) and the rule that no exception leaves a handler but as an errno. Refuses to know what a
file system means: special folders, extended attributes with a meaning, names and limits are the
drive's. Built by `fusefs.mount`.

Metadata handlers run without a checkpoint, so a request and its reply cost no extra turn of the
event loop and two requests never interleave inside one.
"""

# The handlers are documented, and their arguments given, by pyfuse3.Operations.
# ruff: noqa: D102, ARG002

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from fusefs.attributes import (
    PERMISSION_BITS,
    AttributeTranslator,
    changes_of,
    fill,
    kind_of_mode,
    statistics_reply,
)
from fusefs.errno_map import log_unexpected, reply_error
from fusefs.handles import OpenHandles
from fusefs.port import DrivePort
from node.drive import Attributes
from node.errors import DriveError
from protocol.values import Kind

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")
_Handler = Callable[Concatenate["DriveOperations", int, _Arguments], Coroutine[Any, Any, _Answer]]

_USER_XATTRS = b"user."

_DOT_COOKIES = 2
"""Positions of `.` and `..`, before all of the drive's cookies."""


def _answered(
    handler: Callable[Concatenate[DriveOperations, int, _Arguments], Awaitable[_Answer]],
) -> _Handler[_Arguments, _Answer]:
    """Lets nothing but a FUSEError (and cancellation) out of a handler.

    The first argument of every handler is an inode, or the handle that stands for one.
    """
    operation = handler.__name__

    @functools.wraps(handler)
    async def answer(
        self: DriveOperations, subject: int, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        try:
            return await handler(self, subject, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except trio.Cancelled:
            # The mount is being cut. Without an answer the program would keep its page or folder
            # locked; the cancellation strikes again as soon as pyfuse3 waits for the next request.
            raise pyfuse3.FUSEError(errno.ENOTCONN) from None
        except Exception as error:  # noqa: BLE001 - one failed request must not end the mount
            raise reply_error(error, operation, subject=subject) from None

    return answer


class DriveOperations(pyfuse3.Operations):
    """The handlers of one mount.

    Concurrency: pyfuse3 runs handlers as tasks of one event loop; only those that await a call of
    the drive may overlap.
    """

    # Neither is needed: the kernel resolves `.` and `..` itself, and with the write-back cache the
    # kernel's sizes and times would win over a change from another device.
    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self, drive: DrivePort, translator: AttributeTranslator, handles: OpenHandles
    ) -> None:
        super().__init__()
        self._drive = drive
        self._translator = translator
        self._handles = handles

    def _hand_out(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """The reply that gives the kernel one more reference to an inode."""
        entry = self._translator.entry(attributes)
        self._drive.remember(attributes.inode)
        return entry

    @_answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            attributes = self._drive.lookup(parent_inode, name)
        except DriveError as error:
            if error.errno == errno.ENOENT and self._translator.remembers_absence:
                return self._translator.absent
            raise
        return self._hand_out(attributes)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookups in inode_list:
            try:
                self._drive.forget(inode, lookups)
            except Exception as error:  # noqa: BLE001 - nobody waits for an answer to this
                log_unexpected(error, "forget", subject=inode)

    @_answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._translator.entry(self._drive.attributes(inode))

    @_answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        changes = changes_of(attr, fields)
        if changes is None:
            return self._translator.entry(self._drive.attributes(inode))
        return self._translator.entry(await self._drive.set_attributes(inode, changes))

    @_answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._drive.read_symlink(inode)

    @_answered
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        kind = kind_of_mode(mode)
        if kind is None or kind in (Kind.DIRECTORY, Kind.SYMLINK):
            raise pyfuse3.FUSEError(errno.EINVAL)
        return self._hand_out(
            self._drive.make_node(
                parent_inode, name, kind, mode & PERMISSION_BITS, rdev, ctx.uid, ctx.gid
            )
        )

    @_answered
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._hand_out(
            self._drive.make_folder(parent_inode, name, mode & PERMISSION_BITS, ctx.uid, ctx.gid)
        )

    @_answered
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._hand_out(
            self._drive.make_symlink(parent_inode, name, target, ctx.uid, ctx.gid)
        )

    @_answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._hand_out(self._drive.make_link(inode, new_parent_inode, new_name))

    @_answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._drive.unlink(parent_inode, name)

    @_answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._drive.remove_folder(parent_inode, name)

    @_answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        exclusive = flags == pyfuse3.RENAME_NOREPLACE
        exchange = flags == pyfuse3.RENAME_EXCHANGE
        if flags and not exclusive and not exchange:
            raise pyfuse3.FUSEError(errno.EINVAL)
        self._drive.rename(
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            exclusive=exclusive,
            exchange=exchange,
        )

    @_answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        try:
            handle, attributes = self._drive.create_file(
                parent_inode, name, mode & PERMISSION_BITS, ctx.uid, ctx.gid
            )
        except DriveError as error:
            if error.errno == errno.EEXIST and not flags & os.O_EXCL:
                # The kernel believed the name to be free; after ESTALE it looks again and opens
                # what is there (do_filp_open retries with LOOKUP_REVAL).
                raise pyfuse3.FUSEError(errno.ESTALE) from None
            raise
        self._handles.add_file(handle, attributes.inode, is_writable=True)
        return _file_info(handle), self._hand_out(attributes)

    @_answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        truncate = bool(flags & os.O_TRUNC)
        writable = truncate or flags & os.O_ACCMODE != os.O_RDONLY
        handle = await self._drive.open_file(inode, writable=writable, truncate=truncate)
        self._handles.add_file(handle, inode, is_writable=writable)
        return _file_info(handle)

    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._drive.read(fh, off, size)

    @_answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._drive.write(fh, off, buf)

    @_answered
    async def flush(self, fh: int) -> None:
        if self._handles.is_writable(fh):
            await self._drive.flush(fh)

    @_answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._drive.fsync(fh)

    @_answered
    async def release(self, fh: int) -> None:
        self._handles.remove_file(fh)
        await self._drive.release(fh)

    @_answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        handle = self._drive.open_folder(inode)
        self._handles.add_folder(handle, inode)
        return handle

    @_answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        # One entry object serves the whole reply: readdir_reply copies it.
        entry = self._translator.blank_entry()
        if start_id < _DOT_COOKIES and not self._reply_dots(fh, start_id, token, entry):
            return
        remember = self._drive.remember
        reply = pyfuse3.readdir_reply
        for listed in self._drive.read_folder(fh, max(0, start_id - _DOT_COOKIES)):
            fill(entry, listed.attributes)
            if not reply(token, listed.name, entry, listed.cookie + _DOT_COOKIES):
                return
            remember(listed.attributes.inode)

    def _reply_dots(
        self,
        handle: int,
        start_id: int,
        token: pyfuse3.ReaddirToken,
        entry: pyfuse3.EntryAttributes,
    ) -> bool:
        """Lists `.` and `..`; the kernel takes no reference to them, so nothing is remembered."""
        inode = self._handles.folder_inode(handle)
        if inode is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(0o040000)
        names = (b".", b"..")
        return all(
            pyfuse3.readdir_reply(token, names[position], entry, position + 1)
            for position in range(start_id, _DOT_COOKIES)
        )

    @_answered
    async def releasedir(self, fh: int) -> None:
        self._handles.remove_folder(fh)
        self._drive.release_folder(fh)

    @_answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        inode = self._handles.folder_inode(fh)
        if inode is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        await self._drive.fsync_folder(inode)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        try:
            return statistics_reply(self._drive.statistics())
        except Exception as error:  # noqa: BLE001 - one failed request must not end the mount
            raise reply_error(error, "statfs") from None

    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        _require_user_xattr(name)
        return self._drive.get_xattr(inode, name)

    @_answered
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        _require_user_xattr(name)
        # pyfuse3 has already held XATTR_CREATE and XATTR_REPLACE against getxattr, in this same
        # step of the event loop.
        self._drive.set_xattr(inode, name, value, create=False, replace=False)

    @_answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return self._drive.list_xattrs(inode)

    @_answered
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        _require_user_xattr(name)
        self._drive.remove_xattr(inode, name)


def _file_info(handle: int) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), keep_cache=True)


def _require_user_xattr(name: bytes) -> None:
    """Refuses every other namespace before the drive is asked.

    The kernel asks for security.capability before every write, and `ls` for security.selinux and
    system.posix_acl_access of every file until it hears EOPNOTSUPP once.
    """
    if not name.startswith(_USER_XATTRS):
        raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
