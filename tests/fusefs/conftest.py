"""A real mount of a drive in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.mount import MountSettings
from tests.fusefs.memory_drive import MemoryDrive
from tests.fusefs.mount_thread import MountThread


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[MountThread[MemoryDrive]]:
    with MountThread(MemoryDrive, tmp_path / "mount", MountSettings(unmount_deadline_s=3)) as mount:
        yield mount
