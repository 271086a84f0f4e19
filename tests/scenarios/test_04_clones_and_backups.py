"""Scenario 4: a cloned device and one restored from a backup, written to apart, then together.

Source: Riak's kv679, "Possible data loss on corruption of coordinating node replica"
(github.com/basho/riak_kv/issues/679, with the fixes 1094 and 1643): an actor that forgets what it
wrote, as after a restored backup, numbers new events like old ones, and version vectors then bury
the new data under the old; Riak's remedy is an epoch in the actor, as the incarnation is here.
Syncthing's issue 3997 (a cloned virtual machine has its original's device id, and one of the two
just stops syncing) and issue 10216 (a home restored from a backup, used as if it were the present
one, overwrites newer files everywhere). The plausible simpler design that this breaks is one counter
for each device, kept in its state directory.

There are no peers on the local network yet: each island is a node that has no network, and heals by
getting it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.core.account_keys import DeviceKeyPair
from node.enrolment import _unwrapped_root
from node.net.server_address import ServerAddress
from node.storage.keystore import Keystore
from protocol.ids import DeviceId
from protocol.logs import AccountLog, EventType, events_from_wire
from protocol.records import SignedRecord
from tests.node.assembled import AssembledNode, client_of, copy_home, running, until
from tests.node.enrolled import EMAIL, PASSWORD, cheap_stretch, create, device_of, login
from tests.server.running import RunningServer, running_process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_process(
        tmp_path / "server", open_registration=True, requests_per_second=1000
    ) as process:
        yield process


@dataclass
class Homes:
    """State directories: of one honest device, of one that is cloned, of one that is restored."""

    honest: Path
    original: Path
    clone: Path
    restored: Path


@pytest.fixture
async def homes(server: RunningServer, tmp_path: Path) -> Homes:
    made = Homes(*(tmp_path / name for name in ("honest", "original", "clone", "restored")))
    await create(made.honest, server.url)
    for home in (made.original, made.restored):
        await login(home, server.url)
    return made


async def grow_apart(homes: Homes, backup: Path) -> None:
    """One tree on all three devices; then a backup, more work, and the clone is taken."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running(home))
            for home in (homes.honest, homes.original, homes.restored)
        ]
        for name in ("a", "b", "c", "d"):
            await nodes[2].write(name, b"\0base of " + name.encode())
        await nodes[2].synced()
        await nodes[0].synced()
        await nodes[1].synced()
    copy_home(homes.restored, backup)
    async with AsyncExitStack() as stack:
        honest = await stack.enter_async_context(running(homes.honest))
        restored = await stack.enter_async_context(running(homes.restored))
        await restored.write("a", b"\0after the backup")
        await restored.write("new", b"\0made after the backup")
        restored.remove("d")
        await restored.synced()
        await honest.synced()
        assert honest.tree() == restored.tree()
    copy_home(homes.original, homes.clone)


async def restore(homes: Homes, backup: Path) -> None:
    """The disk died; the backup takes its place."""
    homes.restored.rename(homes.restored.with_name("dead disk"))
    copy_home(backup, homes.restored)


