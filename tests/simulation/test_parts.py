"""What the simulation stands on: a network that loses things, and a disk that does."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from node.errors import ServerError
from node.net.access_tokens import DeviceCredentials
from node.storage.tree import ROOT_INODE
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.ids import BlockId, device_id
from tests.simulation.device import SimulatedDevice
from tests.simulation.disk import Disks
from tests.simulation.enrolled_account import MAX_DEVICES, START_US, enrolled
from tests.simulation.ledger import Ledger
from tests.simulation.network import Link, SimulatedClient, Weather
from tests.simulation.scheduling import run_in_virtual_time
from tests.simulation.simulated_server import SimulatedServer


class Parts:
    """A server and one device's link to it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.server = SimulatedServer(
            enrolled().new_store(), lambda: START_US // 10**6, random.Random(1).randbytes
        )
        self.link = Link(self.server, "net", self.counts)

    def device(self, folder: Path, disks: Disks) -> SimulatedDevice:
        return SimulatedDevice(
            0,
            "d0",
            enrolled().keystores[0],
            self.link,
            folder,
            disks,
            Ledger("1"),
            self.counts,
            lambda: START_US * 1000,
        )


@pytest.fixture
def parts():
    enrolled()
    return Parts()


def test_a_request_is_carried_out_although_its_answer_is_lost(parts):
    keys = enrolled().keystores[0]
    account, namespace = keys.account, keys.namespace
    assert account is not None
    assert namespace is not None
    signing = SigningKey.from_seed(keys.signing_seed)

    async def main():
        credentials = DeviceCredentials(
            device_id(signing.public, BoxKey.from_private(keys.box_private).public), signing
        )
        client = SimulatedClient(parts.link, credentials)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.server.run)
            await trio.sleep(1)
            assert len(await client.whole_account_log(account)) == MAX_DEVICES + 2
            parts.link.is_cut_down = True
            with pytest.raises(ServerError) as error:
                await client.missing_blocks(namespace, [BlockId(bytes(32))])
            assert error.value.is_transient
            parts.link.is_cut_down = False
            parts.link.weather = Weather(duplicated=1.0)
            await client.whole_account_log(account)
            parts.server.switch(is_wanted=False)
            await trio.sleep(1)
            with pytest.raises(ServerError):
                await client.whole_account_log(account)
            parts.server.switch(is_wanted=True)
            await trio.sleep(1)
            await client.whole_account_log(account)
            nursery.cancel_scope.cancel()

    run_in_virtual_time("1", main)
    assert parts.counts["lost answers"] == 1
    assert parts.counts["duplicated requests"]
    assert parts.counts["refused connections"]


def test_power_loss_takes_what_was_not_synced_and_a_crash_takes_nothing(parts, tmp_path):
    async def main():
        parts.link.is_cut_up = True
        device = parts.device(tmp_path, disks)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.run)
            await trio.sleep(0.1)
            drive = device.parts.drive
            await drive.fsync(await _written(drive, b"synced"))
            await _written(drive, b"flushed")
            device.die()
            await trio.sleep(0.1)
            assert {place.name for place in device.programs.walk()} == {b"synced", b"flushed"}
            device.lose_power(LosesAll())
            await trio.sleep(0.1)
            assert {place.name for place in device.programs.walk()} == {b"synced"}
            nursery.cancel_scope.cancel()

    disks = Disks()
    with disks.in_charge():
        run_in_virtual_time("1", main)


class LosesAll(random.Random):
    """The worst of what a loss of power may leave."""

    def choice(self, options):
        return options[0]

    def random(self):
        return 0.0


async def _written(drive, name):
    handle, _ = drive.create_file(ROOT_INODE, name, 0o600, 0, 0)
    await drive.write(handle, 0, name)
    await drive.flush(handle)
    return handle
