"""What the kernel lets the owner of a mount, or root, set on it after the fact.

Owns the paths under /sys and the values. Refuses to know the drive and pyfuse3. Called by
`fusefs.mount`. Everything here is an improvement, not a need: what this user may
not set stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

MAX_BACKGROUND = 128
"""Page reads that the kernel keeps with us at once. Its own 12 would let twelve reads that wait for
the network hold up a thirteenth whose bytes are here."""


def tune(device: str, read_ahead_bytes: int) -> None:
    """Raises the read-ahead and the number of concurrent page reads of a mount that answers.

    Args:
        device: the number of its file system, as `major:minor`.
        read_ahead_bytes: how far to read ahead of a sequential reader.
    """
    connection = Path("/sys/fs/fuse/connections") / device.partition(":")[2]
    _set(Path("/sys/class/bdi") / device / "read_ahead_kb", read_ahead_bytes // 1024)
    _set(connection / "max_background", MAX_BACKGROUND)
    _set(connection / "congestion_threshold", MAX_BACKGROUND * 3 // 4)


def _set(setting: Path, value: int) -> None:
    try:
        setting.write_text(str(value))
    except OSError as error:
        _log.debug("kernel setting kept", setting=setting.name, errno=error.errno)
