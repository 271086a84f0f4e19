"""Buries what was deleted long ago, and keeps aside what only this device still has of such items.

Once a day an owner's device names to the server what was deleted before the retention time; the
others learn of it within the hour. A device that was away for so long may show such items yet, or
have changed them: nobody else wants them, and nobody knows whether its user does, so they leave the
tree and stay readable in ``.atoll/aside``. Called by the node's assembly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
import trio

from node.core.account_keys import DeviceKeyPair
from node.core.tree_view import Version, choose_content, view_item
from node.errors import NodeError
from node.net.http_transport import RefusedError
from node.storage.aside import Aside
from node.storage.block_cache import BlockCache
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Registers
from node.storage.tree import Changes, Tree
from node.sync.block_fetcher import BlockFetcher
from node.sync.content_reader import ContentReader
from node.sync.trust import Trust
from protocol.burials import MAX_BURIAL_ITEMS, Burial, SignedBurial
from protocol.errors import ProtocolError, RemoteProtocolError
from protocol.http_api import BurialsResponse, ErrorCode
from protocol.ids import BlockId, ItemId, NamespaceId, RecordId
from protocol.logs import Role
from protocol.values import Content, Kind

_ROUND_S = 3600.0
_LOOK_AGAIN_S = 10.0
_TRY_AGAIN_S = 300.0
_DAY_US = 24 * 3600 * 10**6
_ROWS_AT_ONCE = 2000  # of the index, looked through in one step
_ITEMS_AT_ONCE = 50  # looked at in one step

_log = structlog.get_logger(__name__)


class BurialClient(Protocol):
    """What of the server's client is used here."""

    async def bury(self, namespace: NamespaceId, burial: bytes) -> None:
        """Hand a signed burial over."""

    async def burials(self, namespace: NamespaceId, after: int) -> BurialsResponse:
        """Burials with greater numbers."""


class Surface(Protocol):
    """What of the drive is used here."""

    def is_open(self, item: ItemId) -> bool:
        """Whether a program has a file open."""

    def expect_remote_changes(self, items: Iterable[ItemId]) -> None:
        """Before items are changed."""

    def take_remote_changes(self, changes: Changes) -> list[Any]:
        """After they were, in the same step."""

    async def announce(self, stale: list[Any]) -> None:
        """Tell the kernel."""


