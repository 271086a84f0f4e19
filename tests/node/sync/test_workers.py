import threading

import pytest
import trio

from node.sync.workers import QUICK_BYTES, Workers


@pytest.mark.parametrize(
    ("workers", "size", "is_here"),
    [
        (Workers(2), QUICK_BYTES, True),
        (Workers(2), QUICK_BYTES + 1, False),
        (Workers.inline(), 2**40, True),
    ],
)
async def test_only_long_work_is_done_in_a_thread(workers, size, is_here):
    worker = await workers.call(size, threading.get_ident)
    assert (worker == threading.get_ident()) == is_here


@pytest.mark.parametrize("size", [0, 2**30])
async def test_what_the_work_raises_is_raised(size):
    with pytest.raises(ZeroDivisionError):
        await Workers(1).call(size, lambda: 1 // 0)


async def test_no_more_threads_work_than_allowed():
    workers = Workers(2)
    lock, working, most = threading.Lock(), 0, 0
    both_here = threading.Event()

    def work() -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
            if working == 2:
                both_here.set()
        both_here.wait(10)
        with lock:
            working -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(workers.call, 2**30, work)
    assert most == 2
