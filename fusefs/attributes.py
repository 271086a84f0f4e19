"""Between the drive's attributes and the kernel's.

Owns the translation of `Attributes`, `AttributeChanges` and `Statistics` to and from pyfuse3's
structures, and how long the kernel may believe them. Refuses to know requests and handles. Called
by `fusefs.operations`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

import pyfuse3

from node.drive import AttributeChanges, Attributes, Statistics
from protocol.values import Kind

PERMISSION_BITS = 0o7777

_PREFERRED_IO_BYTES = 128 * 1024
"""st_blksize. Programs size their buffers by it and every write(2) is one request, so 4 KiB would
make a buffered copy 30 times as many requests; more than this only costs each open file memory."""

_TYPE_BITS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
_KINDS = {bits: kind for kind, bits in _TYPE_BITS.items()}


@dataclass(frozen=True, slots=True)
class CacheTimeouts:
    """How long the kernel keeps what it was told, in seconds.

    Long, because every change that it did not ask for itself is followed by an invalidation; they
    bound the harm of a lost one.

    Attributes:
        entry_s: that a name leads to an inode.
        attributes_s: an inode's attributes.
        absent_s: that a name leads nowhere; 0 asks again each time.
    """

    entry_s: float = 3600.0
    attributes_s: float = 3600.0
    absent_s: float = 3600.0


def kind_of_mode(mode: int) -> Kind | None:
    """The kind that the type bits of `mode` name, None when they name none."""
    return _KINDS.get(stat.S_IFMT(mode))


class AttributeTranslator:
    """Builds the kernel's structures with the timeouts of one mount."""

    def __init__(self, timeouts: CacheTimeouts) -> None:
        self._timeouts = timeouts
        # Inode 0 is how a reply says "no such name, and remember that" (fuse_lowlevel.h).
        self.absent = pyfuse3.EntryAttributes()
        self.absent.st_ino = pyfuse3.InodeT(0)
        self.absent.entry_timeout = timeouts.absent_s
        self.remembers_absence = timeouts.absent_s > 0

    def blank_entry(self) -> pyfuse3.EntryAttributes:
        """An entry with what all entries of this mount share, to be filled."""
        entry = pyfuse3.EntryAttributes()
        entry.entry_timeout = self._timeouts.entry_s
        entry.attr_timeout = self._timeouts.attributes_s
        entry.st_blksize = _PREFERRED_IO_BYTES
        return entry

    def entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """A new entry that says what `attributes` say."""
        entry = self.blank_entry()
        fill(entry, attributes)
        return entry


def fill(entry: pyfuse3.EntryAttributes, attributes: Attributes) -> None:
    """Overwrites everything in `entry` that differs between inodes; atime is not kept and is mtime."""
    mtime_ns = attributes.mtime_ns
    entry.st_ino = pyfuse3.InodeT(attributes.inode)
    entry.st_mode = pyfuse3.ModeT(_TYPE_BITS[attributes.kind] | attributes.mode)
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks_512
    entry.st_mtime_ns = mtime_ns
    entry.st_atime_ns = mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns


def changes_of(
    attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields
) -> AttributeChanges | None:
    """What a setattr request asks for; None when it asks for nothing that is kept (atime, ctime)."""
    changes = AttributeChanges(
        mode=attr.st_mode & PERMISSION_BITS if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )
    return None if changes == AttributeChanges() else changes


def statistics_reply(statistics: Statistics) -> pyfuse3.StatvfsData:
    """The answer to statfs; everything that is free is free for everybody."""
    reply = pyfuse3.StatvfsData()
    reply.f_bsize = reply.f_frsize = statistics.block_size
    reply.f_blocks = statistics.blocks
    reply.f_bfree = reply.f_bavail = statistics.free
    reply.f_files = statistics.files
    reply.f_ffree = reply.f_favail = statistics.free_files
    reply.f_namemax = statistics.name_max
    return reply
