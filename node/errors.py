"""The errors of a node, each defined by what its catcher can do about it.

Owns the `NodeError` tree and its `is_transient` answer. Refuses to know where an error is handled:
`node.sync` alone retries, `fusefs` alone turns a `DriveError` into a reply, `node.cli` alone prints.
Raised by every module of the node; third-party errors are translated into these in the one module
that imports the library.
"""

from __future__ import annotations

import errno

# Storage failures that end without a change of the program: space or descriptors are freed, a
# medium answers again. Everything else (EIO, EROFS, EACCES ...) needs a person.
_TRANSIENT_STORAGE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)


class NodeError(Exception):
    """Something went wrong in the node; every error that it raises on purpose is one of these.

    Attributes:
        message: One sentence without a full stop: what happened, and what to do when known.
        is_transient: Whether the same attempt may succeed later without anybody acting on it.
    """

    is_transient: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StorageError(NodeError):
    """This device's disk refused or returned something unusable.

    Unlike a `DriveError` it says nothing about what a program did; the drive hands its errno on.

    Attributes:
        errno: The operating system's number; EIO when stored bytes do not verify.
    """

    def __init__(self, errno_number: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno_number
        self.is_transient = errno_number in _TRANSIENT_STORAGE

    @classmethod
    def from_os_error(cls, error: OSError, doing: str) -> StorageError:
        """Translates an `OSError`; `doing` completes the sentence "cannot ..."."""
        return cls(error.errno or errno.EIO, f"cannot {doing}: {error.strerror or error}")


class PeerError(NodeError):
    """A session with one LAN peer failed; the peer's nursery ends, the node goes on."""

    is_transient = True


class ServerError(NodeError):
    """The server could not be reached, or refused a request.

    Attributes:
        code: The server's error code, or `unreachable` and its kin when no answer came.
        retry_after_s: What the server asked to wait before the next attempt, if it did.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        is_transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s


class DriveError(NodeError):
    """A file system operation has no success to report: exactly one errno for the calling program.

    Attributes:
        errno: What the program's system call fails with.
    """

    def __init__(self, errno_number: int, message: str = "") -> None:
        super().__init__(message or errno.errorcode.get(errno_number, str(errno_number)))
        self.errno = errno_number


class SettingsError(NodeError):
    """The node cannot start or go on as it was set up; the message is a sentence for the user."""
