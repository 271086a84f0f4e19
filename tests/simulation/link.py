"""The network between one device and the server, and the node's real client over it.

Owns what goes wrong on the way: delay (and so reordering), requests and answers that get lost or come
twice, partitions in both directions or one, a server that is not there. The bytes are those that would
travel. Called by `device`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

import trio

from node.errors import ServerError
from node.net.access_tokens import Credentials
from node.net.dialer import timed_out, unreachable
from node.net.event_stream import EventStream
from node.net.http_transport import Answer, Call, HttpTransport, RefusedError
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from protocol.http_api import ErrorBody, EventsResponse
from tests.simulation.accounts import SERVER
from tests.simulation.simulated_server import SimulatedServer
from tests.simulation.trace import Trace

_SILENCE_S = 35.0  # of an event stream until it counts as broken, as in `node.net.event_stream`


class Cut(Enum):
    """Which way a partition holds."""

    NONE = "none"
    BOTH = "both"
    REQUESTS = "requests"
    ANSWERS = "answers"


@dataclass
class Weather:
    """How the network is at present: chances are within 0..1, delays in seconds each way."""

    delay_s: tuple[float, float] = (0.005, 0.05)
    lost_requests: float = 0.0
    lost_answers: float = 0.0
    repeated: float = 0.0
    cut: Cut = Cut.NONE


@dataclass
class Link:
    """One device's way to the server.

    Attributes:
        is_dead: the node behind it has crashed: nothing it still sends leaves the machine.
    """

    name: str
    server: SimulatedServer
    randomness: random.Random
    trace: Trace
    nursery: trio.Nursery
    weather: Weather = field(default_factory=Weather)
    is_dead: bool = False

    def client(self, credentials: Credentials) -> SimulatedClient:
        """The node's client over this link."""
        return SimulatedClient(self, credentials)

    def wakes(self) -> None:
        """A node is started behind it."""
        self.is_dead = False

    async def pass_time(self) -> None:
        """The way in one direction."""
        await trio.sleep(self.randomness.uniform(*self.weather.delay_s))

    def is_lost(self, chance: float, cuts: tuple[Cut, ...]) -> bool:
        """Whether what goes one way now is lost."""
        is_lost = self.weather.cut in cuts or self.randomness.random() < chance
        return is_lost or self.is_dead


class _Transport(HttpTransport):
    """In place of sockets."""

    def __init__(self, link: Link, address: ServerAddress) -> None:
        self._link = link
        self._address = address
        super().__init__(None, 1)  # type: ignore[arg-type]

    @property
    def address(self) -> ServerAddress:
        return self._address

    async def request(self, call: Call) -> Answer:
        link = self._link
        if link.is_dead:
            await trio.sleep_forever()
        try:
            with trio.fail_after(min(call.deadline_s, call.idle_s)):
                answer = await self._exchanged(call)
        except trio.TooSlowError as error:
            link.trace.note("timeout", link.name, call.method, _route(call.path))
            raise timed_out(self._address, call.path) from error
        if answer is None:
            raise unreachable(self._address, ConnectionResetError("the server is down"))
        status, headers, content = answer
        link.trace.note("answer", link.name, call.method, _route(call.path), status, len(content))
        if status >= 400:
            raise RefusedError(status, ErrorBody.from_wire(content))
        if call.on_chunk is not None:
            call.on_chunk(content)
        return Answer(status, headers, content)

    async def _exchanged(self, call: Call) -> tuple[int, dict[str, str], bytes] | None:
        link, weather = self._link, self._link.weather
        await link.pass_time()
        if link.is_lost(weather.lost_requests, (Cut.BOTH, Cut.REQUESTS)):
            link.trace.note("lost_request", link.name, call.method, _route(call.path))
            await trio.sleep_forever()
        if not link.server.is_up:
            link.trace.note("server_is_down", link.name)
            return None
        if link.randomness.random() < weather.repeated:
            link.trace.note("repeated", link.name, call.method, _route(call.path))
            link.nursery.start_soon(self._repeat, call)
        answer = await self._asked(call)
        await link.pass_time()
        if link.is_lost(weather.lost_answers, (Cut.BOTH, Cut.ANSWERS)):
            link.trace.note("lost_answer", link.name, call.method, _route(call.path))
            await trio.sleep_forever()
        return answer

    async def _repeat(self, call: Call) -> None:
        """The same request once more, a while later: nobody waits for its answer."""
        await trio.sleep(self._link.randomness.uniform(0, 20))
        await self._asked(call)

    async def _asked(self, call: Call) -> tuple[int, dict[str, str], bytes] | None:
        return await self._link.server.ask(
            call.method,
            call.path,
            dict(call.query),
            {"accept": "application/msgpack", **call.headers},
            call.content or b"",
        )


class SimulatedClient(ServerClient):
    """The real client, with the transport and the event stream of a simulation."""

    def __init__(self, link: Link, credentials: Credentials) -> None:
        super().__init__(ServerAddress.parse(SERVER), credentials)
        self._link = link
        self._transport = _Transport(link, ServerAddress.parse(SERVER))

    def event_stream(self) -> AbstractAsyncContextManager[EventStream]:
        return self._open_stream()  # type: ignore[return-value]

    @asynccontextmanager
    async def _open_stream(self) -> AsyncIterator[_Stream]:
        link = self._link
        assert self._tokens is not None
        token = await self._tokens.current()
        await link.pass_time()
        if link.weather.cut is not Cut.NONE or link.is_dead:
            await trio.sleep(15)
            raise timed_out(self.address, "no WebSocket handshake")
        if not link.server.is_up:
            raise unreachable(self.address, ConnectionRefusedError("the server is down"))
        async with link.server.events(token) as states:
            yield _Stream(link, states, self.address)


class _Stream:
    """What comes over the WebSocket."""

    def __init__(
        self,
        link: Link,
        states: trio.MemoryReceiveChannel[EventsResponse],
        address: ServerAddress,
    ) -> None:
        self._link = link
        self._states = states
        self._address = address

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> EventsResponse:
        try:
            with trio.fail_after(_SILENCE_S):
                while True:
                    state = await self._states.receive()
                    await self._link.pass_time()
                    if not self._link.is_lost(0, (Cut.BOTH, Cut.ANSWERS)):
                        return EventsResponse.from_wire(state.to_wire())
        except trio.TooSlowError as error:
            raise timed_out(self._address, "the event stream is silent") from error
        except trio.EndOfChannel as error:
            raise ServerError("stream_closed", "it was closed", is_transient=True) from error


def _route(path: str) -> str:
    """A path that reads well in a trace."""
    return "/".join(
        part if len(part) < 20 else hashlib.sha256(part.encode()).hexdigest()[:6]
        for part in path.split("/")
    )
