"""Replaced contents are kept for their time, in bounds."""

import pytest

from node.storage.history import History
from node.storage.verdicts import Verdicts
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


def keeper_of(one, days, most_versions=1000):
    verdicts = Verdicts(one.database, one.registers)
    return HistoryKeeper(
        History(one.database), verdicts, days, lambda: one.now_ns, most_versions=most_versions
    )


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
    keeper = keeper_of(one, 30)
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
    keeper = keeper_of(one, 30, most_versions=3)
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
    keeper = keeper_of(one, 1, most_versions=5000)
    await keeper.prune()
    assert len(kept(one)) == 2001
    one.now_ns += 2 * DAY_NS
    await keeper.prune()
    assert kept(one) == []


async def test_what_was_found_of_settled_conflicts_is_forgotten(one):
    item = one.make_file("a", "v0")
    verdicts = Verdicts(one.database, one.registers)
    verdicts.note(item, verdicts.state(item), "a reason")
    assert verdicts.reason(item) == "a reason"
    await keeper_of(one, 30).prune()
    assert verdicts.reason(item) is None
