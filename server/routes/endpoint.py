"""What an endpoint is: a row of the table from which routes and OpenAPI are both made."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from protocol.body_codec import Body, Encoding
from protocol.errors import RemoteProtocolError
from protocol.http_api import ErrorCode
from protocol.ids import Identifier
from server.errors import ApiError
from server.services.all_services import Services
from server.services.sessions import Session

SomeBody = TypeVar("SomeBody", bound=Body)
SomeIdentifier = TypeVar("SomeIdentifier", bound=Identifier)

SMALL_BODY_BYTES = 64 * 1024
"""Bodies of requests that carry a few fixed fields."""


class Access(Enum):
    """What a request must bring."""

    ANYONE = "anyone"
    """Nothing; limited per address."""
    ACCOUNT = "account"
    """A token of a login or of a device."""
    DEVICE = "device"
    """A token of an enrolled device."""


class Call:
    """One request on its way through an endpoint.

    Attributes:
        services: what it may ask.
        session: who asks; only endpoints for anyone have none.
    """

    def __init__(
        self,
        services: Services,
        scope: Scope,
        receive: Receive,
        send: Send,
        session: Session | None,
        body: Body | None,
    ) -> None:
        self.services = services
        self.scope = scope
        self.receive = receive
        self.send = send
        self._request = Request(scope, receive)
        self._session = session
        self._body = body

    @property
    def session(self) -> Session:
        """Who asks."""
        assert self._session is not None
        return self._session

    @property
    def header_range(self) -> str | None:
        """The Range header."""
        return self._request.headers.get("range")

    def body(self, kind: type[SomeBody]) -> SomeBody:
        """The request's body, which the dispatcher has read as the endpoint's type."""
        assert isinstance(self._body, kind)
        return self._body

    def identifier(self, name: str, kind: type[SomeIdentifier]) -> SomeIdentifier:
        """An identifier in the path.

        Raises:
            ApiError: it is none.
        """
        try:
            return kind.parse(self._request.path_params[name])
        except RemoteProtocolError as error:
            raise ApiError(400, ErrorCode.MALFORMED, str(error)) from error

    def text(self, name: str) -> str | None:
        """A query parameter."""
        return self._request.query_params.get(name)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A query parameter as an integer; what is above ``high`` is lowered to it.

        Raises:
            ApiError: it is no integer or below ``low``.
        """
        text = self._request.query_params.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) < low:
            raise ApiError(400, ErrorCode.MALFORMED, f"{name} is an integer from {low} on")
        return min(int(text), high)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The raw body as it arrives.

        Raises:
            ClientDisconnect: the client went away.
        """
        async for chunk in self._request.stream():
            yield chunk

    async def wait_for_disconnect(self) -> None:
        """Return when the client has gone away."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return


Handler = Callable[[Call], Awaitable[Body | None]]
"""Answers with a body, or has sent its answer itself and returns None."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    Attributes:
        summary: for people, in OpenAPI.
        request: type of the body; None when there is none, or it is raw bytes.
        response: type of the body; None when it is raw bytes.
        query: names and descriptions of query parameters.
        max_body_bytes: of the request.
        is_raw_request: the body is the bytes of a block.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    access: Access
    request: type[Body] | None = None
    response: type[Body] | None = None
    query: tuple[tuple[str, str], ...] = ()
    max_body_bytes: int = SMALL_BODY_BYTES
    is_raw_request: bool = False


__all__ = ["Access", "Call", "ClientDisconnect", "Encoding", "Endpoint", "Handler"]
