import pytest

from tests.node.storage.indexes import DatabasePool, World, repeatable_ids


@pytest.fixture(scope="package")
def pool():
    databases = DatabasePool()
    yield databases
    databases.close()


@pytest.fixture
def world(pool):
    """Two devices with empty indexes."""
    with pool.borrow(2) as databases, repeatable_ids(b"world"):
        yield World(databases)


@pytest.fixture
def one(world):
    return world.indexes[0]


@pytest.fixture
def two(world):
    return world.indexes[1]
