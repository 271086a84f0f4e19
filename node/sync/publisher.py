"""Brings local changes to the server: seals groups into records, blocks first, then records.

Two tasks: one seals what has settled into the outbox, one empties the outbox. Both pick up where a
former run ended, since groups and outbox are in the index. Called by `node.main`.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
import trio

from node.core.backoff import Backoff, BackoffPolicy
from node.core.record_sealing import Draft, OpenedWrite, seal_record
from node.core.staged_content import StagedContent
from node.errors import NodeError, ServerError, StorageError
from node.net.http_transport import RefusedError
from node.storage.author_heads import AuthorHeads
from node.storage.block_cache import BlockCache
from node.storage.database import Database
from node.storage.journal import Group, Journal, OutboxRecord
from node.storage.registers import Author, PendingWrite, Registers
from node.storage.tree import Tree
from node.sync.block_uploader import BlockUploader
from node.sync.content_sealer import ContentSealer, SealedContent, StagedSource
from node.sync.deletion_guard import DeletionGuard
from node.sync.lost_blocks import LostBlocks
from node.sync.reissue import Reissue
from node.sync.trust import Trust
from node.sync.work_nursery import open_work_nursery
from node.sync.workers import RunSync
from protocol.crypto.signing import SigningKey
from protocol.http_api import MAX_COMMIT_RECORDS, CommitResponse, ErrorBody, ErrorCode
from protocol.ids import INCARNATION_BYTES, BlockId, ItemId, NamespaceId, RecordId, actor_id
from protocol.limits import MAX_BODY_BYTES, MAX_RECORD_WRITES
from protocol.records import NO_RECORD, Register, SignedRecord
from protocol.values import Content, Kind

_LONGEST_WAIT_US = (
    2_000_000  # a group that a program keeps changing is sealed after this nevertheless
)
_GROUPS_AT_ONCE = 64
_STAGED_AT_ONCE = 64  # groups with staged contents that are sealed side by side
_BURST_S = 0.03  # what comes within this after a round of work waits for the next round
_POLL_S = 0.05  # how often groups are looked at while some wait for the settle time
_LONG_RECORD_BLOCKS = 16  # records with more blocks travel by themselves, so that notes pass them
_LONG_RECORDS_AT_ONCE = 2
_EARLY_UPLOAD_BYTES = 8 * 1024 * 1024  # files from this size on are sent while they are sealed
_EARLY_BLOCKS = 8  # sealed blocks that wait to be sent; the sealer waits beyond that
_EARLY_GRACE_S = 5.0
_SYNC_INTERVAL_S = 5.0  # the commit interval of ext4
_ASIDE_S = 60.0  # until a record is tried again that could not be sent by itself
_COMMIT_BYTES = MAX_BODY_BYTES // 2

_log = structlog.get_logger(__name__)


class StagedFiles(Protocol):
    """Where the bytes of staged contents are."""

    def staged_snapshot(self, name: str) -> AbstractContextManager[StagedSource]:
        """A staging file as it is now; StorageError when it is gone."""

    def was_synced(self, name: str) -> bool:
        """Whether a program was told that a staging file survives the loss of power."""

    def sealed(self, name: str, source: StagedSource, content: Content) -> None:
        """The version in a staging file is sealed: what only it needed may go."""


class CommitClient(Protocol):
    """What of the server's client is used here."""

    async def commit(self, namespace: NamespaceId, records: Sequence[bytes]) -> CommitResponse:
        """Hand over signed records."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who signs: one run of one device."""

    signing: SigningKey
    incarnation: bytes


@dataclass(frozen=True, slots=True)
class _SealedFile:
    staging: str
    source: StagedSource
    content: Content
    blocks: tuple[BlockId, ...]