@asynccontextmanager
async def islands(homes: Homes, *paths: Path) -> AsyncIterator[list[AssembledNode]]:
    """Nodes without a network, all running."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(path, is_cut_off=True)) for path in paths]


async def heal(*nodes: AssembledNode) -> None:
    """Everybody gets the network; returns when all have what all wrote."""
    for node in nodes:
        node.reconnect()
    for _ in range(2):
        for node in nodes:
            await node.synced()


async def test_a_clone_and_a_restored_device_heal_and_nothing_is_lost_or_deleted(
    homes: Homes, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    await grow_apart(homes, backup)
    await restore(homes, backup)
    async with islands(homes, homes.honest, homes.original, homes.clone, homes.restored) as nodes:
        honest, original, clone, restored = nodes
        assert set(restored.tree()) == {"a", "b", "c", "d"}, "it has forgotten what it did"
        await original.write("b", b"\0by the original")
        await original.write("of the original", b"\0o")
        await clone.write("b", b"\0by the clone")
        await clone.write("of the clone", b"\0c")
        clone.remove("c")
        await restored.write("a", b"\0by the restored one")
        await restored.write("c", b"\0edited by the restored one")
        await restored.write("of the restored one", b"\0r")
        for node in (original, clone, restored):
            await node.settled()
            assert not node.has_sent_all
        await heal(*nodes)
        for node in nodes:
            assert node.tree() == honest.tree()
            assert set(node.tree()) == {
                "a",
                "b",
                "c",
                "new",
                "of the original",
                "of the clone",
                "of the restored one",
            }
            assert node.versions("a") == {b"\0after the backup", b"\0by the restored one"}
            assert node.versions("b") == {b"\0by the original", b"\0by the clone"}
            assert node.versions("c") == {b"\0edited by the restored one"}
        assert "copy" in restored.alarm_kinds
        assert "copy" in original.alarm_kinds | clone.alarm_kinds
        assert honest.alarm_kinds == set()


async def test_two_nodes_that_continue_one_run_both_reach_the_others(homes: Homes) -> None:
    async with running(homes.original) as original:
        await original.write("shared", b"\0base")
        await original.synced()
    copy_home(homes.original, homes.clone)
    async with AsyncExitStack() as stack:
        honest = await stack.enter_async_context(running(homes.honest, is_cut_off=True))
        original = await stack.enter_async_context(
            running(homes.original, is_cut_off=True, incarnation=b"one run.")
        )
        clone = await stack.enter_async_context(
            running(homes.clone, is_cut_off=True, incarnation=b"one run.")
        )
        for number in range(3):
            await original.write("shared", b"\0by the original, %d" % number)
            await original.settled()
        await clone.write("of the clone", b"\0c")
        await clone.settled()
        for number in range(5):
            await clone.write("shared", b"\0by the clone, %d" % number)
            await clone.settled()
        original.reconnect()
        await original.synced()
        await heal(honest, original, clone)
        for node in (honest, original, clone):
            assert node.versions("shared") == {b"\0by the original, 2", b"\0by the clone, 4"}
            assert set(node.tree()) == {"shared", "of the clone"}
        assert "fork" in clone.alarm_kinds
        assert clone.parts.journal.alarms()[0].evidence
        await clone.write("later", b"\0goes on")
        await heal(honest, original, clone)
        assert honest.tree()["later"] == b"\0goes on"


async def revoke(home: Path, device: DeviceId, last_valid: list[SignedRecord]) -> None:
    """What `atoll devices revoke` will do: the root names the last records that count."""
    keystore = Keystore.load(home)
    assert keystore.account is not None
    address = ServerAddress.parse(keystore.server)
    _, root = await _unwrapped_root(address, EMAIL, PASSWORD, cheap_stretch)
    async with client_of(home) as client:
        log = AccountLog.from_events(
            events_from_wire(await client.whole_account_log(keystore.account))
        )
        cuts = [
            [bytes(each.record.actor), each.record.sequence, bytes(each.id)] for each in last_valid
        ]
        event = log.next_event(EventType.REVOCATION, [bytes(device), cuts], 1)
        await client.append_account_log(log.id, log.head, [event.sign(root.signing).to_wire()])


def heads_of(node: AssembledNode, device: DeviceKeyPair) -> list[SignedRecord]:
    """The last record of each run of a device that a node has."""
    rows = node.parts.database.execute("SELECT wire FROM records ORDER BY sequence")
    records = [SignedRecord.from_wire(wire) for (wire,) in rows]
    last = {each.record.actor: each for each in records if each.record.device == device.id}
    return list(last.values())


async def test_a_clone_that_is_revoked_meanwhile_changes_nothing_and_the_rest_heals(
    homes: Homes, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    await grow_apart(homes, backup)
    await restore(homes, backup)
    async with islands(homes, homes.honest, homes.clone, homes.restored) as nodes:
        honest, clone, restored = nodes
        await clone.write("b", b"\0by the thief")
        clone.remove("c")
        await clone.settled()
        await restored.write("c", b"\0edited by the restored one")
        await restored.settled()
        await revoke(homes.honest, device_of(homes.clone).id, [])
        clone.reconnect()
        await heal(honest, restored)
        await until(lambda: clone.parts.publisher.last_error is not None)
        for node in (honest, restored):
            assert set(node.tree()) == {"a", "b", "c", "new"}
            assert node.versions("b") == {b"\0base of b"}
            assert node.versions("c") == {b"\0edited by the restored one"}
        assert clone.tree()["b"] == b"\0by the thief", "it is not lost where it was written"
        assert not clone.has_sent_all


async def test_what_a_revoked_device_sent_beyond_its_cut_is_withdrawn_everywhere(
    homes: Homes, tmp_path: Path
) -> None:
    await grow_apart(homes, tmp_path / "backup")
    async with AsyncExitStack() as stack:
        honest = await stack.enter_async_context(running(homes.honest))
        offline = await stack.enter_async_context(running(homes.restored, is_cut_off=True))
        async with running(homes.original) as original:
            await original.write("b", b"\0valid")
            await original.synced()
            await honest.synced()
            cuts = heads_of(honest, device_of(homes.original))
            await original.write("b", b"\0by whoever found it")
            await original.write("planted", b"\0p")
            original.remove("c")
            await original.synced()
        await honest.synced()
        assert "planted" in honest.tree()
        await revoke(homes.honest, device_of(homes.original).id, cuts)
        offline.reconnect()
        for node in (honest, offline):
            await node.alarmed("revoked")
            await node.synced()
            assert set(node.tree()) == {"a", "b", "c", "new"}
            assert node.versions("b") == {b"\0valid"}
