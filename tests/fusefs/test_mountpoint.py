"""Reading the kernel's mount table."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusefs import mountpoint as mountpoint_module
from fusefs.mountpoint import Mount, mount_at

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /home/me/A\\040b\\134c rw,nosuid shared:2 master:3 - fuse.atoll atoll rw,user_id=0
41 22 0:36 / /mnt rw - fuse.sshfs host: rw
42 22 0:37 / /mnt rw - fuse.atoll atoll rw
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    monkeypatch.setattr(mountpoint_module, "_MOUNTS", tmp_path / "mountinfo")


def test_escaped_paths_are_found() -> None:
    assert mount_at(Path("/home/me/A b\\c")) == Mount("0:35", "/home/me/A b\\c", "fuse.atoll")


def test_the_topmost_mount_counts() -> None:
    assert mount_at(Path("/mnt")) == Mount("0:37", "/mnt", "fuse.atoll")


def test_a_folder_below_a_mount_is_none() -> None:
    assert mount_at(Path("/mnt/below")) is None
