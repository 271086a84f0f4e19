"""Namespaces: which ones an account sees, and their logs.

Owns the rules of who may create and append, beyond those of `protocol.logs`. Knows no HTTP and no
SQL; called by the routes.
"""

from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    AppendRequest,
    CreateNamespaceRequest,
    ErrorCode,
    LogResponse,
    NamespacesResponse,
    NamespaceSummary,
)
from protocol.ids import AccountId, DeviceId, EventId, NamespaceId
from protocol.logs import NamespaceLog, Role, SignedEvent, events_from_wire
from server.errors import AlreadyExistsError, ApiError, HeadMismatchError
from server.services.accounts import MAX_PAGE_BYTES
from server.services.log_answers import head_mismatch, invalid_log, log_response, stored_events
from server.services.notifier import Notifier
from server.services.sessions import Session
from server.services.verified_logs import VerifiedLogs
from server.stores.port import MetadataStore, NewNamespace

WRITERS = frozenset({Role.OWNER, Role.EDITOR})
"""Who may commit records and upload blocks."""


class NamespaceService:
    """What may be done with namespaces.

    Args:
        store: keeps them.
        logs: the same store's logs, verified.
        notifier: wakes the members.
    """

    def __init__(self, store: MetadataStore, logs: VerifiedLogs, notifier: Notifier) -> None:
        self._store = store
        self._logs = logs
        self._notifier = notifier

    async def list_own(self, session: Session) -> NamespacesResponse:
        """The namespaces of which the account is a member."""
        progress = await self._store.progress(session.account)
        return NamespacesResponse(
            progress.journal_epoch,
            tuple(
                NamespaceSummary(
                    state.namespace, role_name(state.role), state.position, state.log_length
                )
                for state in progress.namespaces
            ),
        )

    async def create(self, session: Session, request: CreateNamespaceRequest) -> LogResponse:
        """Create a namespace that the account owns.

        Raises:
            ApiError: the events break a rule or are another's, or it is there already.
        """
        try:
            events = events_from_wire(request.events)
            await self._check_authors(session, events)
            log = await self._logs.longer_namespace_log(None, events)
        except RemoteProtocolError as error:
            raise invalid_log(error) from error
        if not log.epochs:
            raise ApiError(
                422, ErrorCode.LOG_INVALID, "a new namespace begins its first epoch at once"
            )
        try:
            state = await self._store.create_namespace(
                NewNamespace(log.id, stored_events(events), _members(log))
            )
        except AlreadyExistsError as error:
            raise ApiError(409, ErrorCode.ALREADY_EXISTS, str(error)) from error
        self._notifier.wake(log.members)
        return LogResponse((), state.head, state.length)

    async def read_log(self, session: Session, namespace: NamespaceId, start: int) -> LogResponse:
        """Events of a namespace's log, for its members.

        Raises:
            ApiError: the account is no member.
        """
        await require_role(self._store, session, namespace)
        page = await self._store.namespace_log(namespace, start, MAX_PAGE_BYTES)
        if page is None:
            raise no_member()
        return log_response(page)

    async def append_log(
        self, session: Session, namespace: NamespaceId, request: AppendRequest
    ) -> LogResponse:
        """Append to a namespace's log.

        Raises:
            ApiError: the account is no member, another head, or a rule of the log is broken.
        """
        await require_role(self._store, session, namespace)
        former = await self._logs.namespace(namespace)
        if former is None:
            raise no_member()
        if former.head != request.expected_head:
            raise head_mismatch(former.head)
        try:
            events = events_from_wire(request.events)
            await self._check_authors(session, events)
            longer = await self._logs.longer_namespace_log(former, events)
        except RemoteProtocolError as error:
            raise invalid_log(error) from error
        try:
            state = await self._store.append_namespace_log(
                namespace, EventId(request.expected_head), stored_events(events), _members(longer)
            )
        except HeadMismatchError as error:
            raise head_mismatch(error.head) from error
        self._notifier.wake({*former.members, *longer.members})
        return LogResponse((), state.head, state.length)

    async def _check_authors(self, session: Session, events: list[SignedEvent]) -> None:
        """New events are signed by devices of this account that are enrolled now.

        Old events of a log stay valid when their author's device is revoked; new ones must not
        come from it.
        """
        account = await self._logs.account(session.account)
        for event in events:
            if account is None or event.event.account != account.id:
                raise RemoteProtocolError("the event is signed by another account")
            if not event.event.device:
                raise RemoteProtocolError("a namespace event names its author's device")
            account.active_device(DeviceId(event.event.device))


def role_name(role: int) -> str:
    """A role as the API spells it."""
    return Role(role).name.lower()


async def require_role(
    store: MetadataStore,
    session: Session,
    namespace: NamespaceId,
    roles: frozenset[Role] = frozenset(Role),
) -> None:
    """Raise `ApiError` unless the account has one of these roles in the namespace."""
    role = await store.role(namespace, session.account)
    if role is None:
        raise no_member()
    if Role(role) not in roles:
        raise ApiError(
            403, ErrorCode.FORBIDDEN, f"a {role_name(role)} may not change this namespace"
        )


def no_member() -> ApiError:
    """The same answer for a namespace of others and for one that does not exist."""
    return ApiError(403, ErrorCode.FORBIDDEN, "this account is no member of that namespace")


def _members(log: NamespaceLog) -> dict[AccountId, int]:
    return {account: int(role) for account, role in log.members.items()}
