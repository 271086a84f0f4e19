"""What the kernel lets the owner of a mount, or root, set on it after the fact.

Owns the paths under /sys and the values. Refuses to know the drive and pyfuse3. Called by
`fusefs.mount`, in a worker thread. Everything here is an improvement, not a need: what this user may
not set stays as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

MAX_BACKGROUND = 128
"""Page reads that the kernel keeps with us at once. Its own 12 would let twelve reads that wait for
the network hold up a thirteenth whose bytes are here."""


def tune(mountpoint: Path, read_ahead_bytes: int) -> None:
    """Raises the read-ahead and the number of concurrent page reads; waits for the mount to answer."""
    try:
        device = mountpoint.stat().st_dev
    except OSError as error:
        _log.warning("the mount does not show its root", errno=error.errno)
        return
    major, minor = os.major(device), os.minor(device)
    read_ahead = Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb")
    connection = Path(f"/sys/fs/fuse/connections/{minor}")
    _set(read_ahead, read_ahead_bytes // 1024)
    _set(connection / "max_background", MAX_BACKGROUND)
    _set(connection / "congestion_threshold", MAX_BACKGROUND * 3 // 4)


def _set(setting: Path, value: int) -> None:
    try:
        setting.write_text(str(value))
    except OSError as error:
        _log.debug("kernel setting kept", setting=setting.name, errno=error.errno)
