"""What goes to the kernel and in which order, with a socket in the place of its device."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing

from fusefs import invalidator as invalidator_module
from fusefs.invalidator import MAX_UNANSWERED, Invalidator, encode
from node.drive import Invalidation, StaleEntry, StaleInode

DEADLINE_S = 20


class Kernel:
    """The other end of a device; a message waits in it until it is read."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # So small that the writer waits for the reader after a few messages.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self._ours.settimeout(DEADLINE_S)
        self.device = theirs.detach()

    async def take(self) -> bytes:
        return await trio.to_thread.run_sync(self._ours.recv, 4096)

    def close(self) -> None:
        self._ours.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


def number_of(message: bytes) -> int:
    """The inode of a notification."""
    (inode,) = struct.unpack_from("=Q", message, 16)
    assert isinstance(inode, int)
    return inode


def test_notifications_have_the_form_of_the_kernel() -> None:
    """Byte by byte as in include/uapi/linux/fuse.h; `=` has no padding."""
    assert encode(StaleInode(7, data=True)) == struct.pack("=IiQQqq", 40, 2, 0, 7, 0, 0)
    assert encode(StaleInode(7, data=False)) == struct.pack("=IiQQqq", 40, 2, 0, 7, -1, 0)
    assert encode(StaleEntry(1, b"n\xff")) == struct.pack(
        "=IiQQII3s", 35, 3, 0, 1, 2, 0, b"n\xff\0"
    )


async def test_everything_arrives_in_order(kernel: Kernel) -> None:
    invalidator = Invalidator(kernel.device)
    sent = [StaleInode(number, data=number % 2 == 0) for number in range(500)]
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await invalidator.start()
            nursery.start_soon(invalidator.run, receiver)

            async def send_all() -> None:
                for invalidation in sent:
                    await sender.send(invalidation)

            nursery.start_soon(send_all)
            arrived = [await kernel.take() for _ in sent]
            nursery.cancel_scope.cancel()
        assert arrived == [encode(invalidation) for invalidation in sent]
        assert await invalidator.close(DEADLINE_S)


async def test_a_kernel_that_waits_holds_up_the_sender_not_the_memory(kernel: Kernel) -> None:
    invalidator = Invalidator(kernel.device)
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    sent = 0
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await invalidator.start()
            nursery.start_soon(invalidator.run, receiver)
            with trio.move_on_after(1):
                while True:
                    await sender.send(StaleInode(sent, data=False))
                    sent += 1
            assert MAX_UNANSWERED <= sent < 2 * MAX_UNANSWERED
            for number in range(sent):
                assert number_of(await kernel.take()) == number
            await sender.send(StaleInode(sent, data=False))
            assert number_of(await kernel.take()) == sent
            nursery.cancel_scope.cancel()
        assert await invalidator.close(DEADLINE_S)


async def test_a_process_that_dies_is_started_again_and_nothing_is_lost(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidator_module, "_RESTART_PAUSE_S", 0.0)
    invalidator = Invalidator(kernel.device)
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    numbers: set[int] = set()
    with structlog.testing.capture_logs() as logs, trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await invalidator.start()
            nursery.start_soon(invalidator.run, receiver)
            for number in range(60):
                await sender.send(StaleInode(number, data=False))
            first = invalidator._process
            assert first is not None
            first.kill()
            while numbers != set(range(60)):
                numbers.add(number_of(await kernel.take()))
            await sender.send(StaleInode(60, data=False))
            while 60 not in numbers:
                numbers.add(number_of(await kernel.take()))
            assert invalidator._process is not first
            nursery.cancel_scope.cancel()
        kernel.close()
        assert await invalidator.close(DEADLINE_S)
        await first.wait()
    assert [log["log_level"] for log in logs] == ["error"]


async def test_a_refusal_is_written_down_and_does_not_stop_the_rest(kernel: Kernel) -> None:
    kernel.close()  # every write fails with EPIPE
    invalidator = Invalidator(kernel.device)
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    with structlog.testing.capture_logs() as logs, trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            await invalidator.start()
            nursery.start_soon(invalidator.run, receiver)
            for number in range(3):
                await sender.send(StaleInode(number, data=False))
            while len(logs) < 3:
                await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert await invalidator.close(DEADLINE_S)
    assert {log["event"] for log in logs} == {"kernel refused an invalidation"}


async def test_closing_what_never_ran_closes_its_device(kernel: Kernel) -> None:
    assert await Invalidator(kernel.device).close(DEADLINE_S)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kernel.device)
