"""Runs the kernel's view of a drive from the mount to the end.

Owns the order of things: check the folder, mount, serve, pass on invalidations, and on cancellation
detach, let programs finish for a while, cut, release what was still open. Refuses to know what is
served. Called by `node.main`, once per process: pyfuse3 keeps its session in module globals.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import pyfuse3
import structlog
import trio

from fusefs.attributes import AttributeTranslator, CacheTimeouts
from fusefs.errno_map import errno_of, log_unexpected
from fusefs.handles import OpenHandles
from fusefs.invalidator import Invalidator, clone_device
from fusefs.kernel_tuning import tune
from fusefs.mountpoint import (
    FILE_SYSTEM_NAME,
    detach,
    fuse_devices,
    mount_at,
    prepare_mountpoint,
    require_allow_other,
)
from fusefs.operations import DriveOperations
from fusefs.port import DrivePort
from node.errors import SettingsError

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_CHECKS_DEADLINE_S = 20.0
"""For the checks of the mountpoint, which lie on some other file system that may not answer."""

_RELEASE_DEADLINE_S = 10.0
"""For the drive to take over what programs had open when the mount was cut."""

_CLOSE_DEADLINE_S = 10.0
"""For the kernel to let go of an invalidation; whoever it waits for is refused meanwhile."""

_MIN_IDLE_TASKS = 1
_MAX_TASKS = 256
"""Requests served at once. Twice what the kernel keeps in the background, so that reads waiting for
the network leave tasks for everything else. An idle task costs nothing, a waiting one some KiB."""


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How a drive is mounted.

    Attributes:
        allow_other: let other users in; their permissions are checked against the files' modes.
        timeouts: how long the kernel believes what it was told.
        read_ahead_bytes: how far the kernel reads ahead of a sequential reader.
        unmount_deadline_s: how long programs that have files open may go on with them after the
            mount was taken from its folder.
    """

    allow_other: bool = False
    timeouts: CacheTimeouts = field(default_factory=CacheTimeouts)
    read_ahead_bytes: int = 4 * 1024 * 1024
    unmount_deadline_s: float = 5.0


