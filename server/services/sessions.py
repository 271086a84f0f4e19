"""Who is asking: challenges, logins, access tokens, and the state of the device at every request.

Owns the rules of authentication. A token is 32 random bytes; the store has its hash only. A login
gives a token for the account, with which a new device enrols itself; a device renews its own tokens
by its signing key. Knows no HTTP; the routes call it first.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    ChallengeRequest,
    ChallengeResponse,
    ErrorCode,
    LoginKind,
    LoginRequest,
    LoginResponse,
    RefreshRequest,
    TokenResponse,
    login_statement,
    normal_email,
    refresh_statement,
)
from protocol.ids import AccountId, DeviceId
from server.errors import ApiError
from server.services.nonces import RANDOM_BYTES, expiry_s, is_valid_nonce, make_nonce
from server.services.ports import Surroundings
from server.stores.port import Credentials, MetadataStore, StoredSession

NONCE_LIFETIME_S: Final = 120
"""Long enough to stretch a password on a slow machine."""

DEFAULT_PASSES: Final = 3
DEFAULT_MEMORY_KIB: Final = 262144
"""What is answered for an email that is not known: the parameters that nodes use."""

_LOGIN_TYPES: Final = {
    LoginKind.PASSWORD: SignedType.LOGIN,
    LoginKind.RECOVERY: SignedType.RECOVERY_LOGIN,
}


@dataclass(frozen=True, slots=True)
class Session:
    """Who is asking. ``device`` is None after a login, before the device is enrolled."""

    account: AccountId
    device: DeviceId | None
    digest: bytes


class SessionService:
    """Authentication.

    Args:
        store: keeps sessions, credentials and used nonces.
        surroundings: time and randomness.
        server_id: 32 bytes that logins sign, so that they serve at this server only.
        secret: 32 bytes that only this server's processes know.
        token_lifetime_s: of access tokens.
    """

    def __init__(
        self,
        store: MetadataStore,
        surroundings: Surroundings,
        server_id: bytes,
        secret: bytes,
        token_lifetime_s: int,
    ) -> None:
        self._store = store
        self._surroundings = surroundings
        self._server_id = server_id
        self._secret = secret
        self._token_lifetime_s = token_lifetime_s
        # Nobody has its private half: what an unknown email's signature is compared with.
        self._nobody = SigningKey.from_seed(surroundings.token_bytes(32)).public

    async def challenge(self, request: ChallengeRequest) -> ChallengeResponse:
        """A nonce, and for an email how to stretch its password.

        Raises:
            ApiError: not exactly one of email and device.
        """
        if (request.email is None) == (request.device is None):
            raise ApiError(
                400, ErrorCode.MALFORMED, "a challenge is for either an email or a device"
            )
        known: Credentials | None = None
        if request.email is None:
            subject = _device_subject(request.device)
        else:
            email = _email(request.email)
            subject = _email_subject(email)
            known = await self._store.credentials(email)
        made_up = hashlib.blake2b(
            subject, digest_size=16, key=self._secret, person=b"atoll-srvsalt-1"
        ).digest()
        expires_s = self._surroundings.now_s() + NONCE_LIFETIME_S
        random = self._surroundings.token_bytes(RANDOM_BYTES)
        return ChallengeResponse(
            nonce=make_nonce(self._secret, subject, expires_s, random),
            server_id=self._server_id,
            salt=made_up if known is None else known.salt,
            passes=DEFAULT_PASSES if known is None else known.passes,
            memory_kib=DEFAULT_MEMORY_KIB if known is None else known.memory_kib,
            expires_in_s=NONCE_LIFETIME_S,
        )

    async def login(self, request: LoginRequest) -> LoginResponse:
        """A token for an account, by its password or its recovery phrase.

        Raises:
            ApiError: the nonce does not serve, or email, kind and signature do not fit each other;
                which of these is not said.
        """
        email = _email(request.email)
        try:
            kind = LoginKind(request.kind)
        except ValueError as error:
            raise ApiError(400, ErrorCode.MALFORMED, "the kind of login is unknown") from error
        subject = _email_subject(email)
        self._check_nonce(subject, request.nonce)
        known = await self._store.credentials(email)
        public = self._nobody
        if known is not None:
            is_password = kind is LoginKind.PASSWORD
            public = known.login_public if is_password else known.recovery_login_public
        statement = login_statement(self._server_id, email, request.nonce)
        try:
            verify(public, _LOGIN_TYPES[kind], statement, request.signature)
        except RemoteProtocolError as error:
            raise _login_failed() from error
        if known is None:
            raise _login_failed()
        await self._use_nonce(request.nonce)
        token = await self._begin(known.account, None)
        is_password = kind is LoginKind.PASSWORD
        return LoginResponse(
            account=known.account,
            wrapped_root=known.wrapped_root if is_password else known.wrapped_root_recovery,
            token=token,
            expires_in_s=self._token_lifetime_s,
        )

    async def refresh(self, request: RefreshRequest) -> TokenResponse:
        """An access token for an enrolled device.

        Raises:
            ApiError: the nonce does not serve, the device is not known or was revoked, or the
                signature is not its own.
        """
        self._check_nonce(_device_subject(request.device), request.nonce)
        known = await self._store.device(request.device)
        statement = refresh_statement(self._server_id, request.device, request.nonce)
        public = self._nobody if known is None else known.signing_public
        try:
            verify(public, SignedType.REFRESH, statement, request.signature)
        except RemoteProtocolError as error:
            raise _refresh_failed() from error
        if known is None:
            raise _refresh_failed()
        if known.is_revoked:
            raise _device_revoked()
        await self._use_nonce(request.nonce)
        token = await self._begin(known.account, known.device)
        return TokenResponse(token, self._token_lifetime_s)

    async def logout(self, session: Session) -> None:
        """End the session; its token serves nobody from now on."""
        await self._store.remove_session(session.digest)

    async def authenticate(self, token: str) -> Session:
        """The session of a token.

        Raises:
            ApiError: it is unknown, ended, expired, or its device was revoked.
        """
        return await self._find(hashlib.sha256(token.encode()).digest())

    async def check(self, session: Session) -> None:
        """Raise as `authenticate` when the session does not serve any more."""
        await self._find(session.digest)

    async def _find(self, digest: bytes) -> Session:
        stored = await self._store.session(digest)
        if stored is None:
            raise ApiError(
                401, ErrorCode.UNAUTHENTICATED, "the access token is not valid: get a new one"
            )
        if stored.is_revoked:
            raise _device_revoked()
        if stored.expires_s <= self._surroundings.now_s():
            raise ApiError(
                401, ErrorCode.TOKEN_EXPIRED, "the access token has expired: get a new one"
            )
        return Session(stored.account, stored.device, digest)

    async def _begin(self, account: AccountId, device: DeviceId | None) -> str:
        random = self._surroundings.token_bytes(32)
        token = base64.urlsafe_b64encode(random).decode().rstrip("=")
        now_s = self._surroundings.now_s()
        stored = StoredSession(account, device, now_s + self._token_lifetime_s, is_revoked=False)
        await self._store.add_session(hashlib.sha256(token.encode()).digest(), stored, now_s)
        return token

    def _check_nonce(self, subject: bytes, nonce: bytes) -> None:
        if not is_valid_nonce(self._secret, subject, nonce, self._surroundings.now_s()):
            raise _nonce_refused()

    async def _use_nonce(self, nonce: bytes) -> None:
        digest = hashlib.sha256(nonce).digest()
        now_s = self._surroundings.now_s()
        if not await self._store.use_nonce(digest, expiry_s(nonce), now_s):
            raise _nonce_refused()


def _email(text: str) -> str:
    try:
        return normal_email(text)
    except RemoteProtocolError as error:
        raise ApiError(400, ErrorCode.MALFORMED, str(error)) from error


def _email_subject(email: str) -> bytes:
    return b"email\0" + email.encode()


def _device_subject(device: DeviceId | None) -> bytes:
    return b"device\0" + (device or b"")


def _nonce_refused() -> ApiError:
    return ApiError(
        401,
        ErrorCode.LOGIN_FAILED,
        "the challenge has expired or was used already: ask for a new one",
        retryable=True,
    )


def _login_failed() -> ApiError:
    return ApiError(401, ErrorCode.LOGIN_FAILED, "the email or the password is not right")


def _refresh_failed() -> ApiError:
    return ApiError(401, ErrorCode.LOGIN_FAILED, "the device is not enrolled at this server")


def _device_revoked() -> ApiError:
    return ApiError(401, ErrorCode.DEVICE_REVOKED, "this device was revoked by its owner")
