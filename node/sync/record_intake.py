"""Takes received records into the index: verified, judged by their author's chain, applied.

A record that can not take effect is kept in ``rejected`` with an alarm, and the rest goes on. Knows
nothing of where records come from. Called by the puller; a step is one transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from node.core.author_heads import Verdict
from node.core.record_sealing import OpenedWrite, open_record
from node.storage.author_heads import AuthorHeads
from node.storage.database import Database
from node.storage.deferred_records import DeferredRecords
from node.storage.journal import Journal
from node.storage.registers import DotReusedError, Registers
from node.storage.tree import Changes, Tree
from node.sync.deletion_guard import DeletionGuard
from node.sync.trust import Trust
from protocol.errors import ProtocolError, RemoteProtocolError
from protocol.ids import DeviceId, ItemId, NamespaceId, RecordId
from protocol.record_validity import is_before_revocation
from protocol.records import Register, SignedRecord
from protocol.version_vector import Dot

_STEP_S = 0.004  # the loop is given back after applying for so long


class RemoteChanges(Protocol):
    """What the drive does about changes that came from elsewhere."""

    def expect_remote_changes(self, items: Iterable[ItemId]) -> None:
        """Before items are changed."""

    def take_remote_changes(self, changes: Changes) -> list[Any]:
        """After they were, in the same step."""

    async def announce(self, stale: list[Any]) -> None:
        """Tell the kernel."""


class Users(RemoteChanges, Protocol):
    """What the drive knows besides."""

    def is_in_use(self, writes: Iterable[OpenedWrite]) -> bool:
        """Whether writes must wait until a program closes what they change."""


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it came.

    Attributes:
        position: in the server's journal.
        record: parsed, and verified before it is taken in; or why it can not be.
    """

    position: int
    wire: bytes
    record: SignedRecord | ProtocolError


