"""The metadata port: what the services ask of a store, and the values that cross it.

Owns the words of the port. A store is a transaction each call: it took effect as a whole and is
durable when the call returns, or it raised and nothing happened. A store checks uniqueness and heads,
and nothing else: signatures, roles and rules are the services'.

Any call may raise `StorageFullError` or `StoreUnavailableError`. Times are seconds since 1970.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from protocol.ids import (
    AccountId,
    ActorId,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    NamespaceId,
    RecordId,
)
from protocol.version_vector import Context


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A signed event as it travels, with its id."""

    id: EventId
    wire: bytes


@dataclass(frozen=True, slots=True)
class LogState:
    """How long a log is and which event ends it."""

    head: EventId
    length: int


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events of a log from the number that was asked for, and the state of the whole log."""

    events: tuple[bytes, ...]
    state: LogState


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the server keeps to let a person log in; nothing of it opens anything."""

    account: AccountId
    login_public: bytes
    recovery_login_public: bytes
    salt: bytes
    passes: int
    memory_kib: int
    wrapped_root: bytes
    wrapped_root_recovery: bytes


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device, as far as the server must know it at every request."""

    device: DeviceId
    account: AccountId
    signing_public: bytes
    is_revoked: bool
    last_seen_s: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceChanges:
    """What a stretch of an account log changes about its devices."""

    enrolled: tuple[DeviceState, ...] = ()
    revoked: tuple[DeviceId, ...] = ()


@dataclass(frozen=True, slots=True)
class NewNamespace:
    """A namespace to create: its first events, and who its members are after them."""

    namespace: NamespaceId
    events: tuple[StoredEvent, ...]
    members: Mapping[AccountId, int]


@dataclass(frozen=True, slots=True)
class Registration:
    """An account to create. ``invitation`` is the hash of the one that pays for it."""

    email: str
    credentials: Credentials
    events: tuple[StoredEvent, ...]
    devices: tuple[DeviceState, ...]
    namespace: NewNamespace
    invitation: bytes | None
    needs_invitation: bool
    now_s: int


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Whom a token stands for. ``device`` is None for the token of a login.

    ``is_revoked``: the device was revoked after the token was given.
    """

    account: AccountId
    device: DeviceId | None
    expires_s: int
    is_revoked: bool


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """A namespace as one member sees it. ``position`` is that of its last record."""

    namespace: NamespaceId
    role: int
    position: int
    log_length: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far everything is that an account sees."""

    journal_epoch: str
    account_log_length: int
    namespaces: tuple[NamespaceState, ...]


@dataclass(frozen=True, slots=True)
class CommitContext:
    """What must be known to judge records.

    Attributes:
        namespace: state of its log, or None when there is no such namespace.
        accounts: of the devices that were asked for, those that are known.
        logs: states of those accounts' logs.
    """

    namespace: LogState | None
    accounts: Mapping[DeviceId, AccountId]
    logs: Mapping[AccountId, LogState]


@dataclass(frozen=True, slots=True)
class Cover:
    """The versions of one register of an item that a record covers."""

    item: ItemId
    register: int
    context: Context


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record of which the store does not know yet what it lists and covers."""

    namespace: NamespaceId
    position: int
    wire: bytes


@dataclass(frozen=True, slots=True)
class BlockOfNamespace:
    """A block as one namespace holds it."""

    namespace: NamespaceId
    block: BlockId


@dataclass(frozen=True, slots=True)
class CollectedBlock:
    """A block that a namespace gave up."""

    block: BlockId
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Retention:
    """What collection goes by.

    Attributes:
        now_s: leases that end before do not count.
        covered_before_s: contents that were covered before are not kept any longer.
    """

    now_s: int
    covered_before_s: int


