"""Brings what the server announces into the index.

One task listens (WebSocket, or long polls where that fails), one applies pages of records from the
cursor on. Records are verified in a thread, opened, and applied in small steps, so that the mount
answers meanwhile. Called by `node.main`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

import structlog
import trio

from node.core.backoff import Backoff, BackoffPolicy
from node.core.record_sealing import OpenedWrite, open_record
from node.errors import NodeError, ServerError
from node.net.http_transport import RefusedError
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Changes, Tree
from node.sync.trust import LogClient, Trust
from protocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from protocol.http_api import Cursor, DeltaResponse, ErrorCode, EventsResponse
from protocol.ids import ItemId, NamespaceId, RecordId
from protocol.records import Register, SignedRecord

_PAGE_RECORDS = 500
_STEP_S = 0.004  # the loop is given back after applying for so long
_POLL_TIMEOUT_S = 25
_MOMENT_S = 0.005
_STREAM_PATIENCE = 3  # streams that fail at once before polling takes over for a while

_log = structlog.get_logger(__name__)


class Connection(StrEnum):
    """How the server can be reached."""

    CONNECTING = "connecting"
    ONLINE = "online"
    OFFLINE = "offline"


class JournalClient(LogClient, Protocol):
    """What of the server's client is used here."""

    async def delta(
        self, namespace: NamespaceId, cursor: Cursor | None, limit: int = ...
    ) -> DeltaResponse:
        """One page of records after a cursor."""

    async def events(self, cursor: str | None, timeout_s: int) -> EventsResponse:
        """Long poll."""

    def event_stream(self) -> AbstractAsyncContextManager[AsyncIterator[EventsResponse]]:
        """WebSocket."""


class RemoteChanges(Protocol):
    """What the drive does about changes that came from elsewhere."""

    def expect_remote_changes(self, items: Iterable[ItemId]) -> None:
        """Before items are changed."""

    def take_remote_changes(self, changes: Changes) -> list[Any]:
        """After they were, in the same step."""

    async def announce(self, stale: list[Any]) -> None:
        """Tell the kernel."""