class Publisher:
    """Publishes one namespace.

    Concurrency: its two tasks share the index with everybody on the loop; between reading a group
    and sealing it nothing awaits but the sealing of contents, after which the group is compared.
    """

    def __init__(
        self,
        *,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        trust: Trust,
        guard: DeletionGuard,
        files: StagedFiles,
        sealer: ContentSealer,
        uploader: BlockUploader,
        cache: BlockCache,
        client: CommitClient,
        namespace: NamespaceId,
        writer: Writer,
        settle_s: float,
        now_ns: Callable[[], int],
        token_bytes: Callable[[int], bytes],
        draw: Callable[[], float],
        run_sync: RunSync,
        wait_changed: Callable[[], Awaitable[None]],
        lost_blocks: LostBlocks,
        learn_burials: Callable[[], Awaitable[None]],
        announce: Callable[[list[Any]], Awaitable[None]],
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._heads = AuthorHeads(database)
        self._reissue = Reissue(database, registers, tree, journal, now_ns)
        self._trust = trust
        self._guard = guard
        self._files = files
        self._sealer = sealer
        self._uploader = uploader
        self._cache = cache
        self._client = client
        self._namespace = namespace
        self._writer = writer
        self._settle_us = int(settle_s * 1_000_000)
        self._now_ns = now_ns
        self._token_bytes = token_bytes
        self._draw = draw
        self._run_sync = run_sync
        self._wait_changed = wait_changed
        self._lost_blocks = lost_blocks
        self._learn_burials = learn_burials
        self._announce = announce
        self._has_outbox = trio.Event()
        journal.on_outbox = self._wake_sender
        self._staged_groups: set[int] = set()
        self._in_flight: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._aside: dict[bytes, float] = {}  # until when
        self._dropped: set[RecordId] = set()  # of these the server says that it has dropped them
        self._is_hurried = False
        self._sync_lock = trio.Lock()
        self._syncs_wanted = self._syncs_done = 0
        self._sequence = 0
        self._previous = NO_RECORD
        self.last_error: str | None = None

    async def run(self) -> None:
        """Publish until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._seal_forever, nursery)
            nursery.start_soon(self._send_forever, nursery)
            nursery.start_soon(self._sync_forever)

    async def wait_sent(self) -> None:
        """Return when nothing waits, or when the server can not be reached now."""
        self._is_hurried = True
        while self._journal.count_groups() + self._journal.count_outbox() > len(
            self._refused | self._aside.keys()
        ):
            if self.last_error is not None:
                return
            await trio.sleep(_POLL_S)

    # Sealing

    async def _seal_forever(self, nursery: trio.Nursery) -> None:
        backoff = Backoff(BackoffPolicy(), self._draw)
        while True:
            try:
                has_waiting = await self._seal_ready(nursery)
                backoff.reset()
            except NodeError as error:
                self._note(error)
                await trio.sleep(_delay_s(error, backoff))
                continue
            # One change goes at once; the next ones of a burst are taken together.
            await trio.sleep(_BURST_S)
            if has_waiting:
                with trio.move_on_after(_POLL_S):
                    await self._wait_changed()
            else:
                await self._wait_changed()

    async def _seal_ready(self, nursery: trio.Nursery) -> bool:
        """Seal the groups that have settled; True while others wait."""
        if not self._trust.is_known:
            return self._journal.count_groups() > 0
        now_us = self._now_ns() // 1000
        settle_us = 0 if self._is_hurried else self._settle_us
        groups = self._journal.groups(
            now_us - settle_us,
            now_us - _LONGEST_WAIT_US,
            _GROUPS_AT_ONCE + len(self._staged_groups),
            now_us,
        )
        for group in groups:
            if group.id in self._staged_groups:
                continue
            writes = self._fitting(group, self._registers.pending_writes(group.id))
            if not self._may_seal(group, writes):
                continue
            if any(isinstance(write.version.value, StagedContent) for write in writes):
                if len(self._staged_groups) < _STAGED_AT_ONCE:
                    self._staged_groups.add(group.id)
                    nursery.start_soon(self._seal_staged, group.id)
            else:
                self._seal_group(group, writes)
                await trio.lowlevel.checkpoint()
        return self._journal.count_groups() > 0

    def _fitting(self, group: Group, writes: list[PendingWrite]) -> list[PendingWrite]:
        """The writes of a group that one record can carry; the others get a group of their own.

        Two programs that had opened different versions of one file leave two siblings here, and a
        record writes each register once.
        """
        places: set[tuple[ItemId, Register]] = set()
        kept: list[PendingWrite] = []
        others: list[PendingWrite] = []
        for write in writes:
            place = (write.item, write.register)
            fits = place not in places and len(kept) < MAX_RECORD_WRITES
            (kept if fits else others).append(write)
            places.add(place)
        if others:
            with self._database.transaction():
                number = self._journal.open_group(group.last_us, [])
                self._registers.move_pending(others, number)
                self._journal.make_urgent([number])
        return kept

    def _may_seal(self, group: Group, writes: Sequence[PendingWrite]) -> bool:
        """Whether a group may go; one that deletes too much is held until somebody approves."""
        device = self._registers.author.device
        opened = _opened(writes)
        if group.is_approved or self._guard.may_seal(device, group.last_us, opened):
            return True
        with self._database.transaction():
            self._guard.hold_group(group.id, device, group.last_us, opened)
        return False

    async def _seal_staged(self, group_id: int) -> None:
        """Seal a group with contents that are still in staging."""
        try:
            await self._try_seal_staged(group_id)
        except NodeError as error:
            self._note(error)
            await trio.sleep(1)
        finally:
            self._staged_groups.discard(group_id)

    async def _try_seal_staged(self, group_id: int) -> None:
        before = self._registers.pending_writes(group_id)
        with ExitStack() as snapshots:
            values = [write.version.value for write in before]
            staged = {each.staging: each for each in values if isinstance(each, StagedContent)}
            # All of one moment: a database and its log must not be of two.
            sources = {
                name: snapshots.enter_context(self._files.staged_snapshot(name)) for name in staged
            }
            sealed = {
                name: await self._seal_file(each, sources[name]) for name, each in staged.items()
            }
            was_synced = any(self._files.was_synced(file.staging) for file in sealed.values())
            if was_synced:
                await self._make_durable()
            group = self._journal.group(group_id)
            if group is None or self._registers.pending_writes(group_id) != before:
                # Changed meanwhile: its blocks are in the cache when it is sealed again.
                self._unprotect(block for file in sealed.values() for block in file.blocks)
                return
            final = [_unstaged(write, sealed) for write in before]
            blocks = [block for file in sealed.values() for block in file.blocks]
            unstaged = {one.item for one, other in zip(before, final, strict=True) if one != other}
            self._seal_group(group, final, blocks, unstaged)
            if was_synced:
                # The index must not fall back to staged bytes that are gone.
                await self._run_sync(self._database.sync)
            for file in sealed.values():
                self._files.sealed(file.staging, file.source, file.content)

    async def _seal_file(self, staged: StagedContent, source: StagedSource) -> _SealedFile:
        result = await self._seal_content(staged, source)
        content = Content(
            kind=Kind.FILE,
            size=result.size,
            mtime_ns=staged.mtime_ns,
            origin=staged.origin,
            inline=result.inline,
            manifest=result.manifest,
        )
        return _SealedFile(staged.staging, source, content, result.new_blocks)

    async def _seal_content(self, staged: StagedContent, source: StagedSource) -> SealedContent:
        """Seal; the blocks of a long file are sent while it is still being sealed."""
        epoch = self._trust.current_epoch
        if source.size < _EARLY_UPLOAD_BYTES:
            return await self._sealer.seal_content(source, staged.base, self._namespace, epoch)
        send, receive = trio.open_memory_channel[BlockId](_EARLY_BLOCKS)

        async def offer(block: BlockId) -> None:
            with suppress(trio.BrokenResourceError):
                await send.send(block)

        async with open_work_nursery() as nursery:
            nursery.start_soon(self._upload_early, receive)
            async with send:
                result = await self._sealer.seal_content(
                    source, staged.base, self._namespace, epoch, on_block=offer
                )
            # A server that takes long must not keep the file from being safe as a record here.
            nursery.cancel_scope.deadline = trio.current_time() + _EARLY_GRACE_S
        return result

    async def _upload_early(self, blocks: trio.MemoryReceiveChannel[BlockId]) -> None:
        """Send what is offered; what fails here is sent with the record."""
        with suppress(NodeError):
            await self._uploader.upload_stream(self._namespace, blocks)

    async def _make_durable(self) -> None:
        """Return when every block sealed so far survives the loss of power.

        Whoever comes while a sync is under way shares the next one.
        """
        self._syncs_wanted += 1
        wanted = self._syncs_wanted
        async with self._sync_lock:
            if self._syncs_done >= wanted:
                return
            covered = self._syncs_wanted
            await self._run_sync(self._cache.sync_pending)
            self._syncs_done = covered

    async def _sync_forever(self) -> None:
        """Bound what the loss of power takes of files that nobody synced, as file systems do."""
        while True:
            await trio.sleep(_SYNC_INTERVAL_S)
            if self._cache.has_pending:
                try:
                    await self._make_durable()
                except NodeError as error:
                    self._note(error)

    def _seal_group(
        self,
        group: Group,
        writes: list[PendingWrite],
        blocks: Sequence[BlockId] = (),
        unstaged: Collection[ItemId] = (),
    ) -> None:
        """Make a group's record and put it into the outbox, in one transaction."""
        if not writes:
            with self._database.transaction():
                self._journal.close_group(group.id)
            return
        folders = self._journal.group_folders(group.id)
        time_us = max(
            group.last_us,
            *(write.version.time_us for write in writes),
            *(change.time_us for change in folders),
        )
        record = self._sign(group, writes, time_us)
        with self._database.transaction():
            for write in writes:
                if write.register is Register.CONTENT and write.item in unstaged:
                    self._registers.replace_value(
                        write.item, write.register, write.version.dot, write.version.value
                    )
            self._registers.mark_sealed(
                group.id, record.id, time_us, automatic=record.record.automatic
            )
            self._journal.add_own(record, [*blocks, *record.record.blocks])
            self._heads.note_own(record)
            if not group.is_approved:
                self._guard.count_sealed(record.record.device, group.last_us, _opened(writes))
            self._journal.close_group(group.id)
            for change in record.record.folders:
                self._journal.note_published(change.folder, change.time_us)
            placements = {
                write.item: write.version
                for write in writes
                if write.register is Register.PLACEMENT
            }
            for item in dict.fromkeys(write.item for write in writes):
                if item in unstaged:
                    self._tree.refresh_values(item, self._now_ns())
                self._tree.retime(item, placements.get(item), time_us, self._now_ns())
        self._cache.protect([*blocks, *record.record.blocks])
        self._sequence, self._previous = self._sequence + 1, record.id
        self._has_outbox.set()

    def _sign(self, group: Group, writes: list[PendingWrite], time_us: int) -> SignedRecord:
        author = self._registers.author
        draft = Draft(
            namespace=self._namespace,
            device=author.device,
            incarnation=self._writer.incarnation,
            sequence=self._sequence + 1,
            previous=self._previous,
            hybrid_time_us=time_us,
            account_head=self._trust.account.head,
            namespace_head=self._trust.namespace.head,
            folders=self._journal.group_folders(group.id),
            writes=_opened(writes),
        )
        return seal_record(
            draft, self._trust.current_epoch, self._writer.signing, self._token_bytes
        )

    # Sending

    async def _send_forever(self, nursery: trio.Nursery) -> None:
        backoff = Backoff(BackoffPolicy(), self._draw)
        long_records = trio.CapacityLimiter(_LONG_RECORDS_AT_ONCE)
        while True:
            batch = self._next_batch(nursery, long_records)
            if not batch:
                self._has_outbox = trio.Event()
                if self._next_batch(nursery, long_records):
                    continue
                due = min(self._aside.values(), default=trio.current_time() + _ASIDE_S)
                with trio.move_on_at(due):
                    await self._has_outbox.wait()
                continue
            try:
                await self._send(batch)
                backoff.reset()
                if len(batch) < MAX_COMMIT_RECORDS:
                    await trio.sleep(_BURST_S)
            except NodeError as error:
                self._note(error)
                await trio.sleep(_delay_s(error, backoff))

    def _wake_sender(self) -> None:
        self._has_outbox.set()

    def _next_batch(
        self, nursery: trio.Nursery, long_records: trio.CapacityLimiter
    ) -> list[OutboxRecord]:
        batch: list[OutboxRecord] = []
        size_bytes = 0
        self._aside = {record: due for record, due in self._aside.items() if self._is_aside(record)}
        busy = self._in_flight | self._refused | self._aside.keys()
        for record in self._journal.outbox(MAX_COMMIT_RECORDS + len(busy)):
            if record.id in busy:
                continue
            if len(record.blocks) > _LONG_RECORD_BLOCKS:
                self._in_flight.add(record.id)
                nursery.start_soon(self._send_long, record, long_records)
                continue
            size_bytes += len(record.wire) + 16
            if size_bytes > _COMMIT_BYTES or len(batch) == MAX_COMMIT_RECORDS:
                break
            batch.append(record)
        return batch

    async def _send_long(self, record: OutboxRecord, limiter: trio.CapacityLimiter) -> None:
        backoff = Backoff(BackoffPolicy(), self._draw)
        try:
            async with limiter:
                while True:
                    try:
                        await self._send([record])
                        return
                    except NodeError as error:
                        self._note(error)
                        await trio.sleep(_delay_s(error, backoff))
        finally:
            self._in_flight.discard(record.id)

    async def _send(self, batch: list[OutboxRecord]) -> None:
        """Hand records over with their blocks; one that can not go holds up no other."""
        blocks = dict.fromkeys(block for record in batch for block in record.blocks)
        try:
            if blocks:
                await self._uploader.upload(self._namespace, blocks)
        except (StorageError, ServerError) as error:
            if not _is_of_one_record(error):
                raise
            if len(batch) == 1:
                await self._put_aside(batch[0], error)
                return
            for record in batch:
                await self._send([record])
            return
        # After the loss of power this device must still know what it had sent: else it would find its
        # own changes at the server like one that was restored from a backup.
        await self._run_sync(self._database.sync)
        response = await self._client.commit(self._namespace, [record.wire for record in batch])
        # A position of another journal than the one that is read says nothing about this one: the
        # records are asked about again when the puller has changed over to it.
        is_of_this_journal = self._journal.cursor[0] in ("", response.journal_epoch)
        is_retried = not is_of_this_journal
        with self._database.transaction():
            for record, result in zip(batch, response.results, strict=True):
                if result.position is not None and is_of_this_journal:
                    self._journal.acknowledge(record.id, result.position)
                    self._journal.advance(response.journal_epoch, result.position)
                elif result.error is not None:
                    is_retried |= self._refuse(record, result.error)
            if not self._journal.count_outbox():
                self._journal.settle_alarms("unsent")
        self._cache.unprotect([block for block in blocks if not self._journal.needs_block(block)])
        self.last_error = None
        self._dropped = set(filter(self._journal.knows, self._dropped))
        if self._dropped:
            await self._learn_burials()  # they may say why the server has dropped it
        if is_retried:
            await trio.sleep(1)

    async def _put_aside(self, record: OutboxRecord, error: NodeError) -> None:
        """Send a record later whose blocks can not be read, or are not wanted by the server now.

        One that was covered meanwhile is given up: nobody has its bytes from this device any more.
        So is one that nobody else has heard of, if its blocks are neither here nor at the server: what
        it wrote is written over.
        """
        self._note(error)
        with self._database.transaction():
            if isinstance(error, StorageError) and self._journal.give_up_dead(record.id):
                return
        is_gone = isinstance(error, StorageError) and error.errno == errno.ENOENT
        if is_gone and self._journal.is_only_here(record.id):
            with self._database.transaction():
                number, stale = self._lost_blocks.replace(SignedRecord.from_wire(record.wire))
                group = self._journal.group(number)
                assert group is not None
                self._seal_group(group, self._registers.pending_writes(number))
            await self._announce(stale)
            return
        with self._database.transaction():
            self._journal.raise_alarm(
                "unsent",
                f"a change can not be sent to the server now, others go on: {error.message}",
                self._now_ns() // 1000,
            )
        self._aside[record.id] = trio.current_time() + _ASIDE_S

    def _is_aside(self, record: bytes) -> bool:
        return self._aside.get(record, 0) > trio.current_time()

    def _unprotect(self, blocks: Iterable[BlockId]) -> None:
        """Let the cache give up blocks that no unsent record needs."""
        self._cache.unprotect([block for block in blocks if not self._journal.needs_block(block)])

    def _refuse(self, record: OutboxRecord, error: ErrorBody) -> bool:
        """Note why the server refused a record; True when sending it again may help."""
        if error.code == ErrorCode.BLOCKS_MISSING:
            self._uploader.forget(self._namespace)
            return True
        if error.retryable:
            return True
        if not self._journal.knows(record.id):
            return False  # it was taken back with one before it
        if error.code in (ErrorCode.FORK, ErrorCode.DOT_REUSED):
            self._publish_anew(record, error)
            return False
        if self._journal.give_up_dead(record.id):
            return False  # what it wrote was written over since
        if error.code == ErrorCode.RECORD_DROPPED:
            self._ask_again_or_publish_anew(record, error)
            return False
        self._refused.add(record.id)
        self._journal.raise_alarm(
            "refused",
            f"the server refused a change of this device ({error.code}): {error.message}; "
            "it is kept here and not shown to other devices",
            self._now_ns() // 1000,
            [record.wire] if error.evidence is None else [error.evidence, record.wire],
        )
        return False

    def _ask_again_or_publish_anew(self, record: OutboxRecord, error: ErrorBody) -> None:
        """The server had a record of this number. It was this one, if the journal covers it by then."""
        if record.id not in self._dropped:
            self._dropped.add(record.id)
            self._aside[record.id] = trio.current_time() + _ASIDE_S
        else:
            self._dropped.discard(record.id)
            self._publish_anew(record, error)

    def _publish_anew(self, refused: OutboxRecord, error: ErrorBody) -> None:
        """Its place is taken by a record that was not made here: publish its writes beside that."""
        signed = SignedRecord.from_wire(refused.wire)
        chain = self._writer, self._registers.author, self._sequence, self._previous
        try:
            with self._database.transaction():
                if signed.record.actor == self._registers.author.actor:
                    self._begin_run()
                for anew in self._reissue.take_back(signed):
                    group = self._journal.group(anew.group)
                    assert group is not None
                    writes = self._registers.pending_writes(group.id)
                    self._seal_group(group, writes, anew.blocks)
                self._journal.raise_alarm(
                    "fork",
                    "another node writes with this device's identity in the same run: a snapshot of "
                    "this machine was resumed, or its state was copied while it ran; what was "
                    "written here is published beside what was written there. Enrol one of the two "
                    "anew with `atoll login`",
                    self._now_ns() // 1000,
                    [refused.wire] if error.evidence is None else [error.evidence, refused.wire],
                )
        except BaseException:
            self._writer, author, self._sequence, self._previous = chain
            self._registers.write_as(author)
            raise

    def _begin_run(self) -> None:
        """Write as a fresh incarnation of this device from now on."""
        incarnation = self._token_bytes(INCARNATION_BYTES)
        device = self._registers.author.device
        self._registers.write_as(Author(actor_id(device, incarnation), device))
        self._writer = replace(self._writer, incarnation=incarnation)
        self._sequence, self._previous = 0, NO_RECORD
        for item in self._registers.adopt_waiting_writes():
            self._tree.refresh(item, self._now_ns())

    def _note(self, error: NodeError) -> None:
        if self.last_error != error.message:
            _log.warning("publishing failed", error=error.message)
        self.last_error = error.message


_ABOUT_THE_SERVER = frozenset(
    {
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.TOKEN_EXPIRED,
        ErrorCode.DEVICE_REVOKED,
        ErrorCode.FORBIDDEN,
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.INTERNAL,
        ErrorCode.TIMEOUT,
    }
)


def _is_of_one_record(error: NodeError) -> bool:
    """Whether an upload failed by what was uploaded, so that another may succeed."""
    if isinstance(error, StorageError):
        return not error.is_transient
    return isinstance(error, RefusedError) and error.code not in _ABOUT_THE_SERVER


def _delay_s(error: NodeError, backoff: Backoff) -> float:
    return backoff.next_wait_s(error.retry_after_s if isinstance(error, ServerError) else None)


def _opened(writes: Iterable[PendingWrite]) -> list[OpenedWrite]:
    return [OpenedWrite(write.item, write.register, write.version) for write in writes]


def _unstaged(write: PendingWrite, sealed: Mapping[str, _SealedFile]) -> PendingWrite:
    """A write with the bytes that its staging file was sealed to; twins name the same one."""
    staged = write.version.value
    if not isinstance(staged, StagedContent):
        return write
    content = replace(
        sealed[staged.staging].content, mtime_ns=staged.mtime_ns, origin=staged.origin
    )
    return replace(write, version=replace(write.version, value=content))
