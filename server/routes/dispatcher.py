"""Carries one request through its endpoint: limits, token, body, handler, answer, error.

Owns the order of these steps and the translation of every error into the one error body. An ASGI
application per endpoint; made by ``server.app``.
"""

import time
from dataclasses import dataclass
from typing import Final

import anyio
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from protocol.body_codec import Body, Encoding
from protocol.errors import RemoteProtocolError
from protocol.http_api import ErrorBody, ErrorCode
from server.errors import ApiError, StorageFullError, StoreUnavailableError
from server.metrics import Metrics
from server.routes.endpoint import SMALL_BODY_BYTES, Access, Call, Endpoint
from server.routes.rate_limit import RateLimiter
from server.services.all_services import Services
from server.services.sessions import Session

BODY_DEADLINE_S: Final = 60
"""A body of 8 MiB at 140 KB/s; whoever is slower sends smaller batches."""

MAX_LARGE_BODIES: Final = 16
"""Bodies above `SMALL_BODY_BYTES` that are held in memory at once: 128 MiB."""

log = structlog.get_logger("atoll.server")


@dataclass(frozen=True, slots=True)
class Gate:
    """What all dispatchers of a server share."""

    services: Services
    limiter: RateLimiter
    metrics: Metrics
    large_bodies: anyio.CapacityLimiter


class Dispatcher:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint, gate: Gate) -> None:
        self._endpoint = endpoint
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Nothing but a cancellation leaves this."""
        started_s = time.perf_counter()
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = Headers(scope=scope)
        try:
            response = await self._answer(scope, receive, watched_send, headers)
        except ClientDisconnect:
            response = None
        except Exception as error:  # noqa: BLE001 (a bug answers 500 and is logged; the server goes on)
            response = error_response(translated(error, self._endpoint), answer_encoding(headers))
            if status:
                # The answer has begun: all that is left is to end the connection before its end.
                response = None
        if response is not None:
            await response(scope, receive, watched_send)
        self._gate.metrics.count(
            self._endpoint.method,
            self._endpoint.path,
            status or 499,
            time.perf_counter() - started_s,
        )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers
    ) -> Response | None:
        endpoint = self._endpoint
        session = await self._authenticate(scope, headers)
        body = None
        if endpoint.request is not None:
            body = await self._read_body(endpoint.request, receive, headers)
        call = Call(self._gate.services, scope, receive, send, session, body)
        answer = await endpoint.handler(call)
        if answer is None:
            return None
        return body_response(answer, 200, answer_encoding(headers))

    async def _authenticate(self, scope: Scope, headers: Headers) -> Session | None:
        if self._endpoint.access is Access.ANYONE:
            refusal = rate_refusal(self._gate, scope)
            if refusal is not None:
                raise refusal
            return None
        return await authenticated(self._gate.services, headers, self._endpoint.access)

    async def _read_body(self, kind: type[Body], receive: Receive, headers: Headers) -> Body:
        encoding = _body_encoding(headers)
        limit = self._endpoint.max_body_bytes
        # Absent when the body comes in chunks; the parser has refused what is no number.
        declared = headers.get("content-length", "0")
        if int(declared) > limit:
            raise _too_large(limit)
        with anyio.move_on_after(BODY_DEADLINE_S) as deadline:
            if limit > SMALL_BODY_BYTES and not 0 < int(declared) <= SMALL_BODY_BYTES:
                async with self._gate.large_bodies:
                    data = await _receive_all(receive, limit)
            else:
                data = await _receive_all(receive, limit)
        if deadline.cancelled_caught:
            raise ApiError(
                408, ErrorCode.TIMEOUT, "the body took too long: send less at once", retryable=True
            )
        try:
            return kind.from_wire(data, encoding, limit)
        except RemoteProtocolError as error:
            raise ApiError(400, ErrorCode.MALFORMED, str(error)) from error


def rate_refusal(gate: Gate, scope: Scope) -> ApiError | None:
    """Count a request that proves nothing; the refusal when its address has asked too often."""
    client = scope.get("client")
    wait_s = gate.limiter.take(client[0] if client else "")
    if not wait_s:
        return None
    return ApiError(
        429,
        ErrorCode.RATE_LIMITED,
        "too many requests from this address",
        retryable=True,
        retry_after=wait_s,
    )


async def authenticated(services: Services, headers: Headers, access: Access) -> Session:
    """The session of a request's token.

    Raises:
        ApiError: there is none, it does not serve, or it is not a device's where one is needed.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= 128:
        raise ApiError(
            401, ErrorCode.UNAUTHENTICATED, "this needs a header 'Authorization: Bearer TOKEN'"
        )
    session = await services.sessions.authenticate(token)
    if access is Access.DEVICE and session.device is None:
        raise ApiError(403, ErrorCode.FORBIDDEN, "this needs the token of an enrolled device")
    return session


def answer_encoding(headers: Headers) -> Encoding:
    """What the client accepts; what it sends; JSON.

    Whoever accepts or sends raw bytes is a node and hears of errors in msgpack.
    """
    for header in ("accept", "content-type"):
        value = headers.get(header, "")
        for encoding in Encoding:
            if encoding.value in value:
                return encoding
        if "application/octet-stream" in value:
            return Encoding.MSGPACK
    return Encoding.JSON


def body_response(body: Body, status: int, encoding: Encoding) -> Response:
    """An answer with a body."""
    return Response(body.to_wire(encoding), status, media_type=encoding.value)


def error_response(error: ApiError, encoding: Encoding) -> Response:
    """An error as an answer."""
    response = body_response(error.body, error.status, encoding)
    if error.body.retry_after is not None:
        response.headers["retry-after"] = str(error.body.retry_after)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def translated(error: Exception, endpoint: Endpoint) -> ApiError:
    """The answer for whatever a handler raised."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StorageFullError):
        return ApiError(
            507,
            ErrorCode.STORAGE_FULL,
            "the server has no space left: its operator must make some",
            retryable=True,
            retry_after=60,
        )
    if isinstance(error, StoreUnavailableError):
        log.warning("store unavailable", endpoint=endpoint.path, error=str(error))
        return ApiError(
            503,
            ErrorCode.OVERLOADED,
            "the server can not reach its storage now",
            retryable=True,
            retry_after=5,
        )
    log.error("request failed", endpoint=f"{endpoint.method} {endpoint.path}", exc_info=error)
    return ApiError(
        500,
        ErrorCode.INTERNAL,
        "the server failed at this request; its log says why",
        retryable=True,
    )


def _body_encoding(headers: Headers) -> Encoding:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        return Encoding(media_type)
    except ValueError as error:
        accepted = " or ".join(encoding.value for encoding in Encoding)
        raise ApiError(
            415, ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"the body must be {accepted}"
        ) from error


async def _receive_all(receive: Receive, limit: int) -> bytes:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        data += message.get("body", b"")
        if len(data) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(data)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, ErrorCode.TOO_LARGE, f"the body has more than {limit} bytes")


__all__ = [
    "Dispatcher",
    "ErrorBody",
    "Gate",
    "answer_encoding",
    "authenticated",
    "body_response",
    "error_response",
    "rate_refusal",
    "translated",
]
