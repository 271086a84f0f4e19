import pytest
import trio
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from node.sync.byte_budget import ByteBudget


class Takers:
    """Tasks that take from a budget and hold until they are let go."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.held: dict[int, int] = {}
        self.order: list[int] = []
        self.let_go: dict[int, trio.Event] = {}

    async def take(self, name: int, size: int) -> None:
        async with self.budget.take(size):
            self.held[name] = size
            self.order.append(name)
            await self.let_go.setdefault(name, trio.Event()).wait()
            del self.held[name]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_never_more_is_out_than_the_limit_and_everybody_gets_his_turn(sizes):
    async def play() -> None:
        takers = Takers(ByteBudget(20))
        async with trio.open_nursery() as nursery:
            for name, size in enumerate(sizes):
                nursery.start_soon(takers.take, name, size)
            await trio.testing.wait_all_tasks_blocked()
            event(f"somebody waits: {len(takers.held) < len(sizes)}")
            while takers.held:
                assert sum(min(size, 20) for size in takers.held.values()) <= 20
                takers.let_go[min(takers.held)].set()
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(takers.order) == list(range(len(sizes)))

    trio.run(play)


async def test_a_small_request_does_not_overtake_a_large_one_that_waits():
    takers = Takers(ByteBudget(10))
    async with trio.open_nursery() as nursery:
        for name, size in enumerate([6, 8, 1]):
            nursery.start_soon(takers.take, name, size)
            await trio.testing.wait_all_tasks_blocked()
        assert takers.order == [0]
        takers.let_go[0].set()
        await trio.testing.wait_all_tasks_blocked()
        assert takers.order == [0, 1, 2]
        for released in takers.let_go.values():
            released.set()


async def test_who_is_cancelled_while_waiting_or_holding_leaves_everything_to_the_others():
    budget = ByteBudget(10)
    takers = Takers(budget)
    async with trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(takers.take, name, 8)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        async with budget.take(10):
            pass


async def test_an_error_gives_the_bytes_back():
    budget = ByteBudget(10)
    with pytest.raises(ZeroDivisionError):
        async with budget.take(10):
            raise ZeroDivisionError
    with trio.fail_after(1):
        async with budget.take(10):
            pass
