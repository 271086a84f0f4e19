"""A WebSocket client for server tests: wsproto on a blocking socket."""

from __future__ import annotations

import socket

import httpx
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)

from protocol.http_api import ErrorBody, EventsResponse


class EventSocket:
    """``/v1/events/ws`` with a token."""

    def __init__(self, url: str, token: str | None) -> None:
        parsed = httpx.URL(url)
        self._socket = socket.create_connection((parsed.host, parsed.port), timeout=20)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        request = Request(host=parsed.host, target="/v1/events/ws", extra_headers=headers)
        self._socket.sendall(self._protocol.send(request))
        self.refusal: tuple[int, ErrorBody] | None = None
        event = self._event()
        if isinstance(event, RejectConnection):
            body = self._event()
            assert isinstance(body, RejectData)
            self.refusal = (event.status_code, ErrorBody.from_wire(bytes(body.data)))
            self.close()
        else:
            assert isinstance(event, AcceptConnection)

    def state(self) -> EventsResponse:
        """The next state."""
        event = self._event()
        assert isinstance(event, BytesMessage), event
        assert event.message_finished
        return EventsResponse.from_wire(bytes(event.data))

    def close_code(self) -> int:
        """Read states until the server closes; then this side is closed as well."""
        while True:
            event = self._event()
            if isinstance(event, CloseConnection):
                self.close()
                return int(event.code)

    def close(self) -> None:
        self._socket.close()

    def _event(self):
        while True:
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    self._socket.sendall(self._protocol.send(event.response()))
                    continue
                return event
            data = self._socket.recv(65536)
            self._protocol.receive_data(data or None)
