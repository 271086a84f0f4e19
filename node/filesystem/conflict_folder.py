"""`.atoll/`, the folder at the root of the drive with what has no place in the tree.

``.atoll/conflicts/<path>/<device>-<time>`` holds each version that lost, under the path of the file
that it belongs to. ``.atoll/aside/<path>`` holds what only this device still had of files that were
deleted long ago; a file there can be removed, and nothing else can be changed. Nothing is stored for
the folders: they are made from the index when they are looked at. The root does not list ``.atoll``,
so no program that scans the drive meets it. Who sets it so sees the conflict versions beside their
file as well. Called by the drive.
"""

from __future__ import annotations

import datetime
import errno
from collections.abc import Iterable
from dataclasses import dataclass, replace

from node.core.tree_view import Version, choose_content, contested_name
from node.filesystem.values import Attributes, Owner, StaleEntry, drive_error
from node.storage.aside import Aside, AsideFile
from node.storage.registers import Registers
from node.storage.tree import ItemRow, Tree
from protocol.ids import ItemId
from protocol.values import Content, Kind

NAME = b".atoll"
_FIRST_INODE = 1 << 62  # real inode numbers count up from 1 and never get here
_CONFLICTS = b"conflicts"
_ASIDE = b"aside"
_BESIDE = b""  # begins the path of a version that is shown in another folder; no name is empty

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

    def __init__(
        self,
        tree: Tree,
        registers: Registers,
        aside: Aside,
        owner: Owner,
        *,
        is_beside: bool = False,
    ) -> None:
        """``is_beside``: whether conflict versions are shown beside their files as well."""
        self._tree = tree
        self._registers = registers
        self._aside = aside
        self._owner = owner
        self._is_beside = is_beside
        self._cached: dict[Path, ConflictVersion | None] = {}
        self._beside: dict[Path, ConflictVersion] = {}
        self._told: set[Path] = set()
        self._told_revision = (-1, -1)
        self._cached_revision = (-1, -1)
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
            found += self._named(row, path)[1:]
        return sorted(found, key=lambda conflict: (conflict.path, conflict.name))

    def versions_of(self, row: ItemRow) -> tuple[ConflictVersion, ...]:
        """The different versions of a shown file, the one that is shown first."""
        path = self._tree.path(row.item)
        return () if path is None else tuple(self._named(row, path))

    def _named(self, row: ItemRow, path: bytes) -> list[ConflictVersion]:
        """Names are given to the conflict versions first, so that the shown one changes none."""
        shown, others = choose_content(self._registers.contents(row.item))
        taken: set[bytes] = set()
        named = []
        for version in (*others, *([shown] if shown is not None else [])):
            device = self._tree.device_name(version.device)
            name = _name(device, version, taken)
            taken.add(name)
            named.append(ConflictVersion(row, path, name, device, version))
        return named[-1:] + named[:-1]

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

    def beside(self, folder: ItemId, name: bytes) -> tuple[Attributes, ConflictVersion] | None:
        """The conflict version that a folder shows under a name, if it shows any there."""
        if not self._is_beside:
            return None
        self._known()
        path = (_BESIDE, folder, name)
        conflict = self._beside.get(path)
        return None if conflict is None else (self._file(path, conflict), conflict)

    def was_beside(self, folder: ItemId, name: bytes) -> bool:
        """Whether a folder showed a version there until a moment ago.

        ``rm -r`` removes what it had listed: a file, and then the versions that went with it.
        """
        return (_BESIDE, folder, name) in self._told

    def list_beside(self, folder: ItemId) -> list[tuple[bytes, Attributes]]:
        """The conflict versions that a folder shows, by name."""
        if not self._is_beside:
            return []
        self._known()
        return [
            (path[2], self._file(path, conflict))
            for path, conflict in sorted(self._beside.items(), key=lambda each: each[0])
            if path[1] == folder
        ]

    def take_stale(self) -> list[StaleEntry]:
        """Names that came or went since the last call, for what the kernel remembers of them."""
        if self._told_revision == self._revision or not (self._inodes or self._is_beside):
            return []
        known = {*self._known(), *self._beside}
        changed, self._told = known ^ self._told, known
        self._told_revision = self._revision
        stale = []
        for path in sorted(changed):
            parent = self._inodes.get(path[:-1])
            if path[0] == _BESIDE:
                folder = self._tree.item(ItemId(path[1]))
                parent = None if folder is None else folder.inode
            if parent is not None:
                stale.append(StaleEntry(parent, path[-1]))
        return stale

    def open(self, inode: int) -> ConflictVersion:
        """The version that a file of this folder shows."""
        path = self._paths.get(inode)
        known = self._known()
        version = (known.get(path) or self._beside.get(path)) if path is not None else None
        if version is None:
            raise drive_error(errno.ENOENT)
        return version

    def _known(self) -> dict[Path, ConflictVersion | None]:
        """Every path of this folder, with None for folders; made anew when the tree has changed."""
        if self._cached_revision != self._revision:
            known: dict[Path, ConflictVersion | None] = {(_CONFLICTS,): None}
            versions = self.versions()
            self._beside = self._placed_beside(versions) if self._is_beside else {}
            for conflict in versions:
                parts = conflict.path.split(b"/")
                for depth in range(1, len(parts) + 1):
                    known.setdefault((_CONFLICTS, *parts[:depth]), None)
                known[(_CONFLICTS, *parts, conflict.name)] = conflict
            for file in self._aside.files():
                parts = file.path.split(b"/")
                for depth in range(len(parts)):
                    known.setdefault((_ASIDE, *parts[:depth]), None)
                known[(_ASIDE, *parts)] = self._as_version(file)
            self._cached, self._cached_revision = known, self._revision
        return self._cached

    @property
    def _revision(self) -> tuple[int, int]:
        return self._tree.revisions.number, self._aside.revision

    def _as_version(self, file: AsideFile) -> ConflictVersion:
        content = replace(file.version.value, kind=Kind.FILE)
        row = ItemRow(
            inode=0,
            item=file.item,
            kind=Kind.FILE,
            mode=0o400,
            uid=None,
            gid=None,
            size=content.size,
            mtime_ns=content.mtime_ns,
            ctime_ns=file.version.time_us * 1000,
            device_number=0,
            xattr_count=0,
            content=file.version.dot,
            explicit_ns=None,
            explicit_set_us=None,
            entries_us=0,
            conflicts=0,
            merged_into=None,
        )
        name = file.path.rpartition(b"/")[2]
        device_name = self._tree.device_name(file.version.device)
        version = replace(file.version, value=content)
        return ConflictVersion(row, file.path, name, device_name, version)

    def kept_aside(self, inode: int, name: bytes) -> AsideFile | None:
        """The file of that name in a folder below ``.atoll/aside``."""
        path = (*self._paths.get(inode, ()), name)
        if len(path) < 2 or path[0] != _ASIDE:
            return None
        wanted = b"/".join(path[1:])
        return next((file for file in self._aside.files() if file.path == wanted), None)

    def was_aside(self, inode: int, name: bytes) -> bool:
        """Whether a folder below ``.atoll/aside`` went with its last file.

        ``rm -r`` removes what it had listed: the files, and then the folders that went with them.
        """
        path = (*self._paths.get(inode, ()), name)
        return len(path) > 1 and path[0] == _ASIDE and path not in self._known()

    def _placed_beside(self, versions: Iterable[ConflictVersion]) -> dict[Path, ConflictVersion]:
        placed: dict[Path, ConflictVersion] = {}
        for conflict in versions:
            for entry in self._tree.entries_of(conflict.row.item):

                def is_free(name: bytes, folder: ItemId = entry.parent) -> bool:
                    is_taken = (_BESIDE, folder, name) in placed
                    return not is_taken and self._tree.entry(folder, name) is None

                time_us = conflict.version.time_us
                name = contested_name(entry.shown, conflict.device_name, time_us, is_free)
                placed[_BESIDE, entry.parent, name] = conflict
        return placed

    def _attributes(self, path: Path) -> Attributes:
        known = self._known()
        conflict = known.get(path) or self._beside.get(path)
        if conflict is None:
            if path and path not in known:
                raise drive_error(errno.ENOENT)
            return self._folder(path)
        return self._file(path, conflict)

    def _file(self, path: Path, conflict: ConflictVersion) -> Attributes:
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
        mode = 0o700 if path[:1] == (_ASIDE,) else 0o500
        return Attributes(inode, Kind.DIRECTORY, mode, 1, uid, gid, 0, 0, 0, 0, 0)

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
