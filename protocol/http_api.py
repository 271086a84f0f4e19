"""Every body of the server's HTTP API, and the statements that logins and refreshes sign.

The server and the node's client both use these; `docs/http-api.md` says which route takes which.
How a field appears in msgpack and in JSON is `body_codec`'s.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Self

from protocol import codec
from protocol.body_codec import Between, Body, Length
from protocol.crypto.block_header import MAX_BLOCK_FRAME_BYTES
from protocol.errors import RemoteProtocolError
from protocol.ids import AccountId, BlockId, DeviceId, NamespaceId, RecordId
from protocol.limits import MAX_COUNTER

MAX_EMAIL_BYTES: Final = 254
"""RFC 5321, section 4.5.3.1.3 (a path of 256 with its brackets)."""

MAX_COMMIT_RECORDS: Final = 1000
"""Records of one commit; with the body limit this bounds the work of one request."""

MAX_DELTA_RECORDS: Final = 2000
"""Records of one delta page."""

MAX_BURIALS: Final = 100
"""Burials in one answer; 6 MiB."""

MAX_BURIAL_BYTES: Final = 64 * 1024
"""One signed burial of 2,048 items has 37 KiB."""

MAX_BLOCK_LIST: Final = 4096
"""Block ids in one question; 128 KiB of ids."""

MAX_APPEND_EVENTS: Final = 256
"""Events appended to a log by one request."""

MAX_FIRST_EVENTS: Final = 16
"""Events of each log in a registration: three and two are needed, and anyone may send them."""

MAX_NAMESPACES: Final = 4096
"""Namespaces that one account sees."""

MAX_WAIT_S: Final = 55
"""Longest long poll: below the minute after which proxies drop silent connections."""

MAX_BLOCK_BYTES: Final = MAX_BLOCK_FRAME_BYTES
"""A sealed block: 4 MiB of plaintext, and its header and tags."""

Nonce = Annotated[bytes, Length(32, 32)]
PublicKey = Annotated[bytes, Length(32, 32)]
Signature = Annotated[bytes, Length(64, 64)]
Salt = Annotated[bytes, Length(16, 16)]
Email = Annotated[str, Length(3, MAX_EMAIL_BYTES)]
Token = Annotated[str, Length(1, 128)]
Invitation = Annotated[str, Length(1, 128)]
# 1 KiB holds a wrapped 32-byte key with every padding and envelope.
WrappedKey = Annotated[bytes, Length(1, 1024)]
Events = Annotated[tuple[bytes, ...], Length(1, MAX_APPEND_EVENTS)]
FirstEvents = Annotated[tuple[bytes, ...], Length(1, MAX_FIRST_EVENTS)]
Passes = Annotated[int, Between(1, 64)]
# KiB; the upper bound is 16 GiB.
MemoryKib = Annotated[int, Between(8, 16 * 1024 * 1024)]


class ErrorCode(StrEnum):
    """Every code that this release's server gives. A client must bear codes it does not know."""

    MALFORMED = "malformed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_LARGE = "too_large"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    UNAUTHENTICATED = "unauthenticated"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 (a code, no secret)
    DEVICE_REVOKED = "device_revoked"
    LOGIN_FAILED = "login_failed"
    FORBIDDEN = "forbidden"
    INVITATION_REQUIRED = "invitation_required"
    EMAIL_TAKEN = "email_taken"
    ALREADY_EXISTS = "already_exists"
    HEAD_MISMATCH = "head_mismatch"
    WRONG_CLOCK = "wrong_clock"
    RECORD_DROPPED = "record_dropped"
    LOG_INVALID = "log_invalid"
    JOURNAL_EPOCH_CHANGED = "journal_epoch_changed"
    UPGRADE_REQUIRED = "upgrade_required"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_EPOCH = "unknown_epoch"
    FORK = "fork"
    DOT_REUSED = "dot_reused"
    BLOCKS_MISSING = "blocks_missing"
    BLOCK_MISMATCH = "block_mismatch"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    STORAGE_FULL = "storage_full"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


