"""Who asks: the credentials of a client, and the access token that stands for them.

Owns the renewal of the token by the device's signature: before it runs out, and once after the
server refused it. Refuses to know what is asked for. Called by `server_client` for every request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.errors import ServerError
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey
from protocol.http_api import (
    ChallengeRequest,
    ChallengeResponse,
    RefreshRequest,
    TokenResponse,
    refresh_statement,
)
from protocol.ids import DeviceId

_MARGIN_S = 30.0
"""A token is renewed so long before it runs out: requests take a while, and clocks drift."""


@dataclass(frozen=True, slots=True)
class DeviceCredentials:
    """An enrolled device, which renews its token for as long as it is enrolled."""

    device: DeviceId
    signing_key: SigningKey


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """A token as a login gave it; nothing renews it."""

    token: str = field(repr=False)


Credentials = DeviceCredentials | TokenCredentials


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires_at: float


class AccessTokens:
    """The present token of one client.

    Concurrency: shared by all tasks. One of them renews, the others wait for its outcome; they
    share a failure as well, so that a dead server is asked once and not once per waiting task.
    """

    def __init__(
        self,
        credentials: Credentials,
        challenge: Callable[[ChallengeRequest], Awaitable[ChallengeResponse]],
        refresh: Callable[[RefreshRequest], Awaitable[TokenResponse]],
    ) -> None:
        self._credentials = credentials
        self._challenge = challenge
        self._refresh = refresh
        self._token: _Token | None = None
        self._renewing = trio.Lock()
        self._attempts = 0
        self._failure: ServerError | None = None

    async def current(self) -> str:
        """A token that is good for at least the next half minute.

        Raises:
            ServerError: it can not be renewed.
        """
        match self._credentials:
            case TokenCredentials(token=text):
                return text
            case DeviceCredentials() as device:
                return await self._current_of(device)

    def refused(self, text: str) -> bool:
        """Notes that the server does not take this token; whether another one can be had."""
        if isinstance(self._credentials, TokenCredentials):
            return False
        if self._token is not None and self._token.text == text:
            self._token = None
        return True

    async def _current_of(self, device: DeviceCredentials) -> str:
        if self._token is not None and self._token.expires_at > trio.current_time():
            return self._token.text
        attempts_before = self._attempts
        async with self._renewing:
            if self._token is not None and self._token.expires_at > trio.current_time():
                return self._token.text
            if self._attempts != attempts_before and self._failure is not None:
                raise self._failure
            try:
                self._token = await self._renewed(device)
            except ServerError as error:
                self._failure = error
                raise
            else:
                self._failure = None
            finally:
                self._attempts += 1
            return self._token.text

    async def _renewed(self, credentials: DeviceCredentials) -> _Token:
        device = credentials.device
        challenge = await self._challenge(ChallengeRequest(device=device))
        statement = refresh_statement(challenge.server_id, device, challenge.nonce)
        signature = credentials.signing_key.sign(SignedType.REFRESH, statement)
        asked_at = trio.current_time()
        answer = await self._refresh(RefreshRequest(device, challenge.nonce, signature))
        life_s = max(answer.expires_in_s - _MARGIN_S, answer.expires_in_s / 2)
        return _Token(answer.access_token, asked_at + life_s)
