"""What changed for an account: the state it can wait on, by long poll or as a stream.

Owns the cursor of that state, a hash of it: stateless, so it survives restarts and serves at every
process. Knows no HTTP; called by the routes.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import anyio

from protocol import codec
from protocol.http_api import EventsResponse
from server.services.notifier import Notifier
from server.services.sessions import Session, SessionService
from server.stores.port import MetadataStore, Progress

RECHECK_S: Final = 30
"""How often a stream says how things stand although nothing changed: so both ends notice that the
other is gone, and the session is checked again."""


class EventService:
    """Waiting for changes.

    Args:
        store: knows the state.
        sessions: asked again while a stream lasts.
        notifier: says when to look.
    """

    def __init__(self, store: MetadataStore, sessions: SessionService, notifier: Notifier) -> None:
        self._store = store
        self._sessions = sessions
        self._notifier = notifier

    async def poll(self, session: Session, cursor: str | None, timeout_s: int) -> EventsResponse:
        """The state, as soon as it is not the cursor's; after the timeout in any case.

        Raises:
            ApiError: too many wait, or the session ended meanwhile.
        """
        with self._notifier.waiting(session.account) as waiter:
            state = await self._state(session)
            with anyio.move_on_after(timeout_s):
                while state.cursor == cursor and not self._notifier.is_closing:
                    await waiter.wait()
                    state = await self._state(session)
        await self._sessions.check(session)
        return state

    async def stream(self, session: Session) -> AsyncIterator[EventsResponse]:
        """The state now, at every change, and every `RECHECK_S`, until the server ends.

        Raises:
            ApiError: too many wait, or the session does not serve any more.
        """
        with self._notifier.waiting(session.account) as waiter:
            cursor = None
            is_due = True
            while not self._notifier.is_closing:
                await self._sessions.check(session)
                state = await self._state(session)
                if is_due or state.cursor != cursor:
                    cursor = state.cursor
                    yield state
                with anyio.move_on_after(RECHECK_S) as scope:
                    await waiter.wait()
                is_due = scope.cancelled_caught

    async def _state(self, session: Session) -> EventsResponse:
        progress = await self._store.progress(session.account)
        return EventsResponse(
            cursor=_cursor(progress),
            journal_epoch=progress.journal_epoch,
            namespaces={state.namespace: state.position for state in progress.namespaces},
            account_log_length=progress.account_log_length,
            namespace_log_lengths={
                state.namespace: state.log_length for state in progress.namespaces
            },
        )


def _cursor(progress: Progress) -> str:
    value = [
        progress.journal_epoch,
        progress.account_log_length,
        [
            [bytes(state.namespace), state.position, state.log_length]
            for state in progress.namespaces
        ],
    ]
    digest = hashlib.blake2b(codec.encode(value), digest_size=15).digest()
    return base64.urlsafe_b64encode(digest).decode()
