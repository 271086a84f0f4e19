"""docs/reconciliation.md: every example there is run, and its numbers are those of the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.control.conflict_commands import ConflictCommands
from node.core import content_merge, text_lines
from node.settings import NodeSettings
from node.storage.tree import ROOT_INODE
from node.storage.verdicts import Verdicts
from node.sync import merger
from node.sync.merger import Merger
from node.sync.sibling_merge import SiblingMerge
from protocol.values import Kind
from tests.node.drives import DriveDevice, DriveWorld, NoBlocks, drive_world, inline

TEXT = (Path(__file__).parents[1] / "docs" / "reconciliation.md").read_text()
EXAMPLES = re.findall(r"^```example\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
MOUNT = Path("/m")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DriveWorld]:
    with drive_world(3, tmp_path) as made:
        yield made


class Story:
    """Carries the lines of one example out."""

    def __init__(self, world: DriveWorld) -> None:
        self.world = world
        self.devices = dict(zip("ABC", world.devices, strict=True))
        self.merging = SiblingMerge(NoBlocks(), inline)
        self.mergers = [self._merger(device) for device in world.devices]
        self.opened: dict[str, tuple[DriveDevice, int]] = {}
        self.checks = 0
        self.steps: list[tuple[str, Callable[..., Any]]] = [
            (r"meet", self.meet),
            (r"([ABC]) writes (.+?): (.*)", self.write),
            (r"([ABC]) renames (.+) to (.+)", self.rename),
            (r"([ABC]) makes folder (.+)", self.make_folder),
            (r"([ABC]) removes folder (.+)", self.remove_folder),
            (r"([ABC]) removes (.+)", self.remove),
            (r"([ABC]) saves (.+?) by (renaming over|moving away): (.*)", self.save_by),
            (r"([ABC]) opens (.+?) after writing: (.*)", self.open),
            (r"([ABC])'s program still reads: (.*)", self.still_reads),
            (r"([ABC])'s program saves: (.*)", self.save),
            (r"([ABC]) resolves (.+), keeps (.+)", self.resolve),
            (r"all list: (.*)", self.all_list),
            (r"all read (.+?): (.*)", self.all_read),
            (r"conflict of (.+?): (.*)", self.conflict_of),
            (r"no conflicts", self.no_conflicts),
        ]

    def _merger(self, device: DriveDevice) -> Merger:
        return Merger(
            registers=device.index.registers,
            tree=device.index.tree,
            verdicts=Verdicts(device.index.database, device.index.registers),
            drive=device.drive,
            merging=self.merging,
            device=device.index.device,
            is_behind=lambda: False,
            draw=lambda: 0.5,
        )

    async def tell(self, example: str) -> None:
        async with trio.open_nursery() as nursery:
            for each in self.mergers:
                nursery.start_soon(each.run)
            for line in example.splitlines():
                await self._step(line)
            nursery.cancel_scope.cancel()

    async def _step(self, line: str) -> None:
        for pattern, step in self.steps:
            found = re.fullmatch(pattern, line)
            if found is not None:
                result = step(*found.groups())
                if result is not None:
                    await result
                return
        raise AssertionError(f"nobody knows how to: {line}")

    # What happens

    async def meet(self) -> None:
        """Everybody hears of everything, and there is time for merges."""
        for _ in range(100):
            self.world.sync()
            await trio.sleep(0.5)
            for device in self.devices.values():
                while device.drive.invalidations.statistics().current_buffer_used:
                    device.drive.invalidations.receive_nowait()
        self.world.sync()

    async def write(self, name: str, path: str, text: str) -> None:
        self._let_time_pass()
        await self.devices[name].write_file(path, data(text))

    def rename(self, name: str, source: str, target: str) -> None:
        self._let_time_pass()
        self.devices[name].rename(source, target)

    def make_folder(self, name: str, path: str) -> None:
        self._let_time_pass()
        self.devices[name].make_folder(path)

    def remove_folder(self, name: str, path: str) -> None:
        self._let_time_pass()
        self.devices[name].remove_folder(path)

    def remove(self, name: str, path: str) -> None:
        self._let_time_pass()
        self.devices[name].remove(path)

    async def open(self, name: str, path: str, text: str) -> None:
        await self.write(name, path, text)
        device = self.devices[name]
        self.opened[name] = device, await device.open(path)

    async def save(self, name: str, text: str) -> None:
        self._let_time_pass()
        device, handle = self.opened.pop(name)
        await device.save(handle, data(text))

    async def save_by(self, name: str, path: str, way: str, text: str) -> None:
        """Save as most editors do, within a moment."""
        self._let_time_pass()
        device = self.devices[name]
        place, shown = device.stat("").inode, path.encode()
        device.stat(path)
        beside = shown + (b".new" if way == "renaming over" else b"~")
        if way == "moving away":
            device.drive.rename(place, shown, place, beside)
        new = beside if way == "renaming over" else shown
        handle, _ = device.drive.create_file(place, new, 0o600, 1000, 100)
        await device.drive.write(handle, 0, data(text))
        await device.drive.flush(handle)
        await device.drive.release(handle)
        if way == "moving away":
            device.drive.unlink(place, beside)
        else:
            device.drive.rename(place, beside, place, shown)

    async def resolve(self, name: str, path: str, keep: str) -> None:
        self._let_time_pass()
        device = self.devices[name]
        commands = ConflictCommands(
            mountpoint=MOUNT,
            device=device.index.device,
            tree=device.index.tree,
            registers=device.index.registers,
            conflicts=device.conflict_folder,
            drive=device.drive,
            merging=self.merging,
            merger=SimpleNamespace(reason=lambda item: None),  # type: ignore[arg-type]
        )
        await commands.resolve({"path": f"{MOUNT}/{path}".encode(), "keep": keep})

    def _let_time_pass(self) -> None:
        """What stands later in an example happens later, on whichever device."""
        now_ns = max(device.index.now_ns for device in self.devices.values()) + 10**9
        for device in self.devices.values():
            device.index.now_ns = now_ns

    # What is so

    async def still_reads(self, name: str, text: str) -> None:
        self.checks += 1
        device, handle = self.opened[name]
        assert await device.drive.read(handle, 0, 1 << 20) == data(text)

    def all_list(self, names: str) -> None:
        self.checks += 1
        wanted = [] if names == "nothing" else sorted(names.split(", "))
        for device in self.devices.values():
            assert sorted(map(dated, everything(device))) == wanted

    async def all_read(self, path: str, text: str) -> None:
        self.checks += 1
        for device in self.devices.values():
            (shown,) = [each for each in everything(device) if dated(each) == path]
            assert await device.read_file(shown) == data(text)

    def conflict_of(self, path: str, text: str) -> None:
        self.checks += 1
        for device in self.devices.values():
            (conflict,) = device.conflicts()
            assert conflict.path == path.encode()
            assert conflict.version.value.inline == data(text)

    def no_conflicts(self) -> None:
        self.checks += 1
        assert not any(device.conflicts() for device in self.devices.values())


def data(text: str) -> bytes:
    """The bytes that an example means: lines between slashes."""
    return text.replace("NUL ", "\0").replace(" / ", "\n").encode() + b"\n"


def dated(path: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d", "DATE", path)


def everything(device: DriveDevice, path: str = "") -> list[str]:
    found = []
    for raw, attributes in device.listed(path):
        below = f"{path}/{raw.decode()}".lstrip("/")
        if attributes.kind is Kind.DIRECTORY:
            found += [f"{below}/", *everything(device, below)]
        else:
            found.append(below)
    assert path or device.stat("").inode == ROOT_INODE
    return found


def test_there_are_examples():
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
async def test_an_example_is_what_happens(
    world: DriveWorld, example: str, clock: MockClock
) -> None:
    story = Story(world)
    await story.tell(example)
    assert story.checks > 0, "an example shows something"


def test_the_numbers_are_those_of_the_code():
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", TEXT, re.MULTILINE))
    settings = NodeSettings(Path("/a"), Path("/b"))
    assert rows["the first author merges after"] == f"{content_merge.SETTLE_S:g} s"
    assert rows["each further author waits"] == f"{content_merge.TURN_S:g} s and jitter"
    stranger = rows["a device that wrote none of the versions waits"]
    assert stranger == f"{content_merge.STRANGER_WAIT_S:g} s and jitter"
    size = f"{text_lines.MAX_TEXT_BYTES // 1024**2} MiB, {text_lines.MAX_TEXT_LINES} lines a side"
    assert rows["longest text that is merged"] == size
    assert rows["versions merged at once"] == str(merger.MOST_SIBLINGS)
    assert rows["deletions are asked about beyond"] == (
        f"{settings.deletion_guard_share:.0%} of all items, if they are at least "
        f"{settings.deletion_guard_minimum}"
    ).replace("%", " %")
    assert rows["replaced contents are kept for"] == f"{settings.history_days:g} days"
    assert rows["deletions are remembered for"] == f"{settings.tombstone_days:g} days"
