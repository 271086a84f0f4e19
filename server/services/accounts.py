"""Accounts: registration, their logs and their devices.

Owns the rules of who may append what to an account's log, beyond those of `protocol.logs`. Knows no
HTTP and no SQL; called by the routes.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    AppendRequest,
    DevicesResponse,
    DeviceSummary,
    ErrorCode,
    LogResponse,
    RegisterRequest,
    RegisterResponse,
    normal_email,
)
from protocol.ids import AccountId, EventId
from protocol.logs import AccountLog, NamespaceLog, SignedEvent, events_from_wire
from server.errors import AlreadyExistsError, ApiError, HeadMismatchError, InvitationError
from server.services.log_answers import head_mismatch, invalid_log, log_response, stored_events
from server.services.notifier import Notifier
from server.services.ports import Surroundings
from server.services.sessions import Session
from server.services.verified_logs import VerifiedLogs
from server.stores.port import (
    Credentials,
    DeviceChanges,
    DeviceState,
    MetadataStore,
    NewNamespace,
    Registration,
)

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a log in one answer: half of what a body may have."""


class AccountService:
    """What may be done with accounts.

    Args:
        store: keeps them.
        logs: the same store's logs, verified.
        notifier: wakes the account's other devices.
        surroundings: time and worker.
        needs_invitation: whether every account but the first does.
    """

    def __init__(
        self,
        store: MetadataStore,
        logs: VerifiedLogs,
        notifier: Notifier,
        surroundings: Surroundings,
        *,
        needs_invitation: bool,
    ) -> None:
        self._store = store
        self._logs = logs
        self._notifier = notifier
        self._surroundings = surroundings
        self._needs_invitation = needs_invitation

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Create an account with its first device and its private namespace.

        Raises:
            ApiError: the logs break a rule, an invitation is needed, or the email is taken.
        """
        try:
            email = normal_email(request.email)
            account_events = events_from_wire(request.account_events)
            namespace_events = events_from_wire(request.namespace_events)
            account, namespace = await self._surroundings.worker.run(
                lambda: _verified(account_events, namespace_events)
            )
        except RemoteProtocolError as error:
            raise invalid_log(error) from error
        registration = Registration(
            email=email,
            credentials=Credentials(
                account=account.id,
                login_public=request.login_public,
                recovery_login_public=request.recovery_login_public,
                salt=request.salt,
                passes=request.passes,
                memory_kib=request.memory_kib,
                wrapped_root=request.wrapped_root,
                wrapped_root_recovery=request.wrapped_root_recovery,
            ),
            events=stored_events(account_events),
            devices=_device_changes(None, account).enrolled,
            namespace=NewNamespace(
                namespace.id,
                stored_events(namespace_events),
                {member: int(role) for member, role in namespace.members.items()},
            ),
            invitation=_invitation_digest(request.invitation),
            needs_invitation=self._needs_invitation,
            now_s=self._surroundings.now_s(),
        )
        try:
            await self._store.register(registration)
        except InvitationError as error:
            raise ApiError(
                403,
                ErrorCode.INVITATION_REQUIRED,
                "a new account needs a valid invitation: ask the operator of the server for one",
            ) from error
        except AlreadyExistsError as error:
            if error.what == "email":
                raise ApiError(
                    409, ErrorCode.EMAIL_TAKEN, "there is an account of this email already: log in"
                ) from error
            raise ApiError(409, ErrorCode.ALREADY_EXISTS, str(error)) from error
        return RegisterResponse(account.id, namespace.id)

    async def read_log(self, session: Session, account: AccountId, start: int) -> LogResponse:
        """Events of an account's log, for itself and for those who share a namespace with it.

        Raises:
            ApiError: for others; it is not said whether the account exists.
        """
        if account != session.account and not await self._store.shares_namespace(
            session.account, account
        ):
            raise _forbidden()
        page = await self._store.account_log(account, start, MAX_PAGE_BYTES)
        if page is None:
            raise _forbidden()
        return log_response(page)

    async def append_log(
        self, session: Session, account: AccountId, request: AppendRequest
    ) -> LogResponse:
        """Append to the own account's log.

        Raises:
            ApiError: another account's, another head, a rule of the log is broken, or a device
                is enrolled elsewhere.
        """
        if account != session.account:
            raise _forbidden()
        former = await self._logs.account(account)
        if former is None:
            raise _forbidden()
        if former.head != request.expected_head:
            raise head_mismatch(former.head)
        try:
            events = events_from_wire(request.events)
            longer = await self._surroundings.worker.run(lambda: _appended(former, events))
        except RemoteProtocolError as error:
            raise invalid_log(error) from error
        try:
            state = await self._store.append_account_log(
                account,
                EventId(request.expected_head),
                stored_events(events),
                _device_changes(former, longer),
            )
        except HeadMismatchError as error:
            raise head_mismatch(error.head) from error
        except AlreadyExistsError as error:
            raise ApiError(409, ErrorCode.ALREADY_EXISTS, str(error)) from error
        self._notifier.wake([account])
        return LogResponse((), state.head, state.length)

    async def devices(self, session: Session) -> DevicesResponse:
        """The devices of the own account."""
        states = await self._store.devices(session.account)
        return DevicesResponse(
            tuple(
                DeviceSummary(state.device, state.is_revoked, state.last_seen_s) for state in states
            )
        )


def invitation_digest(invitation: str) -> bytes:
    """Under what an invitation is stored: the text as it was printed, without its surroundings."""
    return hashlib.sha256(invitation.strip().lower().encode()).digest()


def _invitation_digest(invitation: str | None) -> bytes | None:
    return None if invitation is None else invitation_digest(invitation)


def _verified(
    account_events: Sequence[SignedEvent], namespace_events: Sequence[SignedEvent]
) -> tuple[AccountLog, NamespaceLog]:
    account = AccountLog.from_events(account_events)
    if not any(not device.is_revoked for device in account.devices.values()):
        raise RemoteProtocolError("a new account enrols its first device at once")
    if not account.generations:
        raise RemoteProtocolError("a new account begins its first key generation at once")

    def only_author(author: AccountId) -> AccountLog:
        if author != account.id:
            raise RemoteProtocolError("the private namespace is signed by its own account")
        return account

    namespace = NamespaceLog.from_events(namespace_events, only_author)
    if set(namespace.members) != {account.id}:
        raise RemoteProtocolError("the private namespace has its account as its only member")
    if not namespace.epochs:
        raise RemoteProtocolError("the private namespace begins its first epoch at once")
    return account, namespace


def _appended(log: AccountLog, events: Sequence[SignedEvent]) -> AccountLog:
    for event in events:
        log = log.append(event)
    return log


def _device_changes(former: AccountLog | None, latter: AccountLog) -> DeviceChanges:
    """What the latter log says about devices that the former does not."""
    known = {} if former is None else former.devices
    enrolled = tuple(
        DeviceState(device, latter.id, entry.signing_public, is_revoked=False)
        for device, entry in latter.devices.items()
        if device not in known
    )
    revoked = tuple(
        device
        for device, entry in latter.devices.items()
        if entry.is_revoked and not (device in known and known[device].is_revoked)
    )
    return DeviceChanges(enrolled, revoked)


def _forbidden() -> ApiError:
    return ApiError(403, ErrorCode.FORBIDDEN, "this account's log is not yours to use")
