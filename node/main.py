"""The composition root of the node: builds every object once, runs the tasks, ends in order.

Called by ``atoll run``. Nothing else builds these objects.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

import structlog
import trio

from fusefs.mount import MountSettings, serve_mount
from node.control.commands import Commands, Identity
from node.control.conflict_commands import ConflictCommands
from node.control.server import ControlServer
from node.core.account_keys import DeviceKeyPair
from node.core.backoff import Backoff, BackoffPolicy
from node.drive import Drive
from node.errors import NodeError, SettingsError
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.open_files import OpenFiles
from node.filesystem.saves import Saves
from node.filesystem.settlements import Settlements
from node.filesystem.values import Owner
from node.filesystem.xattrs import Xattrs
from node.memory import reuse_large_buffers
from node.net.access_tokens import DeviceCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.settings import ConflictPlace, NodeSettings
from node.storage.block_cache import BlockCache
from node.storage.database import Database
from node.storage.history import History
from node.storage.journal import Journal
from node.storage.keystore import Keystore
from node.storage.registers import Author, Registers
from node.storage.staging import StagingStore
from node.storage.standing import Standing
from node.storage.state_directory import StateDirectory, disable_core_dumps
from node.storage.tree import Tree
from node.storage.verdicts import Verdicts
from node.sync.block_fetcher import BlockFetcher, FetchLimits, ServerSource
from node.sync.block_uploader import BlockUploader, UploadLimits
from node.sync.content_reader import ContentReader
from node.sync.content_sealer import ContentSealer
from node.sync.history_keeper import HistoryKeeper
from node.sync.merger import Merger
from node.sync.publisher import Publisher, Writer
from node.sync.puller import Puller
from node.sync.sibling_merge import SiblingMerge
from node.sync.trust import Trust
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.ids import INCARNATION_BYTES, NamespaceId, actor_id
from protocol.values import Content

_log = structlog.get_logger(__name__)


def run(settings: NodeSettings) -> int:
    """Run the node until SIGTERM, SIGINT or ``atoll unmount``; the process's exit code.

    Errors that the user can do something about end in one sentence on stderr and 1.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    disable_core_dumps()
    os.umask(0o077)
    reuse_large_buffers()
    try:
        with StateDirectory.open(settings.home) as state:
            keystore = Keystore.load(settings.home)
            if keystore.account is None or keystore.namespace is None:
                raise SettingsError(
                    "the enrolment of this device was not finished; run 'atoll login' again"
                )
            trio.run(_Node(settings, state, keystore).run)
    except BaseExceptionGroup as group:
        sentences = _sentences(group)
        if not sentences:
            raise
        sys.stderr.write(f"atoll: {'; '.join(sentences)}\n")
        return 1
    except NodeError as error:
        sys.stderr.write(f"atoll: {error.message}\n")
        return 1
    return 0


