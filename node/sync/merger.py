"""Merges conflicting versions of text files, when it is this device's turn.

One task. It learns from the drive which files have conflict versions, leaves those to others for as
long as its rank says, looks again, merges, and publishes the result as an automatic change that
covers exactly the versions merged. What can not be merged stays a conflict for the user. Called by
the node's assembly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
import trio

from node.core.backoff import Backoff, BackoffPolicy
from node.core.content_merge import Settlement, Side, wait_s
from node.core.tree_view import Version, choose_content
from node.errors import NodeError, ServerError
from node.storage.registers import Registers
from node.storage.tree import Tree
from node.storage.verdicts import Verdicts
from node.sync.sibling_merge import Joined, SiblingMerge
from protocol.http_api import ErrorCode
from protocol.ids import DeviceId, ItemId
from protocol.values import Content
from protocol.version_vector import Dot

MOST_SIBLINGS = 16  # that are merged at once; each pair may have to be read and compared
_LONGEST_WAIT_S = 300.0  # before bytes are asked for again that nobody could give
_LOOK_AGAIN_S = 1.0  # at a file that is being written, or while changes are still coming in

_PATIENCE = BackoffPolicy(initial_s=2 * _LOOK_AGAIN_S, maximum_s=_LONGEST_WAIT_S)

_log = structlog.get_logger(__name__)


class ConflictedFiles(Protocol):
    """What of the drive is used here."""

    async def wait_unsettled(self) -> None:
        """Return when files got conflict versions."""

    def is_being_written(self, item: ItemId) -> bool:
        """Whether something was written of which no record is made yet."""

    def stage(self, item: ItemId, data: bytes, after_ns: int) -> Content:
        """The content of a file with these bytes."""

    def settle(self, item: ItemId, settlement: Settlement) -> tuple[list[Any], list[ItemId]]:
        """Let one content stand for conflict versions; what to announce, and files made beside."""

    async def announce(self, stale: list[Any]) -> None:
        """Tell the kernel."""


@dataclass(slots=True)
class _Turn:
    """A conflict that waits for this device's turn.

    Attributes:
        is_own: this device wrote one of the versions.
    """

    siblings: frozenset[Dot]
    due_s: float
    is_own: bool
    backoff: Backoff


class Merger:
    """Merges in one namespace.

    Concurrency: one task. Between looking again and settling nothing awaits.
    """

    def __init__(
        self,
        *,
        registers: Registers,
        tree: Tree,
        verdicts: Verdicts,
        drive: ConflictedFiles,
        merging: SiblingMerge,
        device: DeviceId,
        is_behind: Callable[[], bool],
        draw: Callable[[], float],
    ) -> None:
        """``is_behind``: whether changes are announced that are not applied here yet."""
        self._registers = registers
        self._tree = tree
        self._verdicts = verdicts
        self._drive = drive
        self._merging = merging
        self._device = device
        self._is_behind = is_behind
        self._draw = draw
        self._turns: dict[ItemId, _Turn] = {}
        self.merged = 0
        self.last_error: str | None = None

    async def run(self) -> None:
        """Merge until cancelled."""
        for row in self._tree.conflicts():
            self._note([row.item])
            await trio.lowlevel.checkpoint()
        while True:
            due = [item for item, turn in self._turns.items() if turn.due_s <= trio.current_time()]
            for item in due:
                await self._try_merge(item)
            if not any(turn.backoff.failures for turn in self._turns.values()):
                self.last_error = None
            with trio.move_on_at(
                min((turn.due_s for turn in self._turns.values()), default=math.inf)
            ):
                await self._drive.wait_unsettled()
            self._note(sorted(self._tree.take_unsettled()))

    def reason(self, item: ItemId) -> str | None:
        """Why a conflict was not merged, as a clause; None when it was not tried yet."""
        return self._verdicts.reason(item)

    @property
    def is_pending(self) -> bool:
        """Whether a conflict with a version by this device is about to be merged, here or elsewhere."""
        return any(
            turn.is_own and not turn.backoff.failures and self._is_open(item)
            for item, turn in self._turns.items()
        )

    def _is_open(self, item: ItemId) -> bool:
        _, conflicts = choose_content(self._siblings(item))
        return bool(conflicts) and self._verdicts.reason(item) is None

    def _note(self, items: Iterable[ItemId]) -> None:
        """Take files up that have conflict versions; new versions start the wait anew."""
        for item in items:
            siblings = self._siblings(item)
            is_own = any(version.device == self._device for version in siblings)
            dots = frozenset(version.dot for version in siblings)
            turn = self._turns.get(item)
            if turn is None or turn.siblings != dots:
                due_s = trio.current_time() + wait_s(siblings, self._device, self._draw)
                backoff = Backoff(_PATIENCE, self._draw)
                self._turns[item] = _Turn(dots, due_s, is_own, backoff)

    async def _try_merge(self, item: ItemId) -> None:
        turn = self._turns[item]
        try:
            is_done = await self._merge(item)
        except NodeError as error:
            if self.last_error != error.message:
                _log.warning("a conflict can not be merged yet", error=error.message)
            self.last_error = error.message
            turn.due_s = trio.current_time() + turn.backoff.next_wait_s()
            return
        turn.backoff.reset()
        if is_done:
            del self._turns[item]
        else:
            turn.due_s = trio.current_time() + _LOOK_AGAIN_S

    async def _merge(self, item: ItemId) -> bool:
        """Merge what goes together; False when it is to be looked at again a little later."""
        siblings, state = self._siblings(item), self._verdicts.state(item)
        if not self._is_open(item) or not self._tree.entries_of(item):
            return True
        if self._is_behind() or self._drive.is_being_written(item):
            return False
        history = self._registers.history(item)
        try:
            joined = await self._merging.join(siblings[:MOST_SIBLINGS], history)
        except ServerError as error:
            if error.code != ErrorCode.NOT_FOUND:
                raise
            joined = Joined(None, "the bytes of a version that is needed for it are gone")
        if self._verdicts.state(item) != state or self._drive.is_being_written(item):
            return False
        if joined.side is None:
            self._verdicts.note(item, state, joined.reason)
            return True
        stale, _ = self._drive.settle(item, self._settlement(item, joined.side))
        self.merged += 1
        await self._drive.announce(stale)
        return True

    def _settlement(self, item: ItemId, side: Side) -> Settlement:
        content = side.published(is_automatic=True)
        if content is None:
            assert side.data is not None
            content = self._drive.stage(item, side.data, side.mtime_ns)
        return Settlement(side.versions, content, is_automatic=True)

    def _siblings(self, item: ItemId) -> list[Version[Content]]:
        return sorted(self._registers.contents(item), key=lambda version: version.rank)
