"""The metadata port in memory: passes the same contract suite as the store of the product."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from protocol.ids import AccountId, ActorId, BlockId, DeviceId, EventId, ItemId, NamespaceId
from protocol.records import NO_RECORD, Register
from protocol.version_vector import Dot
from server.errors import AlreadyExistsError, HeadMismatchError, InvitationError, StoreError
from server.stores.port import (
    BlockOfNamespace,
    CollectedBlock,
    Commit,
    CommitContext,
    CommitKind,
    CommitOutcome,
    Cover,
    Credentials,
    DeviceChanges,
    DeviceState,
    JournalPage,
    LogPage,
    LogState,
    NamespaceState,
    NewNamespace,
    NewRecord,
    NumberedBurial,
    Progress,
    Registration,
    Retention,
    StoredEvent,
    StoredRecord,
    StoredSession,
)
from server.stores.sqlite_accounts import EXPIRED_KEPT_S, MAX_SESSIONS


@dataclass
class _Namespace:
    members: dict[AccountId, int]
    records: dict[int, NewRecord] = field(default_factory=dict)
    by_sequence: dict[tuple, int] = field(default_factory=dict)
    dots: dict[tuple, int] = field(default_factory=dict)
    leases: dict[BlockId, int] = field(default_factory=dict)
    sizes: dict[BlockId, int] = field(default_factory=dict)
    condemned: dict[BlockId, int] = field(default_factory=dict)
    parents: dict[BlockId, set[BlockId]] = field(default_factory=dict)
    covered: dict[tuple, int] = field(default_factory=dict)
    burials: list[bytes] = field(default_factory=list)
    buried: set[ItemId] = field(default_factory=set)
    dropped: dict[ActorId, int] = field(default_factory=dict)
    head: int = 0


class MemoryStore:
    """`MetadataStore` in dictionaries. Never suspends, so every call is a transaction."""

    def __init__(self, token_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._token_bytes = token_bytes
        self._secret = token_bytes(32)
        self._epoch = token_bytes(8).hex()
        self._invitations: dict[bytes, int] = {}
        self._credentials: dict[str, Credentials] = {}
        self._devices: dict[DeviceId, DeviceState] = {}
        self._nonces: dict[bytes, int] = {}
        self._sessions: dict[bytes, StoredSession] = {}
        self._logs: dict[bytes, list[StoredEvent]] = {}
        self._namespaces: dict[NamespaceId, _Namespace] = {}

    async def secret(self) -> bytes:
        return self._secret

    async def journal_epoch(self) -> str:
        return self._epoch

    async def replace_journal_epoch(self) -> str:
        self._epoch = self._token_bytes(8).hex()
        return self._epoch

    async def is_ready(self) -> bool:
        return True

    async def add_invitation(self, digest: bytes, expires_s: int) -> None:
        self._invitations[digest] = expires_s

    async def register(self, registration: Registration) -> None:
        account = registration.credentials.account
        pays = bool(registration.needs_invitation and self._credentials)
        invitation = registration.invitation or b""
        if pays and self._invitations.get(invitation, 0) <= registration.now_s:
            raise InvitationError
        if account in self._logs:
            raise AlreadyExistsError("account")
        if registration.email in self._credentials:
            raise AlreadyExistsError("email")
        if any(entry.device in self._devices for entry in registration.devices):
            raise AlreadyExistsError("device")
        await self.create_namespace(registration.namespace)
        if pays:
            del self._invitations[invitation]
        self._credentials[registration.email] = registration.credentials
        self._logs[account] = list(registration.events)
        self._devices.update({entry.device: entry for entry in registration.devices})

    async def credentials(self, email: str) -> Credentials | None:
        return self._credentials.get(email)

    async def device(self, device: DeviceId) -> DeviceState | None:
        return self._devices.get(device)

    async def devices(self, account: AccountId) -> Sequence[DeviceState]:
        return [entry for entry in self._devices.values() if entry.account == account]

    async def use_nonce(self, digest: bytes, expires_s: int, now_s: int) -> bool:
        self._nonces = {each: end for each, end in self._nonces.items() if end > now_s}
        if digest in self._nonces:
            return False
        self._nonces[digest] = expires_s
        return True

    async def add_session(self, digest: bytes, session: StoredSession, now_s: int) -> None:
        kept = sorted(
            (
                (each, entry)
                for each, entry in self._sessions.items()
                if entry.expires_s > now_s - EXPIRED_KEPT_S
            ),
            key=lambda pair: -pair[1].expires_s,
        )
        own = [each for each, entry in kept if entry.account == session.account]
        dropped = set(own[MAX_SESSIONS - 1 :])
        self._sessions = {each: entry for each, entry in kept if each not in dropped}
        self._sessions[digest] = session
        if session.device is not None:
            entry = self._devices[session.device]
            self._devices[session.device] = replace(entry, last_seen_s=now_s)

    async def session(self, digest: bytes) -> StoredSession | None:
        session = self._sessions.get(digest)
        if session is None or session.device is None:
            return session
        return replace(session, is_revoked=self._devices[session.device].is_revoked)

    async def remove_session(self, digest: bytes) -> None:
        self._sessions.pop(digest, None)

    async def account_log(self, account: AccountId, start: int, max_bytes: int) -> LogPage | None:
        return self._page(account, start, max_bytes)

    async def append_account_log(
        self,
        account: AccountId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        changes: DeviceChanges,
    ) -> LogState:
        if any(entry.device in self._devices for entry in changes.enrolled):
            self._check_head(account, expected_head)
            raise AlreadyExistsError("device")
        state = self._append(account, expected_head, events)
        self._devices.update({entry.device: entry for entry in changes.enrolled})
        for device in changes.revoked:
            self._devices[device] = replace(self._devices[device], is_revoked=True)
        return state

    async def shares_namespace(self, account: AccountId, other: AccountId) -> bool:
        return any({account, other} <= set(each.members) for each in self._namespaces.values())

    async def create_namespace(self, namespace: NewNamespace) -> LogState:
        if namespace.namespace in self._namespaces:
            raise AlreadyExistsError("namespace")
        self._namespaces[namespace.namespace] = _Namespace(dict(namespace.members))
        self._logs[namespace.namespace] = list(namespace.events)
        return LogState(namespace.events[-1].id, len(namespace.events))

    async def role(self, namespace: NamespaceId, account: AccountId) -> int | None:
        known = self._namespaces.get(namespace)
        return None if known is None else known.members.get(account)

    async def namespace_log(
        self, namespace: NamespaceId, start: int, max_bytes: int
    ) -> LogPage | None:
        return self._page(namespace, start, max_bytes)

    async def append_namespace_log(
        self,
        namespace: NamespaceId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        members: Mapping[AccountId, int],
    ) -> LogState:
        state = self._append(namespace, expected_head, events)
        self._namespaces[namespace].members = dict(members)
        return state

    async def members(self, namespace: NamespaceId) -> Sequence[AccountId]:
        known = self._namespaces.get(namespace)
        return [] if known is None else sorted(known.members)

    async def progress(self, account: AccountId) -> Progress:
        namespaces = tuple(
            NamespaceState(namespace, each.members[account], each.head, len(self._logs[namespace]))
            for namespace, each in sorted(self._namespaces.items())
            if account in each.members
        )
        return Progress(self._epoch, len(self._logs.get(account, ())), namespaces)

    async def commit_context(
        self, namespace: NamespaceId, devices: Sequence[DeviceId]
    ) -> CommitContext:
        accounts = {
            device: self._devices[device].account for device in devices if device in self._devices
        }
        logs = {account: self._state(account) for account in accounts.values()}
        state = self._state(namespace) if namespace in self._namespaces else None
        return CommitContext(state, accounts, logs)

    async def commit(self, namespace: NamespaceId, records: Sequence[NewRecord]) -> Commit:
        known = self._known(namespace)
        outcomes: list[CommitOutcome] = []
        refused: dict[bytes, bytes] = {}
        for record in records:
            if record.previous in refused:
                outcome = CommitOutcome(CommitKind.FORK, evidence=refused[record.previous])
            else:
                outcome = _commit_one(known, record)
            if outcome.kind in (CommitKind.FORK, CommitKind.DOT_REUSED):
                refused[record.id] = outcome.evidence
            outcomes.append(outcome)
        return Commit(self._epoch, tuple(outcomes))

    async def delta(
        self, namespace: NamespaceId, after: int, max_records: int, max_bytes: int
    ) -> JournalPage:
        known = self._known(namespace)
        later = [position for position in known.records if position > after]
        wires = [known.records[position].wire for position in later[:max_records]]
        fitting = _while_they_fit(wires, max_bytes)
        records = tuple(zip(later, fitting, strict=False))
        last = known.head if len(fitting) == len(later) else records[-1][0]
        return JournalPage(self._epoch, records, last, known.head)

    async def add_burial(
        self, namespace: NamespaceId, items: Sequence[ItemId], wire: bytes
    ) -> NumberedBurial:
        known = self._known(namespace)
        known.burials.append(wire)
        known.buried.update(items)
        return NumberedBurial(len(known.burials), wire)

    async def burials(
        self, namespace: NamespaceId, after: int, limit: int
    ) -> Sequence[NumberedBurial]:
        numbered = enumerate(self._known(namespace).burials, start=1)
        return [NumberedBurial(*each) for each in numbered if each[0] > after][:limit]

    async def drop_writes(self, limit: int, retention: Retention) -> int:
        dropped = 0
        for known in self._namespaces.values():
            for dot, position in list(known.dots.items()):
                covered_s = known.covered.get(dot, retention.covered_before_s)
                if dot[1] not in known.buried and covered_s >= retention.covered_before_s:
                    continue
                if dropped == limit:
                    return dropped
                dropped += 1
                del known.dots[dot]
                if position not in known.dots.values():
                    record = known.records.pop(position)
                    del known.by_sequence[record.actor, record.sequence]
                    sequence = max(known.dropped.get(record.actor, 0), record.sequence)
                    known.dropped[record.actor] = sequence
        return dropped

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId], lease_until_s: int
    ) -> Sequence[BlockId]:
        known = self._known(namespace)
        for block in blocks:
            if block in known.leases:
                known.leases[block] = max(known.leases[block], lease_until_s)
                known.condemned.pop(block, None)
        return [block for block in blocks if block not in known.leases]

    async def add_block(
        self,
        namespace: NamespaceId,
        block: BlockId,
        size_bytes: int,
        lease_until_s: int,
        children: Sequence[BlockId] = (),
    ) -> None:
        known = self._known(namespace)
        known.leases[block] = max(known.leases.get(block, 0), lease_until_s)
        known.sizes[block] = size_bytes
        known.condemned.pop(block, None)
        for child in children:
            known.parents.setdefault(child, set()).add(block)

    async def records_not_indexed(self, limit: int) -> Sequence[StoredRecord]:
        return []

    async def index_record(
        self,
        record: StoredRecord,
        blocks: Sequence[BlockId],
        covers: Sequence[Cover],
        covered_s: int,
    ) -> None:
        raise AssertionError("everything is noted as it comes")

    async def blocks_not_indexed(self, limit: int) -> Sequence[BlockOfNamespace]:
        return []

    async def index_block(self, held: BlockOfNamespace, children: Sequence[BlockId]) -> None:
        raise AssertionError("everything is noted as it comes")

    async def condemn_blocks(
        self, after: BlockOfNamespace | None, limit: int, retention: Retention
    ) -> BlockOfNamespace | None:
        held = sorted(
            (namespace, block)
            for namespace, each in self._namespaces.items()
            for block in each.leases
        )
        place = ("", b"") if after is None else (after.namespace, after.block)
        looked_at = [each for each in held if after is None or each > place][:limit]
        for namespace, block in looked_at:
            known = self._namespaces[namespace]
            if _is_needed(known, block, retention):
                known.condemned.pop(block, None)
            else:
                known.condemned.setdefault(block, retention.now_s)
        return BlockOfNamespace(*looked_at[-1]) if looked_at else None

    async def drop_condemned(
        self, condemned_before_s: int, limit: int, retention: Retention
    ) -> Sequence[CollectedBlock]:
        dropped = [
            (known, block)
            for known in self._namespaces.values()
            for block, since_s in known.condemned.items()
            if since_s < condemned_before_s and not _is_needed(known, block, retention)
        ][:limit]
        for known, block in dropped:
            del known.leases[block], known.condemned[block]
            for parents in known.parents.values():
                parents.discard(block)
        return [CollectedBlock(block, known.sizes.pop(block)) for known, block in dropped]

    async def is_held(self, block: BlockId) -> bool:
        return any(block in known.leases for known in self._namespaces.values())

    async def has_block(self, namespace: NamespaceId, block: BlockId) -> bool:
        known = self._namespaces.get(namespace)
        return known is not None and block in known.leases

    async def close(self) -> None:
        pass

    def _known(self, namespace: NamespaceId) -> _Namespace:
        try:
            return self._namespaces[namespace]
        except KeyError as error:
            raise StoreError(f"there is no {namespace}") from error

    def _state(self, log: bytes) -> LogState:
        return LogState(self._logs[log][-1].id, len(self._logs[log]))

    def _page(self, log: bytes, start: int, max_bytes: int) -> LogPage | None:
        if log not in self._logs:
            return None
        wires = [event.wire for event in self._logs[log][start:]]
        return LogPage(tuple(_while_they_fit(wires, max_bytes)), self._state(log))

    def _check_head(self, log: bytes, expected_head: EventId) -> None:
        head = self._logs[log][-1].id if log in self._logs else b""
        if head != expected_head:
            raise HeadMismatchError(head)

    def _append(
        self, log: bytes, expected_head: EventId, events: Sequence[StoredEvent]
    ) -> LogState:
        self._check_head(log, expected_head)
        self._logs[log] += events
        return self._state(log)


def _commit_one(namespace: _Namespace, record: NewRecord) -> CommitOutcome:
    key = (record.actor, record.sequence)
    if key in namespace.by_sequence:
        position = namespace.by_sequence[key]
        same = namespace.records[position]
        if same.id == record.id:
            return CommitOutcome(CommitKind.STORED, position=position)
        return CommitOutcome(CommitKind.FORK, evidence=same.wire)
    if record.sequence <= namespace.dropped.get(record.actor, 0):
        return CommitOutcome(CommitKind.DROPPED)
    for step in (-1, 1):
        beside = namespace.by_sequence.get((record.actor, record.sequence + step))
        if beside is not None:
            other = namespace.records[beside]
            before, after = (other, record) if step < 0 else (record, other)
            if after.previous not in (NO_RECORD, before.id):
                return CommitOutcome(CommitKind.FORK, evidence=other.wire)
    missing = tuple(block for block in record.blocks if block not in namespace.leases)
    if missing:
        return CommitOutcome(CommitKind.BLOCKS_MISSING, missing=missing)
    dots = [(record.actor, *dot) for dot in record.dots]
    for dot in dots:
        if dot in namespace.dots:
            evidence = namespace.records[namespace.dots[dot]].wire
            return CommitOutcome(CommitKind.DOT_REUSED, evidence=evidence)
    namespace.head += 1
    position = namespace.head
    namespace.records[position] = record
    namespace.by_sequence[key] = position
    namespace.dots.update(dict.fromkeys(dots, position))
    for cover in record.covers:
        for actor, item, register, n in namespace.dots:
            if (item, register) == (cover.item, cover.register) and cover.context.covers(
                Dot(actor, n)
            ):
                namespace.covered.setdefault((actor, item, register, n), record.accepted_s)
    return CommitOutcome(CommitKind.STORED, position=position, is_new=True)


def _is_needed(namespace: _Namespace, block: BlockId, retention: Retention) -> bool:
    if namespace.leases[block] >= retention.now_s or namespace.parents.get(block):
        return True
    return any(
        namespace.covered.get((record.actor, *dot), retention.now_s) >= retention.covered_before_s
        for record in namespace.records.values()
        if block in record.blocks
        for dot in record.dots
        if dot[1] == Register.CONTENT and (record.actor, *dot) in namespace.dots
    )


def _while_they_fit(parts: Sequence[bytes], max_bytes: int) -> list[bytes]:
    fitting: list[bytes] = []
    for part in parts:
        if fitting and sum(map(len, fitting)) + len(part) > max_bytes:
            break
        fitting.append(part)
    return fitting