class _Node:
    """Everything that one run of a node consists of."""

    def __init__(self, settings: NodeSettings, state: StateDirectory, keystore: Keystore) -> None:
        assert keystore.account is not None
        assert keystore.namespace is not None
        self._settings = settings
        device = DeviceKeyPair(
            SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
        )
        namespace = keystore.namespace
        incarnation = os.urandom(INCARNATION_BYTES)
        author = Author(actor_id(device.id, incarnation), device.id)
        owner = Owner(os.getuid(), os.getgid())

        self._database = Database(state.index, derive(keystore.index_key, Label.INDEX_DATABASE))
        registers = Registers(self._database, author)
        journal = self._journal = Journal(self._database)
        tree = Tree(self._database, registers)
        edits = Saves(self._database, registers, tree, journal, time.time_ns)
        standing = Standing(self._database)

        self._client = ServerClient(
            ServerAddress.parse(keystore.server), DeviceCredentials(device.id, device.signing)
        )
        cache = self._cache = BlockCache(state.blocks, settings.cache_limit_bytes)
        cache.protect(journal.unsent_blocks())
        self._fetcher = BlockFetcher(
            cache,
            [ServerSource(self._client)],
            FetchLimits(
                deadline_s=settings.read_deadline_s, parallel=settings.download_parallelism
            ),
        )
        reader = ContentReader(self._fetcher)
        uploader = BlockUploader(
            self._client, cache, UploadLimits(parallel=settings.upload_parallelism)
        )

        contents = _NamespaceContents(reader, namespace)
        self._files = OpenFiles(
            registers,
            tree,
            edits,
            StagingStore(state.staging, keystore.staging_key),
            contents,
            time.time_ns,
            settings.quiet_publish_s,
        )
        conflicts = ConflictFolder(
            tree, registers, owner, is_beside=settings.conflicts is ConflictPlace.BESIDE
        )
        self._drive = Drive(
            database=self._database,
            registers=registers,
            tree=tree,
            edits=edits,
            settlements=Settlements(
                self._database, registers, tree, journal, time.time_ns, os.urandom
            ),
            files=self._files,
            conflicts=conflicts,
            xattrs=Xattrs(registers, edits, standing, reader.cached_share),
            owner=owner,
            home=settings.home,
            sync_disk=self._sync_disk,
            now_ns=time.time_ns,
        )
        trust = Trust(self._database, journal, keystore.account, namespace, device)
        self._publisher = Publisher(
            database=self._database,
            registers=registers,
            tree=tree,
            journal=journal,
            trust=trust,
            files=self._files,
            sealer=ContentSealer(reader, cache),
            uploader=uploader,
            cache=cache,
            client=self._client,
            namespace=namespace,
            writer=Writer(device.signing, incarnation),
            settle_s=settings.settle_s,
            now_ns=time.time_ns,
            wait_changed=self._drive.wait_published,
        )
        self._puller = Puller(
            database=self._database,
            registers=registers,
            tree=tree,
            journal=journal,
            trust=trust,
            drive=self._drive,
            client=self._client,
            namespace=namespace,
            now_ns=time.time_ns,
        )
        verdicts = Verdicts(self._database, registers)
        merging = SiblingMerge(contents, trio.to_thread.run_sync)
        self._merger = Merger(
            registers=registers,
            tree=tree,
            verdicts=verdicts,
            drive=self._drive,
            merging=merging,
            device=device.id,
            is_behind=lambda: self._puller.is_behind,
            draw=random.random,
        )
        self._history = HistoryKeeper(
            History(self._database), verdicts, settings.history_days, time.time_ns
        )
        self._stopping = trio.Event()
        conflict_commands = ConflictCommands(
            mountpoint=settings.mountpoint,
            device=device.id,
            tree=tree,
            registers=registers,
            conflicts=conflicts,
            drive=self._drive,
            merging=merging,
            merger=self._merger,
        )
        self._control = ControlServer(
            settings.home,
            Commands(
                identity=Identity(
                    str(device.id),
                    keystore.device_name,
                    str(keystore.account),
                    str(namespace),
                    settings.mountpoint,
                ),
                tree=tree,
                journal=journal,
                standing=standing,
                files=self._files,
                conflicts=conflicts,
                cache=cache,
                fetcher=self._fetcher,
                uploader=uploader,
                publisher=self._publisher,
                puller=self._puller,
                merger=self._merger,
                client=self._client,
                stop=self._stopping.set,
            ).handlers()
            | conflict_commands.handlers(),
        )
        self._recover(registers, tree)

    def _recover(self, registers: Registers, tree: Tree) -> None:
        """Take up what a former run left: waiting writes and staged bytes."""
        with self._database.transaction():
            for item in registers.adopt_waiting_writes():
                tree.refresh(item, time.time_ns())
        tree.take_changes()
        for trouble in self._files.recover():
            self._journal.raise_alarm("staging", trouble, time.time_ns() // 1000)

    def _sync_disk(self) -> None:
        """Sealed blocks first, then the index that refers to them."""
        self._cache.sync_pending()
        self._database.sync()

    async def run(self) -> None:
        """Serve until told to stop, then write out, unmount and end."""
        mount_settings = MountSettings(
            allow_other=self._settings.allow_other,
            unmount_deadline_s=self._settings.stop_deadline_s / 2,
        )
        try:
            async with self._client, trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signal)
                nursery.start_soon(self._keep_going, "fetching", self._fetcher.run)
                nursery.start_soon(self._drive.run)
                async with trio.open_nursery() as mount_nursery:
                    await mount_nursery.start(
                        serve_mount, self._drive, self._settings.mountpoint, mount_settings
                    )
                    nursery.start_soon(self._keep_going, "publishing", self._publisher.run)
                    nursery.start_soon(self._keep_going, "pulling", self._puller.run)
                    nursery.start_soon(self._keep_going, "merging", self._merger.run)
                    nursery.start_soon(self._keep_going, "pruning", self._history.run)
                    await nursery.start(self._control.serve)
                    sys.stdout.write(f"atoll: mounted at {self._settings.mountpoint}\n")
                    sys.stdout.flush()
                    nursery.start_soon(self._end_with, mount_nursery.cancel_scope)
                self._drive.register_all()
                with trio.move_on_after(self._settings.stop_deadline_s / 2):
                    await self._publisher.wait_sent()
                nursery.cancel_scope.cancel()
        finally:
            with suppress(NodeError):
                self._database.sync()
            self._database.close()

    async def _keep_going(self, what: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the sync; a mistake in it must not take the mount away.

        It is logged, shown as an alarm, and the task starts anew. A broken invariant is no such
        mistake: it ends the node before more is built upon it.
        """
        backoff = Backoff(BackoffPolicy(initial_s=1.0), random.random)
        while True:
            try:
                await task()
            except Exception as error:
                if _holds_broken_invariant(error):
                    raise
                _log.exception("a task failed", task=what)
                self._journal.raise_alarm(
                    "mistake",
                    f"{what} failed by a mistake in Atoll ({_names(error)}) and was started again; "
                    "the log of the node says more",
                    time.time_ns() // 1000,
                )
            await trio.sleep(backoff.next_wait_s())

    async def _end_with(self, mount: trio.CancelScope) -> None:
        await self._stopping.wait()
        mount.cancel()

    async def _stop_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for _ in signals:
                self._stopping.set()


class _NamespaceContents:
    """Contents of one namespace, for the drive."""

    def __init__(self, reader: ContentReader, namespace: NamespaceId) -> None:
        self._reader = reader
        self._namespace = namespace

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        return await self._reader.read(self._namespace, content, offset, size)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _holds_broken_invariant(error: BaseException) -> bool:
    return any(isinstance(leaf, AssertionError) for leaf in _leaves(error))


def _names(error: BaseException) -> str:
    return ", ".join(sorted({type(leaf).__name__ for leaf in _leaves(error)}))


def _sentences(group: BaseExceptionGroup[BaseException]) -> Sequence[str]:
    """What to tell the user of a failed run; nothing when something unforeseen is among it."""
    leaves = list(_leaves(group))
    if not all(isinstance(leaf, NodeError) for leaf in leaves):
        return []
    return [leaf.message for leaf in leaves if isinstance(leaf, NodeError)]
