import pytest
import trio

from node.errors import ServerError, StorageError
from node.sync.work_nursery import open_work_nursery

AWAY = ServerError("unreachable", "no route", is_transient=True)
FULL = StorageError(28, "no room")


async def fail(error: Exception) -> None:
    raise error


async def run_all(*errors: Exception) -> None:
    async with open_work_nursery() as nursery:
        for error in errors:
            nursery.start_soon(fail, error)


async def test_work_that_succeeds_is_waited_for():
    done = trio.Event()

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        done.set()

    async with open_work_nursery() as nursery:
        nursery.start_soon(work)
    assert done.is_set()


async def test_one_error_is_raised_as_it_is_and_ends_the_others():
    async def work() -> None:
        async with open_work_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail, AWAY)

    with pytest.raises(ServerError) as caught:
        await work()
    assert caught.value is AWAY


async def test_of_several_errors_of_the_node_one_is_raised():
    with pytest.raises((ServerError, StorageError)) as caught:
        await run_all(AWAY, FULL)
    assert caught.value in (AWAY, FULL)


async def test_a_broken_invariant_is_not_hidden_behind_another_error():
    with pytest.raises(ExceptionGroup) as caught:
        await run_all(AWAY, AssertionError("broken"))
    assert caught.group_contains(AssertionError)


async def test_cancellation_passes():
    with trio.CancelScope() as scope:
        async with open_work_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
