"""The queue to the kernel, with a kernel that waits, refuses or counts."""

from __future__ import annotations

import errno
import threading

import pytest
import structlog
import trio
import trio.testing

from fusefs.invalidator import Invalidator
from node.drive import Invalidation, StaleEntry, StaleInode


class Kernel:
    """Takes invalidations down; waits at a gate while it is closed."""

    def __init__(self, *, last: Invalidation) -> None:
        self.seen: list[Invalidation] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.finished = threading.Event()
        self._last = last

    def forget(self, invalidation: Invalidation) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        self.seen.append(invalidation)
        if invalidation == self._last:
            self.finished.set()


LAST = StaleEntry(9, b"last")


async def feed(invalidator: Invalidator, *invalidations: Invalidation) -> None:
    sender, receiver = trio.open_memory_channel[Invalidation](len(invalidations))
    for invalidation in invalidations:
        sender.send_nowait(invalidation)
    sender.close()
    await invalidator.run(receiver)


async def wait_for(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 10)


async def test_everything_arrives_in_order() -> None:
    kernel = Kernel(last=LAST)
    kernel.gate.set()
    invalidator = Invalidator(kernel.forget)
    sent = [StaleInode(number, data=number % 2 == 0) for number in range(100)]
    await feed(invalidator, *sent, LAST)
    await wait_for(kernel.finished)
    await invalidator.stop()
    assert kernel.seen == [*sent, LAST]


async def test_what_waits_already_is_not_sent_twice() -> None:
    kernel = Kernel(last=LAST)
    invalidator = Invalidator(kernel.forget)
    first, second = StaleEntry(1, b"first"), StaleInode(2, data=True)
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(invalidator.run, receiver)
        await sender.send(first)
        await wait_for(kernel.entered)
        for invalidation in (second, second, first, second, LAST):
            await sender.send(invalidation)
        await trio.testing.wait_all_tasks_blocked()
        kernel.gate.set()
        await wait_for(kernel.finished)
        nursery.cancel_scope.cancel()
    await invalidator.stop()
    # The first was in the kernel's hands when it became stale once more, so it goes out again.
    assert kernel.seen == [first, second, first, LAST]


async def test_a_kernel_that_waits_holds_up_the_sender_not_the_memory() -> None:
    kernel = Kernel(last=LAST)
    invalidator = Invalidator(kernel.forget, max_pending=10)
    sender, receiver = trio.open_memory_channel[Invalidation](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(invalidator.run, receiver)
        await sender.send(StaleInode(0, data=False))
        await wait_for(kernel.entered)
        for number in range(1, 12):
            await sender.send(StaleInode(number, data=False))
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises(trio.WouldBlock):
            sender.send_nowait(StaleInode(99, data=False))
        kernel.gate.set()
        await sender.send(LAST)
        await wait_for(kernel.finished)
        nursery.cancel_scope.cancel()
    await invalidator.stop()
    assert kernel.seen == [*(StaleInode(number, data=False) for number in range(12)), LAST]


async def test_a_refusal_does_not_stop_the_rest() -> None:
    numbers = iter([errno.ENOENT, errno.EIO, errno.ENOTCONN])
    finished = threading.Event()

    def refuse(invalidation: Invalidation) -> None:
        if invalidation == LAST:
            finished.set()
        elif invalidation == StaleInode(3, data=True):
            raise ZeroDivisionError
        else:
            raise OSError(next(numbers), "no")

    invalidator = Invalidator(refuse)
    with structlog.testing.capture_logs() as logs:
        await feed(invalidator, *(StaleInode(number, data=True) for number in range(4)), LAST)
        await wait_for(finished)
    await invalidator.stop()
    assert [log["log_level"] for log in logs] == ["warning", "debug", "error"]


async def test_stopping_drops_what_waits() -> None:
    kernel = Kernel(last=LAST)
    invalidator = Invalidator(kernel.forget)
    await feed(invalidator, StaleInode(1, data=False), StaleInode(2, data=False))
    await wait_for(kernel.entered)
    with trio.move_on_after(0.02) as scope:
        await invalidator.stop()
    assert scope.cancelled_caught, "it is still in the kernel"
    kernel.gate.set()
    await invalidator.stop()
    assert kernel.seen == [StaleInode(1, data=False)]


async def test_stopping_what_never_ran_is_nothing() -> None:
    await Invalidator(lambda _: None).stop()
