"""The suite of what programs expect, on a drive in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.mount import MountSettings
from tests.fusefs.memory_drive import MemoryDrive
from tests.fusefs.mount_thread import MountThread
from tests.fusefs.posix_suite import PosixSuite


@pytest.fixture(scope="module")
def mount_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    mountpoint = tmp_path_factory.mktemp("posix") / "mount"
    with MountThread(MemoryDrive, mountpoint, MountSettings()) as mount:
        yield mount.mountpoint


@pytest.mark.fuse
class TestPosixOnMemoryDrive(PosixSuite):
    pass
