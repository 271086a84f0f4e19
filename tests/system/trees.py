"""What a tree holds, as a value that can be compared, and the search for what must not be in it.

Owns the comparison of trees and the grep through raw bytes. Knows nothing of Atoll.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What two devices must agree on, of one entry."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: str

    def differences(self, other: Entry) -> str:
        return ", ".join(
            f"{name} {getattr(self, name)} != {getattr(other, name)}"
            for name in self.__dataclass_fields__
            if getattr(self, name) != getattr(other, name)
        )


def snapshot(root: Path) -> dict[bytes, Entry]:
    """A file, or a folder with every entry below it, by their paths from there."""
    base = os.fsencode(root)
    return {path[len(base) :] or b"/": entry_at(path) for path in _walk(base)}


def entry_at(path: bytes | Path) -> Entry:
    """One entry, with all of its bytes read."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(os.fsencode(path)).hex()
    elif stat.S_ISREG(found.st_mode):
        content = digest(path)
    else:
        content = ""
    # What a folder reports as its size is the file system's own business.
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return Entry(found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, size, content)


def digest(path: bytes | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(
    ours: Mapping[bytes, Entry], theirs: Mapping[bytes, Entry], at_most: int = 20
) -> list[str]:
    """What differs between two snapshots, as lines; none when they are equal."""
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(path), theirs.get(path)
        if mine is None or other is None:
            lines.append(f"{path!r} only on the {'second' if mine is None else 'first'}")
        elif mine != other:
            lines.append(f"{path!r}: {mine.differences(other)}")
    if len(lines) > at_most:
        lines[at_most:] = [f"and {len(lines) - at_most} more"]
    return lines


def files_with(roots: Iterable[Path], markers: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """The (path, marker) of every file whose path or raw bytes hold one of the markers."""
    wanted = list(markers)
    overlap = max(map(len, wanted)) - 1
    found = []
    for root in roots:
        for path in _walk(os.fsencode(root)):
            found += [(path, marker) for marker in wanted if marker in path]
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            with open(path, "rb") as file:
                end = b""
                while chunk := file.read(_CHUNK_BYTES):
                    searched = end + chunk
                    found += [(path, marker) for marker in wanted if marker in searched]
                    end = searched[-overlap:]
    return found


def _walk(top: bytes) -> Iterator[bytes]:
    yield top
    if not stat.S_ISDIR(os.lstat(top).st_mode):
        return
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry.path
