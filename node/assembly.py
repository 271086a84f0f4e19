"""Everything of a node but its mount, its control socket and its signals, built in one place.

Owns which object gets which other, and the tasks that keep a drive in step with its server. What
differs between a machine and a simulation comes in as `Surroundings` and as the server's client.
Called by `node.main`, and by the simulator in place of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from node.core.account_keys import DeviceKeyPair
from node.core.backoff import Backoff, BackoffPolicy
from node.core.deletion_guard import GuardLimits
from node.drive import Drive
from node.errors import NodeError, SettingsError
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.open_files import OpenFiles
from node.filesystem.saves import Saves
from node.filesystem.settlements import Settlements
from node.filesystem.values import Owner
from node.filesystem.xattrs import Xattrs
from node.settings import ConflictPlace, NodeSettings
from node.storage.aside import Aside
from node.storage.block_cache import BlockCache
from node.storage.deferred_records import DeferredRecords
from node.storage.held_deletions import HeldDeletions
from node.storage.history import History
from node.storage.journal import Journal
from node.storage.keystore import Keystore
from node.storage.registers import Author, Registers
from node.storage.staging import StagingStore
from node.storage.standing import Standing
from node.storage.state_directory import StateDirectory
from node.storage.tree import Tree
from node.storage.verdicts import Verdicts
from node.sync.approvals import Approvals
from node.sync.block_fetcher import BlockFetcher, BlockServer, FetchLimits, ServerSource
from node.sync.block_uploader import BlockClient, BlockUploader, UploadLimits
from node.sync.burying import BurialClient, BurialRules, Burying
from node.sync.checkpointer import Checkpointer
from node.sync.content_reader import ContentReader
from node.sync.content_sealer import ContentSealer
from node.sync.deferred_changes import DeferredChanges
from node.sync.deletion_guard import DeletionGuard
from node.sync.history_keeper import HistoryKeeper
from node.sync.lost_blocks import LostBlocks
from node.sync.merger import Merger
from node.sync.publisher import CommitClient, Publisher, Writer
from node.sync.puller import JournalClient, Puller
from node.sync.record_intake import RecordIntake
from node.sync.sibling_merge import SiblingMerge
from node.sync.trust import Trust
from node.sync.workers import RunSync, Workers
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.ids import INCARNATION_BYTES, BlockId, NamespaceId, actor_id
from protocol.values import Content

_SYNC_THREADS = 8  # that sync the files of blocks side by side

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node takes from the machine that it runs on, and a simulation gives instead.

    Attributes:
        now_ns: the wall clock.
        token_bytes: so many unpredictable bytes.
        draw: a number within 0..1, for jitter.
        run_sync: runs what blocks, in a thread.
        workers: for work on bytes; nothing gives each part of the node workers of its own.
        sync_threads: that sync files side by side.
    """

    now_ns: Callable[[], int]
    token_bytes: Callable[[int], bytes]
    draw: Callable[[], float]
    run_sync: RunSync
    workers: Workers | None = None
    sync_threads: int = _SYNC_THREADS

    @classmethod
    def of_machine(cls) -> Surroundings:
        """The real ones."""
        return cls(time.time_ns, os.urandom, random.random, trio.to_thread.run_sync)


class NodeServer(JournalClient, CommitClient, BlockClient, BlockServer, BurialClient, Protocol):
    """What a node asks of its server."""


