"""A device of a simulation: one run of a node after another over one home directory.

Builds the product's assembly as `node.main` does, but for the mount; lets it die at any await, lose
power, lose its index. Called by the world.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import trio

from node.assembly import Assembly, Surroundings
from node.core.account_keys import DeviceKeyPair
from node.errors import NodeError
from node.net.access_tokens import DeviceCredentials
from node.settings import NodeSettings
from node.storage.database import Database
from node.storage.keystore import Keystore
from node.storage.state_directory import StateDirectory
from node.sync.workers import Workers
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from tests.simulation.disk import INDEX, Disk, Disks
from tests.simulation.ledger import Ledger
from tests.simulation.network import Link, SimulatedClient
from tests.simulation.plan import Step
from tests.simulation.programs import Programs
from tests.simulation.scheduling import inline
from tests.simulation.simulated_server import SimulatedServer

TOMBSTONE_DAYS = 20  # less than a month: a suspended device misses deletions for good


@cache
def _empty_index(folder: Path) -> bytes:
    """The file of an index that nothing was written to: to make one takes longer than to copy it."""
    path = folder / "template.db"
    Database(path, bytes(32)).close()
    return path.read_bytes()


class SimulatedDevice:
    """One device.

    Attributes:
        skew_ns: its wall clock minus that of the world.
        is_wanted: whether it is switched on.
    """

    def __init__(
        self,
        number: int,
        name: str,
        keystore: Keystore,
        link: Link,
        folder: Path,
        disks: Disks,
        ledger: Ledger,
        counts: Counter[str],
        now_ns: Callable[[], int],
    ) -> None:
        self.number = number
        self.link = link
        self.skew_ns = 0
        self.is_hourly = False
        self.is_wanted = True
        self.parts: Assembly | None = None
        self.programs: Programs | None = None
        self._name = name
        self._keystore = keystore
        self._folder = folder / name
        self._disks = disks
        self._ledger = ledger
        self._counts = counts
        self._world_ns = now_ns
        self._runs = 0
        self._scope: trio.CancelScope | None = None
        self._tasks: trio.Nursery | None = None
        self._rounds = 0
        self._changed = trio.Event()
        self._steps: list[tuple[int, Step]] = []
        self._is_busy = False
        self.disk = self._new_home()

    def now_ns(self) -> int:
        """What its wall clock says."""
        now_ns = self._world_ns() + self.skew_ns
        if self.is_hourly:
            now_ns -= now_ns // 3_600_000_000_000 % 24 * 3_600_000_000_000
        return now_ns

    def _home(self) -> Path:
        return self._folder / str(self._runs)

    def _new_home(self) -> Disk:
        """An enrolled device that has seen nothing yet."""
        self._runs += 1
        home = self._home()
        home.mkdir(mode=0o700, parents=True)
        (home / INDEX).write_bytes(_empty_index(self._folder.parent))
        self._keystore.save(home)
        disk = self._disks.add(Disk(home))
        disk.all_synced()
        return disk

    # Running

    def is_idle(self, head: int) -> bool:
        """Whether it runs, has all records, and nothing that was done there waits for anything."""
        parts = self.parts
        return (
            parts is not None
            and not self._steps
            and not self._is_busy
            and not self.has_unsent
            and not self._rounds
            and not parts.tree.burials.waiting()
            and parts.journal.cursor[1] == head
        )

    def misses_burials(self, server: SimulatedServer) -> bool:
        """Whether it has not yet read all that the server has."""
        parts = self.parts
        return parts is None or parts.tree.burials.last_number < server.burials

    @property
    def has_conflicts(self) -> bool:
        """Whether some file has conflict versions there, which may still be merged."""
        return self.parts is not None and bool(self.parts.conflicts.versions())

    @property
    def has_unsent(self) -> bool:
        """Whether something was written there that the server does not have."""
        parts = self.parts
        return parts is None or bool(
            parts.journal.count_groups()
            or parts.journal.count_outbox()
            or any(file.is_dirty for file in parts.files)
        )

    def describe(self) -> str:
        """What it still has to do, for a failure's message."""
        if self.parts is None:
            return "off"
        journal = self.parts.journal
        return (
            f"groups {journal.count_groups()}, outbox {journal.count_outbox()}, "
            f"steps {len(self._steps)}, busy {self._is_busy}, behind {self.parts.puller.is_behind}, "
            f"publisher {self.parts.publisher.last_error}, puller {self.parts.puller.last_error}"
        )

    async def run(self) -> None:
        """Be on whenever it is wanted, until cancelled."""
        while True:
            if self.is_wanted:
                await self._run_once()
            else:
                await self._changed.wait()
                self._changed = trio.Event()

    async def _run_once(self) -> None:
        self._runs += 1
        draw = random.Random(f"{self._name}/{self._runs}/{self._ledger.seed}")
        surroundings = Surroundings(
            now_ns=self.now_ns,
            token_bytes=draw.randbytes,
            draw=draw.random,
            run_sync=inline,
            workers=Workers.inline(),
            sync_threads=1,
        )
        keys = self._keystore
        device = DeviceKeyPair(
            SigningKey.from_seed(keys.signing_seed), BoxKey.from_private(keys.box_private)
        )
        client = SimulatedClient(self.link, DeviceCredentials(device.id, device.signing))
        settings = NodeSettings(self.disk.home, Path("/nowhere"), tombstone_days=TOMBSTONE_DAYS)
        with StateDirectory.open(self.disk.home) as state:
            parts = Assembly(settings, state, keys, surroundings, client)
            try:
                async with trio.open_nursery() as nursery:
                    self._scope, self._tasks = nursery.cancel_scope, nursery
                    self.parts = parts
                    self.programs = Programs(self.number, parts.drive, self._ledger, self._counts)
                    nursery.start_soon(parts.run_drive)
                    nursery.start_soon(parts.run_sync)
                    nursery.start_soon(self._drain, parts)
                    nursery.start_soon(self._work)
            finally:
                self._scope = self._tasks = self.parts = self.programs = None
                self._is_busy = False
                parts.database.close()

    async def _drain(self, parts: Assembly) -> None:
        async for _ in parts.drive.invalidations:
            pass

    def bury(self, *, was_away: bool) -> None:
        """Begin a round of burials, if the device runs; it ends when it succeeds."""
        if self._tasks is not None:
            self._tasks.start_soon(self._bury, was_away)

    async def _bury(self, was_away: bool) -> None:
        assert self.parts is not None
        self._rounds += 1
        try:
            while True:
                with suppress(NodeError):
                    await self.parts.burying.go_round(was_away=was_away)
                    return
                await trio.sleep(1)
        finally:
            self._rounds -= 1

    async def _work(self) -> None:
        while True:
            while self._steps:
                self._is_busy = True
                number, step = self._steps.pop(0)
                assert self.programs is not None
                await self.programs.perform(number, step)
            self._is_busy = False
            await self._changed.wait()
            self._changed = trio.Event()

    def perform(self, number: int, step: Step) -> None:
        """Let a program do something, after those before it."""
        self._steps.append((number, step))
        self._changed.set()

    # Faults

    def switch(self, *, is_wanted: bool) -> None:
        """On, or off by force, as `die`."""
        self.is_wanted = is_wanted
        if not is_wanted:
            self.die()
        self._changed.set()

    def die(self) -> None:
        """End at whatever it awaits; the next run finds what was written until now."""
        if self._scope is None:
            return
        if not self.has_unsent:
            self._ledger.sent(self.number)
        assert self.programs is not None
        self.programs.is_over = True
        self._runs += 1
        self._use(self.disk.copied_to(self._home()))
        self._scope.cancel()
        self._scope = self._tasks = None

    def lose_power(self, draw: random.Random) -> int:
        """As `die`, but what was not synced is lost; how many files lost something."""
        self.die()
        self._ledger.power_lost(self.number)
        return self.disk.lose_power(draw)

    def lose_index(self) -> None:
        """As `die`; then the device begins anew with its keys."""
        self.die()
        self._ledger.disk_lost(self.number)
        self._use(self._new_home())

    def backup(self) -> Disk:
        """A copy of its home as it is now."""
        self._runs += 1
        copy = self.disk.copied_to(self._home())
        copy.all_synced()
        return copy

    def restore(self, backup: Disk) -> None:
        """As `die`; then the device goes on from a backup."""
        self.die()
        self._ledger.disk_lost(self.number)
        self._runs += 1
        self._use(backup.copied_to(self._home()))
        self.disk.all_synced()

    def _use(self, disk: Disk) -> None:
        self.disk = self._disks.add(disk)


def remove_folder(folder: Path) -> None:
    """Everything that a run left on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