class RecordIntake:
    """Takes in the records of one namespace.

    Concurrency: shares the index with everybody on the loop; `take_some` does not await.
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
        deferred: DeferredRecords,
        drive: Users,
        namespace: NamespaceId,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._journal = journal
        self._heads = AuthorHeads(database)
        self._trust = trust
        self._guard = guard
        self._deferred = deferred
        self._drive = drive
        self._namespace = namespace
        self._now_ns = now_ns
        self._reused: dict[RecordId, DotReusedError] = {}
        self._is_again = False
        self._is_guarded = False
        self.records_applied = 0

    def verified(self, received: Received) -> Received:
        """With the error instead of the record, if its author may not have written it. For a thread."""
        record = received.record
        if not isinstance(record, SignedRecord):
            return received
        author = self._trust.author(record.record.device)
        try:
            if record.record.namespace != self._namespace:
                raise RemoteProtocolError("the record belongs to another namespace")
            if author is None:
                raise RemoteProtocolError(f"{record.record.device} may not write here")
            record.verify(author.signing_public)
        except ProtocolError as error:
            return Received(received.position, received.wire, error)
        return received

    def take_some(self, received: Sequence[Received], journal_epoch: str) -> tuple[int, list[Any]]:
        """Take in verified records, in one transaction, until it took long enough for one step.

        Returns:
            How many were taken in, at least one, and what the kernel must be told.
        """
        while True:
            try:
                return self._try_take_some(received, journal_epoch)
            except DotReusedError:
                # Nothing of the step was written; it is done again without that record.
                self._heads.forget()
                self._tree.take_changes()

    def _try_take_some(
        self, received: Sequence[Received], journal_epoch: str
    ) -> tuple[int, list[Any]]:
        started = trio.current_time()
        stale: list[Any] = []
        count = 0
        self._is_again = self._journal.is_reading_again
        # What went through long ago is no news to a device that reads it for the first time.
        self._is_guarded = not (self._is_again or self._journal.is_first_reading)
        with self._database.transaction():
            for each in received:
                if isinstance(each.record, SignedRecord):
                    stale += self._take(each.record, each.position)
                else:
                    self._reject(_wire_id(each.wire), each.wire, str(each.record))
                count += 1
                if trio.current_time() - started > _STEP_S:
                    break
            self._heads.flush()
            self._journal.set_cursor(journal_epoch, received[count - 1].position)
        self._reused.clear()
        return count, stale

    def _take(self, signed: SignedRecord, position: int) -> list[Any]:
        """Take in one verified record."""
        if self._journal.knows(signed.id):
            self._journal.acknowledge(signed.id, position)
            if not self._is_again:
                return []
        if not self.is_valid(signed):
            return []
        if self._guard.has_held(signed.id, position) or self._deferred.has(signed.id):
            return []
        if (reused := self._reused.get(signed.id)) is not None:
            self._reject_fork(signed, str(reused), reused.known)
            return []
        if not self._continues(signed):
            return []
        try:
            writes = open_record(signed, self._trust.epochs)
        except ProtocolError as error:
            self._reject(signed.id, signed.to_wire(), str(error))
            return []
        if self._is_guarded and self._guard.holds(signed, writes, position):
            return []
        return self.apply(signed, writes, position)

    def release_settled(self) -> list[Any]:
        """Let held records go of which another device's decision has come: nothing is left to ask.

        Returns:
            What the kernel must be told.
        """
        stale: list[Any] = []
        for held in self._guard.held_records():
            signed = SignedRecord.from_wire(held.wire)
            if self._is_decided(signed):
                writes = open_record(signed, self._trust.epochs)
                with self._database.transaction():
                    self._guard.drop(held.id)
                    if self.is_valid(signed):
                        stale += self.apply(signed, writes, held.position)
        return stale

    def _is_decided(self, signed: SignedRecord) -> bool:
        """Whether somebody who had seen what a record says of places has written over it."""
        actor = signed.record.actor
        return all(
            self._tree.burials.holds(write.item)
            or self._registers.seen(write.item, write.register).covers(Dot(actor, write.n))
            for write in signed.record.writes
            if write.register is Register.PLACEMENT
        )

    def is_valid(self, signed: SignedRecord) -> bool:
        """Whether no revocation takes its effect from a verified record; it is rejected if one does."""
        author = self._trust.author(signed.record.device)
        if author is None or is_before_revocation(signed, author):
            return True
        self._reject_revoked(signed)
        return False

    def _continues(self, signed: SignedRecord) -> bool:
        """Whether a record fits what is known of its author; it is rejected if not."""
        record = signed.record
        verdict = self._heads.take(signed)
        if verdict in (Verdict.NEXT, Verdict.AHEAD):
            self._look_for_a_copy(signed)
        match verdict:
            case Verdict.FORK:
                other = self._heads.record_at(record.actor, record.sequence)
                self._reject_fork(signed, "another record has its number", other)
            case Verdict.BROKEN:
                other = self._heads.record_at(record.actor, record.sequence - 1)
                self._reject_fork(signed, "it does not follow the record before it", other)
            case Verdict.AHEAD if self._journal.has_rejected(record.previous):
                self._reject_fork(signed, "it follows a record that was rejected", None)
            case Verdict.BEHIND if not self._is_again and self._writes_unseen(signed):
                self._reject_fork(signed, "another record had its number", None)
            case _:
                return True
        return False

    def _writes_unseen(self, signed: SignedRecord) -> bool:
        actor = signed.record.actor
        return not all(
            self._tree.burials.holds(write.item)
            or self._registers.seen(write.item, write.register).covers(Dot(actor, write.n))
            for write in signed.record.writes
        )

    def resume(self, signed: SignedRecord, position: int) -> list[Any]:
        """Let a record take effect that was deferred, or defer it on; in a transaction."""
        if not self.is_valid(signed):
            return []
        return self.apply(signed, open_record(signed, self._trust.epochs), position)

    def apply(
        self,
        signed: SignedRecord,
        writes: list[OpenedWrite],
        position: int,
        *,
        is_undone: bool = False,
    ) -> list[Any]:
        """Let an opened record take effect; in a transaction. What the kernel must be told.

        While a program has a database open that the record changes, it is put aside instead, unless
        the caller undoes it in the same transaction.
        """
        writes = [write for write in writes if not self._tree.burials.holds(write.item)]
        if not writes:
            return []
        if not is_undone and self._drive.is_in_use(writes):
            self._deferred.put(signed, position)
            return []
        self._journal.add_received(signed, position)
        items = list(dict.fromkeys(write.item for write in writes))
        self._drive.expect_remote_changes(items)
        self._tree.take_changes()
        for write in writes:
            self._write(write, signed)
        for change in signed.record.folders:
            if self._tree.burials.holds(change.folder):
                continue
            self._tree.note_entries_changed(change.folder, change.time_us)
            self._journal.note_published(change.folder, change.time_us)
        now_ns = self._now_ns()
        placed = {write.item for write in writes if write.register is Register.PLACEMENT}
        for item in items:
            self._tree.refresh(item, now_ns, is_placed_anew=item in placed)
        self._journal.drop_if_dead(signed.id)
        self.records_applied += 1
        return self._drive.take_remote_changes(self._tree.take_changes())

    def _write(self, write: OpenedWrite, signed: SignedRecord) -> None:
        try:
            self._registers.apply_remote(write.item, write.register, write.version, signed.id)
        except DotReusedError as error:
            self._reused[signed.id] = error
            raise

    def _look_for_a_copy(self, signed: SignedRecord) -> None:
        """Notice that this device's own state is older than what it did, or runs elsewhere too.

        Nothing else is to be done: this run writes as an author of its own, and what it does not
        know of it has not deleted.
        """
        own = self._registers.author
        record = signed.record
        if record.device != own.device or record.actor == own.actor:
            return
        if not self._journal.is_first_reading:
            self._alarm(
                "copy",
                "changes came back that this device made and does not remember: its state was "
                "restored from a backup, or a copy of it runs elsewhere. They are kept, and nothing "
                "is deleted; if there is a copy, enrol it as a device of its own with `atoll login`",
                [signed.to_wire()],
            )

    # What has no effect here

    def _reject_revoked(self, signed: SignedRecord) -> None:
        """Keep the content of what a device wrote after its revocation, for whoever misses it."""
        wire = signed.to_wire()
        self._journal.reject(signed.id, wire, "its device was revoked before it")
        self._alarm(
            "revoked",
            f"changes of {self._name(signed.record.device)} from after its revocation have no effect "
            "here; they are kept aside",
            [wire],
        )

    def _reject_fork(self, signed: SignedRecord, reason: str, other: RecordId | None) -> None:
        """Keep a record that an honest run of a device can not have made, beside the other one."""
        record = signed.record
        wire = signed.to_wire()
        known = None if other is None else self._journal.wire(other)
        self._journal.reject(signed.id, wire, reason)
        self._alarm(
            "fork",
            f"changes of {self._name(record.device)} contradict each other (run "
            f"{record.actor.hex()[:8]}): it was copied or restored while it ran, or somebody else "
            "has its keys; the later ones have no effect here",
            [wire] if known is None else [known, wire],
        )

    def _reject(self, record: RecordId, wire: bytes, reason: str) -> None:
        """Keep a record that has no effect here: a later release may understand it."""
        self._journal.reject(record, wire, reason)
        self._alarm("record", f"record {record} has no effect here: {reason}")

    def _name(self, device: DeviceId) -> str:
        return f"the device '{self._tree.device_name(device)}'"

    def _alarm(self, kind: str, message: str, evidence: Sequence[bytes] = ()) -> None:
        self._journal.raise_alarm(kind, message, self._now_ns() // 1000, evidence)


def parse_received(position: int, wire: bytes) -> Received:
    """A record as it came, parsed."""
    try:
        return Received(position, wire, SignedRecord.from_wire(wire))
    except ProtocolError as error:
        return Received(position, wire, error)


def _wire_id(wire: bytes) -> RecordId:
    """Names bytes that are no record, or whose signature does not make them one."""
    return RecordId(hashlib.blake2b(wire, digest_size=RecordId.size_bytes).digest())
