"""One device of a world: a real node on a folder, which dies and starts again.

Owns the life of the node, its clock and its home. What programs do with its drive is in `programs`,
what goes wrong around it in `world`.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import trio

from node.assembly import Assembly, Surroundings
from node.settings import NodeSettings
from node.storage.keystore import Keystore
from node.storage.state_directory import StateDirectory
from node.sync.workers import Workers
from tests.simulation.accounts import the_account
from tests.simulation.disk import copy_after_death
from tests.simulation.link import Link
from tests.simulation.loop import run_inline
from tests.simulation.simulated_server import START_S
from tests.simulation.trace import Trace


class Clock:
    """A device's wall clock: the world's time, and how far off it is."""

    def __init__(self) -> None:
        self.off_s: Callable[[float], float] = lambda _: 0.0

    def now_ns(self) -> int:
        """Nanoseconds since 1970, as this device believes."""
        time_s = trio.current_time()
        return int((START_S + time_s + self.off_s(time_s)) * 1e9)


class SimulatedDevice:
    """A device and the runs of its node.

    Attributes:
        number: which keys it has; a restored copy of a device has those of the first.
        name: its own in the world.
        node: the present run; None while it is off.
        run: counts the runs.
    """

    def __init__(
        self,
        number: int,
        name: str,
        folder: Path,
        link: Link,
        randomness: random.Random,
        trace: Trace,
    ) -> None:
        self.number, self.name, self.link = number, name, link
        self.clock = Clock()
        self.node: Assembly | None = None
        self.run = 0
        self._folder = folder
        self.home = folder / f"{name}-0"
        self._randomness = randomness
        self._trace = trace
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def running(self) -> Assembly:
        """The present run; the device is on."""
        assert self.node is not None, f"{self.name} is off"
        return self.node

    @property
    def is_on(self) -> bool:
        """Whether a node runs."""
        return self.node is not None

    async def start(self, nursery: trio.Nursery) -> None:
        """Start a node on the home as it is."""
        await nursery.start(self._live)

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        self.link.wakes()
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        generator = random.Random(self._randomness.randbytes(16))
        surroundings = Surroundings(
            self.clock.now_ns, generator.randbytes, generator.random, run_inline, Workers.inline()
        )
        settings = NodeSettings(home=self.home, mountpoint=Path("/nowhere"))
        client = self.link.client(the_account().credentials(self.number))
        state = StateDirectory.open(self.home)
        node = Assembly(settings, state, Keystore.load(self.home), surroundings, client)
        self.node, self.run = node, self.run + 1
        self._trace.note("start", self.name)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(node.run_drive)
                    nursery.start_soon(node.run_sync)
                    nursery.start_soon(self._take_invalidations, node)
                    task_status.started()
        finally:
            node.close()
            state.close()
            self.node = None
            self._ended.set()

    async def _take_invalidations(self, node: Assembly) -> None:
        async for _ in node.drive.invalidations:
            pass

    async def die(self, *, loses_power: bool, steps: int = 0) -> None:
        """End the node after so many more steps of any task; its home is what the disk has then."""
        if self.node is None:
            return
        dying = _Dying(steps, lambda: self._freeze(loses_power=loses_power))
        trio.lowlevel.add_instrument(dying)
        with trio.move_on_after(60):
            await dying.is_done.wait()
        if not dying.is_done.is_set():
            trio.lowlevel.remove_instrument(dying)
            self._freeze(loses_power=loses_power)
        await self._ended.wait()

    def _freeze(self, *, loses_power: bool) -> None:
        former, self.home = self.home, self._folder / f"{self.name}-{self.run}"
        copy_after_death(former, self.home, loses_power=loses_power)
        self.link.is_dead = True
        self._trace.note("power_loss" if loses_power else "crash", self.name)
        self._scope.cancel()

    async def stop(self) -> None:
        """End the node in order."""
        if self.node is None:
            return
        await self.node.wait_sent(5)
        self._scope.cancel()
        await self._ended.wait()

    def drop_index(self) -> None:
        """Lose the index; the node must be off."""
        for path in self.home.glob("index.db*"):
            path.unlink()

    def copy_home(self, target: Path) -> None:
        """A backup of the home, of a node that runs or not."""
        copy_after_death(self.home, target, loses_power=False)

    def take_home(self, source: Path) -> None:
        """Use a copy of a home from now on; the node must be off."""
        self.home = self._folder / f"{self.name}-restored-{self.run}"
        shutil.copytree(source, self.home)


class _Dying(trio.abc.Instrument):
    """Strikes between two steps of tasks."""

    def __init__(self, steps: int, strike: Callable[[], None]) -> None:
        self._steps = steps
        self._strike = strike
        self.is_done = trio.Event()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps < 0 and not self.is_done.is_set():
            self._strike()
            trio.lowlevel.remove_instrument(self)
            self.is_done.set()
