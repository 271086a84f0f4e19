"""Devices with an index each that take in each other's sealed, signed records by the real intake.

The server is a list: the journal in its order. Local changes are made by the index's own `Edits`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from node.core.deletion_guard import GuardLimits
from node.core.record_sealing import Draft, OpenedWrite, seal_record
from node.storage.author_heads import AuthorHeads
from node.storage.database import Database
from node.storage.deferred_records import DeferredRecords
from node.storage.held_deletions import HeldDeletions
from node.storage.registers import Author
from node.sync.approvals import Approvals
from node.sync.deletion_guard import DeletionGuard
from node.sync.record_intake import RecordIntake, parse_received
from node.sync.reissue import Reissue
from node.sync.withdrawal import Withdrawal
from protocol.crypto.keys import EpochKeys
from protocol.crypto.signing import SigningKey
from protocol.ids import DeviceId, EventId, NamespaceId, actor_id
from protocol.logs import Cut, DeviceEntry
from protocol.records import NO_RECORD, Register, SignedRecord
from tests.node.storage.indexes import Index

NAMESPACE = NamespaceId(b"n" * 32)
KEYS = EpochKeys.from_secret(NAMESPACE, 1, b"s" * 32)
EPOCH = "journal"


class NoKernel:
    """The drive's part in taking in records, for an index that nobody has mounted."""

    def expect_remote_changes(self, items: Any) -> None:
        pass

    def take_remote_changes(self, changes: Any) -> list[Any]:
        return []

    async def announce(self, stale: list[Any]) -> None:
        pass

    def wake_publisher(self) -> None:
        pass

    def is_in_use(self, writes: Any) -> bool:
        return False


class Account:
    """What the logs say: the same for everybody who has read them."""

    def __init__(self) -> None:
        self.devices: dict[DeviceId, DeviceEntry] = {}
        self.epochs = {1: KEYS}

    @property
    def account(self) -> Account:
        return self

    def author(self, device: DeviceId) -> DeviceEntry | None:
        return self.devices.get(device)

    def revoke(self, device: DeviceId, *last_valid: SignedRecord) -> None:
        """Take a device back; of each of its runs the last valid record is named."""
        cuts = tuple(Cut(each.record.actor, each.record.sequence, each.id) for each in last_valid)
        self.devices[device] = replace(self.devices[device], cuts=cuts)


class SealedDevice(Index):
    """An index that seals what it wrote, and takes in what others sealed.

    Attributes:
        sealed: every record of this run, in the order of its making.
    """

    def __init__(
        self, database: Database, number: int, account: Account, incarnation: bytes = b"run 0001"
    ) -> None:
        super().__init__(database, number)
        self.account = account
        self.signing = SigningKey.from_seed(bytes([number]) * 32)
        self.sealed: list[SignedRecord] = []
        entry = DeviceEntry(self.device, self.signing.public, bytes(32), b"", {})
        account.devices.setdefault(self.device, entry)
        self.start(incarnation)

    def start(self, incarnation: bytes | None = None) -> None:
        """A run of the device begins."""
        self.incarnation = incarnation or os.urandom(8)
        self.author = Author(actor_id(self.device, self.incarnation), self.device)
        self.registers._author = self.author
        self.sequence, self.previous = 0, NO_RECORD
        for item in self.registers.adopt_waiting_writes():
            self.tree.refresh(item, self.now_ns)
        self.held = HeldDeletions(self.database)
        self.guard = DeletionGuard(self.held, self.tree, GuardLimits(0.5, 10))
        self.intake = RecordIntake(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            trust=self.account,  # type: ignore[arg-type]
            guard=self.guard,
            deferred=DeferredRecords(self.database),
            drive=NoKernel(),
            namespace=NAMESPACE,
            now_ns=lambda: self.now_ns,
        )

        self.approvals = Approvals(
            database=self.database,
            registers=self.registers,
            tree=self.tree,
            journal=self.journal,
            held=self.held,
            trust=self.account,  # type: ignore[arg-type]
            intake=self.intake,
            drive=NoKernel(),
            now_ns=lambda: self.now_ns,
        )

    def seal_all(self) -> list[SignedRecord]:
        """Everything that waits, as records in the outbox."""
        records = []
        for group in self.journal.groups(2**62, 2**62, 1000):
            writes = self.registers.pending_writes(group.id)
            opened = [OpenedWrite(each.item, each.register, each.version) for each in writes]
            if not group.is_approved:
                if not self.guard.may_seal(self.device, group.last_us, opened):
                    self.guard.hold_group(group.id, self.device, group.last_us, opened)
                    continue
                self.guard.count_sealed(self.device, group.last_us, opened)
            folders = self.journal.group_folders(group.id)
            self.journal.close_group(group.id)
            if not writes:
                continue
            time_us = max(group.last_us, *(write.version.time_us for write in writes))
            draft = Draft(
                namespace=NAMESPACE,
                device=self.device,
                incarnation=self.incarnation,
                sequence=self.sequence + 1,
                previous=self.previous,
                hybrid_time_us=time_us,
                account_head=EventId(bytes(32)),
                namespace_head=EventId(bytes(32)),
                folders=folders,
                writes=opened,
            )
            record = seal_record(draft, KEYS, self.signing)
            self.registers.mark_sealed(group.id, record.id, time_us)
            placements = {
                each.item: each.version for each in writes if each.register is Register.PLACEMENT
            }
            for item in {each.item for each in writes}:
                self.tree.retime(item, placements.get(item), time_us, self.now_ns)
            self.journal.add_own(record, ())
            AuthorHeads(self.database).note_own(record)
            self.sequence, self.previous = self.sequence + 1, record.id
            records.append(record)
        self.sealed += records
        return records

    def take(self, records: list[SignedRecord], first_position: int = 1) -> None:
        """Take in records as they stand in the server's journal."""
        received = [
            self.intake.verified(parse_received(position, record.to_wire()))
            for position, record in enumerate(records, first_position)
        ]
        while received:
            count, _ = self.intake.take_some(received, EPOCH)
            received = received[count:]

    def be_refused(self, record: SignedRecord) -> list[SignedRecord]:
        """The server has another record in its place: what is published in its stead."""
        if record.record.actor == self.author.actor:
            self.start()
        anew = Reissue(
            self.database, self.registers, self.tree, self.journal, lambda: self.now_ns
        ).take_back(record)
        assert all(self.journal.group(each.group) for each in anew)
        return self.seal_all()

    def read_again(self, records: list[SignedRecord]) -> None:
        """Read the server's whole journal, if that is to be done."""
        if self.journal.is_to_be_read_again:
            self.journal.begin_again()
            self.take(records)
            self.journal.end_reading()

    def withdraw(self, records: list[SignedRecord]) -> None:
        """Hear of revocations, as the puller does: ``records`` is the server's whole journal."""
        Withdrawal(
            self.database,
            self.tree,
            self.journal,
            self.account,  # type: ignore[arg-type]
            NoKernel(),
            lambda: self.now_ns,
        ).carry_out()
        self.read_again(records)

    @property
    def alarm_kinds(self) -> list[str]:
        return [alarm.kind for alarm in self.journal.alarms()]

    @property
    def rejected(self) -> set[bytes]:
        return {row[0] for row in self.database.execute("SELECT record FROM rejected")}