class LoginKind(StrEnum):
    """Which of an account's two login keys signs."""

    PASSWORD = "password"  # noqa: S105 (a kind, no secret)
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class ErrorBody(Body):
    """The body of every answer that is not a success, and of a refused record.

    Attributes:
        code: an `ErrorCode`, or one of a later release.
        message: a sentence for a person.
        retryable: the same request may succeed later, unchanged.
        retry_after: seconds to wait before that, when the server knows.
        blocks: with `blocks_missing`, the ids to upload first.
        evidence: with `fork` and `dot_reused`, the signed record that was there before.
        head: with `head_mismatch`, the id of the log's last event.
        journal_epoch: with `journal_epoch_changed`, the present one.
    """

    code: str
    message: str
    retryable: bool
    retry_after: int | None = None
    blocks: tuple[BlockId, ...] | None = None
    evidence: bytes | None = None
    head: bytes | None = None
    journal_epoch: str | None = None


@dataclass(frozen=True, slots=True)
class EmptyBody(Body):
    """The body where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class HealthResponse(Body):
    """Of ``/healthz`` and ``/readyz``."""

    ok: bool


@dataclass(frozen=True, slots=True)
class RegisterRequest(Body):
    """A new account with its first device and its private namespace, made at once or not at all.

    ``account_events`` are the first events of the account's log (genesis, generation, device);
    ``namespace_events`` those of its private namespace (genesis and first epoch).
    """

    email: Email
    invitation: Invitation | None
    login_public: PublicKey
    recovery_login_public: PublicKey
    salt: Salt
    passes: Passes
    memory_kib: MemoryKib
    wrapped_root: WrappedKey
    wrapped_root_recovery: WrappedKey
    account_events: FirstEvents
    namespace_events: FirstEvents


@dataclass(frozen=True, slots=True)
class RegisterResponse(Body):
    """The ids that the genesis events of the request have."""

    account: AccountId
    namespace: NamespaceId


@dataclass(frozen=True, slots=True)
class ChallengeRequest(Body):
    """Asks for a nonce: with ``email`` before a login, with ``device`` before a refresh."""

    email: Email | None = None
    device: DeviceId | None = None


@dataclass(frozen=True, slots=True)
class ChallengeResponse(Body):
    """A nonce for one use, and how to stretch the password.

    For an email that is not known, and for a device, salt and parameters are made up, the same
    ones every time.
    """

    nonce: Nonce
    server_id: Annotated[bytes, Length(32, 32)]
    salt: Salt
    passes: Passes
    memory_kib: MemoryKib
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class LoginRequest(Body):
    """``kind`` is a `LoginKind`; the signature covers `login_statement`."""

    email: Email
    nonce: Nonce
    kind: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class LoginResponse(Body):
    """``wrapped_root`` is the one for the kind of the login.

    The token serves only to read and append the account's log and to list its namespaces.
    """

    account: AccountId
    wrapped_root: bytes
    token: Token
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class RefreshRequest(Body):
    """The signature, by the device's signing key, covers `refresh_statement`."""

    device: DeviceId
    nonce: Nonce
    signature: Signature


@dataclass(frozen=True, slots=True)
class TokenResponse(Body):
    """What stands behind ``Authorization: Bearer`` until it expires."""

    access_token: Token
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class LogResponse(Body):
    """A stretch of a log: ``events`` from the number that was asked for.

    There is more while that number plus the count of events is below ``length``.
    """

    events: tuple[bytes, ...]
    head: Annotated[bytes, Length(32, 32)]
    length: int


@dataclass(frozen=True, slots=True)
class AppendRequest(Body):
    """Appends when ``expected_head`` is the id of the log's last event.

    The answer is a `LogResponse` with no events.
    """

    expected_head: Annotated[bytes, Length(32, 32)]
    events: Events


@dataclass(frozen=True, slots=True)
class DeviceSummary(Body):
    """``last_seen_s``: when it last renewed its token, in seconds since 1970."""

    device: DeviceId
    revoked: bool
    last_seen_s: int | None = None


@dataclass(frozen=True, slots=True)
class DevicesResponse(Body):
    """Every device of the account, the revoked ones included."""

    devices: tuple[DeviceSummary, ...]


@dataclass(frozen=True, slots=True)
class CreateNamespaceRequest(Body):
    """The first events of its log: genesis and first epoch. Answer: `LogResponse`, no events."""

    events: Events


@dataclass(frozen=True, slots=True)
class NamespaceSummary(Body):
    """``role`` is this account's; ``head`` the position of the last record, 0 for none."""

    namespace: NamespaceId
    role: str
    head: int
    log_length: int


@dataclass(frozen=True, slots=True)
class NamespacesResponse(Body):
    """The namespaces of which the account is a member."""

    journal_epoch: str
    namespaces: Annotated[tuple[NamespaceSummary, ...], Length(0, MAX_NAMESPACES)]


