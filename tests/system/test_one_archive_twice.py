"""The same archive unpacked on two devices apart is one set of files, at the level of real programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.trees import differences, snapshot
from tests.system.world import Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

MEBIBYTE = 1 << 20


def both_synced(*devices: Device) -> None:
    for device in devices:
        device.wait("synced")


def agreed(a: Device, b: Device) -> set[str]:
    """The paths of all files, the same on both, once everything has arrived."""
    both_synced(a, b, a)
    found = differences(snapshot(a.mount), snapshot(b.mount))
    assert not found, "\n".join(found)
    assert a.conflicts() == b.conflicts() == []
    return {str(path.relative_to(a.mount)) for path in a.mount.rglob("*") if path.is_file()}


def make_archive(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "inner").mkdir(parents=True)
    for number in range(40):
        (tree / "inner" / f"small{number}").write_text(f"text {number}\n" * 20)
    (tree / "middle").write_bytes(os.urandom(300_000))
    (tree / "large").write_bytes(os.urandom(3 * MEBIBYTE))
    (tree / "empty").touch()
    (tree / "link").symlink_to("large")
    archive = folder / "archive.tar"
    subprocess.run(["tar", "-C", folder, "-cf", archive, "tree"], check=True, timeout=60)
    return archive


def unpack(archive: Path, device: Device) -> None:
    subprocess.run(["tar", "-C", device.mount, "-xf", archive], check=True, timeout=60)


def test_an_archive_unpacked_on_two_devices_apart_is_one_set_of_files(world: World) -> None:
    a, b = world.device("a"), world.device("b")
    archive = make_archive(world.root)
    for device in (a, b):
        device.start()
        unpack(archive, device)
    world.server.start()
    files = agreed(a, b)
    assert len(files) == 44
    assert not [path for path in files if "(from" in path]

    # Long files, whose bytes wait in staging under both names' items.
    changed = os.urandom(2 * MEBIBYTE)
    (a.mount / "tree" / "large").write_bytes(changed)
    with (b.mount / "tree" / "middle").open("r+b") as file:
        file.seek(1000)
        file.write(b"edited in the middle")
    assert set(os.listdir(a.mount / "tree")) == set(os.listdir(b.mount / "tree"))
    assert agreed(a, b) == files
    assert (b.mount / "tree" / "large").read_bytes() == changed
    assert (b.mount / "tree" / "link").read_bytes() == changed
    assert b"edited in the middle" in (a.mount / "tree" / "middle").read_bytes()

    # Saved by replacing, renamed, removed, and the folder moved.
    inner = b.mount / "tree" / "inner"
    (inner / "small0.tmp").write_text("replaced")
    (inner / "small0.tmp").rename(inner / "small0")
    (inner / "small1").rename(inner / "renamed")
    (a.mount / "tree" / "inner" / "small2").unlink()
    (a.mount / "tree" / "large").chmod(0o600)
    both_synced(a, b)
    (a.mount / "tree").rename(a.mount / "moved")
    expected = {path.replace("tree/", "moved/") for path in files}
    expected -= {"moved/inner/small1", "moved/inner/small2"}
    assert agreed(a, b) == expected | {"moved/inner/renamed"}
    assert (a.mount / "moved/inner/small0").read_text() == "replaced"

    # Nothing of it comes back after a restart.
    for device in (a, b):
        device.stop()
        device.start()
    assert agreed(a, b) == expected | {"moved/inner/renamed"}
    assert a.status()["alarms"] == b.status()["alarms"] == []
