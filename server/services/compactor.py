"""Compaction of journals: acknowledgements, and floors with what is dropped at them.

Owns the order of a compaction: look at what is written more than once and at the items that a client
names, plan, compare digests, then one transaction of the store. What may be dropped is
`protocol.compaction`'s; this looks at clear metadata only. Knows no HTTP and no SQL; called by the
routes.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol.compaction import (
    NO_RECORDS,
    Floor,
    JournalRecord,
    SignedAcknowledgement,
    compaction_plan,
    longer_digest,
)
from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    MAX_KEPT_RECORDS,
    AcknowledgementsResponse,
    AcknowledgeRequest,
    CompactionRequest,
    CompactionResponse,
    EmptyBody,
    ErrorCode,
    KeptRecord,
)
from protocol.ids import AccountId, DeviceId, EventId, ItemId, NamespaceId
from protocol.logs import AccountLog, DeviceEntry, EventType, NamespaceLog, Role, SignedEvent
from protocol.record_validity import is_before_revocation
from protocol.records import Register, SignedRecord
from server.errors import ApiError, HeadMismatchError, PlanChangedError
from server.services.log_answers import invalid_log, stored_events
from server.services.namespaces import no_member, require_role
from server.services.notifier import Notifier
from server.services.ports import Surroundings
from server.services.sessions import Session
from server.services.verified_logs import VerifiedLogs
from server.stores.port import Compaction, DroppedRecord, MetadataStore, Place

MAX_CONSIDERED: Final = 50_000
"""Records that one plan looks at, some 2 KiB each in memory: the rest waits for the next floor."""

_AT_ONCE: Final = 500
"""Records or registers in one step."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A plan, with which question it answers."""

    question: bytes
    items: tuple[ItemId, ...]
    dropped: tuple[DroppedRecord, ...]
    positions: frozenset[int]


