"""The server of a simulation: the product's services over stores in memory, with crashes.

A request is bytes in and bytes out, through the same bodies as over HTTP. Called by the network.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import trio

from protocol.body_codec import Body
from protocol.http_api import (
    AppendRequest,
    BlockList,
    BuryRequest,
    ChallengeRequest,
    CommitRequest,
    Cursor,
    EmptyBody,
    ErrorBody,
    ErrorCode,
    RefreshRequest,
)
from protocol.ids import AccountId, BlockId, NamespaceId
from server.errors import ApiError
from server.services.all_services import Services
from server.services.ports import Surroundings
from server.services.sessions import Session
from tests.server.fakes.memory_blobs import MemoryBlockStore
from tests.server.fakes.memory_store import MemoryStore

Result = TypeVar("Result")


class InlineWorker:
    """In place of threads."""

    async def run(self, work: Callable[[], Result]) -> Result:
        return work()


async def services_over(
    store: MemoryStore,
    blobs: MemoryBlockStore,
    now_s: Callable[[], int],
    token_bytes: Callable[[int], bytes],
) -> Services:
    """The services as a server has them, but for threads."""
    return await Services.over(
        store,
        blobs,
        Surroundings(now_s=now_s, token_bytes=token_bytes, worker=InlineWorker()),
        server_id=b"i" * 32,
        token_lifetime_s=600,
        needs_invitation=False,
    )


@dataclass(frozen=True)
class Request:
    """One request as bytes."""

    method: str
    path: str
    query: Mapping[str, str]
    token: str | None
    content: bytes


class RefusalError(Exception):
    """The server's answer is no."""

    def __init__(self, status: int, body: ErrorBody) -> None:
        super().__init__(body.code)
        self.status = status
        self.body = body


class SimulatedServer:
    """One server process after another, over one pair of stores."""

    def __init__(
        self,
        store: MemoryStore,
        now_s: Callable[[], int],
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self.store = store
        self.blobs = MemoryBlockStore()
        self._now_s = now_s
        self._token_bytes = token_bytes
        self._services: Services | None = None
        self._nursery: trio.Nursery | None = None
        self.is_wanted = True
        self._changed = trio.Event()

    @property
    def head(self) -> int:
        """The position of its last record."""
        return sum(namespace.head for namespace in self.store._namespaces.values())

    @property
    def burials(self) -> int:
        """The number of its last burial."""
        return sum(len(namespace.burials) for namespace in self.store._namespaces.values())

    @property
    def is_up(self) -> bool:
        return self._services is not None

    async def run(self) -> None:
        """Serve whenever the server is wanted, until cancelled."""
        while True:
            if self.is_wanted:
                self._services = await services_over(
                    self.store, self.blobs, self._now_s, self._token_bytes
                )
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._next_change()
                    self._services = self._nursery = None
                    nursery.cancel_scope.cancel()
            else:
                await self._next_change()

    async def _next_change(self) -> None:
        while self.is_wanted == self.is_up:
            await self._changed.wait()
            self._changed = trio.Event()

    def switch(self, *, is_wanted: bool) -> None:
        """Start it, or let it die at whatever it awaits."""
        self.is_wanted = is_wanted
        self._changed.set()

    def start(self, function: Callable[..., Awaitable[None]], *arguments: object) -> bool:
        """Carry something out that ends with this process of the server; False when it is down."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(function, *arguments)
        return True

    async def collect(self) -> None:
        """The nightly round."""
        assert self._services is not None
        await self._services.collector.collect()

    async def answer(self, request: Request) -> bytes:
        """The answer's body.

        Raises:
            RefusalError: as the error's body says.
        """
        await trio.lowlevel.checkpoint()
        assert self._services is not None
        try:
            return await self._route(self._services, request)
        except ApiError as error:
            raise RefusalError(error.status, ErrorBody.from_wire(error.body.to_wire())) from error

    async def states(self, token: str) -> AsyncGenerator[bytes, None]:
        """What the event stream says."""
        assert self._services is not None
        services = self._services
        session = await services.sessions.authenticate(token)
        async for state in services.events.stream(session):
            yield state.to_wire()

    async def _route(self, services: Services, request: Request) -> bytes:
        parts = request.path.removeprefix("/v1/").split("/")
        match request.method, parts:
            case "POST", ["auth", "challenge"]:
                return _wire(
                    await services.sessions.challenge(ChallengeRequest.from_wire(request.content))
                )
            case "POST", ["auth", "refresh"]:
                return _wire(
                    await services.sessions.refresh(RefreshRequest.from_wire(request.content))
                )
        session = await services.sessions.authenticate(request.token or "")
        match request.method, parts:
            case "GET", ["accounts", account, "log"]:
                start = int(request.query["from"])
                return _wire(
                    await services.accounts.read_log(session, AccountId.parse(account), start)
                )
            case "GET", ["events"]:
                timeout_s = int(request.query["timeout_s"])
                cursor = request.query.get("cursor")
                return _wire(await services.events.poll(session, cursor, timeout_s))
            case _, ["namespaces", namespace, *rest]:
                place = NamespaceId.parse(namespace)
                return await self._in_namespace(services, session, place, request, rest)
        raise ApiError(404, ErrorCode.NOT_FOUND, f"{request.method} {request.path}")

    async def _in_namespace(
        self,
        services: Services,
        session: Session,
        place: NamespaceId,
        request: Request,
        parts: list[str],
    ) -> bytes:
        match request.method, parts:
            case "GET", ["log"]:
                start = int(request.query["from"])
                return _wire(await services.namespaces.read_log(session, place, start))
            case "POST", ["log"]:
                append = AppendRequest.from_wire(request.content)
                return _wire(await services.namespaces.append_log(session, place, append))
            case "POST", ["records"]:
                commit = CommitRequest.from_wire(request.content)
                return _wire(await services.journal.commit(session, place, commit))
            case "GET", ["records"]:
                text = request.query.get("cursor")
                cursor = Cursor.parse(text) if text else None
                limit = int(request.query["limit"])
                return _wire(await services.journal.delta(session, place, cursor, limit))
            case "POST", ["burials"]:
                bury = BuryRequest.from_wire(request.content)
                return _wire(await services.burials.bury(session, place, bury))
            case "GET", ["burials"]:
                after = int(request.query["after"])
                return _wire(await services.burials.after(session, place, after))
            case "POST", ["blocks", "missing"]:
                question = BlockList.from_wire(request.content)
                return _wire(await services.blocks.missing(session, place, question))
            case "PUT", ["blocks", block]:
                content = _pieces(request.content)
                await services.blocks.put(session, place, BlockId.parse(block), content)
                return EmptyBody().to_wire()
            case "GET", ["blocks", block]:
                async with services.blocks.get(session, place, BlockId.parse(block)) as stored:
                    return await stored.read(0, stored.size_bytes)
        raise ApiError(404, ErrorCode.NOT_FOUND, f"{request.method} {request.path}")


def _wire(body: Body) -> bytes:
    return body.to_wire()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 64 * 1024):
        yield content[start : start + 64 * 1024]
        await trio.lowlevel.checkpoint()
