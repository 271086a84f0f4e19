"""The control socket from both ends: a real socket, the server on trio, the client in a thread."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from node.control import server as server_module
from node.control.client import ControlClient
from node.control.messages import MAX_REQUEST_BYTES, SOCKET_NAME, Answer, ControlError, Request
from node.control.server import ControlServer
from node.errors import ServerError, StorageError
from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.framing import encode_frame


@pytest.fixture
def home(tmp_path: Path) -> Path:
    # Longer than the 107 bytes that the address of a Unix socket holds.
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    return deep


@asynccontextmanager
async def serving(home: Path, **handlers):
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(home, handlers).serve)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


def call(home: Path, command: str, timeout_s: float = 10.0, **arguments):
    with ControlClient(home) as client:
        return client.call(command, arguments, timeout_s=timeout_s)


async def in_thread(function, *arguments, **named):
    return await trio.to_thread.run_sync(partial(function, *arguments, **named))


async def echo(arguments):
    return {"got": dict(arguments)}


async def test_a_command_gets_its_arguments_and_its_result_comes_back(home):
    async with serving(home, echo=echo):
        result = await in_thread(call, home, "echo", path="/a b", n=3, none=None, raw=b"\xff")
    assert result == {"got": {"path": "/a b", "n": 3, "none": None, "raw": b"\xff"}}


async def test_the_socket_is_for_its_owner_alone_and_is_gone_after_the_end(home):
    async with serving(home, echo=echo):
        assert stat.S_IMODE((home / SOCKET_NAME).stat().st_mode) == 0o600
    assert not (home / SOCKET_NAME).exists()


async def test_a_socket_left_by_a_crash_does_not_stop_the_next_node(home):
    left_over = socket.socket(socket.AF_UNIX)
    descriptor = os.open(home, os.O_PATH)
    left_over.bind(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
    os.close(descriptor)
    left_over.close()
    with pytest.raises(ControlError, match="atoll run"):
        call(home, "echo")
    async with serving(home, echo=echo):
        assert await in_thread(call, home, "echo") == {"got": {}}


def test_without_a_node_the_error_says_how_to_start_one(home):
    for directory in (home, home / "missing"):
        with pytest.raises(ControlError) as failure:
            ControlClient(directory)
        assert failure.value.code == "not_running"
        assert "atoll run" in failure.value.message


async def test_errors_of_handlers_keep_their_sentence_and_their_code(home):
    async def full(arguments):
        raise StorageError(28, "the disk is full")

    async def offline(arguments):
        raise ServerError("unreachable", "cannot reach it", is_transient=True)

    async def chosen(arguments):
        raise ControlError("no_such_path", "there is no such file")

    async with serving(home, full=full, offline=offline, chosen=chosen):
        for command, code, message in (
            ("full", "failed", "the disk is full"),
            ("offline", "unreachable", "cannot reach it"),
            ("chosen", "no_such_path", "there is no such file"),
            ("other", "unknown_command", "the running node does not know 'other'"),
        ):
            with pytest.raises(ControlError) as failure:
                await in_thread(call, home, command)
            assert (failure.value.code, failure.value.message) == (code, message)


async def test_a_broken_handler_is_answered_and_the_server_goes_on(home):
    async def broken(arguments):
        raise ZeroDivisionError

    async def unsendable(arguments):
        return object()

    async with serving(home, broken=broken, unsendable=unsendable, echo=echo):
        for command in ("broken", "unsendable"):
            with pytest.raises(ControlError) as failure:
                await in_thread(call, home, command)
            assert failure.value.code == "internal"
        assert await in_thread(call, home, "echo") == {"got": {}}


async def test_another_user_is_refused_before_a_byte_is_read(home, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    ran = []

    async def noted(arguments):
        ran.append(arguments)

    async with serving(home, noted=noted):
        with pytest.raises(ControlError, match="ended before it answered"):
            await in_thread(call, home, "noted")
    assert ran == []


async def test_a_client_gives_up_at_its_timeout_and_the_command_is_cancelled(home):
    started, cancelled = trio.Event(), trio.Event()

    async def slow(arguments):
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(home, slow=slow):
        with pytest.raises(ControlError) as failure:
            await in_thread(call, home, "slow", timeout_s=0.05)
        assert failure.value.code == "timeout"
        with trio.fail_after(5):
            await started.wait()
            await cancelled.wait()


async def test_one_slow_command_does_not_hold_up_another_caller(home):
    async def slow(arguments):
        await trio.sleep_forever()

    async with serving(home, slow=slow, echo=echo), trio.open_nursery() as nursery:
        stream = await trio.open_unix_socket(short_path(home))
        await stream.send_all(encode_frame(Request(1, "slow").to_wire()))
        assert await in_thread(call, home, "echo") == {"got": {}}
        await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        (MAX_REQUEST_BYTES + 1).to_bytes(4, "big"),
        encode_frame(b"\xc1"),
        encode_frame(codec.pack_body([1, 2])),
        encode_frame(codec.pack_body({"id": -1, "command": "echo", "arguments": {}})),
        encode_frame(codec.pack_body({"id": 1, "command": 7, "arguments": {}})),
        encode_frame(codec.pack_body({"id": 1, "command": "echo", "arguments": []})),
    ],
)
async def test_garbage_ends_the_connection_and_nothing_else(home, garbage):
    async with serving(home, echo=echo):
        stream = await trio.open_unix_socket(short_path(home))
        await stream.send_all(garbage)
        with trio.fail_after(5):
            assert await stream.receive_some(100) == b""
        await stream.aclose()
        assert await in_thread(call, home, "echo") == {"got": {}}


async def test_more_callers_than_allowed_are_closed_at_once(home, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CALLERS", 2)
    async with serving(home, echo=echo):
        held = [await trio.open_unix_socket(short_path(home)) for _ in range(2)]
        for stream in held:
            await stream.send_all(encode_frame(Request(1, "echo").to_wire()))
            assert await stream.receive_some(100)
        with pytest.raises(ControlError):
            await in_thread(call, home, "echo")
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await in_thread(call, home, "echo") == {"got": {}}


async def test_a_caller_learns_that_the_node_has_ended(home):
    async with serving(home, echo=echo):
        client = await in_thread(ControlClient, home)
        assert not await in_thread(client.wait_for_end, 0.01)
    with client:
        assert await in_thread(client.wait_for_end, 5)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"id": 1, "error": None}, {"id": 1, "error": {"code": 1, "message": "x"}}],
)
def test_an_answer_that_is_none_is_refused(value):
    if value == {}:
        value = {"result": 1}
    with pytest.raises(RemoteProtocolError):
        Answer.from_wire(codec.pack_body(value))


def short_path(home: Path) -> str:
    # The descriptor stays open for the life of the test process.
    return f"/proc/self/fd/{os.open(home, os.O_PATH)}/{SOCKET_NAME}"
