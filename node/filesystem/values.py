"""What the drive tells about files, in the terms of a file system, and nothing of where it is from."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import NamedTuple

from node.errors import DriveError
from node.storage.tree import ItemRow
from protocol.limits import MAX_NAME_BYTES
from protocol.values import Kind

BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns items that name no owner: the user and group of the mount."""

    uid: int
    gid: int


class Attributes(NamedTuple):
    """What `stat` shows. Times are nanoseconds since 1970; mode holds permission bits only.

    A tuple, as `ItemRow`.
    """

    inode: int
    kind: Kind
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    ctime_ns: int
    blocks_512: int


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What to set; None leaves a value as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    mtime_ns: int | None = None


class FolderEntry(NamedTuple):
    """One entry of a folder; ``cookie`` is where a later read goes on."""

    name: bytes
    cookie: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Statistics:
    """What `statfs` shows; sizes in units of ``block_size`` bytes."""

    block_size: int
    blocks: int
    free: int
    files: int
    free_files: int
    name_max: int = MAX_NAME_BYTES


@dataclass(frozen=True, slots=True)
class StaleInode:
    """The kernel should ask again for an inode's attributes, and its data too if ``data``."""

    inode: int
    data: bool


@dataclass(frozen=True, slots=True)
class StaleEntry:
    """The kernel should look a name up again."""

    parent: int
    name: bytes


Invalidation = StaleInode | StaleEntry


def attributes_of(row: ItemRow, nlink: int, owner: Owner) -> Attributes:
    """The attributes of an item as the index shows it."""
    return Attributes(
        inode=row.inode,
        kind=row.kind,
        mode=row.mode,
        nlink=1 if row.kind is Kind.DIRECTORY else nlink,
        uid=owner.uid if row.uid is None else row.uid,
        gid=owner.gid if row.gid is None else row.gid,
        rdev=row.device_number,
        size=row.size,
        mtime_ns=row.shown_mtime_ns,
        ctime_ns=row.ctime_ns,
        blocks_512=-(-row.size // BLOCK_BYTES),
    )


def drive_error(number: int) -> DriveError:
    """The error for an errno whose usual text says all."""
    return DriveError(number, os.strerror(number))


def checked_name(name: bytes) -> bytes:
    """A name that may be given to a new entry.

    Raises:
        DriveError: ENAMETOOLONG, or EINVAL for what no folder can hold.
    """
    if len(name) > MAX_NAME_BYTES:
        raise drive_error(errno.ENAMETOOLONG)
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise drive_error(errno.EINVAL)
    return name
