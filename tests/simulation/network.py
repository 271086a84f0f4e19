"""The network of a simulation: one link from each device to the server.

A link delays, reorders, duplicates and drops what goes either way, and can be cut in one direction
or both. Over it runs the product's own client, which gets a transport that carries bytes through the
link instead of a socket. Called by the devices.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from node.net.access_tokens import DeviceCredentials
from node.net.dialer import timed_out, unreachable
from node.net.http_transport import Answer, Call, RefusedError, TransferCounters
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from protocol.http_api import EventsResponse
from server.errors import ApiError
from tests.simulation.enrolled_account import SERVER_URL
from tests.simulation.simulated_server import RefusalError, Request, SimulatedServer

PATIENCE_S = 20.0  # a lost request or answer is noticed after so long
POLL_PATIENCE_S = 60.0
SILENCE_S = 75.0  # an event stream that says nothing for so long is given up


@dataclass
class Weather:
    """What a link does to what goes over it: chances within 0..1 and delays in seconds."""

    delay_s: float = 0.02
    slow: float = 0.0
    dropped: float = 0.0
    duplicated: float = 0.0


class Link:
    """The way between one device and the server."""

    def __init__(self, server: SimulatedServer, seed: str, counts: Counter[str]) -> None:
        self.weather = Weather()
        self.is_cut_up = False
        self.is_cut_down = False
        self.counts = counts
        self._server = server
        self._random = random.Random(seed)
        self._address = ServerAddress.parse(SERVER_URL)

    def heal(self) -> None:
        """Nothing is lost from now on."""
        self.weather = Weather()
        self.is_cut_up = self.is_cut_down = False

    async def ask(self, request: Request) -> bytes:
        """Carry a request there and its answer back.

        Raises:
            ServerError: lost on the way, or the server died.
            RefusalError: the server refused.
        """
        what = f"{request.method} {request.path}"
        is_poll = request.path == "/v1/events"
        answers, inbox = trio.open_memory_channel[bytes | RefusalError](2)
        copies = 2 if self._happens(self.weather.duplicated) else 1
        self.counts["duplicated requests"] += copies - 1
        answer: bytes | RefusalError | None = None
        is_broken = False
        async with trio.open_nursery() as nursery:
            for _ in range(copies):
                nursery.start_soon(self._go, request, answers.clone())
            answers.close()
            with trio.move_on_after(POLL_PATIENCE_S if is_poll else PATIENCE_S):
                try:
                    answer = await inbox.receive()
                except trio.EndOfChannel:
                    is_broken = True
            nursery.cancel_scope.cancel()
        if is_broken:
            raise unreachable(self._address, ConnectionResetError("the connection broke"))
        if answer is None:
            raise timed_out(self._address, what)
        if isinstance(answer, RefusalError):
            raise answer
        return answer

    async def _go(
        self, request: Request, answers: trio.MemorySendChannel[bytes | RefusalError]
    ) -> None:
        """One copy of a request. The server carries it out even if nobody waits any more."""
        with answers:
            await trio.sleep(self._delay_s())
            if self._is_lost(self.is_cut_up):
                self.counts["lost requests"] += 1
                await trio.sleep_forever()
            if not self._server.start(self._serve, request, answers.clone()):
                self.counts["refused connections"] += 1
                return
            await trio.sleep_forever()

    async def _serve(
        self, request: Request, answers: trio.MemorySendChannel[bytes | RefusalError]
    ) -> None:
        with answers:
            answer: bytes | RefusalError
            try:
                answer = await self._server.answer(request)
            except RefusalError as error:
                answer = error
            await trio.sleep(self._delay_s())
            if self._is_lost(self.is_cut_down):
                self.counts["lost answers"] += 1
                return
            try:
                answers.send_nowait(answer)
            except (trio.BrokenResourceError, trio.WouldBlock):
                self.counts["late answers"] += 1

    async def states(self, token: str) -> AsyncGenerator[EventsResponse, None]:
        """The event stream over this link; ends with a `ServerError` alone."""
        states, inbox = trio.open_memory_channel[bytes | RefusalError](1000)
        await trio.sleep(self._delay_s())
        if self._is_lost(self.is_cut_up):
            await trio.sleep(PATIENCE_S)
            raise timed_out(self._address, "the event stream")
        if not self._server.start(self._tell, token, states):
            raise unreachable(self._address, ConnectionRefusedError("down"))
        with inbox:
            while True:
                with trio.move_on_after(SILENCE_S) as silence:
                    try:
                        state = await inbox.receive()
                    except trio.EndOfChannel as error:
                        raise unreachable(self._address, error) from error
                if silence.cancelled_caught:
                    raise timed_out(self._address, "the event stream")
                if isinstance(state, RefusalError):
                    raise RefusedError(state.status, state.body)
                yield EventsResponse.from_wire(state)

    async def _tell(self, token: str, states: trio.MemorySendChannel[bytes | RefusalError]) -> None:
        with states, suppress(trio.BrokenResourceError, trio.WouldBlock):
            try:
                async with aclosing(self._server.states(token)) as told:
                    async for state in told:
                        await trio.sleep(self._delay_s())
                        if not self.is_cut_down:
                            states.send_nowait(state)
            except ApiError as error:
                states.send_nowait(RefusalError(error.status, error.body))

    def _is_lost(self, is_cut: bool) -> bool:
        return is_cut or self._happens(self.weather.dropped)

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._random.random() < chance

    def _delay_s(self) -> float:
        if self._happens(self.weather.slow):
            self.counts["slow messages"] += 1
            return self._random.uniform(1, 15)
        return self._random.uniform(0, 2 * self.weather.delay_s)


class LinkTransport:
    """In place of HTTP: carries the client's calls over a link."""

    def __init__(self, link: Link, address: ServerAddress) -> None:
        self._link = link
        self.address = address
        self.counters = TransferCounters()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def request(self, call: Call) -> Answer:
        token = call.headers.get("authorization", "").removeprefix("Bearer ") or None
        request = Request(call.method, call.path, call.query, token, call.content or b"")
        try:
            content = await self._link.ask(request)
        except RefusalError as error:
            raise RefusedError(error.status, error.body) from error
        if call.on_chunk is not None:
            call.on_chunk(content)
        return Answer(200, {}, content)


class SimulatedClient(ServerClient):
    """The product's client, over a link."""

    def __init__(self, link: Link, credentials: DeviceCredentials) -> None:
        address = ServerAddress.parse(SERVER_URL)
        super().__init__(address, credentials)
        self._link = link
        self._transport: Any = LinkTransport(link, address)

    def event_stream(self) -> Any:
        return self._stream()

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[AsyncIterator[EventsResponse]]:
        assert self._tokens is not None
        token = await self._tokens.current()
        async with aclosing(self._renewing(token)) as states:
            yield states

    async def _renewing(self, token: str) -> AsyncGenerator[EventsResponse, None]:
        assert self._tokens is not None
        try:
            async with aclosing(self._link.states(token)) as states:
                async for state in states:
                    yield state
        except RefusedError as error:
            if error.is_about_token:
                self._tokens.refused(token)
            raise
