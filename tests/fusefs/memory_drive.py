"""A drive that lives in memory: everything a program can do to it holds, nothing leaves the process.

A test fake for the mount. It keeps the same rules as the drive where a program can tell: link
counts, times, limits of names, open files that outlive their name, cookies that survive a change of
the folder. What another device would do is done with the `remote_` methods, which also announce it.
"""

from __future__ import annotations

import errno
import itertools
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from node.drive import (
    AttributeChanges,
    Attributes,
    FolderEntry,
    Invalidation,
    StaleEntry,
    StaleInode,
    Statistics,
)
from node.errors import DriveError
from protocol.values import Kind

ROOT_INODE = 1
NAME_MAX = 255
SYMLINK_MAX = 4095
SET_GROUP = 0o2000


@dataclass
class _Node:
    inode: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    rdev: int = 0
    nlink: int = 1
    parent: int = 0
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    names: dict[bytes, int] = field(default_factory=dict)
    cookies: dict[bytes, int] = field(default_factory=dict)
    next_cookie: int = 1
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    mtime_ns: int = 0
    ctime_ns: int = 0
    lookups: int = 0
    opens: int = 0

    def attributes(self) -> Attributes:
        size = len(self.data)
        if self.kind is Kind.SYMLINK:
            size = len(self.target)
        return Attributes(
            inode=self.inode,
            kind=self.kind,
            mode=self.mode,
            nlink=self.nlink,
            uid=self.uid,
            gid=self.gid,
            rdev=self.rdev,
            size=size,
            mtime_ns=self.mtime_ns,
            ctime_ns=self.ctime_ns,
            blocks_512=(size + 511) // 512,
        )