class CompactionService:
    """Acknowledgements and floors.

    Args:
        store: keeps them.
        logs: the same store's logs, verified.
        notifier: wakes the members after a floor.
        surroundings: the worker that parses records.
    """

    def __init__(
        self,
        store: MetadataStore,
        logs: VerifiedLogs,
        notifier: Notifier,
        surroundings: Surroundings,
    ) -> None:
        self._store = store
        self._logs = logs
        self._notifier = notifier
        self._worker = surroundings.worker
        self._last: _Planned | None = None

    async def acknowledge(
        self, session: Session, namespace: NamespaceId, request: AcknowledgeRequest
    ) -> EmptyBody:
        """Keep what a device acknowledges.

        Raises:
            ApiError: the account is no member, or it is no acknowledgement of the session's device.
        """
        await require_role(self._store, session, namespace)
        account = await self._logs.account(session.account)
        try:
            signed = SignedAcknowledgement.from_wire(request.acknowledgement)
            said = signed.acknowledgement
            if account is None or said.device != session.device or said.namespace != namespace:
                raise RemoteProtocolError("a device acknowledges for itself")
            signed.verify(account.active_device(said.device).signing_public)
        except RemoteProtocolError as error:
            raise ApiError(422, ErrorCode.BAD_SIGNATURE, str(error)) from error
        await self._store.acknowledge(namespace, said.device, request.acknowledgement)
        return EmptyBody()

    async def acknowledgements(
        self, session: Session, namespace: NamespaceId
    ) -> AcknowledgementsResponse:
        """The latest acknowledgement of each device, for members.

        Raises:
            ApiError: the account is no member.
        """
        await require_role(self._store, session, namespace)
        return AcknowledgementsResponse(tuple(await self._store.acknowledgements(namespace)))

    async def compact(
        self, session: Session, namespace: NamespaceId, request: CompactionRequest
    ) -> CompactionResponse:
        """Say what may be dropped; with an event, drop it.

        Raises:
            ApiError: the account is no owner, another plan would come out by now, or the event is not
                one that may be appended.
        """
        await require_role(self._store, session, namespace, frozenset({Role.OWNER}))
        log = await self._logs.namespace(namespace)
        account = await self._logs.account(session.account)
        if log is None or account is None:
            raise no_member()
        planned = await self._plan(namespace, log, request)
        if request.event is not None:
            await self._carry_out(namespace, log, account, request, planned)
        kept, is_more = await self._kept(namespace, request, planned)
        items = planned.items if not request.after else ()
        return CompactionResponse(len(planned.dropped), items, tuple(kept), is_more)

    # Planning

    async def _plan(
        self, namespace: NamespaceId, log: NamespaceLog, request: CompactionRequest
    ) -> _Planned:
        """The plan of a request; the last one is kept, as its answer has pages.

        It stays right while the log has the same head: what is at or below a floor changes with floors
        only, and what came above it since is looked at when it is carried out.
        """
        if request.journal_epoch != await self._store.journal_epoch():
            raise plan_changed("the journal has another epoch by now")
        accounts = await self._logs.accounts(list(log.members))
        question = _question(namespace, log, accounts, request)
        if self._last is not None and self._last.question == question:
            return self._last
        devices = {
            device: entry for each in accounts.values() for device, entry in each.devices.items()
        }
        positions = await self._positions(namespace, request.items)
        records: dict[int, SignedRecord] = {}
        for start in range(0, len(positions), _AT_ONCE):
            wires = await self._store.records_at(namespace, positions[start : start + _AT_ONCE])
            records |= await self._worker.run(lambda each=wires: _parsed(each))  # type: ignore[misc]
        counting = {
            position: _journal_record(position, signed, devices)
            for position, signed in records.items()
        }
        times = await self._folder_times(namespace, request.floor, counting) if counting else {}
        plan = await self._worker.run(
            lambda: compaction_plan(counting.values(), request.floor, request.items, times)
        )
        touched = {write.item for each in counting.values() for write in each.writes}
        planned = self._last = _Planned(
            question,
            tuple(sorted(plan.items & touched)),
            tuple(_dropped(position, records[position]) for position in sorted(plan.positions)),
            plan.positions,
        )
        return planned

    async def _positions(self, namespace: NamespaceId, items: Sequence[ItemId]) -> list[int]:
        """Positions of the records to look at: all of the named items, and what was written again."""
        registers = [Place(item, int(each)) for item in items for each in Register]
        found: set[int] = set()
        for start in range(0, len(registers), _AT_ONCE):
            step = registers[start : start + _AT_ONCE]
            found.update(await self._store.positions_of(namespace, step))
        after: Place | None = None
        while len(found) < MAX_CONSIDERED:
            places = await self._store.rewritten_places(namespace, after, _AT_ONCE)
            if not places:
                break
            found.update(await self._store.positions_of(namespace, places))
            after = places[-1]
        return sorted(found)

    async def _folder_times(
        self, namespace: NamespaceId, floor: int, considered: Collection[int]
    ) -> dict[ItemId, int]:
        """Times of folders that records name which stay, as nothing in them was written again."""
        times: dict[ItemId, int] = {}
        after = 0
        while ids := await self._store.record_ids(namespace, after, floor, _AT_ONCE):
            staying = [position for position, _ in ids if position not in considered]
            wires = await self._store.records_at(namespace, staying)
            parsed = await self._worker.run(lambda each=wires: _parsed(each))  # type: ignore[misc]
            for signed in parsed.values():
                for change in signed.record.folders:
                    times[change.folder] = max(times.get(change.folder, 0), change.time_us)
            after = ids[-1][0]
        return times

    async def _kept(
        self, namespace: NamespaceId, request: CompactionRequest, planned: _Planned
    ) -> tuple[list[KeptRecord], bool]:
        kept: list[KeptRecord] = []
        after = request.after
        while len(kept) < MAX_KEPT_RECORDS:
            ids = await self._store.record_ids(namespace, after, request.floor, _AT_ONCE)
            if not ids:
                return kept, False
            kept += [KeptRecord(*each) for each in ids if each[0] not in planned.positions]
            after = ids[-1][0]
        return kept[:MAX_KEPT_RECORDS], True

    # Carrying out

    async def _carry_out(
        self,
        namespace: NamespaceId,
        log: NamespaceLog,
        account: AccountLog,
        request: CompactionRequest,
        planned: _Planned,
    ) -> None:
        try:
            event = SignedEvent.from_wire(request.event or b"")
            if event.event.type is not EventType.FLOOR or event.event.account != account.id:
                raise RemoteProtocolError("a compaction carries a floor of this account")
            account.active_device(DeviceId(event.event.device))
            if event.event.previous != log.head:
                raise plan_changed("the log has grown")
            longer = await self._logs.longer_namespace_log(log, [event])
        except RemoteProtocolError as error:
            raise invalid_log(error) from error
        digest = await self._digest(namespace, request.floor, planned)
        if longer.floors[-1] != Floor(request.journal_epoch, request.floor, digest):
            raise plan_changed("other records would stay")
        compaction = Compaction(
            EventId(log.head),
            stored_events([event])[0],
            request.journal_epoch,
            request.floor,
            planned.items,
            planned.dropped,
        )
        members = {member: int(role) for member, role in longer.members.items()}
        try:
            await self._store.compact(namespace, compaction, members)
        except (HeadMismatchError, PlanChangedError) as error:
            raise plan_changed(str(error)) from error
        self._last = None
        self._notifier.wake(longer.members)

    async def _digest(self, namespace: NamespaceId, floor: int, planned: _Planned) -> bytes:
        digest, after = NO_RECORDS, 0
        while ids := await self._store.record_ids(namespace, after, floor, _AT_ONCE):
            for position, record in ids:
                if position not in planned.positions:
                    digest = longer_digest(digest, position, record)
            after = ids[-1][0]
        return digest


def plan_changed(why: str) -> ApiError:
    """What the client looked at is not what is there."""
    return ApiError(
        409, ErrorCode.PLAN_CHANGED, f"{why}: ask what may be dropped again", retryable=True
    )


def _question(
    namespace: NamespaceId,
    log: NamespaceLog,
    accounts: Mapping[AccountId, AccountLog],
    request: CompactionRequest,
) -> bytes:
    heads = b"".join(accounts[account].head for account in sorted(accounts))
    asked = hashlib.sha256(namespace + log.head + heads + request.journal_epoch.encode())
    asked.update(request.floor.to_bytes(8, "big") + b"".join(request.items))
    return asked.digest()


def _parsed(wires: Sequence[tuple[int, bytes]]) -> dict[int, SignedRecord]:
    return {position: SignedRecord.from_wire(wire) for position, wire in wires}


def _journal_record(
    position: int, signed: SignedRecord, devices: Mapping[DeviceId, DeviceEntry]
) -> JournalRecord:
    record = signed.record
    author = devices.get(record.device)
    return JournalRecord(
        position,
        record.actor,
        record.folders,
        record.writes,
        counts=author is not None and is_before_revocation(signed, author),
    )


def _dropped(position: int, signed: SignedRecord) -> DroppedRecord:
    record = signed.record
    return DroppedRecord(
        position,
        record.actor,
        tuple((write.item, int(write.register), write.n) for write in record.writes),
        record.blocks,
    )