async def serve_mount(
    drive: DrivePort,
    mountpoint: Path,
    settings: MountSettings,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Shows `drive` at `mountpoint` until cancelled, or until somebody unmounts it.

    Reports itself as started when the mount answers. Cancellation is the orderly end: the folder is
    plain again at once, programs with open files get `unmount_deadline_s`, then their requests fail,
    and what they had open is released in the drive; `_RELEASE_DEADLINE_S` bounds that. The drive is
    called all the while, so whatever it runs on has to outlive this task.

    Raises:
        SettingsError: it cannot be mounted; the message says what to do.
    """
    mountpoint = await _check(mountpoint, settings)
    handles = OpenHandles()
    translator = AttributeTranslator(settings.timeouts)
    device = _mount(DriveOperations(drive, translator, handles), mountpoint, settings)
    session = _Session(mountpoint, device, settings)
    try:
        await session.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve)
            try:
                await session.wait_answering()
                nursery.start_soon(session.invalidator.run, drive.invalidations)
                _log.info("mounted")
                task_status.started()
                await session.ended.wait()
                nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await session.leave()
    finally:
        with trio.CancelScope(shield=True):
            await session.close()
            await _release_open(drive, handles)
        _log.info("unmounted")


class _Session:
    """The one session of pyfuse3, from the mount to its end.

    No thread of this process ever waits for its own mount: killed in the middle of it, the process
    could not end, since nobody would answer it.

    Attributes:
        ended: set when no request will be served any more.
        invalidator: what tells the kernel to forget.
    """

    def __init__(self, mountpoint: Path, device: int, settings: MountSettings) -> None:
        self._mountpoint = mountpoint
        self._settings = settings
        self._is_detached = False
        # Shielded, so that requests are served while the mount is being left.
        self._loop_scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()
        self.invalidator = Invalidator(device)

    async def start(self) -> None:
        """Starts what has to run beside this process.

        Raises:
            SettingsError: it cannot be started.
        """
        try:
            await self.invalidator.start()
        except OSError as error:
            raise SettingsError(
                f"cannot start {sys.executable} once more ({error.strerror}): "
                "free memory or processes, or let this user execute it"
            ) from error

    async def serve(self) -> None:
        """Answers requests until the kernel ends the session or `leave` cuts it."""
        try:
            with self._loop_scope:
                await pyfuse3.main(min_tasks=_MIN_IDLE_TASKS, max_tasks=_MAX_TASKS)
        finally:
            self.ended.set()

    async def wait_answering(self) -> None:
        """Returns when the mount has answered its first request; only then it can be tuned."""
        await _run_outside("stat", "--file-system", self._mountpoint)
        mounted = mount_at(self._mountpoint)
        if mounted is not None:
            tune(mounted.device, self._settings.read_ahead_bytes)

    async def leave(self) -> None:
        """Takes the mount from its folder, waits for programs to finish, then cuts."""
        deadline_s = self._settings.unmount_deadline_s
        with trio.move_on_after(deadline_s):
            if not self.ended.is_set():
                with trio.move_on_after(deadline_s / 2):
                    await _run_outside("sync", "--file-system", self._mountpoint)
                await self._detach()
            if self._is_detached:
                await self.ended.wait()
        self._loop_scope.cancel()

    async def close(self) -> None:
        """Frees the session; whoever still has a file open in it gets ENOTCONN."""
        pyfuse3.close(unmount=not self._is_detached)
        if not await self.invalidator.close(_CLOSE_DEADLINE_S):
            _log.error("an invalidation is stuck in the kernel")

    async def _detach(self) -> None:
        try:
            await _in_thread(detach, self._mountpoint)
            self._is_detached = True
        except SettingsError as error:
            # pyfuse3.close tries again, in its own way.
            _log.warning("mount not detached", error=type(error).__name__)


async def _check(mountpoint: Path, settings: MountSettings) -> Path:
    """Prepares the mountpoint; gives its absolute path."""
    if settings.allow_other:
        require_allow_other()
    try:
        with trio.fail_after(_CHECKS_DEADLINE_S):
            return await _in_thread(prepare_mountpoint, mountpoint)
    except trio.TooSlowError:
        raise SettingsError(
            f"{mountpoint} does not answer: unmount it with `fusermount3 -u -z {mountpoint}`, "
            "or name another folder"
        ) from None


def _mount(operations: DriveOperations, mountpoint: Path, settings: MountSettings) -> int:
    """Mounts; gives a second descriptor on the mount, for the invalidator."""
    options = {f"fsname={FILE_SYSTEM_NAME}", f"subtype={FILE_SYSTEM_NAME}", "default_permissions"}
    if settings.allow_other:
        options.add("allow_other")
    others = fuse_devices()
    try:
        pyfuse3.init(operations, os.fspath(mountpoint), options)
    except RuntimeError as error:
        raise SettingsError(
            f"cannot mount at {mountpoint}: the lines above say why; "
            "in a container, mounting needs the right to (`--cap-add SYS_ADMIN`)"
        ) from error
    try:
        # pyfuse3 does not tell which descriptor it opened.
        (device,) = fuse_devices() - others
        return clone_device(device)
    except BaseException:
        pyfuse3.close(unmount=True)
        raise


async def _release_open(drive: DrivePort, handles: OpenHandles) -> None:
    """Releases what programs still had open when the mount ended, so that the drive keeps it."""
    with trio.move_on_after(_RELEASE_DEADLINE_S):
        for handle, file in handles.take_files():
            try:
                await drive.release(handle)
            except Exception as error:  # noqa: BLE001 - the others still have to be released
                if errno_of(error) is None:
                    log_unexpected(error, "release", subject=file.inode)
        for handle, inode in handles.take_folders():
            try:
                drive.release_folder(handle)
            except Exception as error:  # noqa: BLE001 - as above
                log_unexpected(error, "releasedir", subject=inode)


async def _run_outside(program: str, *arguments: str | Path) -> None:
    """Runs a program that asks the mount, in a process that may be left behind waiting for it."""
    process = await trio.lowlevel.open_process(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        _log.warning("the mount did not do what was asked", program=program)


async def _in_thread(
    function: Callable[[Unpack[_Arguments]], _Result], *args: *_Arguments
) -> _Result:
    """Runs what may wait on a file system, without holding up the requests that it waits for."""
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
