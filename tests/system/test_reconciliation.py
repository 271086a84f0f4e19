"""What two devices write apart meets again: merged where it can be, a conflict where it can not."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.system.processes import eventually
from tests.system.world import Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

LINES = [f"line {number} of a text that two people write\n" for number in range(40)]


def text_with(changes: dict[int, str], lines: list[str] = LINES) -> str:
    return "".join(changes.get(number, line) for number, line in enumerate(lines))


def started(world: World) -> tuple[Device, Device]:
    world.server.start()
    a, b = world.device("a"), world.device("b")
    a.start()
    b.start()
    return a, b


def shared_file(a: Device, b: Device, name: str, text: str) -> None:
    (a.mount / name).write_text(text)
    a.wait()
    b.wait()
    assert (b.mount / name).read_text() == text


def reads(file: Path, text: str) -> bool:
    return file.read_text() == text


@pytest.mark.parametrize("lines", [LINES, LINES * 100], ids=["in the record", "in blocks"])
def test_edits_of_different_lines_are_merged_and_nobody_is_asked(
    world: World, lines: list[str]
) -> None:
    a, b = started(world)
    shared_file(a, b, "note.txt", "".join(lines))
    ours, theirs = text_with({3: "by A\n"}, lines), text_with({30: "by B\n"}, lines)
    world.server.stop()
    (a.mount / "note.txt").write_text(ours)
    (b.mount / "note.txt").write_text(theirs)
    reader = (b.mount / "note.txt").open()
    first = reader.readline()
    world.server.start()
    both = text_with({3: "by A\n", 30: "by B\n"}, lines)
    for device in (a, b):
        eventually(partial(reads, device.mount / "note.txt", both), "both edits are there", 30)
        device.wait()
        assert device.conflicts() == []
    assert first + reader.read() == theirs, "a reader sees the version that it opened"
    reader.close()
    assert (a.mount / "note.txt").read_text() == (b.mount / "note.txt").read_text() == both


def test_edits_by_programs_that_replace_the_file_are_merged_too(world: World) -> None:
    a, b = started(world)
    shared_file(a, b, "note.txt", "".join(LINES))
    world.server.stop()
    for device, line in ((a, 3), (b, 30)):
        change = f"s/^line {line} .*/by {device.name}/"
        subprocess.run(["sed", "-i", change, device.mount / "note.txt"], check=True, timeout=30)
    world.server.start()
    for device in (a, b, a):
        device.wait()
    for device in (a, b):
        assert (device.mount / "note.txt").read_text() == text_with({3: "by a\n", 30: "by b\n"})
        assert os.listdir(device.mount) == ["note.txt"]
        assert device.conflicts() == []


def overlapping(world: World) -> tuple[Device, Device]:
    """Two devices with one conflict; B's version is shown, since it was written later."""
    a, b = started(world)
    shared_file(a, b, "note.txt", "".join(LINES))
    world.server.stop()
    (a.mount / "note.txt").write_text(text_with({3: "by A\n"}))
    (b.mount / "note.txt").write_text(text_with({3: "by B\n"}))
    world.server.start()
    for device in (a, b):
        eventually(device.conflicts, "the conflict is listed", 30)
    return a, b


def test_edits_of_the_same_line_are_one_conflict_that_one_device_settles_for_both(
    world: World,
) -> None:
    a, b = overlapping(world)
    for device in (a, b):
        (conflict,) = device.conflicts()
        assert Path(conflict["readable_at"]).read_text() == text_with({3: "by A\n"})
        assert conflict["device"] == "device-a"
        assert (device.mount / "note.txt").read_text() == text_with({3: "by B\n"})
    eventually(
        lambda: a.conflicts()[0]["reason"] == "both changed the same lines", "A tried to merge", 30
    )
    assert "<<<<<<<" not in (a.mount / "note.txt").read_text(), "nobody asked for marks"

    wrong = a.atoll("resolve", a.mount / "note.txt", "--keep", "nonsense")
    assert wrong.returncode == 1
    assert "has no version nonsense; keep device-b-" in wrong.stderr
    elsewhere = a.atoll("resolve", world.root, "--keep", "mine")
    assert elsewhere.returncode == 1
    assert "is not in the drive" in elsewhere.stderr

    done = a.atoll("resolve", a.mount / "note.txt", "--keep", "mine")
    assert done.returncode == 0, done.stderr
    assert (a.mount / "note.txt").read_text() == text_with({3: "by A\n"})
    a.wait()
    b.wait()
    for device in (a, b):
        assert device.conflicts() == []
        assert (device.mount / "note.txt").read_text() == text_with({3: "by A\n"})
        assert not (device.mount / ".atoll" / "conflicts" / "note.txt").exists()
    again = b.atoll("resolve", b.mount / "note.txt", "--keep", "mine")
    assert again.returncode == 1
    assert "there is no conflict" in again.stderr


