"""What the event stream makes of a server that misbehaves. A real socket, scripted bytes."""

from __future__ import annotations

import base64
import hashlib

import pytest
import trio
import trio.testing

from node.errors import ServerError
from node.net import event_stream
from node.net.access_tokens import TokenCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from protocol.http_api import ErrorBody, EventsResponse
from protocol.ids import NamespaceId
from tests.node.net.scripted_server import Received, answer, scripted

STATE = EventsResponse("cursor", "epoch", {NamespaceId(b"n" * 32): 7}, 3, {})
WRONG_ACCEPT = (
    b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: bm8=\r\n\r\n"
)
BINARY, PING, CLOSE, CONTINUATION, LAST = 0x2, 0x9, 0x8, 0x0, 0x80


def handshake(request: Received) -> bytes:
    key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    """A frame of RFC 6455, section 5.2, unmasked."""
    if len(payload) < 126:
        return bytes([opcode, len(payload)]) + payload
    if len(payload) < 65536:
        return bytes([opcode, 126]) + len(payload).to_bytes(2, "big") + payload
    return bytes([opcode, 127]) + len(payload).to_bytes(8, "big") + payload


async def collect(client: ServerClient, found: list[EventsResponse]):
    async with client.event_stream() as events:
        async for state in events:
            found.append(state)  # noqa: PERF401 - it ends by an error, and what came is kept


async def states(*frames: bytes, hang_up: bool = False):
    """The states that a client reads from these frames, and the error that ends them."""
    closing = b"connection: close" if hang_up else b""

    def respond(request):
        greeting = handshake(request).replace(b"\r\n\r\n", b"\r\nx-note: " + closing + b"\r\n\r\n")
        return greeting + b"".join(frames)

    async with scripted(respond) as server:
        address = ServerAddress.parse(server.url)
        async with ServerClient(address, TokenCredentials("t0ken")) as client:
            found: list[EventsResponse] = []
            with pytest.raises(ServerError) as failure:
                await collect(client, found)
        assert server.seen[0].target == "/v1/events/ws"
        assert server.seen[0].headers["authorization"] == "Bearer t0ken"
    return found, failure.value


async def test_states_arrive_whole_in_pieces_and_between_pings():
    wire = STATE.to_wire()
    found, failure = await states(
        frame(LAST | BINARY, wire),
        frame(LAST | PING, b"?"),
        frame(BINARY, wire[:10]),
        frame(LAST | PING, b"?"),
        frame(LAST | CONTINUATION, wire[10:]),
        frame(LAST | CLOSE, b"\x03\xe8"),
    )
    assert found == [STATE, STATE]
    assert failure.is_transient


@pytest.mark.parametrize(
    "garbage",
    [
        frame(LAST | BINARY, b"\xc1"),
        frame(LAST | BINARY, b"\x80"),
        frame(LAST | BINARY, b"x" * (event_stream._MAX_MESSAGE_BYTES + 1)),
        frame(BINARY, b"x" * event_stream._MAX_MESSAGE_BYTES) + frame(CONTINUATION, b"xx"),
    ],
    ids=["not msgpack", "another body", "too long", "no end"],
)
async def test_garbage_is_an_error_that_does_not_call_for_another_try(garbage):
    found, failure = await states(garbage)
    assert found == []
    assert failure.code == "malformed"
    assert not failure.is_transient


@pytest.mark.parametrize(
    ("frames", "hang_up"),
    [
        (frame(LAST | CLOSE, b"\x03\xf4restart"), False),
        (b"", True),
        (b"\x82", True),
        (frame(LAST | CONTINUATION, b"x"), False),
        (frame(LAST | 0x5, b"x"), False),
    ],
    ids=["closed", "hung up", "cut off", "no beginning", "unknown opcode"],
)
async def test_an_end_is_an_error_that_calls_for_another_try(frames, hang_up):
    found, failure = await states(frames, hang_up=hang_up)
    assert found == []
    assert failure.is_transient


@pytest.mark.parametrize(
    ("raw", "code", "is_transient"),
    [
        (answer(b"hello"), "http_200", False),
        (answer(b"", 502), "http_502", True),
        (answer(b"", 302, "location: /elsewhere\r\n"), "http_302", False),
        (answer(ErrorBody("overloaded", "later", retryable=True), 503), "overloaded", True),
        (answer(ErrorBody("device_revoked", "no", retryable=False), 401), "device_revoked", False),
        (b"", "stream_closed", True),
        (b"SMTP ready\r\n\r\n", "unreachable", True),
        (WRONG_ACCEPT, "unreachable", True),
    ],
    ids=["200", "502", "302", "overloaded", "revoked", "hung up", "not http", "wrong accept"],
)
async def test_a_handshake_that_fails_says_how(raw, code, is_transient):
    async with scripted(lambda _: raw) as server:
        address = ServerAddress.parse(server.url)
        async with ServerClient(address, TokenCredentials("t0ken")) as client:
            with pytest.raises(ServerError) as failure:
                async with client.event_stream():
                    raise AssertionError("it opened")
    assert (failure.value.code, failure.value.is_transient) == (code, is_transient)


async def test_a_silent_server_is_asked_whether_it_is_there_and_then_given_up(mock_clock):
    received = []

    async def serve(stream):
        data = await stream.receive_some(65536)
        lines = data.decode().split("\r\n")[1:-2]
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        await stream.send_all(handshake(Received("GET", "/", headers, b"")))
        received.append(await stream.receive_some(65536))
        await trio.sleep_forever()

    failures: list[ServerError] = []

    async def listen(client):
        try:
            async with client.event_stream() as events:
                listening.set()
                await anext(events)
        except ServerError as error:
            failures.append(error)

    listening = trio.Event()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        address = ServerAddress.parse(f"http://127.0.0.1:{port}")
        async with (
            ServerClient(address, TokenCredentials("t0ken")) as client,
            trio.open_nursery() as asking,
        ):
            asking.start_soon(listen, client)
            await listening.wait()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(19)
            await trio.testing.wait_all_tasks_blocked()
            assert received == []
            mock_clock.jump(2)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert received[0][0] == LAST | PING
            mock_clock.jump(16)
        nursery.cancel_scope.cancel()
    assert [failure.code for failure in failures] == ["timeout"]
    assert failures[0].is_transient
