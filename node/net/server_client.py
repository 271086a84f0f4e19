"""The server's API as typed calls.

Owns the routes, their deadlines and the use of the access token: one that the server no longer takes
is renewed once and the request repeated. Refuses to retry anything else, to know what a body means,
and to trust the server: a block is returned only when its bytes match its id. Called by `node.sync`,
`node.enrolment` and `node.cli.doctor`.

Blocks go through the same pool as everything else. Measured on two cores against uvicorn on
loopback, one request of 1 MiB at a time: 600 MB/s up and 700 MB/s down, 900 and 690 with four in
parallel; so a path of their own would not pay.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self, TypeVar

from node.errors import ServerError
from node.net.access_tokens import AccessTokens, Credentials
from node.net.dialer import Dialer
from node.net.event_stream import EventStream, open_event_stream
from node.net.http_transport import (
    IDLE_TIMEOUT_S,
    Answer,
    Call,
    HttpTransport,
    RefusedError,
    TransferCounters,
)
from node.net.server_address import ServerAddress
from protocol import http_api
from protocol.body_codec import Body, Encoding
from protocol.errors import RemoteProtocolError
from protocol.http_api import Cursor, ErrorCode
from protocol.ids import AccountId, BlockId, EventId, NamespaceId
from protocol.limits import MAX_BODY_BYTES, MAX_LOG_EVENTS

CONNECTIONS = 20
"""Eight blocks coming, eight going, a long poll, and the rest so that a delta or a commit never waits
behind blocks."""

_CALL_DEADLINE_S = 60.0
"""For a question whose answer is at most one body (8 MiB) and a commit of as much."""

_BLOCK_DEADLINE_S = 900.0
"""For 4 MiB: even eight at once over 0.3 Mbit/s. A stalled transfer ends sooner, by its silence."""

_POLL_SLACK_S = 10.0
"""What a long poll may take beyond the wait that was asked for."""

_MSGPACK = Encoding.MSGPACK.value
_BYTES = "application/octet-stream"

AnyBody = TypeVar("AnyBody", bound=Body)


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """What a server says before anybody logs in.

    Attributes:
        clock_ahead_s: its clock minus ours, to a second; None when it sent no date.
        answer_s: how long it took.
    """

    clock_ahead_s: float | None
    answer_s: float


class ServerClient:
    """One server, asked as one device (or as nobody yet).

    Use as an async context manager; leaving it closes the connections. Every method raises
    `ServerError` (its subclass `RefusedError` when the server answered) and nothing else.

    Concurrency: shared by all tasks. A cancelled call leaves unknown whether the server carried it
    out; every call may be made again: the server takes a repetition for what it is.
    """

    def __init__(
        self,
        address: ServerAddress,
        credentials: Credentials | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        self._dialer = Dialer(address)
        self._transport = HttpTransport(self._dialer, connections)
        self._tokens = (
            AccessTokens(credentials, self.challenge, self._refresh) if credentials else None
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transport.aclose()

    @property
    def address(self) -> ServerAddress:
        """The server's."""
        return self._transport.address

    @property
    def counters(self) -> TransferCounters:
        """Bytes of bodies, both ways, since the start."""
        return self._transport.counters

    async def health(self) -> ServerHealth:
        """Asks for nothing but an answer."""
        started = time.monotonic()
        answer = await self._transport.request(Call("GET", "/healthz", deadline_s=IDLE_TIMEOUT_S))
        return ServerHealth(_clock_ahead_s(answer), time.monotonic() - started)

    async def register(self, request: http_api.RegisterRequest) -> http_api.RegisterResponse:
        """Makes an account with its first device and its private namespace, or nothing."""
        return await self._post_openly("/v1/auth/register", request, http_api.RegisterResponse)

    async def challenge(self, request: http_api.ChallengeRequest) -> http_api.ChallengeResponse:
        """Asks for a nonce, and for how to stretch the password."""
        return await self._post_openly("/v1/auth/challenge", request, http_api.ChallengeResponse)

    async def login(self, request: http_api.LoginRequest) -> http_api.LoginResponse:
        """Answers a challenge with a login key's signature."""
        return await self._post_openly("/v1/auth/login", request, http_api.LoginResponse)

    async def logout(self) -> None:
        """Ends the present token."""
        await self._ask("POST", "/v1/auth/logout", body=http_api.EmptyBody())

    async def devices(self) -> http_api.DevicesResponse:
        """The account's devices, as the server sees them."""
        answer = await self._ask("GET", "/v1/devices")
        return self._read(answer, http_api.DevicesResponse)

    async def account_log(self, account: AccountId, start: int = 0) -> http_api.LogResponse:
        """One stretch of an account's log, from an index on."""
        return await self._log(f"/v1/accounts/{account}/log", start)

    async def whole_account_log(self, account: AccountId) -> list[bytes]:
        """All events of an account's log, unverified."""
        return await self._whole_log(f"/v1/accounts/{account}/log")

    async def append_account_log(
        self, account: AccountId, expected_head: EventId, events: Sequence[bytes]
    ) -> http_api.LogResponse:
        """Appends when the head is the expected one.

        Raises:
            RefusedError: `head_mismatch` when it is another; its body has the present head.
        """
        return await self._append(f"/v1/accounts/{account}/log", expected_head, events)

    async def namespaces(self) -> http_api.NamespacesResponse:
        """The namespaces that the account is a member of."""
        return self._read(await self._ask("GET", "/v1/namespaces"), http_api.NamespacesResponse)

    async def create_namespace(self, events: Sequence[bytes]) -> http_api.LogResponse:
        """Makes a namespace from the first events of its log."""
        body = http_api.CreateNamespaceRequest(tuple(events))
        answer = await self._ask("POST", "/v1/namespaces", body=body)
        return self._read(answer, http_api.LogResponse)

    async def namespace_log(self, namespace: NamespaceId, start: int = 0) -> http_api.LogResponse:
        """One stretch of a namespace's log, from an index on."""
        return await self._log(f"/v1/namespaces/{namespace}/log", start)

    async def whole_namespace_log(self, namespace: NamespaceId) -> list[bytes]:
        """All events of a namespace's log, unverified."""
        return await self._whole_log(f"/v1/namespaces/{namespace}/log")

    async def append_namespace_log(
        self, namespace: NamespaceId, expected_head: EventId, events: Sequence[bytes]
    ) -> http_api.LogResponse:
        """As `append_account_log`, for a namespace."""
        return await self._append(f"/v1/namespaces/{namespace}/log", expected_head, events)

    async def commit(
        self, namespace: NamespaceId, records: Sequence[bytes]
    ) -> http_api.CommitResponse:
        """Hands over signed records as they travel (at most `MAX_COMMIT_RECORDS`, 8 MiB in all).

        Returns:
            One result per record, in their order: a position, or why it was refused.
        """
        body = http_api.CommitRequest(tuple(records))
        answer = await self._ask("POST", f"/v1/namespaces/{namespace}/records", body=body)
        response = self._read(answer, http_api.CommitResponse)
        if len(response.results) != len(records):
            raise self._malformed("the answer to a commit does not match its records")
        return response

    async def delta(
        self,
        namespace: NamespaceId,
        cursor: Cursor | None,
        limit: int = http_api.MAX_DELTA_RECORDS,
    ) -> http_api.DeltaResponse:
        """One page of the records after a cursor; from the first record on when it is None.

        Raises:
            RefusedError: `journal_epoch_changed` when the cursor is of another journal epoch; its
                body has the present one.
        """
        query = {"limit": str(limit)}
        if cursor is not None:
            query["cursor"] = str(cursor)
        answer = await self._ask("GET", f"/v1/namespaces/{namespace}/records", query=query)
        return self._read(answer, http_api.DeltaResponse)

    async def bury(self, namespace: NamespaceId, burial: bytes) -> None:
        """Hands a signed burial over; on return it is durable."""
        body = http_api.BuryRequest(burial)
        await self._ask("POST", f"/v1/namespaces/{namespace}/burials", body=body)

    async def burials(self, namespace: NamespaceId, after: int) -> http_api.BurialsResponse:
        """Burials with greater numbers, ascending, unverified."""
        path = f"/v1/namespaces/{namespace}/burials"
        answer = await self._ask("GET", path, query={"after": str(after)})
        return self._read(answer, http_api.BurialsResponse)

    async def missing_blocks(
        self, namespace: NamespaceId, blocks: Sequence[BlockId]
    ) -> frozenset[BlockId]:
        """Which of these blocks the namespace lacks; those it has are leased for a day."""
        missing: set[BlockId] = set()
        path = f"/v1/namespaces/{namespace}/blocks/missing"
        for start in range(0, len(blocks), http_api.MAX_BLOCK_LIST):
            asked = http_api.BlockList(tuple(blocks[start : start + http_api.MAX_BLOCK_LIST]))
            answer = await self._ask("POST", path, body=asked)
            missing.update(self._read(answer, http_api.BlockList).blocks)
        return frozenset(missing & set(blocks))

    async def put_block(self, namespace: NamespaceId, block: BlockId, frame: bytes) -> None:
        """Stores a sealed block. Storing what is there already is a success."""
        await self._ask(
            "PUT",
            f"/v1/namespaces/{namespace}/blocks/{block}",
            content=frame,
            content_type=_BYTES,
            deadline_s=_BLOCK_DEADLINE_S,
        )

    async def get_block(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """The frame of a sealed block; its SHA-256 is the id.

        Raises:
            RefusedError: `not_found`, among others.
            ServerError: `block_mismatch` when other bytes came than were asked for.
        """
        digest = hashlib.sha256()
        answer = await self._ask(
            "GET",
            f"/v1/namespaces/{namespace}/blocks/{block}",
            accept=_BYTES,
            deadline_s=_BLOCK_DEADLINE_S,
            max_bytes=http_api.MAX_BLOCK_BYTES,
            # Hashed piece by piece: all of 4 MiB at once would hold the node's loop for 2 ms.
            digest=digest,
        )
        if digest.digest() != block:
            raise ServerError(
                ErrorCode.BLOCK_MISMATCH,
                f"the server sent {len(answer.content)} bytes that are not block {block}",
            )
        return answer.content

    async def events(self, cursor: str | None, timeout_s: int) -> http_api.EventsResponse:
        """Long poll: answers when the state is another than the cursor's, or after the timeout.

        Args:
            cursor: of the last answer; None answers at once.
            timeout_s: at most `MAX_WAIT_S`.
        """
        query = {"timeout_s": str(timeout_s)}
        if cursor is not None:
            query["cursor"] = cursor
        wait_s = timeout_s + _POLL_SLACK_S
        answer = await self._ask(
            "GET", "/v1/events", query=query, deadline_s=wait_s + IDLE_TIMEOUT_S, idle_s=wait_s
        )
        return self._read(answer, http_api.EventsResponse)

    def event_stream(self) -> AbstractAsyncContextManager[EventStream]:
        """Opens the WebSocket that tells of every change; iterate over what it gives.

        The stream ends with a `ServerError` alone: closed, silent, or with a token that ran out.
        """
        assert self._tokens is not None, "an event stream needs credentials"
        return open_event_stream(self._dialer, self._tokens)

    async def _refresh(self, request: http_api.RefreshRequest) -> http_api.TokenResponse:
        return await self._post_openly("/v1/auth/refresh", request, http_api.TokenResponse)

    async def _post_openly(self, path: str, body: Body, kind: type[AnyBody]) -> AnyBody:
        answer = await self._transport.request(
            Call(
                "POST",
                path,
                deadline_s=_CALL_DEADLINE_S,
                headers={"content-type": _MSGPACK},
                content=body.to_wire(),
            )
        )
        return self._read(answer, kind)

    async def _log(self, path: str, start: int) -> http_api.LogResponse:
        answer = await self._ask("GET", path, query={"from": str(start)})
        return self._read(answer, http_api.LogResponse)

    async def _whole_log(self, path: str) -> list[bytes]:
        events: list[bytes] = []
        while True:
            page = await self._log(path, len(events))
            events.extend(page.events)
            if len(events) >= page.length:
                return events
            if not page.events or len(events) > MAX_LOG_EVENTS:
                raise self._malformed("a log that does not end")

    async def _append(
        self, path: str, expected_head: EventId, events: Sequence[bytes]
    ) -> http_api.LogResponse:
        body = http_api.AppendRequest(bytes(expected_head), tuple(events))
        return self._read(await self._ask("POST", path, body=body), http_api.LogResponse)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content: bytes | None = None,
        content_type: str = _MSGPACK,
        accept: str = _MSGPACK,
        deadline_s: float = _CALL_DEADLINE_S,
        idle_s: float = IDLE_TIMEOUT_S,
        max_bytes: int = MAX_BODY_BYTES,
        digest: hashlib._Hash | None = None,
    ) -> Answer:
        """Asks with the access token; renews it and asks again, once, when it was refused."""
        assert self._tokens is not None, f"{method} {path} needs credentials"
        payload = body.to_wire() if body is not None else content
        is_repetition = False
        while True:
            token = await self._tokens.current()
            headers = {"authorization": f"Bearer {token}", "accept": accept}
            if payload is not None:
                headers["content-type"] = content_type
            try:
                return await self._transport.request(
                    Call(
                        method,
                        path,
                        deadline_s=deadline_s,
                        headers=headers,
                        query=query or {},
                        content=payload,
                        idle_s=idle_s,
                        max_bytes=max_bytes,
                        on_chunk=None if digest is None else digest.update,
                    )
                )
            except RefusedError as error:
                if is_repetition or not error.is_about_token or not self._tokens.refused(token):
                    raise
            is_repetition = True

    def _read(self, answer: Answer, kind: type[AnyBody]) -> AnyBody:
        try:
            return kind.from_wire(answer.content)
        except RemoteProtocolError as error:
            raise self._malformed(str(error)) from error

    def _malformed(self, what: str) -> ServerError:
        return ServerError(
            ErrorCode.MALFORMED, f"{self.address.base_url} does not follow the protocol: {what}"
        )


def _clock_ahead_s(answer: Answer) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None
