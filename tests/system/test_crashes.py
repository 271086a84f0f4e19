"""Crashes in the middle of work: whatever a program was told is done survives, and arrives."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.trees import differences, snapshot
from tests.system.world import World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

CRASHES = 4
BUSY_S = (0.3, 1.5)


@dataclass
class Program:
    """A program that changes a folder until its file system goes away.

    Attributes:
        done: what it was told is so: the bytes of each file; None for one that it removed.
        doubtful: names that the operation which failed was about: before or after are both right.
    """

    root: Path
    seed: int
    done: dict[str, bytes | None] = field(default_factory=dict)
    doubtful: dict[str, set[bytes | None]] = field(default_factory=dict)
    steps: int = 0

    def run(self) -> None:
        """Work until an operation fails; that one is in doubt."""
        choose = random.Random(self.seed)
        while True:
            before = {}
            after = self._next(choose)
            for name in after:
                before[name] = self.done.get(name)
            try:
                self._do(after, choose)
            except OSError:
                for name, content in after.items():
                    self.doubtful[name] = {before[name], content, *self.doubtful.get(name, ())}
                return
            self.done |= after
            for name in after:
                self.doubtful.pop(name, None)
            self.steps += 1

    def settle(self) -> list[str]:
        """What is not as it was acknowledged; what was in doubt is then taken as it is found."""
        wrong = []
        for name, content in sorted(self.done.items()):
            if name not in self.doubtful and _read(self.root / name) != content:
                wrong.append(f"{name} is not what was written")
        for name, allowed in sorted(self.doubtful.items()):
            found = _read(self.root / name)
            # A write that was cut off may have left a part of what it wrote.
            starts = [content for content in allowed if content is not None]
            if found not in allowed and not any(c.startswith(found or b"") for c in starts):
                wrong.append(f"{name} is neither what it was nor what it was to be")
            self.done[name] = found
        self.doubtful.clear()
        return wrong

    def _next(self, choose: random.Random) -> dict[str, bytes | None]:
        """The outcome of the next operation."""
        name = f"file {choose.randrange(30)}"
        present = [other for other, content in self.done.items() if content is not None]
        match choose.randrange(6):
            case 0 if present:
                return {choose.choice(present): None}
            case 1 if present:
                source = choose.choice(present)
                if source != name:
                    return {source: None, name: self.done[source]}
        size = choose.choice((0, 100, 5_000, 70_000, 1_500_000))
        return {name: choose.randbytes(size)}

    def _do(self, after: dict[str, bytes | None], choose: random.Random) -> None:
        match list(after.items()):
            case [(name, None)]:
                (self.root / name).unlink()
            case [(name, bytes() as content)] if choose.randrange(2):
                aside = self.root / f".{name}.new"
                aside.write_bytes(content)
                aside.rename(self.root / name)
            case [(name, bytes() as content)]:
                (self.root / name).write_bytes(content)
            case [(source, _), (target, _)]:
                (self.root / source).rename(self.root / target)
            case _:
                raise AssertionError("no such operation")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("has_server", [True, False], ids=["online", "offline"])
def test_nothing_acknowledged_is_lost_by_crashes_of_a_busy_node(
    world: World, has_server: bool
) -> None:
    a, b = world.device("a"), world.device("b")
    if has_server:
        world.server.start()
    a.start()
    program = Program(a.mount, seed=int.from_bytes(os.urandom(4), "big"))
    for crash in range(CRASHES):
        working = threading.Thread(target=program.run)
        working.start()
        time.sleep(random.Random(program.seed + crash).uniform(*BUSY_S))
        a.kill()
        working.join(30)
        assert not working.is_alive()
        a.start()
        wrong = program.settle()
        assert not wrong, f"seed {program.seed}, crash {crash}: {wrong}"
        program.seed += 1
    assert program.steps > 5 * CRASHES, "too few operations to prove anything"

    if not has_server:
        world.server.start()
    b.start()
    a.wait("synced")
    b.wait("synced")
    found = differences(snapshot(a.mount), snapshot(b.mount))
    assert not found, "\n".join(found)
    assert a.conflicts() == b.conflicts() == []
    assert a.status()["alarms"] == b.status()["alarms"] == []