@dataclass(frozen=True, slots=True)
class CommitRequest(Body):
    """Signed records as they travel (`SignedRecord.to_wire`)."""

    records: Annotated[tuple[bytes, ...], Length(1, MAX_COMMIT_RECORDS)]


@dataclass(frozen=True, slots=True)
class CommitResult(Body):
    """What became of one record: either ``position`` or ``error``.

    ``id`` is absent when the bytes are no record at all.
    """

    id: RecordId | None = None
    position: int | None = None
    error: ErrorBody | None = None


@dataclass(frozen=True, slots=True)
class CommitResponse(Body):
    """One result per record, in the order of the request."""

    journal_epoch: str
    results: tuple[CommitResult, ...]


@dataclass(frozen=True, slots=True)
class DeltaRecord(Body):
    """A signed record as it travels, and its place in the journal."""

    position: Annotated[int, Between(1, MAX_COUNTER)]
    record: bytes


@dataclass(frozen=True, slots=True)
class DeltaResponse(Body):
    """Records in the order of their positions, all after the cursor that was asked for.

    ``cursor`` is the next one to ask with; ``more``: there are records after it now; ``head``: the
    position of the namespace's last record.
    """

    records: tuple[DeltaRecord, ...]
    cursor: str
    more: bool
    head: int


@dataclass(frozen=True, slots=True)
class BuryRequest(Body):
    """A signed burial as it travels (`SignedBurial.to_wire`)."""

    burial: Annotated[bytes, Length(1, MAX_BURIAL_BYTES)]


@dataclass(frozen=True, slots=True)
class BuryResponse(Body):
    """The burial's number in its namespace, from 1."""

    number: int


@dataclass(frozen=True, slots=True)
class BurialsResponse(Body):
    """Signed burials with ascending numbers. ``after`` is what to ask with for those that follow.

    There is more while ``more`` says so.
    """

    burials: tuple[bytes, ...]
    after: int
    more: bool


@dataclass(frozen=True, slots=True)
class EventsResponse(Body):
    """How far everything is that the account sees. ``cursor`` stands for exactly this state."""

    cursor: str
    journal_epoch: str
    namespaces: Mapping[NamespaceId, int]
    account_log_length: int
    namespace_log_lengths: Mapping[NamespaceId, int]


@dataclass(frozen=True, slots=True)
class BlockList(Body):
    """A question: which of these are missing. The answer lists those that are."""

    blocks: Annotated[tuple[BlockId, ...], Length(0, MAX_BLOCK_LIST)]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a namespace's journal, printed as ``EPOCH:POSITION``.

    The text is all that travels; positions count from 1, so position 0 is the start.
    """

    journal_epoch: str
    position: int

    def __str__(self) -> str:
        return f"{self.journal_epoch}:{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` printed.

        Raises:
            RemoteProtocolError: it is not a cursor.
        """
        epoch, separator, digits = text.rpartition(":")
        if not (separator and epoch and len(text) <= 128 and digits.isascii() and digits.isdigit()):
            raise RemoteProtocolError("a cursor is written EPOCH:POSITION")
        position = int(digits)
        if position > MAX_COUNTER:
            raise RemoteProtocolError("the position of the cursor is too large")
        return cls(epoch, position)


def normal_email(text: str) -> str:
    """The form in which an email is compared, stored and signed: trimmed, lower case, NFC.

    Raises:
        RemoteProtocolError: it can not be an email address; the message is for the user.
    """
    email = unicodedata.normalize("NFC", text.strip().lower())
    name, separator, host = email.rpartition("@")
    if not (separator and name and host) or len(email.encode(errors="replace")) > MAX_EMAIL_BYTES:
        raise RemoteProtocolError("an email address looks like name@example.org")
    if any(unicodedata.category(each)[0] in "CZ" for each in email):
        raise RemoteProtocolError("an email address has no spaces or control characters")
    return email


def login_statement(server_id: bytes, email: str, nonce: bytes) -> bytes:
    """What a login signs, as `login` or `recovery-login`; the email as `normal_email` gives it."""
    return codec.encode([server_id, email, nonce])


def refresh_statement(server_id: bytes, device: DeviceId, nonce: bytes) -> bytes:
    """What the renewal of an access token signs, as `refresh`."""
    return codec.encode([server_id, bytes(device), nonce])
