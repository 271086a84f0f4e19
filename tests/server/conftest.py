"""A server for the tests of one module, and fresh people with accounts at it."""

from __future__ import annotations

import pytest

from tests.server.client import Client
from tests.server.people import Person
from tests.server.running import running_process


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server that anyone may register at."""
    data = tmp_path_factory.mktemp("server") / "data"
    with running_process(data, open_registration=True, request_burst=100_000) as running:
        yield running


@pytest.fixture
def person():
    return Person()


@pytest.fixture
def client(server, person):
    """A client with a device token of ``person``, who has an account."""
    with Client(server.url) as connected:
        connected.register(person)
        yield connected


@pytest.fixture
def stranger(server):
    """A client of another account."""
    with Client(server.url) as connected:
        connected.register(Person())
        yield connected
