"""What the simulation stands on: a repeatable loop, a server in memory, a network that loses things."""

from __future__ import annotations

import random
import shutil

import pytest
import trio

from node.errors import ServerError
from tests.simulation.accounts import make_home, scratch_folder, the_account
from tests.simulation.device import SimulatedDevice
from tests.simulation.disk import watched_disk
from tests.simulation.link import Cut, Link, Weather
from tests.simulation.loop import run_seeded
from tests.simulation.simulated_server import SimulatedServer
from tests.simulation.trace import Trace


@pytest.fixture
def folder():
    place = scratch_folder("atoll-network-")
    with watched_disk():
        yield place
    shutil.rmtree(place)


def run_with_server(seed, body):
    """The trace of what the body does with a server and a link to it."""
    trace = Trace()

    async def main():
        randomness = random.Random(seed)
        server = SimulatedServer(randomness)
        await server.register_account()
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            await body(server, Link("device0", server, randomness, trace, nursery), nursery)
            nursery.cancel_scope.cancel()

    run_seeded(seed, main)
    return trace


async def write_file(device, name, data):
    drive = device.running.drive
    handle, _ = drive.create_file(1, name, 0o600, 0, 0)
    await drive.write(handle, 0, data)
    await drive.flush(handle)
    return handle


def names(device):
    drive = device.running.drive
    return {entry.name for entry in drive.read_folder(drive.open_folder(1), 0)}


def test_two_runs_of_one_seed_are_the_same_and_of_two_seeds_are_not(folder):
    async def body(server, link, nursery):
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        device = SimulatedDevice(0, "device0", place, link, random.Random(1), link.trace)
        make_home(device.home, 0)
        await device.start(nursery)
        await device.running.drive.release(await write_file(device, b"one", b"1"))
        await trio.sleep(30)
        await device.stop()

    first, again, other = (run_with_server(seed, body).hexdigest for seed in (1, 1, 2))
    assert first == again != other


def test_a_request_is_carried_out_although_its_answer_is_lost():
    async def body(server, link, nursery):
        account = the_account()
        client = link.client(account.credentials(0))
        assert len(await client.whole_account_log(account.founding.account.id)) == 7
        link.weather.cut = Cut.ANSWERS
        frame_of_no_block = bytes(100)
        with pytest.raises(ServerError) as error:
            await client.put_block(account.founding.namespace.id, bytes(32), frame_of_no_block)
        assert error.value.is_transient
        link.weather = Weather(repeated=1.0)
        await client.namespaces()
        server.crash()
        with pytest.raises(ServerError):
            await client.namespaces()
        await nursery.start(server.serve)
        await client.namespaces()

    counts = run_with_server(3, body).counts
    assert counts["lost_answer"] == 1
    assert counts["repeated"]
    assert counts["server_is_down"]


def test_power_loss_takes_what_was_not_synced_and_a_crash_takes_nothing(folder):
    async def body(server, link, nursery):
        link.weather.cut = Cut.BOTH
        device = SimulatedDevice(0, "device0", folder, link, random.Random(1), link.trace)
        make_home(device.home, 0)
        await device.start(nursery)
        await device.running.drive.fsync(await write_file(device, b"synced", b"1"))
        await write_file(device, b"flushed", b"2")
        await device.die(loses_power=False)
        await device.start(nursery)
        assert names(device) == {b"synced", b"flushed"}
        await device.die(loses_power=True)
        await device.start(nursery)
        assert names(device) == {b"synced"}
        await device.stop()

    counts = run_with_server(4, body).counts
    assert counts["crash"] == counts["power_loss"] == 1
