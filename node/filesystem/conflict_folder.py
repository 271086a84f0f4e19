"""`.atoll/`, the read-only folder at the root of the drive, with the conflict versions of files.

``.atoll/conflicts/<path>/<device>-<time>`` holds each version that lost, under the path of the file
that it belongs to. Nothing is stored for it: it is made from the index when it is looked at. The
root does not list it, so no program that scans the drive meets it. Called by the drive.
"""

from __future__ import annotations

import datetime
import errno
from dataclasses import dataclass

from node.core.tree_view import Version, choose_content
from node.filesystem.values import Attributes, Owner, drive_error
from node.storage.registers import Registers
from node.storage.tree import ItemRow, Tree
from protocol.values import Content, Kind

NAME = b".atoll"
_FIRST_INODE = 1 << 62  # real inode numbers count up from 1 and never get here
_CONFLICTS = b"conflicts"

Path = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConflictVersion:
    """One version of a file that is kept beside the shown one.

    Attributes:
        name: what it is called below ``.atoll/conflicts/<path>/``.
        path: of the file, from the root, without a leading slash.
    """

    row: ItemRow
    path: bytes
    name: bytes
    device_name: str
    version: Version[Content]


class ConflictFolder:
    """Looks like a small read-only file system of its own, with inode numbers above all others.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, tree: Tree, registers: Registers, owner: Owner) -> None:
        self._tree = tree
        self._registers = registers
        self._owner = owner
        self._cached: dict[Path, ConflictVersion | None] = {}
        self._cached_revision = -1
        self._inodes: dict[Path, int] = {}
        self._paths: dict[int, Path] = {}

    @staticmethod
    def holds(inode: int) -> bool:
        """Whether an inode number is of this folder."""
        return inode >= _FIRST_INODE

    def versions(self) -> list[ConflictVersion]:
        """Every conflict version of a file that is shown, by path."""
        found: list[ConflictVersion] = []
        for row in self._tree.conflicts():
            path = self._tree.path(row.item)
            if path is None:
                continue
            _, others = choose_content(self._registers.contents(row.item))
            taken: set[bytes] = set()
            for version in others:
                device = self._tree.device_name(version.device)
                name = _name(device, version, taken)
                taken.add(name)
                found.append(ConflictVersion(row, path, name, device, version))
        return sorted(found, key=lambda conflict: (conflict.path, conflict.name))

    def root(self) -> Attributes:
        """The attributes of ``.atoll`` itself."""
        return self._folder(())

    def attributes(self, inode: int) -> Attributes:
        """The attributes of an inode of this folder; ENOENT when its conflict was settled."""
        path = self._paths.get(inode)
        if path is None:
            raise drive_error(errno.ENOENT)
        return self._attributes(path)

    def lookup(self, inode: int, name: bytes) -> Attributes:
        """One entry of a folder of this folder."""
        parent = self._paths.get(inode)
        if parent is None:
            raise drive_error(errno.ENOENT)
        return self._attributes((*parent, name))

    def list_folder(self, inode: int) -> list[tuple[bytes, Attributes]]:
        """The entries of a folder of this folder, by name."""
        path = self._paths.get(inode)
        if path is None:
            raise drive_error(errno.ENOENT)
        names = sorted({known[len(path)] for known in self._known() if _is_below(known, path)})
        return [(name, self._attributes((*path, name))) for name in names]

    def open(self, inode: int) -> ConflictVersion:
        """The version that a file of this folder shows."""
        path = self._paths.get(inode)
        version = self._known().get(path) if path is not None else None
        if version is None:
            raise drive_error(errno.ENOENT)
        return version

    def _known(self) -> dict[Path, ConflictVersion | None]:
        """Every path of this folder, with None for folders; made anew when the tree has changed."""
        if self._cached_revision != self._tree.revision:
            known: dict[Path, ConflictVersion | None] = {(_CONFLICTS,): None}
            for conflict in self.versions():
                parts = conflict.path.split(b"/")
                for depth in range(1, len(parts) + 1):
                    known.setdefault((_CONFLICTS, *parts[:depth]), None)
                known[(_CONFLICTS, *parts, conflict.name)] = conflict
            self._cached, self._cached_revision = known, self._tree.revision
        return self._cached

    def _attributes(self, path: Path) -> Attributes:
        known = self._known()
        conflict = known.get(path)
        if conflict is None:
            if path and path not in known:
                raise drive_error(errno.ENOENT)
            return self._folder(path)
        content = conflict.version.value
        return Attributes(
            inode=self._inode(path),
            kind=Kind.FILE,
            mode=0o400,
            nlink=1,
            uid=self._owner.uid,
            gid=self._owner.gid,
            rdev=0,
            size=content.size,
            mtime_ns=content.mtime_ns,
            ctime_ns=conflict.version.time_us * 1000,
            blocks_512=-(-content.size // 512),
        )

    def _folder(self, path: Path) -> Attributes:
        inode = self._inode(path)
        uid, gid = self._owner.uid, self._owner.gid
        return Attributes(inode, Kind.DIRECTORY, 0o500, 1, uid, gid, 0, 0, 0, 0, 0)

    def _inode(self, path: Path) -> int:
        inode = self._inodes.get(path)
        if inode is None:
            inode = _FIRST_INODE + len(self._inodes)
            self._inodes[path] = inode
            self._paths[inode] = path
        return inode


def _is_below(path: Path, folder: Path) -> bool:
    return len(path) > len(folder) and path[: len(folder)] == folder


def _name(device_name: str, version: Version[Content], taken: set[bytes]) -> bytes:
    time = _EPOCH + datetime.timedelta(microseconds=version.time_us)
    device = "".join(c if c.isprintable() and c != "/" else "_" for c in device_name)[:40]
    number = 1
    while True:
        mark = f"-{number}" if number > 1 else ""
        name = f"{device}-{time.strftime('%Y-%m-%dT%H.%M.%S.%f')}{mark}".encode()
        if name not in taken:
            return name
        number += 1


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
