"""Brings what the server announces into the index.

One task listens (WebSocket, or long polls where that fails), one hands pages of records from the
cursor on to the intake. Records are verified in a thread and taken in in small steps, so that the
mount answers meanwhile. Called by `node.main`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import structlog
import trio

from node.core.backoff import Backoff, BackoffPolicy
from node.errors import NodeError, ServerError
from node.net.http_transport import RefusedError
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.tree import Tree
from node.sync.record_intake import Received, RecordIntake, RemoteChanges, parse_received
from node.sync.server_honesty import ServerHonesty
from node.sync.trust import LogClient, Trust
from node.sync.withdrawal import Withdrawal
from node.sync.workers import RunSync
from protocol.errors import RemoteProtocolError
from protocol.http_api import Cursor, DeltaResponse, ErrorCode, EventsResponse
from protocol.ids import NamespaceId
from protocol.records import SignedRecord

_PAGE_RECORDS = 500
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


@dataclass(frozen=True, slots=True)
class _Page:
    """Records as the server gave them.

    Attributes:
        after: the cursor that they follow.
        cursor: from where it goes on.
        head: the last position of the journal.
        more: whether there is more now.
        received: verified.
    """

    after: tuple[str, int]
    cursor: Cursor
    head: int
    more: bool
    received: list[Received]


class Puller:
    """Pulls one namespace.

    Concurrency: its tasks share the index with everybody on the loop; a step that applies records
    is one transaction and does not await.
    """

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        tree: Tree,
        trust: Trust,
        intake: RecordIntake,
        drive: RemoteChanges,
        client: JournalClient,
        namespace: NamespaceId,
        now_ns: Callable[[], int],
        draw: Callable[[], float],
        run_sync: RunSync,
        learn_burials: Callable[[], Awaitable[None]],
    ) -> None:
        """``learn_burials``: asks the server for them, and carries them out here."""
        self._learn_burials = learn_burials
        self._database = database
        self._journal = journal
        self._trust = trust
        self._intake = intake
        self._drive = drive
        self._client = client
        self._namespace = namespace
        self._draw = draw
        self._run_sync = run_sync
        self._wanted = trio.Event()
        self._asked = 0
        self._answered = 0
        self._progress = trio.Event()
        self.announced = 0
        self._state: EventsResponse | None = None
        self._burials = tree.burials
        self._withdrawal = Withdrawal(database, tree, journal, trust, drive, now_ns)
        self._honesty = ServerHonesty(journal, now_ns)
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
    def records_applied(self) -> int:
        """Records that were taken in by this run."""
        return self._intake.records_applied

    @property
    def is_behind(self) -> bool:
        """Whether the server has, or may have, changes that are not applied here yet."""
        match self.connection:
            case Connection.CONNECTING:
                return (
                    True  # it was not heard of yet in this run; soon it was, or can not be reached
                )
            case Connection.ONLINE:
                return self._journal.cursor[1] < self.announced
            case Connection.OFFLINE:
                return False

    # Listening

    async def _listen_forever(self) -> None:
        backoff = Backoff(BackoffPolicy(), self._draw)
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
            and not self._journal.is_to_be_read_again
            and state.account_log_length == self._trust.account.length
            and state.namespace_log_lengths.get(self._namespace) == self._trust.namespace.length
        )

    # Pulling

    async def _pull_forever(self) -> None:
        backoff = Backoff(BackoffPolicy(), self._draw)
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
            await self._refresh_logs()
        if self._journal.is_first_reading:
            await self._learn_burials()
        ahead: _Page | NodeError | None = None
        while True:
            if self._journal.is_to_be_read_again:
                with self._database.transaction():
                    self._journal.begin_again()
            cursor = self._journal.cursor
            # What was fetched meanwhile counts only if the reading still goes on from there.
            page = ahead if isinstance(ahead, _Page) and ahead.after == cursor else None
            ahead = None
            try:
                page = page or await self._fetch(cursor)
            except RefusedError as error:
                if error.code != ErrorCode.JOURNAL_EPOCH_CHANGED:
                    raise
                self._start_over(error)
                continue
            self.connection = Connection.ONLINE
            if page.head < page.after[1]:
                self._honesty.went_back()
            if page.more:
                ahead = await self._apply_and_fetch_next(page)
                if isinstance(ahead, NodeError):
                    raise ahead
                continue
            await self._apply(page)
            if self._journal.has_missed:
                await self._learn_burials()  # they may say why
            with self._database.transaction():
                self._honesty.conclude()
                self._journal.end_reading()
            await self._drive.announce(self._intake.release_settled())
            return

    async def _fetch(self, after: tuple[str, int]) -> _Page:
        """Records that follow a cursor, verified."""
        epoch, position = after
        cursor = Cursor(epoch, position) if epoch else None
        page = await self._client.delta(self._namespace, cursor, _PAGE_RECORDS)
        received = await self._verified([(entry.position, entry.record) for entry in page.records])
        return _Page(after, _cursor(page.cursor), page.head, page.more, received)

    async def _apply_and_fetch_next(self, page: _Page) -> _Page | NodeError | None:
        """Apply a page while the next one is on its way.

        Returns:
            The next page, or why there is none; None when the journal changed meanwhile.
        """
        outcome: _Page | NodeError | None = None

        async def fetch() -> None:
            nonlocal outcome
            try:
                outcome = await self._fetch((page.cursor.journal_epoch, page.cursor.position))
            except RefusedError as error:
                # Asked for again at the right time, a changed journal is answered as ever.
                outcome = None if error.code == ErrorCode.JOURNAL_EPOCH_CHANGED else error
            except NodeError as error:
                outcome = error

        failure: NodeError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            try:
                await self._apply(page)
            except NodeError as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome

    async def _refresh_logs(self) -> None:
        await self._trust.refresh(self._client)
        await self._drive.announce(self._withdrawal.carry_out())

    def _start_over(self, error: RefusedError) -> None:
        """The server's journal is another one: read it from the start, send again what it lacks."""
        present = error.body.journal_epoch
        if not present:
            raise ServerError("malformed", "the server did not name its journal epoch")
        known, _ = self._journal.cursor
        with self._database.transaction():
            if present == known:
                self._honesty.went_back()
            if known:
                self._journal.send_all_again()
                self._burials.read_again()
            self._journal.set_cursor(present, 0)

    async def _apply(self, page: _Page) -> None:
        cursor = page.cursor
        if not self._journal.is_reading_again:  # what was compacted since then is not to be given
            with self._database.transaction():
                given = {each.wire for each in page.received}
                self._honesty.check_page(page.after[1], cursor.position, given)
        received = page.received
        while received:
            count, stale = self._intake.take_some(received, cursor.journal_epoch)
            received = received[count:]
            await self._drive.announce(stale)
            await trio.lowlevel.checkpoint()
        with self._database.transaction():
            self._journal.set_cursor(cursor.journal_epoch, cursor.position)

    async def _verified(self, wires: Sequence[tuple[int, bytes]]) -> list[Received]:
        """Parse and verify a page; a stranger's record makes the logs be fetched once more."""
        parsed: list[Received] = await self._run_sync(_parse_all, wires)
        records = [each.record for each in parsed if isinstance(each.record, SignedRecord)]
        if len(records) == len(parsed) and all(
            self._journal.knows(record.id) for record in records
        ):
            return parsed  # verified when they came, or made here
        if any(
            self._trust.author(record.record.device) is None
            or record.record.epoch not in self._trust.epochs
            for record in records
        ):
            await self._refresh_logs()
        verified: list[Received] = await self._run_sync(self._verify_all, parsed)
        return verified

    def _verify_all(self, parsed: Sequence[Received]) -> list[Received]:
        return [self._intake.verified(each) for each in parsed]

    def _note(self, error: NodeError) -> None:
        if self.last_error != error.message:
            _log.warning("the server can not be followed", error=error.message)
        self.last_error = error.message
        self.connection = Connection.OFFLINE


def _parse_all(wires: Sequence[tuple[int, bytes]]) -> list[Received]:
    return [parse_received(position, wire) for position, wire in wires]


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except RemoteProtocolError as error:
        raise ServerError("malformed", f"the server sent an unusable cursor: {error}") from error