@dataclass(frozen=True, slots=True)
class BurialRules:
    """When to bury, and when to doubt.

    Attributes:
        retention_days: what was deleted less long ago is remembered.
        most_shown: more items than this are not taken out of the tree at once, unless this device
            was away for half of the retention time: who was in step has seen them deleted.
    """

    retention_days: float
    most_shown: int

    @property
    def retention_us(self) -> int:
        """The retention time in microseconds."""
        return int(self.retention_days * _DAY_US)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A version that goes aside."""

    path: bytes
    version: Version[Content]
    blocks: tuple[BlockId, ...]


class Burying:
    """Buries items of one namespace.

    Concurrency: one task; each step is a transaction of its own.
    """

    def __init__(
        self,
        *,
        database: Database,
        registers: Registers,
        tree: Tree,
        journal: Journal,
        trust: Trust,
        aside: Aside,
        drive: Surface,
        cache: BlockCache,
        fetcher: BlockFetcher,
        reader: ContentReader,
        client: BurialClient,
        namespace: NamespaceId,
        device: DeviceKeyPair,
        rules: BurialRules,
        now_ns: Callable[[], int],
        draw: Callable[[], float],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """``catch_up``: returns when all is applied that the server has now."""
        self._database = database
        self._registers = registers
        self._tree = tree
        self._burials = tree.burials
        self._journal = journal
        self._trust = trust
        self._aside = aside
        self._drive = drive
        self._cache = cache
        self._fetcher = fetcher
        self._reader = reader
        self._client = client
        self._namespace = namespace
        self._device = device
        self._rules = rules
        self._now_ns = now_ns
        self._draw = draw
        self._catch_up = catch_up
        self._has_restless = False

    async def run(self) -> None:
        """Go round until cancelled; StorageError when the index can not be written."""
        while True:
            before_us = self._in_step_us()
            await self._catch_up()
            was_away = self._was_away(before_us)
            try:
                await self.go_round(was_away=was_away)
            except NodeError as error:
                _log.warning("burials have to wait", error=error.message)
                await trio.sleep(_TRY_AGAIN_S * (0.75 + self._draw() / 2))
                continue
            with trio.move_on_after(_ROUND_S * (0.75 + self._draw() / 2)):
                await self._finish_what_waits(was_away=was_away)
                await trio.sleep_forever()

    async def _finish_what_waits(self, *, was_away: bool) -> None:
        """Look again at what programs were at work on, or what was not yet sealed."""
        while self._has_restless:
            await trio.sleep(_LOOK_AGAIN_S)
            await self._carry_out(was_away=was_away)

    async def go_round(self, *, was_away: bool) -> None:
        """Learn of new burials, carry them out, and bury what is due here.

        Raises:
            ServerError: the server can not be reached, or gave what is no burial.
            StorageError: the index can not be written.
        """
        await self._learn()
        await self._carry_out(was_away=was_away)
        if self._may_bury():
            await self._bury_again()
            if self._is_next_day():
                await self._bury_due_if_clock_allows()
        with self._database.transaction():
            self._database.set_meta("in_step_us", self._now_ns() // 1000)

    async def learn_first(self) -> None:
        """Learn of all burials before any record is taken in: what they name never appears.

        Raises:
            ServerError: the server can not be reached.
        """
        await self._learn()
        await self._carry_out(was_away=False)

    def _in_step_us(self) -> int:
        """When this device last had everything, by its clock; now if it never had."""
        return int(self._database.meta("in_step_us") or self._now_ns() // 1000)

    def _was_away(self, since_us: int) -> bool:
        # A clock that was set wrong, and right again, makes a device careful for no reason.
        return abs(self._now_ns() // 1000 - since_us) >= self._rules.retention_us // 2

    # Burials of others

    async def _learn(self) -> None:
        while True:
            page = await self._client.burials(self._namespace, self._burials.last_number)
            with self._database.transaction():
                for wire in page.burials:
                    self._take(wire)
                self._burials.set_last_number(page.after)
            if not page.more:
                return

    def _take(self, wire: bytes) -> None:
        try:
            burial = self._verified(wire)
        except ProtocolError as error:
            message = f"a burial of deleted files has no effect here: {error}"
            self._journal.raise_alarm("burial", message, self._now_ns() // 1000, [wire])
            return
        self._burials.note(burial.items)

    def _verified(self, wire: bytes) -> Burial:
        signed = SignedBurial.from_wire(wire)
        burial = signed.burial
        author = self._trust.account.devices.get(burial.device)
        if burial.namespace != self._namespace:
            raise RemoteProtocolError("it is of another namespace")
        if author is None or burial.account != self._trust.account.id:
            raise RemoteProtocolError(f"{burial.device} is not known here")
        signed.verify(author.signing_public)
        return burial

    # What is here of them

    async def _carry_out(self, *, was_away: bool) -> None:
        shown: list[tuple[int, bool, ItemId]] = []
        others: list[ItemId] = []
        for number, item in enumerate(self._burials.waiting()):
            if number % _ITEMS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            path = self._tree.path(item)
            row = self._tree.item(item)
            if path is None or row is None:
                others.append(item)
            else:
                shown.append((-path.count(b"/"), row.kind is Kind.DIRECTORY, item))
        if len(shown) > self._rules.most_shown and not was_away:
            self._journal.raise_alarm(
                "burial",
                "more files are said to have been deleted long ago than this device can believe, "
                "which was in step all the time: they stay where they are. Look whether one of your "
                "devices is in other hands",
                self._now_ns() // 1000,
            )
            shown = []
        self._has_restless = False
        # Files before their folders, so that each still has its path.
        for item in [*(item for _, _, item in sorted(shown)), *others]:
            await self._put_away(item)

    async def _put_away(self, item: ItemId) -> None:
        kept = await self._worth_keeping(item)
        blocks = [block for each in kept for block in each.blocks]
        self._cache.protect(blocks)
        stale: list[Any] = []
        records: list[RecordId] = []
        is_put_away = self._is_at_rest(item)
        if is_put_away:
            with self._database.transaction():
                self._drive.expect_remote_changes([item, *self._tree.hanging_in(item)])
                self._tree.take_changes()
                for each in kept:
                    self._aside.add(item, each.path, each.version, each.blocks)
                records = self._tree.bury(item, self._now_ns())
                for record in records:
                    self._journal.give_up_dead(record)
                stale = self._drive.take_remote_changes(self._tree.take_changes())
        if not is_put_away:
            self._has_restless = True
            kept_blocks = self._aside.blocks()
            self._cache.unprotect(
                block
                for block in blocks
                if block not in kept_blocks and not self._journal.needs_block(block)
            )
        await self._drive.announce(stale)
        await trio.lowlevel.checkpoint()

    def _is_at_rest(self, item: ItemId) -> bool:
        """Whether no program is at work on an item, and nothing of it waits to be sealed."""
        return not self._burials.is_waiting(item) and not self._drive.is_open(item)

    async def _worth_keeping(self, item: ItemId) -> list[_Kept]:
        """The versions of a shown file of which this device has bytes."""
        path = self._tree.path(item)
        row = self._tree.item(item)
        if path is None or row is None or row.kind not in (Kind.FILE, Kind.SYMLINK):
            return []
        winner, others = choose_content(self._registers.contents(item))
        versions = [winner, *others] if winner is not None else []
        kept: list[_Kept] = []
        for version in versions:
            blocks = await self._blocks_here(version)
            if blocks is not None:
                kept.append(_Kept(path, version, blocks))
        return kept

    async def _blocks_here(self, version: Version[Content]) -> tuple[BlockId, ...] | None:
        """The blocks of a version; None if this device never had any of them."""
        content = version.value
        if content.manifest is None:
            return ()
        is_own = version.device == self._device.id
        if not is_own and not any(self._cache.contains(block) for block in content.blocks):
            return None
        try:
            blocks = await self._reader.blocks(self._namespace, content)
            for block in blocks if is_own else ():
                await self._fetcher.get(self._namespace, block)
        except NodeError as error:
            _log.warning("not all of a file is to be had any more", error=error.message)
            return content.blocks
        return tuple(blocks)

    # Burials of this device

    def _may_bury(self) -> bool:
        account = self._trust.account.id
        is_owner = self._trust.namespace.members.get(account) is Role.OWNER
        return is_owner and self._trust.author_is_enrolled

    async def _bury_again(self) -> None:
        """Bury what the server has lost, as after a backup was restored."""
        while lost := self._burials.lost(MAX_BURIAL_ITEMS):
            await self._bury(lost)

    async def _bury_due_if_clock_allows(self) -> None:
        try:
            await self.bury_due()
        except RefusedError as error:
            if error.code != ErrorCode.WRONG_CLOCK:
                raise
            message = (
                "this device's clock is more than a day away from the server's, so it forgets no "
                "deletions: set the clock"
            )
            self._journal.raise_alarm("clock", message, self._now_ns() // 1000)
        else:
            self._journal.settle_alarms("clock")

    def _is_next_day(self) -> bool:
        last_us = self._database.meta("buried_us")
        return last_us is None or abs(self._now_ns() // 1000 - int(last_us)) >= _DAY_US

    async def bury_due(self) -> None:
        """Bury what was deleted before the retention time; the errors of `go_round`."""
        now_us = self._now_ns() // 1000
        before_us = now_us - self._rules.retention_us
        due: set[ItemId] = set()
        last = self._burials.last_row()
        for after in range(0, last, _ROWS_AT_ONCE):
            found = self._burials.deletions(after, after + _ROWS_AT_ONCE)
            due.update(item for item in found if self._is_due(item, before_us))
            while len(due) >= MAX_BURIAL_ITEMS:
                await self._bury(sorted(due)[:MAX_BURIAL_ITEMS])
                due.difference_update(sorted(due)[:MAX_BURIAL_ITEMS])
            await trio.lowlevel.checkpoint()
        if due:
            await self._bury(sorted(due))
        await self._carry_out(was_away=False)
        with self._database.transaction():
            self._database.set_meta("buried_us", now_us)

    def _is_due(self, item: ItemId, before_us: int) -> bool:
        """Whether an item is gone for good, and was so before the retention time began."""
        if self._tree.link_count(item) or self._tree.hanging_in(item):
            return False
        if not self._burials.is_settled(item, before_us) or self._drive.is_open(item):
            return False
        return not view_item(*self._registers.all_versions(item)).links

    async def _bury(self, items: Sequence[ItemId]) -> None:
        burial = Burial(
            self._namespace,
            self._trust.account.id,
            self._device.id,
            self._now_ns() // 1000,
            tuple(items),
        )
        await self._client.bury(self._namespace, burial.sign(self._device.signing).to_wire())
        with self._database.transaction():
            self._burials.note(items)
