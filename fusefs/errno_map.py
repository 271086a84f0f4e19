"""Which errno a failed request is answered with, and what is written down about it.

Owns the rule that no exception leaves a handler except as one errno: a `DriveError` carries its own,
a full or broken disk keeps the operating system's, bytes that nobody could send in time are EIO, as
from a disk that does not answer, and everything else is a bug that is logged and answered with EIO
while the mount goes on. Refuses to know single operations. Called by `fusefs.operations` and
`fusefs.mount`.

What is logged is the operation, a number and the place of the error, never its text: an exception's
text may hold a file name, and the log is kept where no file name may stand in the clear.
"""

from __future__ import annotations

import errno
import traceback
from pathlib import PurePath

import pyfuse3
import structlog

from node.errors import DriveError, PeerError, ServerError, StorageError

_log = structlog.get_logger(__name__)

MAX_ERRNO = 4095
"""Largest errno that the kernel takes in a reply (MAX_ERRNO in include/linux/err.h)."""

_TRACE_FRAMES = 12
"""Frames kept of an unexpected error: enough to see the way from the handler into the drive."""


def errno_of(error: BaseException) -> int | None:
    """The errno that an error asks for, or None when it was never meant for a program.

    A group with one error in it (what a nursery in the drive raises) counts as that error.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DriveError | StorageError) and 0 < error.errno <= MAX_ERRNO:
        return error.errno
    if isinstance(error, ServerError | PeerError) and error.is_transient:
        return errno.EIO
    return None


def reply_error(error: Exception, operation: str, **subject: int | None) -> pyfuse3.FUSEError:
    """What to raise instead of `error`; logs it unless a program is meant to see it."""
    number = errno_of(error)
    if number is None:
        log_unexpected(error, operation, **subject)
        number = errno.EIO
    return pyfuse3.FUSEError(number)


def log_unexpected(error: Exception, operation: str, **subject: int | None) -> None:
    """Writes down an error that nobody expected: where it arose, and in answer to what."""
    _log.error(
        "file system request failed",
        operation=operation,
        error=type(error).__name__,
        trace=_trace(error),
        **subject,
    )


def _trace(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_TRACE_FRAMES:]
    steps = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    if isinstance(error, BaseExceptionGroup):
        steps += [f"[{type(inner).__name__}: {_trace(inner)}]" for inner in error.exceptions]
    return " > ".join(steps)
