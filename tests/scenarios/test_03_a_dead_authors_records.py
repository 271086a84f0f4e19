"""Scenario 3: a device dies after it met a peer; the peer delivers all that can still be delivered.

Source: the limit of logs that are delivered in sequence, as in Bayou (Petersen et al., "Flexible Update
Propagation for Weakly Consistent Replication", 1997), whose prefix property makes everything after a
write wait for that write. The plausible simpler design that this breaks: a node hands on a device's
records in their order and stops at the first that the server does not take.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.net.http_transport import RefusedError
from node.storage.block_cache import BlockCache
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Author, Registers
from node.storage.tree import Tree
from node.sync.block_uploader import BlockUploader
from node.sync.publisher import Publisher, Writer
from protocol.crypto.blocks import SealedBlock
from protocol.http_api import (
    BlockList,
    ChallengeRequest,
    CommitRequest,
    CommitResponse,
    ErrorBody,
    ErrorCode,
)
from protocol.ids import BlockId, ItemId, NamespaceId
from protocol.records import Register, SignedRecord
from protocol.values import Content, Kind
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot
from server.errors import ApiError, StorageFullError
from server.services.all_services import Services
from server.services.ports import Surroundings
from server.services.sessions import Session
from tests.node.drives import inline
from tests.node.storage.indexes import version_of
from tests.server.client import some_block
from tests.server.fakes.memory_blobs import MemoryBlockStore
from tests.server.fakes.memory_store import MemoryStore
from tests.server.people import Device, Person

QUOTA_BYTES = 100_000


class InlineWorker:
    async def run(self, work: Any) -> Any:
        return work()


class Connection:
    """The server's services, as the node's client shows them; no more than this fits into its store."""

    def __init__(self, services: Services, session: Session, blobs: MemoryBlockStore) -> None:
        self.services = services
        self.session = session
        self.blobs = blobs

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId]
    ) -> frozenset[BlockId]:
        request = BlockList(tuple(blocks))
        return frozenset(
            (await self.services.blocks.missing(self.session, namespace, request)).blocks
        )

    async def put_block(self, namespace: NamespaceId, block: BlockId, frame: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield frame

        try:
            await self.services.blocks.put(self.session, namespace, block, chunks())
        except ApiError as error:
            raise RefusedError(error.status, error.body) from error
        except StorageFullError as error:  # as the dispatcher of the HTTP server says it
            body = ErrorBody(ErrorCode.STORAGE_FULL, "no space is left", retryable=True)
            raise RefusedError(507, body) from error

    async def commit(self, namespace: NamespaceId, records: Sequence[bytes]) -> CommitResponse:
        return await self.services.journal.commit(
            self.session, namespace, CommitRequest(tuple(records))
        )


async def serve(person: Person, device: Device) -> Connection:
    """A fresh server that knows a person, and a session of one of their devices."""
    counter = itertools.count()
    blobs = MemoryBlockStore(capacity_bytes=QUOTA_BYTES)
    services = await Services.over(
        MemoryStore(),
        blobs,
        Surroundings(
            now_s=lambda: 1_800_000_000 + int(trio.current_time()),
            token_bytes=lambda size: next(counter).to_bytes(size),
            worker=InlineWorker(),
        ),
        server_id=b"i" * 32,
        token_lifetime_s=600,
        needs_invitation=False,
    )
    await services.accounts.register(person.registration())
    challenge = await services.sessions.challenge(ChallengeRequest(device=device.id))
    token = (await services.sessions.refresh(device.refresh(challenge))).access_token
    return Connection(services, await services.sessions.authenticate(token), blobs)


class Peer:
    """A node that took records in from a peer on its LAN; the server has none of them."""

    def __init__(self, folder: Path, person: Person, connection: Connection) -> None:
        self.namespace = person.namespace.id
        self.database = Database(folder / "index.db", bytes(32))
        self.registers = Registers(self.database, Author(person.device.actor, person.device.id))
        self.journal = Journal(self.database)
        self.cache = BlockCache(folder / "blocks", 2**30)
        tree = Tree(self.database, self.registers)
        unused: Any = SimpleNamespace(is_known=False)  # it seals nothing of its own
        self.publisher = Publisher(
            database=self.database,
            registers=self.registers,
            tree=tree,
            journal=self.journal,
            guard=unused,
            trust=unused,
            files=unused,
            sealer=unused,
            uploader=BlockUploader(connection, self.cache),
            cache=self.cache,
            client=connection,
            namespace=self.namespace,
            writer=Writer(person.device.key, b"i" * 8),
            settle_s=0.2,
            now_ns=lambda: 1_800_000_000 * 10**9,
            token_bytes=bytes,
            draw=lambda: 0.5,
            run_sync=inline,
            wait_changed=trio.sleep_forever,
            lost_blocks=unused,
            learn_burials=trio.lowlevel.checkpoint,
            announce=unused,
        )

    def hear(self, record: SignedRecord, context: Context, blocks: Sequence[SealedBlock]) -> None:
        """Take in a record of the author, with those of its blocks that came over as well."""
        (write,) = record.record.writes
        version = version_of(Content(Kind.FILE), time_us=record.record.hybrid_time_us)
        dot = Dot(record.record.actor, write.n)
        with self.database.transaction():
            self.journal.add_own(record, record.record.blocks)
            self.database.execute("UPDATE records SET may_be_elsewhere = 1")
            self.registers.apply_remote(
                write.item,
                Register.CONTENT,
                type(version)(dot, version.time_us, version.device, context, version.value),
                record.id,
            )
        for block in blocks:
            self.cache.put(block.id, block.frame)


@pytest.fixture
def person() -> Person:
    return Person()


async def positions(connection: Connection, person: Person) -> list[bytes]:
    """The records that the server holds."""
    page = await connection.services.journal.delta(
        connection.session, person.namespace.id, None, 1000
    )
    return [entry.record for entry in page.records]


async def test_a_peer_delivers_all_the_rest(
    person: Person, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    author, survivor = person.device, Device()
    person.append(survivor.enrolment(person.account))
    connection = await serve(person, survivor)
    peer = Peer(tmp_path, person, connection)
    place = person.namespace.id
    item = ItemId(b"covered item 000")
    lost, kept, huge = some_block(1000), some_block(2000), some_block(QUOTA_BYTES)
    before = [author.record(place) for _ in range(3)]
    covered = author.record(place, blocks=(lost.id,), item=item)
    covering = author.record(place, blocks=(kept.id,), item=item, n=2)
    over_quota = author.record(place, blocks=(huge.id,))
    after = [author.record(place, blocks=(kept.id,)) for _ in range(3)]

    for record in before:
        peer.hear(record, EMPTY_CONTEXT, [])
    peer.hear(covered, EMPTY_CONTEXT, [])  # its block did not come over before the author died
    peer.hear(covering, EMPTY_CONTEXT.add([Dot(author.actor, 1)]), [kept])
    peer.hear(over_quota, EMPTY_CONTEXT, [huge])
    for record in after:
        peer.hear(record, EMPTY_CONTEXT, [])

    with trio.move_on_after(30):
        await peer.publisher.run()
    delivered = {record.to_wire() for record in (*before, covering, *after)}
    assert set(await positions(connection, person)) == delivered
    assert [record.id for record in peer.journal.outbox(10)] == [over_quota.id]
    assert peer.registers.content(item, Dot(author.actor, 2)) is not None
    assert [alarm.kind for alarm in peer.journal.alarms()] == ["unsent"]

    connection.blobs.capacity_bytes = 10 * QUOTA_BYTES
    with trio.move_on_after(90):
        await peer.publisher.run()
    assert over_quota.to_wire() in await positions(connection, person)
    assert peer.journal.count_outbox() == 0
    peer.database.close()
