"""The suite of what programs expect, on the mount of a real node with its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fusefs.posix_suite import PosixSuite
from tests.system.world import World


@pytest.fixture(scope="module")
def mount_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with World(tmp_path_factory.mktemp("posix") / "world") as world:
        world.server.start()
        (device,) = world.enrolled("a")
        device.start()
        yield device.mount
        device.stop()


@pytest.mark.fuse
@pytest.mark.system
class TestPosixOnNode(PosixSuite):
    # Each is signed, sealed and sent; a thousand fill several pages of a listing.
    many = 1_000
