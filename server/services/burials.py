"""Burials: which deleted items need not be remembered any more.

Owns the checks of a burial: an owner's enrolled device signed it, at about this time. What it names
is given up by the collector. Called by the routes.
"""

from typing import Final

from protocol.burials import SignedBurial
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.http_api import MAX_BURIALS, BurialsResponse, BuryRequest, BuryResponse, ErrorCode
from protocol.ids import NamespaceId
from protocol.limits import CLOCK_LEAD_US
from protocol.logs import Role
from server.errors import ApiError
from server.services.namespaces import no_member, require_role
from server.services.ports import Surroundings
from server.services.sessions import Session
from server.services.verified_logs import VerifiedLogs
from server.stores.port import MetadataStore

_OWNERS: Final = frozenset({Role.OWNER})


class BurialService:
    """What may be done with burials.

    Args:
        store: keeps them.
        logs: the same store's logs, verified.
        surroundings: time.
    """

    def __init__(
        self, store: MetadataStore, logs: VerifiedLogs, surroundings: Surroundings
    ) -> None:
        self._store = store
        self._logs = logs
        self._now_s = surroundings.now_s

    async def bury(
        self, session: Session, namespace: NamespaceId, request: BuryRequest
    ) -> BuryResponse:
        """Keep a burial.

        Raises:
            ApiError: it is none, is another's or of another namespace, the account is no owner, or
                the author's clock is more than a day away from the server's.
        """
        try:
            signed = SignedBurial.from_wire(request.burial)
        except UnsupportedFormatError as error:
            raise ApiError(
                400, ErrorCode.UPGRADE_REQUIRED, f"{error}: the server must be upgraded first"
            ) from error
        except RemoteProtocolError as error:
            raise ApiError(400, ErrorCode.MALFORMED, str(error)) from error
        burial = signed.burial
        if burial.namespace != namespace:
            raise ApiError(400, ErrorCode.MALFORMED, "the burial belongs to another namespace")
        if (burial.account, burial.device) != (session.account, session.device):
            raise ApiError(403, ErrorCode.FORBIDDEN, "the burial is of another device")
        await require_role(self._store, session, namespace, _OWNERS)
        context = await self._store.commit_context(namespace, [burial.device])
        state = context.logs.get(burial.account)
        log = None if state is None else await self._logs.account(burial.account, state)
        entry = None if log is None else log.devices.get(burial.device)
        if entry is None or entry.is_revoked:
            raise no_member()
        try:
            signed.verify(entry.signing_public)
        except RemoteProtocolError as error:
            raise ApiError(400, ErrorCode.BAD_SIGNATURE, str(error)) from error
        if abs(burial.time_us - self._now_s() * 1_000_000) > CLOCK_LEAD_US:
            raise ApiError(
                400,
                ErrorCode.WRONG_CLOCK,
                "the burial's time is more than a day away from the server's: set the device's clock",
            )
        kept = await self._store.add_burial(namespace, burial.items, request.burial)
        return BuryResponse(kept.number)

    async def after(self, session: Session, namespace: NamespaceId, after: int) -> BurialsResponse:
        """Burials with greater numbers.

        Raises:
            ApiError: the account is no member.
        """
        await require_role(self._store, session, namespace)
        kept = await self._store.burials(namespace, after, MAX_BURIALS)
        return BurialsResponse(
            tuple(each.wire for each in kept),
            kept[-1].number if kept else after,
            len(kept) == MAX_BURIALS,
        )
