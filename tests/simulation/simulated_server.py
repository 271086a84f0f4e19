"""A server without sockets: the real routes and services, over stores in memory.

Owns the life of the server: it serves, it dies at any await, it comes back with what was committed.
Requests run in its own tasks, so that a client that goes away does not take them along. Called by
`link`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import trio
from starlette.applications import Starlette

from protocol.http_api import EventsResponse
from server.app import build_app
from server.errors import ApiError
from server.services.all_services import Services
from server.services.ports import Surroundings
from server.settings import Settings
from tests.server.fakes.memory_blobs import MemoryBlockStore
from tests.server.fakes.memory_store import MemoryStore
from tests.simulation.accounts import the_account

Result = TypeVar("Result")

START_S = 1_700_000_100


class _InlineWorker:
    async def run(self, work: Callable[[], Result]) -> Result:
        await trio.lowlevel.checkpoint()
        return work()


class SimulatedServer:
    """One server of a world.

    Attributes:
        store, blobs: what it keeps; they outlive a crash.
    """

    def __init__(self, randomness: random.Random) -> None:
        self.store = MemoryStore()
        self.store._epoch = randomness.randbytes(8).hex()
        self.store._secret = randomness.randbytes(32)
        self.blobs = MemoryBlockStore()
        self._randomness = randomness
        self._app: Starlette | None = None
        self._services: Services | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return self._nursery is not None

    async def register_account(self) -> None:
        """Make the account of the world, with all of its devices."""
        services = await self._built()
        await services.accounts.register(the_account().registration())

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or crashed."""
        services = await self._built()
        settings = Settings(
            data=Path("/"),
            host="127.0.0.1",
            port=1,
            database=Path("/"),
            blobs=Path("/"),
            request_burst=10**9,
        )
        try:
            async with trio.open_nursery() as nursery:
                self._app, self._services = build_app(services, settings), services
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            services.notifier.close()

    def crash(self) -> None:
        """End at once, wherever the requests under way stand."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._nursery = None

    async def ask(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        content: bytes,
    ) -> tuple[int, dict[str, str], bytes] | None:
        """The answer to a request; None when the server died on the way."""
        if self._nursery is None:
            return None
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": urlencode(query).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1),
        }
        exchange = _Exchange(content)
        self._nursery.start_soon(self._handle, scope, exchange)
        await exchange.ended.wait()
        return exchange.answer

    async def _handle(self, scope: dict[str, Any], exchange: _Exchange) -> None:
        assert self._app is not None
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.ended.set()

    @asynccontextmanager
    async def events(self, token: str) -> AsyncIterator[trio.MemoryReceiveChannel[EventsResponse]]:
        """What the WebSocket of this token tells; it closes when the server ends or refuses."""
        send, receive = trio.open_memory_channel[EventsResponse](100)
        stopped = trio.CancelScope()
        if self._nursery is None:
            send.close()
        else:
            self._nursery.start_soon(self._pump, token, send, stopped)
        try:
            yield receive
        finally:
            stopped.cancel()

    async def _pump(
        self,
        token: str,
        send: trio.MemorySendChannel[EventsResponse],
        stopped: trio.CancelScope,
    ) -> None:
        assert self._services is not None
        services = self._services
        with send, stopped:
            try:
                session = await services.sessions.authenticate(token)
                async for state in services.events.stream(session):
                    await send.send(state)
            except ApiError:
                # Refused: the real socket closes as well, and the node asks anew.
                return

    async def _built(self) -> Services:
        surroundings = Surroundings(
            now_s=lambda: START_S + int(trio.current_time()),
            token_bytes=self._randomness.randbytes,
            worker=_InlineWorker(),
        )
        return await Services.over(
            self.store,
            self.blobs,
            surroundings,
            server_id=b"i" * 32,
            token_lifetime_s=30 * 24 * 3600,
            needs_invitation=False,
        )


class _Exchange:
    """One request and what became of it."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self._status = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.ended = trio.Event()

    async def receive(self) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        if self._content is None:
            await trio.sleep_forever()
        content, self._content = self._content, None
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
            self._status = status
            self._headers = {k.decode(): v.decode() for k, v in headers}
            return
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        self._pieces.append(body)
        if not message.get("more_body", False):
            self.answer = self._status, self._headers, b"".join(self._pieces)
