import pytest

from node.storage.database import Database
from tests.node.sync.sealed_devices import Account, SealedDevice


@pytest.fixture
def devices(tmp_path):
    """Makes devices of one account, each with an empty index: by their number."""
    account = Account()
    databases: list[Database] = []

    def make(number, **arguments):
        databases.append(Database(tmp_path / f"{len(databases)}.db", bytes(32)))
        return SealedDevice(databases[-1], number, account, **arguments)

    yield make
    for database in databases:
        database.close()
