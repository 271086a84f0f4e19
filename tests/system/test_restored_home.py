"""A state directory restored from a backup: whole processes, real mounts."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from protocol.records import SignedRecord
from tests.system.world import World

pytestmark = [pytest.mark.system, pytest.mark.fuse]


def tree(mount: Path) -> set[str]:
    return {os.path.relpath(place, mount) for place in mount.rglob("*")}


def test_a_home_restored_from_a_backup_says_so_and_keeps_everything(
    world: World, tmp_path: Path
) -> None:
    world.server.start()
    a, b = world.device("a"), world.device("b")
    a.start()
    b.start()
    (a.mount / "before").write_text("before the backup")
    a.wait()
    b.wait()
    a.stop()
    shutil.copytree(a.home, tmp_path / "backup")
    a.start()
    (a.mount / "after").write_text("after the backup")
    (a.mount / "before").write_text("changed after the backup")
    a.wait()
    a.stop()
    shutil.rmtree(a.home)
    (tmp_path / "backup").rename(a.home)
    a.start()
    (a.mount / "later").write_text("by the restored one")
    for device in (a, b, a):
        device.wait()
    for device in (a, b):
        assert tree(device.mount) == {"before", "after", "later"}
        assert (device.mount / "before").read_text() == "changed after the backup"
    (alarm,) = json.loads(a.atoll("alarms", "--json").stdout)
    assert alarm["kind"] == "copy"
    assert "backup" in alarm["message"]
    evidence = [SignedRecord.from_wire(base64.b64decode(each)) for each in alarm["evidence"]]
    assert evidence
    assert a.status()["alarms"] == [alarm["message"]]
    assert a.atoll("alarms", "--clear", str(alarm["id"])).returncode == 0
    assert a.status()["alarms"] == []
    assert b.status()["alarms"] == []
