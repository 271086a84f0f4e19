"""Worlds for system tests. Two devices are enrolled once per run; every test gets a copy of them."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.system.world import World, copy_world, free_port

_HAS_FAILED: pytest.StashKey[bool] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "deadline(seconds): the nodes of a test's world are ended after that long"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_HAS_FAILED] = True
        world = getattr(item, "funcargs", {}).get("world")
        if isinstance(world, World):
            report.sections.append(("logs of the processes", world.all_logs()))
    return report


@pytest.fixture(scope="session")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Two enrolled devices, a and b, that have never run, and the port of their server."""
    port = free_port()
    root = tmp_path_factory.mktemp("enrolled") / "world"
    with World(root, port) as world:
        world.server.start()
        world.enrolled("a", "b")
        world.server.stop()
    yield root, port
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def world(
    enrolled: tuple[Path, int], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world with two enrolled devices, in which nothing runs yet."""
    template, port = enrolled
    marker = request.node.get_closest_marker("deadline")
    deadline_s = marker.args[0] if marker is not None else 120
    with World(tmp_path / "world", port, deadline_s) as made:
        copy_world(template, made.root)
        yield made
    # Gigabytes would stay in the temporary folder; after a failure they are what one looks at.
    if not request.node.stash.get(_HAS_FAILED, False):
        shutil.rmtree(made.root, ignore_errors=True)