class Assembly:
    """The parts of one run of a node, complete once built.

    Attributes:
        run_drive: fetches blocks and publishes long-open files; the mount needs it.
        run_sync: publishes, pulls, merges and prunes.
    """

    def __init__(
        self,
        settings: NodeSettings,
        state: StateDirectory,
        keystore: Keystore,
        surroundings: Surroundings,
        client: NodeServer,
    ) -> None:
        """Open the index and take up what a former run left.

        Raises:
            SettingsError: the enrolment of this device was not finished.
            StorageError: the index, the staging directory or the block cache can not be read.
        """
        if keystore.account is None or keystore.namespace is None:
            raise SettingsError(
                "the enrolment of this device was not finished; run 'atoll login' again"
            )
        self._surroundings = surroundings
        now_ns, token_bytes = surroundings.now_ns, surroundings.token_bytes
        self.device = DeviceKeyPair(
            SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
        )
        self.namespace = keystore.namespace
        incarnation = token_bytes(INCARNATION_BYTES)
        author = Author(actor_id(self.device.id, incarnation), self.device.id)
        owner = Owner(os.getuid(), os.getgid())

        self._checkpointer = Checkpointer(
            state.index,
            derive(keystore.index_key, Label.INDEX_DATABASE),
            surroundings.run_sync,
        )
        self.database = self._checkpointer.database
        self.registers = Registers(self.database, author)
        self.journal = Journal(self.database)
        self.tree = Tree(self.database, self.registers)
        edits = Saves(self.database, self.registers, self.tree, self.journal, now_ns, token_bytes)
        self.standing = Standing(self.database)

        self.cache = BlockCache(state.blocks, settings.cache_limit_bytes, surroundings.sync_threads)
        self.cache.protect(self.journal.unsent_blocks())
        self.fetcher = BlockFetcher(
            self.cache,
            [ServerSource(client)],
            FetchLimits(
                deadline_s=settings.read_deadline_s, parallel=settings.download_parallelism
            ),
            workers=surroundings.workers,
            draw=surroundings.draw,
        )
        reader = ContentReader(self.fetcher, workers=surroundings.workers)
        self.uploader = BlockUploader(
            client, self.cache, UploadLimits(parallel=settings.upload_parallelism)
        )

        contents = _NamespaceContents(reader, self.cache, self.namespace)
        self.files = OpenFiles(
            self.registers,
            self.tree,
            edits,
            StagingStore(state.staging, keystore.staging_key, token_bytes=token_bytes),
            contents,
            now_ns,
            settings.quiet_publish_s,
            surroundings.run_sync,
        )
        self.aside = Aside(self.database)
        self.cache.protect(self.aside.blocks())
        self.conflicts = ConflictFolder(
            self.tree,
            self.registers,
            self.aside,
            owner,
            is_beside=settings.conflicts is ConflictPlace.BESIDE,
        )
        self.drive = Drive(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            edits=edits,
            settlements=Settlements(
                self.database, self.registers, self.tree, self.journal, now_ns, token_bytes
            ),
            files=self.files,
            conflicts=self.conflicts,
            aside=self.aside,
            release_blocks=self._release_blocks,
            xattrs=Xattrs(self.registers, edits, self.standing, reader.cached_share),
            owner=owner,
            home=settings.home,
            sync_disk=self._sync_disk,
            now_ns=now_ns,
            run_sync=surroundings.run_sync,
        )
        trust = Trust(self.database, self.journal, keystore.account, self.namespace, self.device)
        self.held = HeldDeletions(self.database)
        limits = GuardLimits(settings.deletion_guard_share, settings.deletion_guard_minimum)
        guard = DeletionGuard(self.held, self.tree, limits)
        self.deferred = DeferredRecords(self.database)
        intake = RecordIntake(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            trust=trust,
            guard=guard,
            deferred=self.deferred,
            drive=self.drive,
            namespace=self.namespace,
            now_ns=now_ns,
        )
        self.deferred_changes = DeferredChanges(self.database, self.deferred, intake, self.drive)
        self.approvals = Approvals(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            held=self.held,
            trust=trust,
            intake=intake,
            drive=self.drive,
            now_ns=now_ns,
        )
        self.publisher = Publisher(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            trust=trust,
            guard=guard,
            files=self.files,
            sealer=ContentSealer(reader, self.cache, workers=surroundings.workers),
            uploader=self.uploader,
            cache=self.cache,
            client=client,
            namespace=self.namespace,
            writer=Writer(self.device.signing, incarnation),
            settle_s=settings.settle_s,
            now_ns=now_ns,
            token_bytes=token_bytes,
            draw=surroundings.draw,
            run_sync=surroundings.run_sync,
            wait_changed=self.drive.wait_published,
            lost_blocks=LostBlocks(
                self.database,
                self.registers,
                self.tree,
                self.journal,
                self.drive,
                now_ns,
                self.cache.contains,
            ),
            learn_burials=self._learn_burials,
            announce=self.drive.announce,
        )
        self.puller = Puller(
            database=self.database,
            journal=self.journal,
            tree=self.tree,
            trust=trust,
            intake=intake,
            drive=self.drive,
            client=client,
            namespace=self.namespace,
            now_ns=now_ns,
            draw=surroundings.draw,
            run_sync=surroundings.run_sync,
            learn_burials=self._learn_burials,
        )
        verdicts = Verdicts(self.database, self.registers)
        self.merging = SiblingMerge(contents, surroundings.run_sync)
        self.merger = Merger(
            registers=self.registers,
            tree=self.tree,
            verdicts=verdicts,
            drive=self.drive,
            merging=self.merging,
            device=self.device.id,
            is_behind=lambda: self.puller.is_behind,
            draw=surroundings.draw,
        )
        self.history = HistoryKeeper(
            History(self.database), verdicts, settings.history_days, now_ns
        )
        self.burying = Burying(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            trust=trust,
            aside=self.aside,
            drive=self.drive,
            cache=self.cache,
            fetcher=self.fetcher,
            reader=reader,
            client=client,
            namespace=self.namespace,
            device=self.device,
            rules=BurialRules(settings.tombstone_days, settings.deletion_guard_minimum),
            now_ns=now_ns,
            draw=surroundings.draw,
            catch_up=self.puller.catch_up,
        )
        self._recover()

    def _recover(self) -> None:
        """Take up what a former run left: waiting writes and staged bytes."""
        with self.database.transaction():
            for item in self.registers.adopt_waiting_writes():
                self.tree.refresh(item, self._surroundings.now_ns())
            self.tree.take_changes()
            troubles = self.files.recover()
        for trouble in troubles:
            self.journal.raise_alarm("staging", trouble, self._surroundings.now_ns() // 1000)

    async def _learn_burials(self) -> None:
        await self.burying.learn_first()

    def _release_blocks(self, blocks: Iterable[BlockId]) -> None:
        """Let the cache give up what neither an unsent record nor a file kept aside needs."""
        kept = self.aside.blocks()
        self.cache.unprotect(
            block for block in blocks if block not in kept and not self.journal.needs_block(block)
        )

    def _sync_disk(self) -> None:
        """Sealed blocks first, then the index that refers to them."""
        self.cache.sync_pending()
        self.database.sync()

    async def run_drive(self) -> None:
        """Keep the drive going until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_going, "fetching", self.fetcher.run)
            nursery.start_soon(self._keep_going, "checkpointing", self._checkpointer.run)
            nursery.start_soon(self.drive.run)
            nursery.start_soon(self.files.early_write_out.run)

    async def run_sync(self) -> None:
        """Keep in step with the server until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_going, "publishing", self.publisher.run)
            nursery.start_soon(self._keep_going, "pulling", self.puller.run)
            nursery.start_soon(self._keep_going, "applying", self.deferred_changes.run)
            nursery.start_soon(self._keep_going, "merging", self.merger.run)
            nursery.start_soon(self._keep_going, "pruning", self.history.run)
            nursery.start_soon(self._keep_going, "burying", self.burying.run)

    async def wait_sent(self, deadline_s: float) -> None:
        """Register what open files hold, and send what waits, for so long at most."""
        self.drive.register_all()
        with trio.move_on_after(deadline_s):
            await self.publisher.wait_sent()

    def close(self) -> None:
        """Write the index out and close it."""
        with suppress(NodeError):
            self.database.sync()
        self.database.close()

    async def _keep_going(self, what: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the sync; a mistake in it must not take the mount away.

        It is logged, shown as an alarm, and the task starts anew. A broken invariant is no such
        mistake: it ends the node before more is built upon it.
        """
        backoff = Backoff(BackoffPolicy(initial_s=1.0), self._surroundings.draw)
        while True:
            try:
                await task()
            except Exception as error:
                if _holds_broken_invariant(error):
                    raise
                _log.exception("a task failed", task=what)
                self.journal.raise_alarm(
                    "mistake",
                    f"{what} failed by a mistake in Atoll ({_names(error)}) and was started again; "
                    "the log of the node says more",
                    self._surroundings.now_ns() // 1000,
                )
            await trio.sleep(backoff.next_wait_s())


class _NamespaceContents:
    """Contents of one namespace, for the drive."""

    def __init__(self, reader: ContentReader, cache: BlockCache, namespace: NamespaceId) -> None:
        self._reader = reader
        self._cache = cache
        self._namespace = namespace

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        return await self._reader.read(self._namespace, content, offset, size)

    def is_here(self, content: Content) -> bool:
        return all(map(self._cache.contains, content.blocks))


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, however nested, or the one that is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error


def _holds_broken_invariant(error: BaseException) -> bool:
    return any(isinstance(leaf, AssertionError) for leaf in leaves_of(error))


def _names(error: BaseException) -> str:
    return ", ".join(sorted({type(leaf).__name__ for leaf in leaves_of(error)}))
