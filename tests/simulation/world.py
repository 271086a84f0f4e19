"""One run: devices, a server, the network between them, what happens, and what must hold then.

Everything that it does follows from its plan: the order of tasks, all chances, all clocks. Called by
the command and by tests.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.simulation.device import SimulatedDevice, remove_folder
from tests.simulation.disk import Disk, Disks
from tests.simulation.enrolled_account import START_US, enrolled
from tests.simulation.ledger import Ledger
from tests.simulation.network import Link, Weather
from tests.simulation.oracles import BrokenPromiseError, check
from tests.simulation.plan import Plan, Step
from tests.simulation.scheduling import run_in_virtual_time
from tests.simulation.simulated_server import SimulatedServer

DAY_NS = 24 * 3600 * 10**9
_WILD_NS = (  # 2100 and 1999, from about 2026
    73 * 365 * DAY_NS,
    -27 * 365 * DAY_NS,
)
_FORGETTING = ("drop index", "restore", "clone")  # own records come back unknown
_WRONG_CLOCKS = 0.3  # of the runs, so that most failures are read without thinking of clocks
_MERGING_S = 45.0  # the last one to merge waits for 30 s and some jitter
_QUIET_S = 5.0
_ROUND_S = 2.5
_MAX_ROUNDS = 400


@dataclass
class Outcome:
    """What a run came to."""

    trace: str
    counts: Counter[str]
    virtual_s: float
    failure: BaseException | None = None


def simulate(plan: Plan) -> Outcome:
    """Carry a plan out and look at the end of it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="atoll-sim-", dir=memory if memory.is_dir() else None))
    enrolled()
    disks = Disks()
    try:
        with disks.in_charge():
            world = World(plan, folder, disks)
            return run_in_virtual_time(f"{plan.seed}/order", world.run)
    finally:
        remove_folder(folder)


@dataclass
class _Trace:
    """A hash of what happened."""

    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def note(self, *values: object) -> None:
        self.digest.update(f"{trio.current_time():.6f} {values!r}\n".encode())


