"""``/v1/auth``, ``/v1/accounts`` and ``/v1/devices``."""

from typing import Final

from protocol.http_api import (
    AppendRequest,
    ChallengeRequest,
    ChallengeResponse,
    DevicesResponse,
    EmptyBody,
    LoginRequest,
    LoginResponse,
    LogResponse,
    RefreshRequest,
    RegisterRequest,
    RegisterResponse,
    TokenResponse,
)
from protocol.ids import AccountId
from protocol.limits import MAX_BODY_BYTES, MAX_LOG_EVENTS
from server.routes.endpoint import Access, Call, Endpoint


async def _register(call: Call) -> RegisterResponse:
    return await call.services.accounts.register(call.body(RegisterRequest))


async def _challenge(call: Call) -> ChallengeResponse:
    return await call.services.sessions.challenge(call.body(ChallengeRequest))


async def _login(call: Call) -> LoginResponse:
    return await call.services.sessions.login(call.body(LoginRequest))


async def _refresh(call: Call) -> TokenResponse:
    return await call.services.sessions.refresh(call.body(RefreshRequest))


async def _logout(call: Call) -> EmptyBody:
    await call.services.sessions.logout(call.session)
    return EmptyBody()


async def _read_log(call: Call) -> LogResponse:
    account = call.identifier("account", AccountId)
    start = call.integer("from", 0, 0, MAX_LOG_EVENTS)
    return await call.services.accounts.read_log(call.session, account, start)


async def _append_log(call: Call) -> LogResponse:
    account = call.identifier("account", AccountId)
    return await call.services.accounts.append_log(call.session, account, call.body(AppendRequest))


async def _devices(call: Call) -> DevicesResponse:
    return await call.services.accounts.devices(call.session)


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/auth/register",
        "Create an account with its first device and its private namespace",
        _register,
        Access.ANYONE,
        RegisterRequest,
        RegisterResponse,
    ),
    Endpoint(
        "POST",
        "/v1/auth/challenge",
        "Get a nonce to log in (email) or to renew a token (device)",
        _challenge,
        Access.ANYONE,
        ChallengeRequest,
        ChallengeResponse,
    ),
    Endpoint(
        "POST",
        "/v1/auth/login",
        "Prove a password or recovery phrase; get the wrapped root key and an account token",
        _login,
        Access.ANYONE,
        LoginRequest,
        LoginResponse,
    ),
    Endpoint(
        "POST",
        "/v1/auth/refresh",
        "Prove a device key; get an access token",
        _refresh,
        Access.ANYONE,
        RefreshRequest,
        TokenResponse,
    ),
    Endpoint(
        "POST",
        "/v1/auth/logout",
        "End the session of this token",
        _logout,
        Access.ACCOUNT,
        response=EmptyBody,
    ),
    Endpoint(
        "GET",
        "/v1/accounts/{account}/log",
        "Read an account's log",
        _read_log,
        Access.ACCOUNT,
        response=LogResponse,
        query=(("from", "number of the first event; 0 if absent"),),
    ),
    Endpoint(
        "POST",
        "/v1/accounts/{account}/log",
        "Append to the own account's log",
        _append_log,
        Access.ACCOUNT,
        AppendRequest,
        LogResponse,
        max_body_bytes=MAX_BODY_BYTES,
    ),
    Endpoint(
        "GET",
        "/v1/devices",
        "List the own account's devices",
        _devices,
        Access.ACCOUNT,
        response=DevicesResponse,
    ),
)
