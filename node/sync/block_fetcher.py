"""The one way by which sealed blocks reach this device.

Owns the order in which sources are asked, the sharing of one fetch by all who wait for a block, the
bounds on fetches under way, and the check of every block against its id. Refuses to know keys,
plaintext and HTTP: a source is anything that has `BlockSource.fetch`. Called by
``node.sync.content_reader``; started by ``node.main``.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import trio

from node.core.backoff import Backoff, BackoffPolicy
from node.errors import NodeError, ServerError, StorageError
from node.storage.block_cache import BlockCache
from node.sync.workers import Workers
from protocol.crypto.blocks import block_id
from protocol.ids import BlockId, NamespaceId


class BlockSource(Protocol):
    """Whoever may have a block: the server, or a peer on the LAN.

    Attributes:
        name: what is counted under: ``server``, or ``peer`` for every peer.
        is_verifying: whether `fetch` itself compares the bytes with the id as they arrive; for
            other sources the fetcher does.
    """

    @property
    def name(self) -> str:
        """As above."""

    @property
    def is_verifying(self) -> bool:
        """As above."""

    async def fetch(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """The sealed frame of a block.

        Raises:
            NodeError: this source does not give the block now; `is_transient` says whether asking
                it again soon makes sense.
        """


class BlockServer(Protocol):
    """What of the server's client is used here."""

    async def get_block(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """The frame of a block, compared with its id; raises `ServerError`."""


@dataclass(frozen=True, slots=True)
class ServerSource:
    """The server as a source of blocks. Its client hashes what it receives, piece by piece."""

    server: BlockServer
    name: str = "server"
    is_verifying: bool = True

    async def fetch(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """As `BlockSource.fetch`."""
        return await self.server.get_block(namespace, block)


_FAILED_FOR_S: Final = 0.5
"""For so long nobody waits again for a block that did not arrive within the deadline."""

_FAILURES_KEPT: Final = 1024

_BETWEEN_ATTEMPTS: Final = BackoffPolicy(initial_s=0.1, maximum_s=1.0)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What the fetcher may use.

    Attributes:
        deadline_s: longest wait of one read for one block.
        give_up_s: longest life of one fetch. Much longer than the deadline, so that on a slow line
            the program's next attempt finds the block here; a source ends a transfer that stalls.
        parallel: fetches under way. Each holds one frame of at most 4 MiB.
        reserved: of those, so many places are left free for blocks that somebody waits for.
        queued_ahead: blocks that wait for a speculative fetch; more are dropped.
        threads: that verify and store what arrived.
        attempts: rounds through all sources before a transient failure is reported.
        between_attempts: how long to wait between rounds. Short: a program hangs meanwhile, and
            with the server away an error at once is better than one after half a minute.
    """

    deadline_s: float = 30.0
    give_up_s: float = 900.0
    parallel: int = 8
    reserved: int = 2
    queued_ahead: int = 64
    threads: int = 2
    attempts: int = 3
    between_attempts: BackoffPolicy = _BETWEEN_ATTEMPTS


_Key = tuple[NamespaceId, BlockId]


@dataclass(slots=True, eq=False)
class _Fetch:
    """A block on its way here, and how many wait for it."""

    namespace: NamespaceId
    block: BlockId
    waiters: int = 0
    done: trio.Event = field(default_factory=trio.Event)
    frame: bytes | None = None
    error: NodeError | None = None

    @property
    def key(self) -> _Key:
        return self.namespace, self.block


class BlockFetcher:
    """Gives blocks from the cache, and brings those that are not there.

    Concurrency: shared by all readers; its state changes between awaits only. Fetches run in the
    nursery of `run`, so a reader that is cancelled takes nothing away from the others.

    Attributes:
        blocks_from: blocks received so far, by the name of the source.
        bytes_from: their lengths in bytes.
    """

    def __init__(
        self,
        cache: BlockCache,
        sources: Sequence[BlockSource],
        limits: FetchLimits = FetchLimits(),
        *,
        workers: Workers | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`sources` are asked in their order; `draw` gives the jitter, 0..1."""
        self.blocks_from: Counter[str] = Counter()
        self.bytes_from: Counter[str] = Counter()
        self._cache = cache
        self._sources = tuple(sources)
        self._limits = limits
        self._workers = workers or Workers(limits.threads)
        self._draw = draw
        self._nursery: trio.Nursery | None = None
        # A fetch is in one of the queues, or under way. The namespace is part of the key, or
        # somebody's mention of a block that his namespace lacks would fail the reads of others.
        self._waited: OrderedDict[_Key, _Fetch] = OrderedDict()
        self._ahead: OrderedDict[_Key, _Fetch] = OrderedDict()
        self._failures: dict[_Key, tuple[float, NodeError]] = {}
        self._under_way: dict[_Key, _Fetch] = {}
        self._ahead_under_way = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetches until cancelled; then whoever still waits gets a transient `ServerError`."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._start_next()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._abandon_all()

    async def get(self, namespace: NamespaceId, block: BlockId, length: int = 0) -> bytes:
        """The sealed frame of a block, from the cache or from elsewhere.

        A cancelled caller leaves a fetch that has begun to itself: the block arrives in the cache.

        Args:
            namespace: is asked for the block when it is not cached.
            block: its id.
            length: about how long the frame is, in bytes; a long file is read in a thread.

        Raises:
            ServerError: no source gave the block, or not within the deadline.
        """
        if self._cache.contains(block):
            frame = await self._workers.call(length, partial(self._read_cached, block))
            if frame is not None:
                return frame
        self._raise_if_just_failed((namespace, block))
        # Nothing has awaited since the cache was found to lack the block, or one that arrived
        # meanwhile would be fetched again.
        fetch = self._wanted(namespace, block)
        fetch.waiters += 1
        self._start_next()
        try:
            with trio.move_on_after(self._limits.deadline_s):
                await fetch.done.wait()
        finally:
            fetch.waiters -= 1
            self._drop_if_unwanted(fetch)
        if fetch.frame is not None and fetch.error is None:
            return fetch.frame
        if fetch.error is not None:
            raise fetch.error
        error = ServerError(
            "deadline",
            f"block {block} did not arrive within {self._limits.deadline_s:g} s",
            is_transient=True,
        )
        self._note_failure(fetch.key, error)
        raise error

    def _raise_if_just_failed(self, key: _Key) -> None:
        """The kernel asks a second time for what it could not read ahead: that must not wait again."""
        failed_at, error = self._failures.get(key, (-math.inf, None))
        if error is not None and trio.current_time() - failed_at < _FAILED_FOR_S:
            raise error

    def _note_failure(self, key: _Key, error: NodeError) -> None:
        now_s = trio.current_time()
        if len(self._failures) >= _FAILURES_KEPT:
            self._failures = {
                other: failure
                for other, failure in self._failures.items()
                if now_s - failure[0] < _FAILED_FOR_S
            }
        self._failures[key] = (now_s, error)

    async def get_again(self, namespace: NamespaceId, block: BlockId, length: int = 0) -> bytes:
        """As `get`, after a cached frame has proved to be damaged: it is thrown away."""
        self._cache.discard(block)
        return await self.get(namespace, block, length)

    def is_cached(self, block: BlockId) -> bool:
        """Whether a block is on this device."""
        return self._cache.contains(block)

    def cached(self, block: BlockId) -> bytes | None:
        """The frame of a block that is on this device; not verified. From any thread.

        On the loop for short blocks only.
        """
        return self._read_cached(block)

    def cached_part(self, block: BlockId, offset: int, size: int) -> bytes | None:
        """Some bytes of the frame of a block that is on this device; not verified. For few bytes."""
        # As `_read_cached`.
        with contextlib.suppress(StorageError):
            return self._cache.get_part(block, offset, size)
        return None

    def prefetch(self, namespace: NamespaceId, blocks: Iterable[BlockId]) -> None:
        """Brings blocks into the cache when nothing more urgent is under way; never waits.

        What does not fit into the queue is dropped: whoever reads it later fetches it.
        """
        for block in blocks:
            if len(self._ahead) >= self._limits.queued_ahead:
                break
            key = namespace, block
            if key in self._waited or key in self._ahead or key in self._under_way:
                continue
            if not self._cache.contains(block):
                self._ahead[key] = _Fetch(namespace, block)
        self._start_next()

    def _read_cached(self, block: BlockId) -> bytes | None:
        # A cached file that the disk does not give back is as good as none.
        with contextlib.suppress(StorageError):
            return self._cache.get(block)
        return None

    def _wanted(self, namespace: NamespaceId, block: BlockId) -> _Fetch:
        """The fetch of a block that somebody waits for: running, or queued before all others."""
        key = namespace, block
        fetch = self._under_way.get(key) or self._waited.get(key)
        if fetch is None:
            fetch = self._ahead.pop(key, None) or _Fetch(namespace, block)
            self._waited[key] = fetch
        return fetch

    def _drop_if_unwanted(self, fetch: _Fetch) -> None:
        if fetch.waiters == 0 and self._waited.get(fetch.key) is fetch:
            del self._waited[fetch.key]

    def _start_next(self) -> None:
        if self._nursery is None:
            return
        while self._waited and len(self._under_way) < self._limits.parallel:
            _, fetch = self._waited.popitem(last=False)
            self._under_way[fetch.key] = fetch
            self._nursery.start_soon(self._carry_out, fetch, False)
        while (
            self._ahead
            and len(self._under_way) < self._limits.parallel
            and self._ahead_under_way < max(1, self._limits.parallel - self._limits.reserved)
        ):
            _, fetch = self._ahead.popitem(last=False)
            self._under_way[fetch.key] = fetch
            self._ahead_under_way += 1
            self._nursery.start_soon(self._carry_out, fetch, True)

    async def _carry_out(self, fetch: _Fetch, is_ahead: bool) -> None:
        try:
            with trio.fail_after(self._limits.give_up_s):
                fetch.frame = await self._fetch_in_rounds(fetch.namespace, fetch.block)
        except NodeError as error:
            fetch.error = error
        except trio.TooSlowError:
            fetch.error = ServerError(
                "deadline", f"block {fetch.block} takes too long to arrive", is_transient=True
            )
        finally:
            del self._under_way[fetch.key]
            self._ahead_under_way -= is_ahead
            if fetch.frame is None and fetch.error is None:
                fetch.error = _closing(fetch.block)
            fetch.done.set()
            self._start_next()

    async def _fetch_in_rounds(self, namespace: NamespaceId, block: BlockId) -> bytes:
        backoff = Backoff(self._limits.between_attempts, self._draw)
        while True:
            try:
                return await self._fetch_once(namespace, block)
            except NodeError as error:
                if not error.is_transient or backoff.failures + 1 >= self._limits.attempts:
                    raise
                retry_after_s = error.retry_after_s if isinstance(error, ServerError) else None
                wait_s = backoff.next_wait_s(retry_after_s)
            await trio.sleep(wait_s)

    async def _fetch_once(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """One round through the sources; the last one's error when none gives the block."""
        failure: NodeError = ServerError("no_source", f"nobody to ask for block {block}")
        for source in self._sources:
            try:
                frame = await source.fetch(namespace, block)
            except NodeError as error:
                failure = error
                continue
            self.blocks_from[source.name] += 1
            self.bytes_from[source.name] += len(frame)
            keep = partial(self._keep_verified, block, frame, is_verified=source.is_verifying)
            if await self._workers.call(len(frame), keep):
                return frame
            failure = ServerError("block_mismatch", f"{source.name} sent other bytes than {block}")
        raise failure

    def _keep_verified(self, block: BlockId, frame: bytes, *, is_verified: bool) -> bool:
        if not is_verified and block_id(frame) != block:
            return False
        # A reader gets its bytes although the disk has no room to keep them.
        with contextlib.suppress(StorageError):
            self._cache.put(block, frame)
        return True

    def _abandon_all(self) -> None:
        for fetch in (*self._waited.values(), *self._ahead.values()):
            fetch.error = _closing(fetch.block)
            fetch.done.set()
        self._waited.clear()
        self._ahead.clear()


def _closing(block: BlockId) -> ServerError:
    return ServerError("closing", f"block {block} is no longer fetched", is_transient=True)
