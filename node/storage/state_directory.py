"""The state directory of a device: its layout, its mode, and the lock that one node holds.

Called by `node.main` and `node.enrolment`; knows nothing of what the files hold.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
from pathlib import Path
from types import TracebackType
from typing import Self

from node.errors import SettingsError, StorageError

_PR_SET_DUMPABLE = 4  # prctl(2)


class StateDirectory:
    """An opened and locked state directory: ``ATOLL_HOME``.

    Use as a context manager; the lock is held until it ends, also when the process dies.

    Attributes:
        home: the directory, 0700.
    """

    def __init__(self, home: Path, lock: int) -> None:
        self.home = home
        self._lock = lock

    @classmethod
    def open(cls, home: Path) -> Self:
        """Make the directory where it is missing, and take its lock.

        Raises:
            SettingsError: another node runs on it, it belongs to somebody else, or is no folder.
            StorageError: the disk refused.
        """
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if home.stat().st_uid != os.geteuid():
                raise SettingsError(
                    f"the state directory {home} belongs to another user; choose another --home"
                )
            home.chmod(0o700)
            for name in ("staging", "blocks"):
                (home / name).mkdir(mode=0o700, exist_ok=True)
            lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise SettingsError(
                f"the state directory {home} is not a folder; choose another --home"
            ) from error
        except OSError as error:
            raise StorageError.from_os_error(error, f"open the state directory {home}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise SettingsError(
                f"another node (process {holder or 'unknown'}) runs on {home}; "
                "end it with 'atoll unmount', or give this one another --home"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return cls(home, lock)

    @property
    def index(self) -> Path:
        """The encrypted index."""
        return self.home / "index.db"

    @property
    def staging(self) -> Path:
        """What was written and is not yet sealed into blocks."""
        return self.home / "staging"

    @property
    def blocks(self) -> Path:
        """Sealed blocks."""
        return self.home / "blocks"

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def disable_core_dumps() -> None:
    """Keep keys and plaintext out of core files, and other processes out of this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
