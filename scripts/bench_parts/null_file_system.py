"""A file system in memory on pyfuse3: what the binding allows when the file system itself costs nothing.

Run as a program with a mountpoint; ends when it is unmounted. Owns only what the bench asks of it:
files up to `KEPT_BYTES` hold their bytes, longer ones give a constant. Caching is asked of the
kernel as Atoll asks for it.
"""

# The handlers are documented, and their arguments given, by pyfuse3.Operations.
# ruff: noqa: ARG002

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from fusefs.attributes import CacheTimeouts
from fusefs.kernel_tuning import tune
from fusefs.mount import MountSettings
from fusefs.mountpoint import mount_at
from node.memory import reuse_large_buffers

KEPT_BYTES = 32 * 1024 * 1024
"""Up to this size a file is what was written to it: SQLite, git and pip work."""

_CONSTANT = bytes(1 << 20)
_PREFERRED_IO_BYTES = 128 * 1024


@dataclass(slots=True)
class _Node:
    inode: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    links: int = 1
    data: bytearray | None = field(default_factory=bytearray)
    target: bytes = b""
    entries: dict[bytes, int] = field(default_factory=dict)


class NullOperations(pyfuse3.Operations):
    """The handlers; none waits."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        self._timeouts = CacheTimeouts()
        self._nodes: dict[int, _Node] = {}
        self._listed: dict[int, list[tuple[bytes, int]]] = {}
        self._next = pyfuse3.ROOT_INODE
        self._add(stat.S_IFDIR | 0o755, os.getuid(), os.getgid())

    def _add(self, mode: int, uid: int, gid: int) -> _Node:
        node = _Node(self._next, mode, uid, gid, time.time_ns())
        self._nodes[self._next] = node
        self._next += 1
        return node

    def _entry(self, node: _Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.entry_timeout = self._timeouts.entry_s
        entry.attr_timeout = self._timeouts.attributes_s
        entry.st_blksize = _PREFERRED_IO_BYTES
        entry.st_ino = pyfuse3.InodeT(node.inode)
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_nlink = node.links
        entry.st_uid, entry.st_gid = node.uid, node.gid
        entry.st_size, entry.st_blocks = node.size, -(-node.size // 512)
        entry.st_mtime_ns = entry.st_atime_ns = entry.st_ctime_ns = node.mtime_ns
        return entry

    def _make(
        self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._made(parent, name, mode, ctx))

    def _made(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> _Node:
        folder = self._nodes[parent]
        if name in folder.entries:
            raise pyfuse3.FUSEError(errno.EEXIST)
        node = self._add(mode, ctx.uid, ctx.gid)
        folder.entries[name] = node.inode
        return node

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._nodes[parent_inode].entries.get(name)
        if inode is None:
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = pyfuse3.InodeT(0)
            absent.entry_timeout = self._timeouts.absent_s
            return absent
        return self._entry(self._nodes[inode])

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        return

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._entry(self._nodes[inode])

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            node.uid = attr.st_uid
        if fields.update_gid:
            node.gid = attr.st_gid
        if fields.update_mtime:
            node.mtime_ns = attr.st_mtime_ns
        if fields.update_size:
            self._resize(node, attr.st_size)
        return self._entry(node)

    @staticmethod
    def _resize(node: _Node, size: int) -> None:
        if size > KEPT_BYTES:
            node.data = None
        elif node.data is not None:
            del node.data[size:]
            node.data.extend(bytes(size - len(node.data)))
        elif size == 0:
            node.data = bytearray()
        node.size = size

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._nodes[inode].target

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._make(parent_inode, name, mode, ctx)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._make(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode), ctx)

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = self._made(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.target, node.size = target, len(target)
        return self._entry(node)

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        self._nodes[new_parent_inode].entries[new_name] = inode
        node.links += 1
        return self._entry(node)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        inode = self._nodes[parent_inode].entries.pop(name, None)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        self._nodes[inode].links -= 1

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        entries = self._nodes[parent_inode].entries
        if self._nodes[entries[name]].entries:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del entries[name]

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        inode = self._nodes[parent_inode_old].entries.pop(name_old)
        self._nodes[parent_inode_new].entries[name_new] = inode

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node = self._made(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)
        return _file_info(node.inode), self._entry(node)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & os.O_TRUNC:
            self._resize(self._nodes[inode], 0)
        return _file_info(inode)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        node = self._nodes[fh]
        if node.data is not None:
            return bytes(memoryview(node.data)[off : off + size])
        return _CONSTANT[: max(0, min(size, node.size - off))]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self._nodes[fh]
        end = off + len(buf)
        if end > node.size:
            if end > KEPT_BYTES:
                node.data = None
            elif node.data is not None:
                node.data.extend(bytes(off - node.size))
            node.size = end
        if node.data is not None:
            node.data[off:end] = buf
        node.mtime_ns = time.time_ns()
        return len(buf)

    async def flush(self, fh: int) -> None:
        return

    async def fsync(self, fh: int, datasync: bool) -> None:
        return

    async def release(self, fh: int) -> None:
        return

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id == 0:
            self._listed[fh] = list(self._nodes[fh].entries.items())
        listed = self._listed[fh]
        for position in range(start_id, len(listed)):
            name, inode = listed[position]
            entry = self._entry(self._nodes[inode])
            if not pyfuse3.readdir_reply(token, name, entry, position + 1):
                return

    async def releasedir(self, fh: int) -> None:
        return

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        return

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        reply = pyfuse3.StatvfsData()
        reply.f_bsize = reply.f_frsize = 4096
        reply.f_blocks = reply.f_bfree = reply.f_bavail = 1 << 30
        reply.f_files = reply.f_ffree = reply.f_favail = 1 << 30
        reply.f_namemax = 255
        return reply

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        raise pyfuse3.FUSEError(errno.EOPNOTSUPP)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return []


def _file_info(inode: int) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)


async def _serve(mountpoint: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        # In a process of its own: whoever asks the mount waits for this loop.
        await trio.run_process(["stat", "--file-system", mountpoint], stdout=None)
        mounted = mount_at(mountpoint)
        if mounted is not None:
            tune(mounted.device, MountSettings().read_ahead_bytes)
        print("mounted", flush=True)


def main() -> None:
    mountpoint = Path(sys.argv[1])
    reuse_large_buffers()
    pyfuse3.init(NullOperations(), os.fspath(mountpoint), {"fsname=null", "default_permissions"})
    try:
        trio.run(_serve, mountpoint)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