def test_fifty_edits_on_each_of_two_devices_are_one_conflict(world: World) -> None:
    a, b = started(world)
    shared_file(a, b, "note.txt", "".join(LINES))
    world.server.stop()
    for number in range(50):
        for device in (a, b):
            text = text_with({3: f"edit {number} by {device.name}\n"})
            (device.mount / "note.txt").write_text(text)
    world.server.start()
    for device in (a, b, a):
        device.wait()
    for device in (a, b):
        (conflict,) = device.conflicts()
        texts = {
            (device.mount / "note.txt").read_text(),
            Path(conflict["readable_at"]).read_text(),
        }
        assert texts == {text_with({3: f"edit 49 by {name}\n"}) for name in ("a", "b")}


def test_what_was_resolved_survives_a_crash_and_both_are_files(world: World) -> None:
    a, b = overlapping(world)
    world.server.stop()
    done = a.atoll("resolve", a.mount / "note.txt", "--keep", "both")
    assert done.returncode == 0, done.stderr
    a.kill()
    world.server.start()
    a.start()
    a.wait()
    b.wait()
    for device in (a, b):
        assert device.conflicts() == []
        texts = {file.name: file.read_text() for file in device.mount.iterdir()}
        assert len(texts) == 2
        assert texts.pop("note.txt") == text_with({3: "by B\n"})
        ((name, text),) = texts.items()
        assert name.startswith("note (from device-a ")
        assert text == text_with({3: "by A\n"})


def test_a_merge_with_marks_is_made_when_somebody_asks_for_it(world: World) -> None:
    a, b = overlapping(world)
    done = b.atoll("resolve", b.mount / "note.txt", "--keep", "merge")
    assert done.returncode == 0, done.stderr
    b.wait()
    a.wait()
    text = (a.mount / "note.txt").read_text()
    assert text == (b.mount / "note.txt").read_text()
    assert "by A\n=======\nby B\n" in text
    assert a.conflicts() == b.conflicts() == []


def test_conflict_versions_beside_their_file_can_be_read_and_dropped(world: World) -> None:
    for name in ("a", "b"):
        (world.device(name).home / "settings.toml").write_text('conflicts = "beside"\n')
    a, b = overlapping(world)
    eventually(lambda: len(os.listdir(a.mount)) == 2, "it is listed")
    shown, beside = sorted(os.listdir(a.mount), key=len)
    assert shown == "note.txt"
    assert beside.startswith("note (from device-a ")
    place = a.mount / beside
    assert place.read_text() == text_with({3: "by A\n"})
    for change in (
        lambda: place.write_text("x"),
        lambda: place.rename(a.mount / "other"),
        lambda: place.chmod(0o600),
    ):
        with pytest.raises(OSError, match=r"Read-only|not permitted"):
            change()
    place.unlink()
    assert os.listdir(a.mount) == ["note.txt"]
    a.wait()
    b.wait()
    for device in (a, b):
        assert device.conflicts() == []
        assert (device.mount / "note.txt").read_text() == text_with({3: "by B\n"})


def test_a_mistake_in_the_settings_is_said_at_the_start(world: World) -> None:
    world.server.start()
    a = world.device("a")
    (a.home / "settings.toml").write_text("conflicts = 'away'\n")
    done = a.atoll("run", a.mount)
    assert done.returncode == 1
    assert 'settings.toml is "folder" or "beside", not \'away\'' in done.stderr
