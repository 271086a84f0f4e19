"""What deletes most of a drive is held, on devices as they run, until somebody decides."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.system.processes import eventually
from tests.system.world import Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

NAMES = {f"file{number:02}" for number in range(30)}


def filled(world: World) -> tuple[Device, Device]:
    """Two devices that know the same files in one folder, and hold what deletes more than half."""
    world.server.start()
    a, b = world.device("a"), world.device("b")
    for device in (a, b):
        (device.home / "settings.toml").write_text("deletion_guard_minimum = 10\n")
        device.start()
    (a.mount / "folder").mkdir()
    for name in NAMES:
        (a.mount / "folder" / name).write_text(f"this is {name}")
    a.wait()
    b.wait()
    return a, b


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} if folder.exists() else set()


def lists(folder: Path, names: set[str]) -> bool:
    return names_in(folder) == names


def test_rm_rf_stays_on_its_device_until_it_is_rejected_and_then_everything_is_back(
    world: World,
) -> None:
    a, b = filled(world)
    shutil.rmtree(a.mount / "folder")
    waited = a.atoll("wait", "--json")
    assert waited.returncode == 1
    assert "wait for your approval" in waited.stderr
    status = a.status()
    assert status["held"]["here"] >= 15
    assert any("atoll approve" in alarm for alarm in status["alarms"])
    b.wait()
    assert len(names_in(b.mount / "folder")) >= 10
    a.stop()
    a.start()
    assert a.status()["held"] == status["held"], "it survives a restart"
    decided = json.loads(a.atoll("approve", "--reject", "--json").stdout)
    assert decided["here"] == status["held"]["here"]
    a.wait()
    b.wait()
    for device in (a, b):
        eventually(partial(lists, device.mount / "folder", NAMES), "all files are back", 30)
    some = next(iter(NAMES))
    assert (a.mount / "folder" / some).read_text() == f"this is {some}"
