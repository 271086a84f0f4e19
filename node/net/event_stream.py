"""The server's events over a WebSocket; only importer of `wsproto`.

Owns the handshake, the keep-alive and the bound on messages of this one stream. Refuses to know what
an event leads to, and never reconnects: `node.sync` does. Opened by `server_client`.

wsproto is used on a bare trio stream, as its documentation shows: the clients built on it run
background tasks and come with more code than the dozen lines that one receiving stream needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import LocalProtocolError as WebSocketLocalError
from wsproto.utilities import RemoteProtocolError as WebSocketRemoteError

from node.errors import ServerError
from node.net.access_tokens import AccessTokens
from node.net.dialer import Dialer, timed_out, unreachable
from node.net.http_transport import RefusedError
from protocol.errors import RemoteProtocolError
from protocol.http_api import MAX_NAMESPACES, ErrorBody, ErrorCode, EventsResponse

_PATH = "/v1/events/ws"

_HANDSHAKE_TIMEOUT_S = 15.0

_PING_AFTER_S = 20.0
"""Silence after which the server is asked whether it is there; below the minute after which NAT and
proxies forget a silent connection."""

_PONG_TIMEOUT_S = 15.0

_MAX_MESSAGE_BYTES = 4096 + MAX_NAMESPACES * 256
"""A line for every namespace: its printed id twice and two numbers."""

_RECEIVE_BYTES = 16 * 1024


class EventStream:
    """The state of everything that the account sees: once at the start, then at every change.

    Concurrency: owned by one task. After a cancelled wait the stream is of no use.
    """

    def __init__(self, dialer: Dialer, stream: trio.abc.Stream) -> None:
        self._address = dialer.address
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self._message = bytearray()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventsResponse:
        """The next state; never ends but by an error.

        Raises:
            ServerError: closed by the server, silent for too long, or not the protocol.
        """
        try:
            return await self._next_message()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise unreachable(self._address, error) from error
        except (WebSocketRemoteError, RemoteProtocolError) as error:
            raise ServerError(
                ErrorCode.MALFORMED,
                f"{self._address.base_url} sent an event that does not follow the protocol: {error}",
            ) from error

    async def shake_hands(self, token: str) -> None:
        """Turns the connection into a WebSocket; called once, by `open_event_stream`.

        Raises:
            RefusedError: the server refused, the token for instance.
            ServerError: unreachable, too slow, or not a WebSocket.
        """
        request = Request(
            host=self._address.authority,
            target=_PATH,
            extra_headers=[(b"authorization", f"Bearer {token}".encode())],
        )
        refusal: RejectConnection | None = None
        content = b""
        try:
            with trio.fail_after(_HANDSHAKE_TIMEOUT_S):
                await self._stream.send_all(self._protocol.send(request))
                while True:
                    match await self._next_event(None):
                        case AcceptConnection():
                            return
                        case RejectConnection() as refusal if not refusal.has_body:
                            raise self._refused(refusal, b"")
                        case RejectData(data=data, body_finished=is_finished) if refusal:
                            content = (content + data)[:_MAX_MESSAGE_BYTES]
                            if is_finished:
                                raise self._refused(refusal, content)
                        case _:
                            pass
        except trio.TooSlowError as error:
            raise timed_out(self._address, "no WebSocket handshake") from error
        except (WebSocketRemoteError, WebSocketLocalError) as error:
            raise unreachable(self._address, error) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise unreachable(self._address, error) from error

    async def aclose(self) -> None:
        """Closes without a handshake: a server that is gone would hold up whoever leaves."""
        await trio.aclose_forcefully(self._stream)

    async def _next_message(self) -> EventsResponse:
        while True:
            event = await self._next_event(_PING_AFTER_S)
            match event:
                case Ping():
                    # A server that pinged and then closed waits for no answer.
                    if self._protocol.state is ConnectionState.OPEN:
                        await self._stream.send_all(self._protocol.send(event.response()))
                case CloseConnection(code=code, reason=reason):
                    raise ServerError(
                        "stream_closed",
                        f"{self._address.base_url} closed the event stream: {reason or code}",
                        is_transient=True,
                    )
                case Message(data=data, message_finished=is_finished):
                    self._message += data.encode() if isinstance(data, str) else data
                    if len(self._message) > _MAX_MESSAGE_BYTES:
                        raise RemoteProtocolError(f"more than {_MAX_MESSAGE_BYTES} bytes")
                    if is_finished and isinstance(event, BytesMessage):
                        message, self._message = bytes(self._message), bytearray()
                        return EventsResponse.from_wire(message)
                case _:
                    pass

    async def _next_event(self, ping_after_s: float | None) -> Event:
        """The next event of the WebSocket; asks a silent server whether it is there."""
        while True:
            if self._events:
                return self._events.popleft()
            data = None
            with trio.move_on_after(ping_after_s or float("inf")):
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            if data is None and self._protocol.state is ConnectionState.OPEN:
                await self._stream.send_all(self._protocol.send(Ping()))
                with trio.move_on_after(_PONG_TIMEOUT_S):
                    data = await self._stream.receive_some(_RECEIVE_BYTES)
            if data is None:
                raise timed_out(self._address, "the event stream is silent")
            if not data:
                raise ServerError(
                    "stream_closed",
                    f"{self._address.base_url} closed the event stream",
                    is_transient=True,
                )
            self._protocol.receive_data(bytes(data))
            self._events.extend(self._protocol.events())

    def _refused(self, refusal: RejectConnection, content: bytes) -> ServerError:
        try:
            return RefusedError(refusal.status_code, ErrorBody.from_wire(content))
        except RemoteProtocolError:
            return ServerError(
                f"http_{refusal.status_code}",
                f"{self._address.base_url} refused the event stream with status "
                f"{refusal.status_code}",
                is_transient=refusal.status_code >= 500,
            )


@asynccontextmanager
async def open_event_stream(dialer: Dialer, tokens: AccessTokens) -> AsyncIterator[EventStream]:
    """Connects and yields the stream; renews the token once when it is refused.

    Raises:
        RefusedError: the server refused, also with a fresh token.
        ServerError: unreachable, too slow, or not a WebSocket.
    """
    token = await tokens.current()
    try:
        events = await _connected(dialer, token)
    except RefusedError as error:
        if not error.is_about_token or not tokens.refused(token):
            raise
        events = await _connected(dialer, await tokens.current())
    try:
        yield events
    finally:
        await events.aclose()


async def _connected(dialer: Dialer, token: str) -> EventStream:
    events = EventStream(dialer, await dialer.open_stream())
    try:
        await events.shake_hands(token)
    except BaseException:
        await events.aclose()
        raise
    return events