class Puller:
    """Pulls one namespace.

    Concurrency: its tasks share the index with everybody on the loop; a step that applies records
    is one transaction and does not await.
    """

    def __init__(
        self,
        *,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        trust: Trust,
        drive: RemoteChanges,
        client: JournalClient,
        namespace: NamespaceId,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._trust = trust
        self._drive = drive
        self._client = client
        self._namespace = namespace
        self._now_ns = now_ns
        self._wanted = trio.Event()
        self._asked = 0
        self._answered = 0
        self._progress = trio.Event()
        self.announced = 0
        self._state: EventsResponse | None = None
        self.records_applied = 0
        self.connection = Connection.CONNECTING
        self.last_error: str | None = None

    async def run(self) -> None:
        """Pull until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen_forever)
            nursery.start_soon(self._pull_forever)

    async def catch_up(self) -> None:
        """Return when everything is applied that the server had when this was called.

        Waits for as long as the server can not be reached: give it a deadline.
        """
        self._asked += 1
        wanted = self._asked
        self._wanted.set()
        while self._answered < wanted:
            await self._progress.wait()

    @property
    def is_behind(self) -> bool:
        """Whether the server has announced changes that are not applied here yet."""
        return self.connection is Connection.ONLINE and self._journal.cursor[1] < self.announced

    # Listening

    async def _listen_forever(self) -> None:
        backoff = Backoff(BackoffPolicy(), random.random)
        failed_streams = 0
        while True:
            try:
                if failed_streams < _STREAM_PATIENCE:
                    failed_streams += 1
                    async with self._client.event_stream() as stream:
                        async for state in stream:
                            failed_streams = 0
                            backoff.reset()
                            self._take_state(state)
                else:
                    await self._poll_for_a_while()
                    failed_streams = 0
            except NodeError as error:
                self._note(error)
                await trio.sleep(backoff.next_wait_s())

    async def _poll_for_a_while(self) -> None:
        """Long polls, where something between here and the server lets no WebSocket through."""
        cursor: str | None = None
        with trio.move_on_after(600):
            while True:
                state = await self._client.events(cursor, _POLL_TIMEOUT_S)
                cursor = state.cursor
                self._take_state(state)

    def _take_state(self, state: EventsResponse) -> None:
        self.connection = Connection.ONLINE
        self.last_error = None
        self.announced = state.namespaces.get(self._namespace, 0)
        self._state = state
        if not self._is_up_to_date():
            self._wanted.set()

    def _is_up_to_date(self) -> bool:
        """Whether what the server announced last is here."""
        state = self._state
        return (
            state is not None
            and self._trust.is_known
            and self._journal.cursor == (state.journal_epoch, self.announced)
            and state.account_log_length == self._trust.account.length
            and state.namespace_log_lengths.get(self._namespace) == self._trust.namespace.length
        )

    # Pulling

    async def _pull_forever(self) -> None:
        backoff = Backoff(BackoffPolicy(), random.random)
        while True:
            with trio.move_on_after(60):
                await self._wanted.wait()
            # A commit of this device is announced to it as well, often before its answer is here:
            # after a moment there is mostly nothing left to fetch.
            await trio.sleep(_MOMENT_S)
            self._wanted = trio.Event()
            asked = self._asked
            try:
                if asked > self._answered or not self._is_up_to_date():
                    await self._pull_all()
            except NodeError as error:
                self._note(error)
                self._wanted.set()
                await trio.sleep(backoff.next_wait_s())
                continue
            backoff.reset()
            self._answered = asked
            self._progress.set()
            self._progress = trio.Event()

    def _has_longer_logs(self) -> bool:
        state = self._state
        return state is not None and (
            state.account_log_length > self._trust.account.length
            or state.namespace_log_lengths.get(self._namespace, 0) > self._trust.namespace.length
        )

    async def _pull_all(self) -> None:
        if not self._trust.is_known or self._has_longer_logs():
            await self._trust.refresh(self._client)
        while True:
            epoch, position = self._journal.cursor
            cursor = Cursor(epoch, position) if epoch else None
            try:
                page = await self._client.delta(self._namespace, cursor, _PAGE_RECORDS)
            except RefusedError as error:
                if error.code != ErrorCode.JOURNAL_EPOCH_CHANGED:
                    raise
                self._start_over(error)
                continue
            self.connection = Connection.ONLINE
            if page.head < position:
                self._alarm("rollback", "the server has gone back behind what it had acknowledged")
            await self._apply_page(page)
            if not page.more:
                return

    def _start_over(self, error: RefusedError) -> None:
        """The server's journal is another one: read it from the start, send again what it lacks."""
        present = error.body.journal_epoch
        if not present:
            raise ServerError("malformed", "the server did not name its journal epoch")
        with self._database.transaction():
            if self._journal.cursor[0]:
                self._journal.send_all_again()
            self._journal.set_cursor(present, 0)

    async def _apply_page(self, page: DeltaResponse) -> None:
        cursor = _cursor(page.cursor)
        received = [(entry.position, entry.record) for entry in page.records]
        parsed = await self._parse(received)
        stale: list[Any] = []
        index = 0
        while index < len(parsed):
            started = trio.current_time()
            with self._database.transaction():
                while index < len(parsed):
                    position, wire, record = parsed[index]
                    if isinstance(record, SignedRecord):
                        stale += self._apply(record, position)
                    else:
                        self._reject(wire, str(record))
                    index += 1
                    if trio.current_time() - started > _STEP_S:
                        break
                self._journal.set_cursor(cursor.journal_epoch, parsed[index - 1][0])
            await self._drive.announce(stale)
            stale = []
            await trio.lowlevel.checkpoint()
        with self._database.transaction():
            self._journal.set_cursor(cursor.journal_epoch, cursor.position)

    async def _parse(
        self, received: Sequence[tuple[int, bytes]]
    ) -> list[tuple[int, bytes, SignedRecord | Exception]]:
        """Parse and verify a page; a stranger's record makes the logs be fetched once more."""
        parsed = await trio.to_thread.run_sync(_parse_all, received)
        if all(
            isinstance(record, SignedRecord) and self._journal.knows(record.id)
            for _, _, record in parsed
        ):
            return parsed  # verified when they came, or made here
        strangers = [
            record
            for _, _, record in parsed
            if isinstance(record, SignedRecord)
            and (
                self._trust.author(record.record.device) is None
                or record.record.epoch not in self._trust.epochs
            )
        ]
        if strangers:
            await self._trust.refresh(self._client)
        return await trio.to_thread.run_sync(self._verify_all, parsed)

    def _verify_all(
        self, parsed: list[tuple[int, bytes, SignedRecord | Exception]]
    ) -> list[tuple[int, bytes, SignedRecord | Exception]]:
        return [
            (position, wire, self._verified(record) if isinstance(record, SignedRecord) else record)
            for position, wire, record in parsed
        ]

    def _verified(self, record: SignedRecord) -> SignedRecord | Exception:
        author = self._trust.author(record.record.device)
        try:
            if record.record.namespace != self._namespace:
                raise RemoteProtocolError("the record belongs to another namespace")
            if author is None:
                raise RemoteProtocolError(f"{record.record.device} may not write here")
            record.verify(author.signing_public)
        except ProtocolError as error:
            return error
        return record

    def _apply(self, record: SignedRecord, position: int) -> list[Any]:
        """Take in one verified record; in a transaction."""
        if self._journal.knows(record.id):
            self._journal.acknowledge(record.id, position)
            return []
        try:
            writes = open_record(record, self._trust.epochs)
        except ProtocolError as error:
            self._reject(record.to_wire(), str(error))
            return []
        self._journal.add_received(record, position)
        items = list(dict.fromkeys(write.item for write in writes))
        self._drive.expect_remote_changes(items)
        self._tree.take_changes()
        for write in writes:
            self._write(write, record)
        for change in record.record.folders:
            self._tree.note_entries_changed(change.folder, change.time_us)
            self._journal.note_published(change.folder, change.time_us)
        now_ns = self._now_ns()
        placed = {write.item for write in writes if write.register is Register.PLACEMENT}
        for item in items:
            self._tree.refresh(item, now_ns, is_placed_anew=item in placed)
        self._journal.drop_if_dead(record.id)
        self.records_applied += 1
        return self._drive.take_remote_changes(self._tree.take_changes())

    def _write(self, write: OpenedWrite, record: SignedRecord) -> None:
        try:
            self._registers.apply_remote(write.item, write.register, write.version, record.id)
        except LocalProtocolError as error:
            self._alarm("dot", f"{error}: a device was cloned, or the server forged; {record.id}")

    def _reject(self, wire: bytes, reason: str) -> None:
        """Keep a record that has no effect here: a later release may understand it."""
        try:
            record_id = SignedRecord.from_wire(wire).id
        except ProtocolError:
            # Its body can not be told from its signature; whatever it is, these bytes name it.
            record_id = RecordId(hashlib.blake2b(wire, digest_size=RecordId.size_bytes).digest())
        self._journal.reject(record_id, wire, reason)
        self._alarm("record", f"record {record_id} has no effect here: {reason}")

    def _alarm(self, kind: str, message: str) -> None:
        self._journal.raise_alarm(kind, message, self._now_ns() // 1000)

    def _note(self, error: NodeError) -> None:
        if self.last_error != error.message:
            _log.warning("the server can not be followed", error=error.message)
        self.last_error = error.message
        self.connection = Connection.OFFLINE


def _parse_all(
    received: Sequence[tuple[int, bytes]],
) -> list[tuple[int, bytes, SignedRecord | Exception]]:
    parsed: list[tuple[int, bytes, SignedRecord | Exception]] = []
    for position, wire in received:
        try:
            parsed.append((position, wire, SignedRecord.from_wire(wire)))
        except ProtocolError as error:
            parsed.append((position, wire, error))
    return parsed


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except RemoteProtocolError as error:
        raise ServerError("malformed", f"the server sent an unusable cursor: {error}") from error
