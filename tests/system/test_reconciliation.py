"""What two devices write apart meets again: merged where it can be, a conflict where it can not."""

from __future__ import annotations

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
