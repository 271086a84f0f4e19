"""Requests to one server and their answers, as bytes; only importer of `httpx`.

Owns the connection pool, the deadlines, the bound on every answer, and the translation of each way
to fail into a `ServerError`. Refuses to know routes, bodies and credentials, and never follows a
redirect. Called by `server_client` and `access_tokens`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
import trio

from node.errors import ServerError
from node.net.dialer import CONNECT_TIMEOUT_S, Dialer, timed_out, unreachable, wrong_pin
from node.net.server_address import ServerAddress
from protocol.body_codec import Encoding
from protocol.errors import RemoteProtocolError
from protocol.http_api import ErrorBody, ErrorCode
from protocol.limits import MAX_BODY_BYTES

IDLE_TIMEOUT_S = 30.0
"""Longest silence within a request: a peer that moves no byte for so long is gone."""

_KEEP_ALIVE_S = 60.0
"""An idle connection is closed before the server does it (after 75 s), so that no request is sent
into a connection that is being closed."""


class RefusedError(ServerError):
    """The server answered, and the answer is no.

    Attributes:
        status: of HTTP.
        body: what the server says about it, with the evidence that some codes carry.
    """

    def __init__(self, status: int, body: ErrorBody) -> None:
        super().__init__(
            body.code,
            body.message,
            is_transient=body.retryable,
            retry_after_s=None if body.retry_after is None else float(body.retry_after),
        )
        self.status = status
        self.body = body

    @property
    def is_about_token(self) -> bool:
        """Whether another access token may be granted what this one was not."""
        return self.status == 401 and self.code != ErrorCode.DEVICE_REVOKED


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        path: from the root of the server, without the query.
        deadline_s: for everything, the wait for a free connection included.
        idle_s: longest silence; longer than the default where the server waits on purpose.
        max_bytes: a longer answer is refused.
        on_chunk: sees the pieces of a granted answer as they arrive.
    """

    method: str
    path: str
    deadline_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    idle_s: float = IDLE_TIMEOUT_S
    max_bytes: int = MAX_BODY_BYTES
    on_chunk: Callable[[bytes], object] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to a request that it granted."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


@dataclass(slots=True)
class TransferCounters:
    """Bytes of bodies that went to the server and came from it since the start."""

    sent_bytes: int = 0
    received_bytes: int = 0


class HttpTransport:
    """A bounded pool of connections to one server.

    Concurrency: shared by all tasks. A request that is cancelled closes its connection; whether the
    server carried it out is then unknown.
    """

    def __init__(self, dialer: Dialer, connections: int) -> None:
        self._dialer = dialer
        self._limits = httpx.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEEP_ALIVE_S,
        )
        self._client: tuple[httpx.AsyncClient, ssl.SSLContext] | None = None
        self.counters = TransferCounters()

    @property
    def address(self) -> ServerAddress:
        """The server's."""
        return self._dialer.address

    async def aclose(self) -> None:
        """Closes the idle connections; no request may be under way."""
        if self._client is not None:
            client, _ = self._client
            self._client = None
            await client.aclose()

    async def request(self, call: Call) -> Answer:
        """Sends one request and reads the whole answer.

        Raises:
            RefusedError: the server answered with an error.
            ServerError: unreachable, too slow, not the pinned server, or not HTTP as agreed.
        """
        try:
            with trio.fail_after(call.deadline_s):
                answer = await self._send_to_pinned(call)
        except (trio.TooSlowError, httpx.TimeoutException) as error:
            raise timed_out(self.address, f"{call.method} {call.path}") from error
        except httpx.HTTPError as error:
            raise unreachable(self.address, error) from error
        self.counters.sent_bytes += len(call.content or b"")
        return answer

    async def _send_to_pinned(self, call: Call) -> Answer:
        """Sends; when the certificate is another than before, compares the pin and sends again."""
        client, context = await self._open_client()
        try:
            return await self._send(client, call)
        except httpx.ConnectError as error:
            if not _is_distrust(error):
                raise
        self._dialer.forget_certificate(context)
        client, _ = await self._open_client()
        try:
            return await self._send(client, call)
        except httpx.ConnectError as error:
            if _is_distrust(error):
                raise wrong_pin(self.address) from error
            raise

    async def _open_client(self) -> tuple[httpx.AsyncClient, ssl.SSLContext]:
        if self.address.is_tls:
            context = await self._dialer.tls_context()
        elif self._client is None:
            # Never used for plain http; given so that httpx does not load the public authorities.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            return self._client
        former = self._client
        if former is not None and former[1] is context:
            return former
        client = httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, limits=self._limits
        )
        self._client = client, context
        if former is not None:
            # Its connections go to a process that has ended: the certificate is another one now.
            await former[0].aclose()
        return client, context

    async def _send(self, client: httpx.AsyncClient, call: Call) -> Answer:
        async with client.stream(
            call.method,
            self.address.base_url + call.path,
            headers={
                "accept": Encoding.MSGPACK.value,
                "accept-encoding": "identity",
                **call.headers,
            },
            params=call.query,
            content=call.content,
            timeout=httpx.Timeout(
                connect=CONNECT_TIMEOUT_S, read=call.idle_s, write=IDLE_TIMEOUT_S, pool=None
            ),
        ) as response:
            is_granted = response.status_code in (200, 201, 204, 206)
            content = await self._read(response, call, is_granted)
            if not is_granted:
                raise self._refusal(response, content)
            return Answer(response.status_code, response.headers, content)

    async def _read(self, response: httpx.Response, call: Call, is_granted: bool) -> bytes:
        pieces: list[bytes] = []
        size_bytes = 0
        try:
            async for piece in response.aiter_raw():
                size_bytes += len(piece)
                if size_bytes > call.max_bytes:
                    # Ends the iteration from within, by an error: leaving it would leave httpx's
                    # generators to the garbage collector.
                    await response.aclose()
                    continue
                pieces.append(piece)
                if call.on_chunk is not None and is_granted:
                    call.on_chunk(piece)
        except (httpx.HTTPError, httpx.StreamError):
            if size_bytes <= call.max_bytes:
                raise
        self.counters.received_bytes += size_bytes
        if size_bytes > call.max_bytes:
            raise ServerError(
                ErrorCode.MALFORMED,
                f"{self.address.base_url} sent more than {call.max_bytes} bytes at once",
            )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _refusal(self, response: httpx.Response, content: bytes) -> ServerError:
        try:
            return RefusedError(response.status_code, ErrorBody.from_wire(content))
        except RemoteProtocolError:
            status = response.status_code
            if response.is_redirect:
                message = f"{self.address.base_url} redirects elsewhere, which is never followed"
            else:
                message = f"{self.address.base_url} answered with HTTP status {status}"
            return ServerError(
                f"http_{status}", message, is_transient=status >= 500 or status == 429
            )


def _is_distrust(error: BaseException) -> bool:
    """Whether TLS refused the certificate (httpx keeps the reason in the chain of causes)."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
