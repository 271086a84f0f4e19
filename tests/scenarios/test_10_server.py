"""Scenario 10: what a server must not get wrong while it commits, collects and comes back.

Sources: cursors that skip what commits later (the gap problem of sequences in PostgreSQL's
documentation of `nextval`, and of Kafka's transactional outbox); collection against a publisher that
was told that a block is there (restic issue 1141 and the two-phase prune that followed); a restored
backup behind its clients (Dropbox, "Rewriting the heart of our sync engine", 2020, on consistent
invariants of the server's journal); two records under one sequence number (SUNDR, Li et al., 2004).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from protocol.http_api import (
    BlockList,
    ChallengeRequest,
    CommitRequest,
    Cursor,
    ErrorCode,
)
from protocol.version_vector import Context
from server.blobs.disk import DiskBlockStore
from server.services.all_services import Services
from server.services.block_locks import BlockLocks
from server.services.blocks import LEASE_S
from server.services.collector import GRACE_S, RETENTION_S, Collector
from server.services.ports import Surroundings
from server.services.sessions import Session
from server.stores.sqlite_store import SqliteStore
from tests.server.client import some_block
from tests.server.people import Device, Person, with_other_content
from tests.server.running import run_command
from tests.system.world import World

Result = TypeVar("Result")
DAY_S = 86400


class AtOnce:
    async def run(self, work: Callable[[], Result]) -> Result:
        return work()


class RealServer:
    """The services over the stores of the product, with a clock that the test turns."""

    def __init__(self, services: Services, person: Person, session: Session, place: Path) -> None:
        self.services = services
        self.person = person
        self.session = session
        self.blob_folder = place / "blobs" / "blocks"
        self.namespace = person.namespace.id
        self.now_s = 1_800_000_000

    async def commit(self, *records):
        request = CommitRequest(tuple(record.to_wire() for record in records))
        return (await self.services.journal.commit(self.session, self.namespace, request)).results

    async def put(self, block) -> None:
        await self.services.blocks.put(self.session, self.namespace, block.id, pieces(block.frame))

    async def missing(self, *blocks) -> tuple:
        question = BlockList(tuple(block.id for block in blocks))
        answer = await self.services.blocks.missing(self.session, self.namespace, question)
        return answer.blocks

    async def collect(self, later_s: int):
        self.now_s += later_s
        return await self.services.collector.collect()

    def files(self) -> int:
        return sum(1 for path in self.blob_folder.rglob("*") if path.is_file())


async def pieces(frame: bytes) -> AsyncIterator[bytes]:
    yield frame


def with_server(test: Callable[[RealServer], Awaitable[None]]):
    def run(tmp_path):
        async def with_stores():
            store = await SqliteStore.open(tmp_path / "db")
            real: list[RealServer] = []
            surroundings = Surroundings(
                lambda: real[0].now_s if real else 1_800_000_000, os.urandom, AtOnce()
            )
            services = await Services.over(
                store,
                DiskBlockStore(tmp_path / "blobs", 0),
                surroundings,
                server_id=b"i" * 32,
                token_lifetime_s=10**9,
                needs_invitation=False,
            )
            try:
                person = Person()
                await services.accounts.register(person.registration())
                challenge = await services.sessions.challenge(
                    ChallengeRequest(device=person.device.id)
                )
                answer = await services.sessions.refresh(person.device.refresh(challenge))
                session = await services.sessions.authenticate(answer.access_token)
                real.append(RealServer(services, person, session, tmp_path))
                await test(real[0])
            finally:
                await store.close()

        asyncio.run(with_stores())

    run.__name__ = test.__name__
    return run


@with_server
async def test_a_polling_cursor_skips_nothing_while_four_writers_commit(server):
    per_writer = 40
    read: list[int] = []

    async def write(writer: Device) -> None:
        writer.key, writer.box_public = server.person.device.key, server.person.device.box_public
        for _ in range(per_writer):
            (result,) = await server.commit(writer.record(server.namespace))
            assert result.error is None

    async def poll() -> None:
        cursor = None
        while len(read) < 4 * per_writer:
            page = await server.services.journal.delta(server.session, server.namespace, cursor, 7)
            read.extend(entry.position for entry in page.records)
            cursor = Cursor.parse(page.cursor)
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(poll(), *(write(Device()) for _ in range(4)))
    assert read == list(range(1, 4 * per_writer + 1))


@with_server
async def test_a_block_that_was_said_to_be_there_outlives_the_collection_before_its_commit(server):
    block, stray = some_block(5000), some_block(6000)
    for each in (block, stray):
        await server.put(each)
    await server.collect(LEASE_S + 1)  # condemns both
    assert await server.missing(block) == ()
    gone = await server.collect(GRACE_S + 1)
    assert (gone.blocks, server.files()) == (1, 1)
    (result,) = await server.commit(
        server.person.device.record(server.namespace, blocks=(block.id,))
    )
    assert result.error is None
    await server.collect(100 * DAY_S)
    assert (await server.collect(100 * DAY_S)).blocks == 0
    assert await server.missing(block, stray) == (stray.id,)


@with_server
async def test_a_record_whose_blocks_were_collected_after_all_is_told_which_to_send_again(server):
    block = some_block(5000)
    await server.put(block)
    record = server.person.device.record(server.namespace, blocks=(block.id,))
    await server.collect(LEASE_S + 1)
    assert (await server.collect(GRACE_S + 1)).blocks == 1
    (refused,) = await server.commit(record)
    assert refused.error is not None
    assert refused.error.code == ErrorCode.BLOCKS_MISSING
    assert refused.error.retryable
    assert refused.error.blocks == (block.id,)
    await server.put(block)
    (result,) = await server.commit(record)
    assert result.position == 1


@with_server
async def test_an_upload_beside_a_collection_keeps_its_bytes(server):
    """The row goes before the file: an upload between the two must not lose its bytes."""
    block = some_block(5000)
    store, blobs = server.services.store, server.services.blobs
    locks = BlockLocks()
    between = Collector(
        store, blobs, locks, Surroundings(lambda: server.now_s, os.urandom, AtOnce())
    )
    await server.put(block)
    await server.collect(LEASE_S + 1)
    server.now_s += GRACE_S + 1
    async with locks.of(block.id):  # an upload of the block is under way, and has its file
        collecting = asyncio.create_task(between.collect())
        while await store.is_held(block.id):
            await asyncio.sleep(0.001)
        await store.add_block(server.namespace, block.id, 5000, server.now_s + LEASE_S)
    await collecting
    assert server.files() == 1
    async with blobs.open(block.id) as stored:
        assert await stored.read(0, stored.size_bytes) == block.frame


@with_server
async def test_what_a_crash_left_without_a_row_is_removed_and_nothing_else(server):
    held, stray = some_block(5000), some_block(6000)
    await server.put(held)
    async with server.services.blobs.receive(stray.id) as incoming:
        await incoming.write(stray.frame)
        await incoming.keep()
    assert server.files() == 2
    assert await server.services.collector.remove_strays() == 1
    assert server.files() == 1
    assert await server.missing(held, stray) == (stray.id,)


@with_server
async def test_covered_contents_give_up_their_blocks_only_after_the_retention(server):
    device = server.person.device
    blocks = [some_block(5000 + size) for size in range(2)]
    for block in blocks:
        await server.put(block)
    old = device.record(server.namespace, blocks=(blocks[0].id,))
    new = covering(device, old, server.namespace, blocks[1].id)
    assert [result.error for result in await server.commit(old, new)] == [None, None]
    for passed_s in (LEASE_S + 1, RETENTION_S - LEASE_S - DAY_S):
        assert (await server.collect(passed_s)).blocks == 0
    await server.collect(2 * DAY_S)
    assert (await server.collect(GRACE_S + 1)).blocks == 1
    assert await server.missing(*blocks) == (blocks[0].id,)


@with_server
async def test_what_an_earlier_release_stored_is_looked_through_before_anything_goes(server):
    """The first schema did not note which record lists which block, nor what pages hold."""
    child = some_block(5000)
    page = some_block(7000, (child.id,))
    for each in (child, page):
        await server.put(each)
    await server.commit(server.person.device.record(server.namespace, blocks=(page.id,)))
    await server.services.store._database.write(as_the_first_schema_left_it)
    await server.collect(LEASE_S + 1)
    assert (await server.collect(100 * DAY_S)).blocks == 0
    assert await server.missing(child, page) == ()


def as_the_first_schema_left_it(connection) -> None:
    connection.execute("DELETE FROM record_blocks")
    connection.execute("DELETE FROM block_children")
    connection.execute("UPDATE records SET is_indexed = 0")
    connection.execute("UPDATE blocks SET are_children_known = 0")


def covering(device: Device, old, namespace, block):
    """A record that writes over what another one wrote."""
    (before,) = old.record.writes
    seen = Context({device.actor: before.n})
    made = device.record(namespace, blocks=(block,), item=before.item, n=before.n + 1)
    record = replace(made.record, writes=(replace(made.record.writes[0], context=seen),))
    signed = device.sign(record)
    device.previous = signed.id
    return signed


@with_server
async def test_other_bytes_under_a_used_sequence_number_do_not_enter(server):
    device = server.person.device
    first = device.record(server.namespace)
    fork = with_other_content(first, device)
    next_one = device.record(server.namespace)
    results = await server.commit(first, fork, next_one)
    assert [result.position for result in results] == [1, None, 2]
    error = results[1].error
    assert error is not None
    assert (error.code, error.evidence) == (ErrorCode.FORK, first.to_wire())
    page = await server.services.journal.delta(server.session, server.namespace, None, 10)
    assert [entry.record for entry in page.records] == [first.to_wire(), next_one.to_wire()]


@pytest.mark.fuse
@pytest.mark.system
def test_an_old_backup_of_the_server_gets_back_what_nodes_have(tmp_path):
    """Files made, edited and deleted after the backup are the same on all devices in the end."""
    with World(tmp_path) as world:
        world.server.start()
        a, b = world.enrolled("a", "b")
        a.start()
        (a.mount / "before").write_text("in the backup\n")
        (a.mount / "gone").write_text("deleted later\n")
        a.wait("synced")
        world.server.stop()
        shutil.copytree(world.server.data, tmp_path / "backup")
        world.server.start()
        b.start()
        (a.mount / "after").write_bytes(b"not in the backup\n" * 1000)
        (a.mount / "before").write_text("edited after the backup\n")
        (a.mount / "gone").unlink()
        a.wait("synced")
        b.wait("synced")
        world.server.stop()
        (b.mount / "meanwhile").write_text("without a server\n")
        shutil.rmtree(world.server.data)
        shutil.copytree(tmp_path / "backup", world.server.data)
        held = run_command("new-journal-epoch", "--data", str(world.server.data))
        assert held.returncode == 0, held.stderr
        world.server.start()
        for device in (a, b, a):
            device.wait("synced", within_s=90)
        fresh = world.device("c")
        fresh.enrol("login")
        fresh.start()
        fresh.wait("synced", within_s=90)
        expected = {
            "before": b"edited after the backup\n",
            "after": b"not in the backup\n" * 1000,
            "meanwhile": b"without a server\n",
        }
        for device in (a, b, fresh):
            found = {path.name: path.read_bytes() for path in device.mount.iterdir()}
            assert found == expected, device.name
            assert device.conflicts() == []