class MemoryDrive:
    """See the module."""

    def __init__(self, *, uid: int = 0, gid: int = 0, invalidations: int = 65536) -> None:
        self._nodes: dict[int, _Node] = {}
        self._inodes = itertools.count(ROOT_INODE)
        self._handles: dict[int, int] = {}
        self._next_handle = itertools.count(1)
        self.synced_folders: list[int] = []
        self.flushes = 0
        self._announce, self.invalidations = trio.open_memory_channel[Invalidation](invalidations)
        root = self._new(Kind.DIRECTORY, 0o755, uid, gid)
        root.nlink = 2
        root.parent = root.inode

    # What a program asks for

    def lookup(self, parent: int, name: bytes) -> Attributes:
        return self._child(parent, name).attributes()

    def attributes(self, inode: int) -> Attributes:
        return self._node(inode).attributes()

    async def set_attributes(self, inode: int, changes: AttributeChanges) -> Attributes:
        node = self._node(inode)
        if changes.size is not None:
            self._resize(node, changes.size)
        if changes.mode is not None:
            node.mode = changes.mode
        if changes.uid is not None:
            node.uid = changes.uid
        if changes.gid is not None:
            node.gid = changes.gid
        if changes.mtime_ns is not None:
            node.mtime_ns = changes.mtime_ns
        node.ctime_ns = time.time_ns()
        return node.attributes()

    def open_folder(self, inode: int) -> int:
        self._folder(inode)
        return self._open(inode)

    def read_folder(self, handle: int, after_cookie: int) -> Iterator[FolderEntry]:
        folder = self._node(self._handles[handle])
        # The names come in the order of their cookies: each is given the next one when it is added.
        names = list(folder.cookies)
        start = bisect_right(names, after_cookie, key=folder.cookies.__getitem__)
        for name in names[start:]:
            child = self._nodes[folder.names[name]]
            yield FolderEntry(name, folder.cookies[name], child.attributes())

    def release_folder(self, handle: int) -> None:
        self._close(handle)

    def make_folder(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        folder = self._free_name(parent, name)
        node = self._new(Kind.DIRECTORY, mode | (folder.mode & SET_GROUP), uid, gid)
        node.nlink = 2
        node.parent = parent
        folder.nlink += 1
        return self._add(folder, name, node)

    def make_node(
        self, parent: int, name: bytes, kind: Kind, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        folder = self._free_name(parent, name)
        node = self._new(kind, mode, uid, gid)
        node.rdev = rdev
        return self._add(folder, name, node)

    def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> Attributes:
        if len(target) > SYMLINK_MAX:
            raise DriveError(errno.ENAMETOOLONG)
        folder = self._free_name(parent, name)
        node = self._new(Kind.SYMLINK, 0o777, uid, gid)
        node.target = target
        return self._add(folder, name, node)

    def read_symlink(self, inode: int) -> bytes:
        node = self._node(inode)
        if node.kind is not Kind.SYMLINK:
            raise DriveError(errno.EINVAL)
        return node.target

    def make_link(self, inode: int, new_parent: int, new_name: bytes) -> Attributes:
        node = self._node(inode)
        if node.kind is Kind.DIRECTORY:
            raise DriveError(errno.EPERM)
        folder = self._free_name(new_parent, new_name)
        node.nlink += 1
        self._place(folder, new_name, node)
        return node.attributes()

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        *,
        exclusive: bool,
        exchange: bool,
    ) -> None:
        _check_name(new_name)
        source, target = self._folder(parent), self._folder(new_parent)
        node = self._child(parent, name)
        other_inode = target.names.get(new_name)
        other = None if other_inode is None else self._nodes[other_inode]
        if exchange:
            if other is None:
                raise DriveError(errno.ENOENT)
            self._refuse_loop(node, target)
            self._refuse_loop(other, source)
            self._remove_name(source, name)
            self._remove_name(target, new_name)
            self._move(other, target, source)
            self._place(source, name, other)
        else:
            if other is node:
                return
            if other is not None:
                if exclusive:
                    raise DriveError(errno.EEXIST)
                self._refuse_replacement(node, other)
            self._refuse_loop(node, target)
            self._remove_name(source, name)
            if other is not None:
                self._remove_name(target, new_name)
                self._unlinked(other, target)
        self._move(node, source, target)
        self._place(target, new_name, node)

    def unlink(self, parent: int, name: bytes) -> None:
        node = self._child(parent, name)
        if node.kind is Kind.DIRECTORY:
            raise DriveError(errno.EISDIR)
        folder = self._folder(parent)
        self._remove_name(folder, name)
        self._unlinked(node, folder)

    def remove_folder(self, parent: int, name: bytes) -> None:
        node = self._child(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise DriveError(errno.ENOTDIR)
        if node.names:
            raise DriveError(errno.ENOTEMPTY)
        folder = self._folder(parent)
        self._remove_name(folder, name)
        self._unlinked(node, folder)

    def create_file(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> tuple[int, Attributes]:
        folder = self._free_name(parent, name)
        attributes = self._add(folder, name, self._new(Kind.FILE, mode, uid, gid))
        return self._open(attributes.inode), attributes

    async def open_file(self, inode: int, *, writable: bool, truncate: bool) -> int:
        node = self._node(inode)
        if truncate:
            self._resize(node, 0)
        return self._open(inode)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        with memoryview(self._node(self._handles[handle]).data) as data:
            return bytes(data[offset : offset + size])

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        node = self._node(self._handles[handle])
        if offset > len(node.data):
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data
        node.mtime_ns = node.ctime_ns = time.time_ns()
        return len(data)

    async def flush(self, handle: int) -> None:
        self.flushes += 1

    async def fsync(self, handle: int) -> None:
        self._node(self._handles[handle])

    async def release(self, handle: int) -> None:
        self._close(handle)

    async def fsync_folder(self, inode: int) -> None:
        self.synced_folders.append(inode)

    def get_xattr(self, inode: int, name: bytes) -> bytes:
        try:
            return self._node(inode).xattrs[name]
        except KeyError:
            raise DriveError(errno.ENODATA) from None

    def set_xattr(
        self, inode: int, name: bytes, value: bytes, *, create: bool, replace: bool
    ) -> None:
        node = self._node(inode)
        if create and name in node.xattrs:
            raise DriveError(errno.EEXIST)
        if replace and name not in node.xattrs:
            raise DriveError(errno.ENODATA)
        node.xattrs[name] = value
        node.ctime_ns = time.time_ns()

    def list_xattrs(self, inode: int) -> list[bytes]:
        return list(self._node(inode).xattrs)

    def remove_xattr(self, inode: int, name: bytes) -> None:
        if self._node(inode).xattrs.pop(name, None) is None:
            raise DriveError(errno.ENODATA)

    def statistics(self) -> Statistics:
        used = sum(len(node.data) for node in self._nodes.values()) // 4096
        return Statistics(
            block_size=4096,
            blocks=1 << 20,
            free=(1 << 20) - used,
            files=1 << 20,
            free_files=(1 << 20) - len(self._nodes),
            name_max=NAME_MAX,
        )

    def remember(self, inode: int) -> None:
        self._nodes[inode].lookups += 1

    def forget(self, inode: int, lookups: int) -> None:
        node = self._nodes.get(inode)
        if node is None:
            return
        node.lookups -= lookups
        assert node.lookups >= 0 or inode == ROOT_INODE
        self._reap(node)

    # What another device does

    def remote_write(self, inode: int, data: bytes) -> None:
        """Replaces a file's bytes, as a pulled record does."""
        node = self._node(inode)
        node.data[:] = data
        node.mtime_ns = node.ctime_ns = time.time_ns()
        self._announce.send_nowait(StaleInode(inode, data=True))

    def remote_chmod(self, inode: int, mode: int) -> None:
        """Changes a mode."""
        self._node(inode).mode = mode
        self._announce.send_nowait(StaleInode(inode, data=False))

    def remote_create(
        self, parent: int, name: bytes, data: bytes, *, is_announced: bool = True
    ) -> None:
        """Makes a file."""
        node = self._new(Kind.FILE, 0o644, 0, 0)
        node.data[:] = data
        self._add(self._free_name(parent, name), name, node)
        if is_announced:
            self._announce.send_nowait(StaleEntry(parent, name))

    def remote_unlink(self, parent: int, name: bytes) -> None:
        """Deletes a file."""
        self.unlink(parent, name)
        self._announce.send_nowait(StaleEntry(parent, name))

    # What a test looks at

    def inode_of(self, *path: bytes) -> int:
        """The inode at a path below the root."""
        inode = ROOT_INODE
        for name in path:
            inode = self._child(inode, name).inode
        return inode

    @property
    def inodes(self) -> set[int]:
        """Every inode that is kept."""
        return set(self._nodes)

    @property
    def open_handles(self) -> int:
        """How many files and folders are open."""
        return len(self._handles)

    # The tree

    def _new(self, kind: Kind, mode: int, uid: int, gid: int) -> _Node:
        now = time.time_ns()
        node = _Node(next(self._inodes), kind, mode, uid, gid, mtime_ns=now, ctime_ns=now)
        self._nodes[node.inode] = node
        return node

    def _node(self, inode: int) -> _Node:
        try:
            return self._nodes[inode]
        except KeyError:
            raise DriveError(errno.ENOENT) from None

    def _folder(self, inode: int) -> _Node:
        node = self._node(inode)
        if node.kind is not Kind.DIRECTORY:
            raise DriveError(errno.ENOTDIR)
        return node

    def _child(self, parent: int, name: bytes) -> _Node:
        _check_name(name)
        try:
            return self._nodes[self._folder(parent).names[name]]
        except KeyError:
            raise DriveError(errno.ENOENT) from None

    def _free_name(self, parent: int, name: bytes) -> _Node:
        _check_name(name)
        folder = self._folder(parent)
        if folder.nlink == 0:
            raise DriveError(errno.ENOENT)
        if name in folder.names:
            raise DriveError(errno.EEXIST)
        return folder

    def _add(self, folder: _Node, name: bytes, node: _Node) -> Attributes:
        if folder.mode & SET_GROUP:
            node.gid = folder.gid
        self._place(folder, name, node)
        return node.attributes()

    def _place(self, folder: _Node, name: bytes, node: _Node) -> None:
        folder.names[name] = node.inode
        folder.cookies[name] = folder.next_cookie
        folder.next_cookie += 1
        self._touched(folder, node)

    def _remove_name(self, folder: _Node, name: bytes) -> None:
        node = self._nodes[folder.names.pop(name)]
        del folder.cookies[name]
        self._touched(folder, node)

    def _touched(self, folder: _Node, node: _Node) -> None:
        folder.mtime_ns = folder.ctime_ns = node.ctime_ns = time.time_ns()

    def _move(self, node: _Node, source: _Node, target: _Node) -> None:
        if node.kind is Kind.DIRECTORY:
            source.nlink -= 1
            target.nlink += 1
            node.parent = target.inode

    def _unlinked(self, node: _Node, folder: _Node) -> None:
        if node.kind is Kind.DIRECTORY:
            folder.nlink -= 1
            node.nlink = 0
        else:
            node.nlink -= 1
        self._reap(node)

    def _refuse_replacement(self, node: _Node, other: _Node) -> None:
        if other.kind is Kind.DIRECTORY:
            if node.kind is not Kind.DIRECTORY:
                raise DriveError(errno.EISDIR)
            if other.names:
                raise DriveError(errno.ENOTEMPTY)
        elif node.kind is Kind.DIRECTORY:
            raise DriveError(errno.ENOTDIR)

    def _refuse_loop(self, node: _Node, target: _Node) -> None:
        inode = target.inode
        while inode != ROOT_INODE:
            if inode == node.inode:
                raise DriveError(errno.EINVAL)
            inode = self._nodes[inode].parent

    def _resize(self, node: _Node, size: int) -> None:
        if node.kind is not Kind.FILE:
            raise DriveError(errno.EISDIR if node.kind is Kind.DIRECTORY else errno.EINVAL)
        if size < len(node.data):
            del node.data[size:]
        else:
            node.data.extend(bytes(size - len(node.data)))
        node.mtime_ns = node.ctime_ns = time.time_ns()

    def _open(self, inode: int) -> int:
        handle = next(self._next_handle)
        self._handles[handle] = inode
        self._nodes[inode].opens += 1
        return handle

    def _close(self, handle: int) -> None:
        node = self._nodes[self._handles.pop(handle)]
        node.opens -= 1
        self._reap(node)

    def _reap(self, node: _Node) -> None:
        if node.nlink == 0 and node.lookups <= 0 and node.opens == 0:
            self._nodes.pop(node.inode, None)


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise DriveError(errno.ENAMETOOLONG)
