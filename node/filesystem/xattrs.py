"""Extended attributes: the user's, which travel, and Atoll's own, which tell where a file stands."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from node.filesystem.edits import Edits
from node.filesystem.values import drive_error
from node.storage.registers import Registers
from node.storage.standing import Standing
from node.storage.tree import ItemRow
from protocol.limits import MAX_XATTR_NAME_BYTES, MAX_XATTRS_BYTES
from protocol.values import Content, ItemAttributes, Kind

_OWN = b"user.atoll."
_KEPT = (b"user.", b"trusted.", b"security.")


class Xattrs:
    """Extended attributes of the items of a namespace.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(
        self,
        registers: Registers,
        edits: Edits,
        standing: Standing,
        cached_share: Callable[[Content], int],
    ) -> None:
        self._registers = registers
        self._edits = edits
        self._standing = standing
        self._cached_share = cached_share

    def get(self, row: ItemRow, name: bytes) -> bytes:
        """A value; ENODATA when it is not set, EOPNOTSUPP for kinds that are not kept."""
        if name.startswith(_OWN):
            return self._own(row, name)
        _check_kept(name)
        if not row.xattr_count:
            raise drive_error(errno.ENODATA)
        value = dict(self._present(row)).get(name)
        if value is None:
            raise drive_error(errno.ENODATA)
        return value

    def names(self, row: ItemRow) -> list[bytes]:
        """The names that were set.

        Atoll's own are not among them: a program that copies all attributes would try to set them.
        """
        return [name for name, _ in self._present(row)] if row.xattr_count else []

    def set(self, row: ItemRow, name: bytes, value: bytes, *, create: bool, replace: bool) -> None:
        """Set a value; EEXIST (create), ENODATA (replace), ENOSPC, ERANGE, EPERM for Atoll's."""
        _check_kept(name)
        if name.startswith(_OWN):
            raise drive_error(errno.EPERM)
        if len(name) > MAX_XATTR_NAME_BYTES:
            raise drive_error(errno.ERANGE)
        present = dict(self._present(row))
        if create and name in present:
            raise drive_error(errno.EEXIST)
        if replace and name not in present:
            raise drive_error(errno.ENODATA)
        present[name] = value
        if sum(len(key) + len(content) for key, content in present.items()) > MAX_XATTRS_BYTES:
            raise drive_error(errno.ENOSPC)
        self._write(row, present)

    def remove(self, row: ItemRow, name: bytes) -> None:
        """Remove a value; ENODATA when it is not set, EPERM for Atoll's."""
        if name.startswith(_OWN):
            raise drive_error(errno.EPERM)
        present = dict(self._present(row))
        if present.pop(name, None) is None:
            raise drive_error(errno.ENODATA)
        self._write(row, present)

    def _present(self, row: ItemRow) -> tuple[tuple[bytes, bytes], ...]:
        versions = self._registers.attributes(row.item)
        latest = max(versions, key=lambda version: version.rank, default=None)
        return latest.value.xattrs if latest is not None else ()

    def _write(self, row: ItemRow, present: dict[bytes, bytes]) -> None:
        xattrs = tuple(sorted(present.items()))

        def changed(attributes: ItemAttributes, _time_us: int) -> ItemAttributes:
            return replace(attributes, xattrs=xattrs)

        self._edits.set_attributes(row.item, changed)

    def _own(self, row: ItemRow, name: bytes) -> bytes:
        match name:
            case b"user.atoll.durability":
                return self._standing.durability(row.item).encode()
            case b"user.atoll.item":
                return str(row.item).encode()
            case b"user.atoll.cached" if row.kind is Kind.FILE:
                version = self._registers.content(row.item, row.content)
                if version is not None:
                    return str(self._cached_share(version.value)).encode()
        raise drive_error(errno.ENODATA)


def _check_kept(name: bytes) -> None:
    if not name.startswith(_KEPT):
        raise drive_error(errno.EOPNOTSUPP)
