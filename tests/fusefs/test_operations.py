"""Handlers called by hand, where a real kernel cannot be brought to ask."""

from __future__ import annotations

import errno
from typing import cast

import pyfuse3
import pytest
import trio

from fusefs.attributes import AttributeTranslator, CacheTimeouts
from fusefs.handles import OpenHandles
from fusefs.operations import DriveOperations
from tests.fusefs.memory_drive import ROOT_INODE, MemoryDrive

NOBODY = cast("pyfuse3.RequestContext", None)


@pytest.fixture
def drive() -> MemoryDrive:
    return MemoryDrive()


@pytest.fixture
def operations(drive: MemoryDrive) -> DriveOperations:
    return DriveOperations(drive, AttributeTranslator(CacheTimeouts()), OpenHandles())


async def test_a_cancelled_request_is_answered_and_stays_cancelled(
    operations: DriveOperations, drive: MemoryDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(handle: int, offset: int, size: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(drive, "read", never)
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(pyfuse3.FUSEError) as refusal:
            await operations.read(1, 0, 10)
        await trio.lowlevel.checkpoint()
        raise AssertionError("the cancellation was lost")
    assert scope.cancelled_caught
    assert refusal.value.errno == errno.ENOTCONN


async def test_a_folder_handle_that_is_not_open_is_refused(operations: DriveOperations) -> None:
    with pytest.raises(pyfuse3.FUSEError) as refusal:
        await operations.fsyncdir(99, datasync=False)
    assert refusal.value.errno == errno.EBADF


async def test_forgetting_never_fails(
    operations: DriveOperations, drive: MemoryDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[int, int]] = []

    def forget(inode: int, lookups: int) -> None:
        forgotten.append((inode, lookups))
        raise KeyError(inode)

    monkeypatch.setattr(drive, "forget", forget)
    await operations.forget([(5, 1), (6, 2)])
    assert forgotten == [(5, 1), (6, 2)]


@pytest.mark.parametrize("mode", [0o644, 0o040755, 0o120777])
async def test_only_special_and_plain_files_are_made_as_nodes(
    operations: DriveOperations, mode: int
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as refusal:
        await operations.mknod(ROOT_INODE, b"x", mode, 0, NOBODY)
    assert refusal.value.errno == errno.EINVAL
