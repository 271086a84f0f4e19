"""``/v1/events``: waiting for changes, by long poll or over a WebSocket."""

from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from protocol.body_codec import Encoding
from protocol.http_api import MAX_WAIT_S, ErrorCode, EventsResponse
from server.errors import ApiError
from server.routes.dispatcher import Gate, authenticated, error_response, translated
from server.routes.endpoint import Access, Call, Endpoint
from server.services.sessions import Session

CLOSE_UNAUTHENTICATED: Final = 4401
"""The token does not serve (any more): renew it and connect again."""

CLOSE_REVOKED: Final = 4403
"""The device was revoked."""

CLOSE_TRY_LATER: Final = 1013
"""Too many wait, or the storage fails (RFC 6455 registry: 'Try Again Later')."""

CLOSE_RESTART: Final = 1012
"""The server ends (RFC 6455 registry: 'Service Restart')."""


async def _poll(call: Call) -> EventsResponse | None:
    cursor = call.text("cursor")
    timeout_s = call.integer("timeout_s", MAX_WAIT_S, 0, MAX_WAIT_S)
    answer: EventsResponse | None = None
    failure: Exception | None = None
    # Whoever hangs up must not keep a place among those who wait.
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await call.wait_for_disconnect()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            answer = await call.services.events.poll(call.session, cursor, timeout_s)
        except Exception as error:  # noqa: BLE001 (leaves the group as itself, not in an ExceptionGroup)
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/v1/events",
        "Wait until something differs from the cursor's state",
        _poll,
        Access.DEVICE,
        response=EventsResponse,
        query=(
            ("cursor", "of the last answer; answered at once if absent"),
            ("timeout_s", f"seconds to wait; {MAX_WAIT_S} at most and if absent"),
        ),
    ),
)


class EventSocket:
    """``/v1/events/ws``: an ASGI application for WebSockets that sends `EventsResponse` as msgpack."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until either end leaves."""
        headers = Headers(scope=scope)
        await receive()
        try:
            session = await authenticated(self._gate.services, headers, Access.DEVICE)
        except Exception as error:  # noqa: BLE001 (as in the dispatcher)
            await _refuse(translated(error, SOCKET), send)
            return
        await send({"type": "websocket.accept"})
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                # What the client says is of no interest, only that it leaves.
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            code, reason = await self._serve(session, send)
            await send({"type": "websocket.close", "code": code, "reason": reason})
            group.cancel_scope.cancel()

    async def _serve(self, session: Session, send: Send) -> tuple[int, str]:
        """Send states until the stream ends; how to close."""
        try:
            async for state in self._gate.services.events.stream(session):
                await send({"type": "websocket.send", "bytes": state.to_wire()})
        except Exception as error:  # noqa: BLE001 (as in the dispatcher)
            refusal = translated(error, SOCKET)
            return _close_code(refusal), refusal.body.code
        return CLOSE_RESTART, ErrorCode.SHUTTING_DOWN.value


async def _refuse(error: ApiError, send: Send) -> None:
    """Answer the handshake with the error that a plain request would get."""
    response = error_response(error, Encoding.MSGPACK)
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})


def _close_code(error: ApiError) -> int:
    if error.body.code == ErrorCode.DEVICE_REVOKED.value:
        return CLOSE_REVOKED
    return CLOSE_UNAUTHENTICATED if error.status == 401 else CLOSE_TRY_LATER


SOCKET: Final = Endpoint(
    "GET",
    "/v1/events/ws",
    "The same over a WebSocket: one binary message (msgpack) at once and at every change",
    _poll,
    Access.DEVICE,
    response=EventsResponse,
)