class World:
    """The devices and the server of one run."""

    def __init__(self, plan: Plan, folder: Path, disks: Disks) -> None:
        self._plan = plan
        self._folder = folder
        self._disks = disks
        self._counts: Counter[str] = Counter()
        self._ledger = Ledger(str(plan.seed))
        self._trace = _Trace()
        self._random = random.Random(f"{plan.seed}/faults")
        self._leap_ns = 0
        self._has_wrong_clocks = random.Random(f"{plan.seed}/clocks").random() < _WRONG_CLOCKS
        self._clones = 0
        self._backups: dict[int, Disk] = {}
        self._allowed_alarms: set[str] = set()

    def _now_ns(self) -> int:
        return START_US * 1000 + self._leap_ns + int(trio.current_time() * 1e9)

    async def run(self) -> Outcome:
        """Everything, from the first device's start to the oracles."""
        start = trio.current_time()
        seed = self._plan.seed
        account = enrolled()
        self._server = SimulatedServer(
            account.new_store(),
            lambda: self._now_ns() // 10**9,
            random.Random(f"{seed}/server").randbytes,
        )
        self._devices = [self._device(number, f"d{number}") for number in range(self._plan.devices)]
        if self._has_wrong_clocks:
            self._set_clocks()
            self._allowed_alarms.add("clock")
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._server.run)
                for device in self._devices:
                    nursery.start_soon(device.run)
                await self._happen()
                await self._heal()
                shown = await check(
                    self._devices,
                    self._server,
                    self._ledger,
                    self._counts,
                    frozenset(self._allowed_alarms),
                )
                self._trace.note("end", sorted(shown.items()))
                nursery.cancel_scope.cancel()
        except Exception as error:
            failure = error
        return Outcome(
            self._trace.digest.hexdigest()[:16], self._counts, trio.current_time() - start, failure
        )

    def _set_clocks(self) -> None:
        """Clocks that are wrong from the first moment, and that nobody sets right in the end."""
        draw = random.Random(f"{self._plan.seed}/skews")
        for device in self._devices:
            device.skew_ns = draw.choice((0, draw.randrange(-DAY_NS, DAY_NS), *_WILD_NS))
            device.is_hourly = draw.random() < 0.2
            self._counts["wrong clocks"] += device.skew_ns != 0 or device.is_hourly

    def _device(self, number: int, name: str) -> SimulatedDevice:
        link = Link(self._server, f"{self._plan.seed}/net/{name}", self._counts)
        return SimulatedDevice(
            number,
            name,
            enrolled().keystores[number],
            link,
            self._folder,
            self._disks,
            self._ledger,
            self._counts,
            self._now_ns,
        )

    async def _happen(self) -> None:
        for index in self._plan.kept:
            step = self._plan.steps[index]
            await trio.sleep(step.gap_s)
            self._trace.note(index, step.action, self._server.head)
            if step.is_fault:
                await self._befall(step)
            else:
                self._devices[step.device].perform(index, step)

    # Faults

    async def _befall(self, step: Step) -> None:
        device = self._devices[step.device]
        # In the midst of whatever goes on: some steps of the scheduler later.
        for _ in range(step.numbers[0] % 40):
            await trio.lowlevel.checkpoint()
        acts: dict[str, Callable[[SimulatedDevice, Step], Awaitable[None]]] = {
            "crash": self._crash,
            "power": self._power,
            "stop": self._stop,
            "cut": self._cut,
            "cut up": self._cut,
            "cut down": self._cut,
            "heal": self._mend,
            "weather": self._weather,
            "server crash": self._server_crash,
            "server down": self._server_down,
            "drop index": self._drop_index,
            "skew": self._skew,
            "wild clock": self._wild_clock,
            "suspend": self._suspend,
            "backup": self._backup,
            "restore": self._restore,
            "clone": self._clone,
        }
        self._counts[step.action] += 1
        if step.action in _FORGETTING:
            self._allowed_alarms.add("copy")
        if step.action in ("skew", "wild clock"):
            self._allowed_alarms.add("clock")
        if step.action == "power":
            self._allowed_alarms |= {"staging", "lost"}
        await acts[step.action](device, step)

    async def _crash(self, device: SimulatedDevice, step: Step) -> None:
        device.die()

    async def _power(self, device: SimulatedDevice, step: Step) -> None:
        self._counts["files that lost something"] += device.lose_power(self._random)

    async def _stop(self, device: SimulatedDevice, step: Step) -> None:
        """Off for a while."""
        device.switch(is_wanted=False)
        self._later(step, lambda: device.switch(is_wanted=True))

    async def _cut(self, device: SimulatedDevice, step: Step) -> None:
        device.link.is_cut_up |= step.action != "cut down"
        device.link.is_cut_down |= step.action != "cut up"
        if step.numbers[1] % 3:
            self._later(step, device.link.heal)

    async def _mend(self, device: SimulatedDevice, step: Step) -> None:
        device.link.heal()

    async def _weather(self, device: SimulatedDevice, step: Step) -> None:
        draw = random.Random(step.numbers[1])
        device.link.weather = Weather(
            draw.choice((0.001, 0.05, 0.5)),
            draw.choice((0, 0.05, 0.2)),
            draw.choice((0, 0.1, 0.3)),
            draw.choice((0, 0.1, 0.3)),
        )

    async def _server_crash(self, device: SimulatedDevice, step: Step) -> None:
        self._server.switch(is_wanted=False)
        await trio.sleep(0.01)
        self._server.switch(is_wanted=True)

    async def _server_down(self, device: SimulatedDevice, step: Step) -> None:
        self._server.switch(is_wanted=False)
        self._later(step, lambda: self._server.switch(is_wanted=True))

    async def _drop_index(self, device: SimulatedDevice, step: Step) -> None:
        device.lose_index()

    async def _skew(self, device: SimulatedDevice, step: Step) -> None:
        device.skew_ns = (step.numbers[1] % 11 - 5) * DAY_NS

    async def _wild_clock(self, device: SimulatedDevice, step: Step) -> None:
        choice = step.numbers[1] % 3
        device.is_hourly = choice == 2
        device.skew_ns = 0 if choice == 2 else _WILD_NS[choice]

    async def _suspend(self, device: SimulatedDevice, step: Step) -> None:
        """A month passes for the others; then it wakes with its connections and timers as they were."""
        device.link.is_cut_up = device.link.is_cut_down = True
        self._leap_ns += 30 * DAY_NS
        self._later(step, device.link.heal)
        self._nursery.start_soon(self._forget_old_deletions, device)

    async def _forget_old_deletions(self, away: SimulatedDevice) -> None:
        """What the others and the server do once a day."""
        for device in self._devices:
            if device is not away:
                device.bury(was_away=False)
        await trio.sleep(_ROUND_S)
        self._server.start(self._server.collect)

    async def _backup(self, device: SimulatedDevice, step: Step) -> None:
        self._backups[device.number] = device.backup()

    async def _restore(self, device: SimulatedDevice, step: Step) -> None:
        backup = self._backups.get(device.number)
        if backup is not None:
            device.restore(backup)
            self._counts["restored from a backup"] += 1

    async def _clone(self, device: SimulatedDevice, step: Step) -> None:
        """Two devices run with one device's keys."""
        backup = self._backups.get(device.number)
        if backup is None or self._clones >= 1:
            return
        self._clones += 1
        self._counts["cloned from a backup"] += 1
        clone = self._device(device.number, f"c{self._clones}")
        clone.restore(backup)
        self._devices.append(clone)
        self._nursery.start_soon(clone.run)

    def _later(self, step: Step, act: Callable[[], None]) -> None:
        async def wait_and_act() -> None:
            await trio.sleep(step.numbers[1] % 60)
            act()

        self._nursery.start_soon(wait_and_act)

    # The end

    async def _heal(self) -> None:
        """All faults end; return when nothing changes any more."""
        for device in self._devices:
            device.link.heal()
            if not self._has_wrong_clocks:
                device.skew_ns, device.is_hourly = 0, False
            device.switch(is_wanted=True)
        self._server.switch(is_wanted=True)
        former, quiet_s = None, 0.0
        for _ in range(_MAX_ROUNDS):
            await trio.sleep(_ROUND_S)
            for device in self._devices:
                device.link.heal()
                if not device.is_wanted:
                    device.switch(is_wanted=True)
            self._server.switch(is_wanted=True)
            head = self._server.head
            state = (head, all(device.is_idle(head) for device in self._devices))
            quiet_s = quiet_s + _ROUND_S if state == former and state[1] else 0.0
            former = state
            has_conflicts = any(device.has_conflicts for device in self._devices)
            if quiet_s < (_MERGING_S if has_conflicts else _QUIET_S):
                continue
            behind = [device for device in self._devices if device.misses_burials(self._server)]
            if not behind:
                return
            for device in behind:
                device.bury(was_away=True)
            quiet_s = 0.0
        waiting = {device.number: device.describe() for device in self._devices}
        raise BrokenPromiseError(f"things do not settle: {waiting}")