@dataclass(frozen=True, slots=True)
class NumberedBurial:
    """A signed burial as it travels, and its number in the namespace, from 1."""

    number: int
    wire: bytes


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record that passed every check that needs no transaction.

    Attributes:
        dots: item, register and count of each write.
        covers: the versions that it covers.
        accepted_s: when it came.
    """

    id: RecordId
    actor: ActorId
    sequence: int
    previous: RecordId
    dots: tuple[tuple[ItemId, int, int], ...]
    blocks: tuple[BlockId, ...]
    wire: bytes
    covers: tuple[Cover, ...] = ()
    accepted_s: int = 0


class CommitKind(Enum):
    """What became of a record in the commit's transaction."""

    STORED = "stored"
    FORK = "fork"
    DOT_REUSED = "dot_reused"
    BLOCKS_MISSING = "blocks_missing"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """What became of one record.

    Attributes:
        position: with `CommitKind.STORED`; the old one when the same record was there already.
        is_new: it was not there before.
        evidence: with a fork or a reused dot, the record that was there before.
        missing: with `CommitKind.BLOCKS_MISSING`.
    """

    kind: CommitKind
    position: int = 0
    is_new: bool = False
    evidence: bytes = b""
    missing: tuple[BlockId, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """Outcomes in the order of the records, and the journal epoch of their positions."""

    journal_epoch: str
    outcomes: tuple[CommitOutcome, ...]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Records after a position, ascending; those that were dropped are left out.

    Attributes:
        last: the position up to which these are all.
        head: the position of the last record that ever came.
    """

    journal_epoch: str
    records: tuple[tuple[int, bytes], ...]
    last: int
    head: int


class MetadataStore(Protocol):
    """Accounts, logs, sessions, the journal, and which namespace holds which blocks."""

    async def secret(self) -> bytes:
        """32 random bytes made with the store; whatever the server derives comes from them."""
        ...

    async def journal_epoch(self) -> str:
        """The name of the journal's present epoch."""
        ...

    async def replace_journal_epoch(self) -> str:
        """Begin a new epoch, as after a backup was restored; its name."""
        ...

    async def is_ready(self) -> bool:
        """Whether the store answers."""
        ...

    async def add_invitation(self, digest: bytes, expires_s: int) -> None:
        """Remember the hash of an invitation that serves once."""
        ...

    async def register(self, registration: Registration) -> None:
        """Create an account with its first devices and its private namespace.

        Raises:
            InvitationError: one is needed (there are accounts already) and this one does not serve.
            AlreadyExistsError: the email, the account, a device or the namespace is known.
        """
        ...

    async def credentials(self, email: str) -> Credentials | None:
        """Of the account of that email, if there is one."""
        ...

    async def device(self, device: DeviceId) -> DeviceState | None:
        """The device, if it was ever enrolled."""
        ...

    async def devices(self, account: AccountId) -> Sequence[DeviceState]:
        """All devices of an account, also revoked ones, in the order of their enrolment."""
        ...

    async def use_nonce(self, digest: bytes, expires_s: int, now_s: int) -> bool:
        """Mark a nonce as used until it expires; False when it was already. Forgets expired ones."""
        ...

    async def add_session(self, digest: bytes, session: StoredSession, now_s: int) -> None:
        """Keep a session under the hash of its token.

        Forgets sessions that expired long ago, and the account's oldest above a bound. Notes for
        the session's device that it was seen.
        """
        ...

    async def session(self, digest: bytes) -> StoredSession | None:
        """The session of a token, with the present state of its device; also when expired."""
        ...

    async def remove_session(self, digest: bytes) -> None:
        """Forget a session; nothing happens when there is none."""
        ...

    async def account_log(self, account: AccountId, start: int, max_bytes: int) -> LogPage | None:
        """Events from number ``start`` on: at least one if there is one, then while they fit."""
        ...

    async def append_account_log(
        self,
        account: AccountId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        changes: DeviceChanges,
    ) -> LogState:
        """Append, and apply what that changes about devices.

        Raises:
            HeadMismatchError: the log ends with another event (or there is no such log).
            AlreadyExistsError: a device of these keys is enrolled somewhere.
        """
        ...

    async def shares_namespace(self, account: AccountId, other: AccountId) -> bool:
        """Whether some namespace has both as members."""
        ...

    async def create_namespace(self, namespace: NewNamespace) -> LogState:
        """Create a namespace.

        Raises:
            AlreadyExistsError: it is known.
        """
        ...

    async def role(self, namespace: NamespaceId, account: AccountId) -> int | None:
        """The account's role in the namespace, or None when it is no member."""
        ...

    async def namespace_log(
        self, namespace: NamespaceId, start: int, max_bytes: int
    ) -> LogPage | None:
        """As `account_log`."""
        ...

    async def append_namespace_log(
        self,
        namespace: NamespaceId,
        expected_head: EventId,
        events: Sequence[StoredEvent],
        members: Mapping[AccountId, int],
    ) -> LogState:
        """Append, and replace the members by those given.

        Raises:
            HeadMismatchError: the log ends with another event (or there is no such log).
        """
        ...

    async def members(self, namespace: NamespaceId) -> Sequence[AccountId]:
        """Everyone with a role in the namespace."""
        ...

    async def progress(self, account: AccountId) -> Progress:
        """How far everything is that the account sees, at one moment."""
        ...

    async def commit_context(
        self, namespace: NamespaceId, devices: Sequence[DeviceId]
    ) -> CommitContext:
        """What is needed to judge records of these devices."""
        ...

    async def commit(self, namespace: NamespaceId, records: Sequence[NewRecord]) -> Commit:
        """Add records to the journal, each or not, in their order.

        Positions of a namespace are given without gaps in the order of their transactions, so that a
        reader of positions up to p never misses one that commits later. A record with a number up
        to which some of its actor's were dropped is refused as dropped, unless it is there.
        """
        ...

    async def delta(
        self, namespace: NamespaceId, after: int, max_records: int, max_bytes: int
    ) -> JournalPage:
        """Records after a position: at least one if there is one, then while they fit."""
        ...

    async def add_burial(
        self, namespace: NamespaceId, items: Sequence[ItemId], wire: bytes
    ) -> NumberedBurial:
        """Keep a burial; from now on nothing that was written to its items is needed."""
        ...

    async def burials(
        self, namespace: NamespaceId, after: int, limit: int
    ) -> Sequence[NumberedBurial]:
        """Burials with greater numbers, ascending."""
        ...

    async def drop_writes(self, limit: int, retention: Retention) -> int:
        """Forget writes to buried items, and such as were covered too long ago.

        A record of which every write is forgotten is dropped, and needs no block any more.

        Returns:
            How many were forgotten, up to ``limit``.
        """
        ...

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId], lease_until_s: int
    ) -> Sequence[BlockId]:
        """Which of the blocks the namespace lacks; those it has are leased until then."""
        ...

    async def add_block(
        self,
        namespace: NamespaceId,
        block: BlockId,
        size_bytes: int,
        lease_until_s: int,
        children: Sequence[BlockId] = (),
    ) -> None:
        """Note that the namespace has the block, and lease it. Again is the same as once.

        A block that was condemned is needed again.
        """
        ...

    async def records_not_indexed(self, limit: int) -> Sequence[StoredRecord]:
        """Records of which an earlier release did not note what they list and cover."""
        ...

    async def index_record(
        self,
        record: StoredRecord,
        blocks: Sequence[BlockId],
        covers: Sequence[Cover],
        covered_s: int,
    ) -> None:
        """Note what such a record lists and covers."""
        ...

    async def blocks_not_indexed(self, limit: int) -> Sequence[BlockOfNamespace]:
        """Blocks of which an earlier release did not note the children."""
        ...

    async def index_block(self, held: BlockOfNamespace, children: Sequence[BlockId]) -> None:
        """Note the children of such a block."""
        ...

    async def condemn_blocks(
        self, after: BlockOfNamespace | None, limit: int, retention: Retention
    ) -> BlockOfNamespace | None:
        """Condemn what nothing needs among the next blocks, and acquit what something needs.

        Needed is a block that is leased, listed by a record with a content that lives or was
        covered lately, or a child of a page that the namespace holds.

        Args:
            after: where the last step ended; None to begin.
            limit: blocks to look at.

        Returns:
            Where the next step goes on; None at the end.
        """
        ...

    async def drop_condemned(
        self, condemned_before_s: int, limit: int, retention: Retention
    ) -> Sequence[CollectedBlock]:
        """Let namespaces give up blocks that were condemned before, and that nothing needs since."""
        ...

    async def is_held(self, block: BlockId) -> bool:
        """Whether any namespace has the block."""
        ...

    async def has_block(self, namespace: NamespaceId, block: BlockId) -> bool:
        """Whether the namespace has the block."""
        ...

    async def close(self) -> None:
        """Release everything; every call that was answered is durable."""
        ...
