"""A process that serves a drive in memory until it is told to end.

``mount_server.py MOUNTPOINT DRIVE``, where DRIVE is a class of the tests.

It prints `mounted` when the mount answers and `ended` when the mount is gone.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import trio

from fusefs.mount import MountSettings, serve_mount
from tests.fusefs.memory_drive import MemoryDrive
from tests.fusefs.stuck_drive import StuckDrive

DRIVES = {"MemoryDrive": MemoryDrive, "StuckDrive": StuckDrive}


async def serve(mountpoint: Path, drive: MemoryDrive) -> None:
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            settings = MountSettings(unmount_deadline_s=1)
            await nursery.start(serve_mount, drive, mountpoint, settings)
            print("mounted", flush=True)
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), DRIVES[sys.argv[2]]())
    print("ended", flush=True)
