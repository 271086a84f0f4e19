"""The open files and folders that the kernel holds through one mount.

Owns the table from a handle to its inode, which the kernel does not repeat in every request, and the
knowledge of what is still open when the mount ends. Refuses to know what a handle means: the drive
issues it. Called by `fusefs.operations` and, at the end, by `fusefs.mount`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One open file.

    Attributes:
        inode: the inode that was opened.
        is_writable: whether the program may write through it.
    """

    inode: int
    is_writable: bool


class OpenHandles:
    """What is open now.

    Concurrency: owned by the mount's task group; no method awaits.
    """

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}
        self._folders: dict[int, int] = {}

    def add_file(self, handle: int, inode: int, *, is_writable: bool) -> None:
        """Notes that the drive opened a file."""
        self._files[handle] = OpenFile(inode, is_writable)

    def add_folder(self, handle: int, inode: int) -> None:
        """Notes that the drive opened a folder."""
        self._folders[handle] = inode

    def is_writable(self, handle: int) -> bool:
        """Whether the open file may be written to; an unknown one counts as writable."""
        file = self._files.get(handle)
        return file is None or file.is_writable

    def file_inode(self, handle: int) -> int | None:
        """The inode of an open file, None for a handle that is not open."""
        file = self._files.get(handle)
        return None if file is None else file.inode

    def folder_inode(self, handle: int) -> int | None:
        """The inode of an open folder, None for a handle that is not open."""
        return self._folders.get(handle)

    def remove_file(self, handle: int) -> None:
        """Forgets an open file."""
        self._files.pop(handle, None)

    def remove_folder(self, handle: int) -> None:
        """Forgets an open folder."""
        self._folders.pop(handle, None)

    def take_files(self) -> Iterator[tuple[int, OpenFile]]:
        """Empties the table of files, yielding each handle and what it was."""
        while self._files:
            yield self._files.popitem()

    def take_folders(self) -> Iterator[tuple[int, int]]:
        """Empties the table of folders, yielding each handle and its inode."""
        while self._folders:
            yield self._folders.popitem()
