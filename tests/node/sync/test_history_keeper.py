"""Replaced contents are kept for their time, in bounds."""

import pytest

from node.storage.history import History
from node.sync.history_keeper import HistoryKeeper
from tests.node.storage.indexes import DatabasePool, World, repeatable_ids

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture(scope="module")
def pool():
    databases = DatabasePool()
    yield databases
    databases.close()


@pytest.fixture
def one(pool):
    with pool.borrow(1) as databases, repeatable_ids(b"history"):
        yield World(databases).indexes[0]


def write(one, *texts):
    for text in texts:
        one.write("a", text)
        one.seal()


def kept(one):
    item = one.row_at("a").item
    return sorted(version.value.inline.decode() for version in one.registers.history(item))


async def test_a_replaced_content_is_kept_for_its_days_from_its_replacement_on(one):
    one.make_file("a", "v0")
    one.seal()
    keeper = HistoryKeeper(History(one.database), 30, lambda: one.now_ns)
    one.now_ns += 100 * DAY_NS  # an old file, replaced today
    write(one, "v1")
    await keeper.prune()
    assert kept(one) == ["v0"]
    one.now_ns += 29 * DAY_NS
    write(one, "v2")
    await keeper.prune()
    assert kept(one) == ["v0", "v1"]
    one.now_ns += 2 * DAY_NS
    await keeper.prune()
    assert kept(one) == ["v1"]


async def test_of_too_many_the_first_replaced_go(one):
    one.make_file("a", "v0")
    one.seal()
    keeper = HistoryKeeper(History(one.database), 30, lambda: one.now_ns, most_versions=3)
    for number in range(1, 7):
        write(one, f"v{number}")
        await keeper.prune()
    assert kept(one) == ["v3", "v4", "v5"]


async def test_many_go_in_steps(one):
    one.make_file("a", "v0")
    one.seal()
    write(one, "v1")
    one.database.execute(
        "WITH RECURSIVE numbers(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM numbers LIMIT 2000) "
        "INSERT INTO history SELECT item, actor, numbers.n, context, time_us, device, value, "
        "automatic, NULL FROM history, numbers"
    )
    keeper = HistoryKeeper(History(one.database), 1, lambda: one.now_ns)
    await keeper.prune()
    assert len(kept(one)) == 2001
    one.now_ns += 2 * DAY_NS
    await keeper.prune()
    assert kept(one) == []
