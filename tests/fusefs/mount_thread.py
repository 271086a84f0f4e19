"""A mount inside the test's process, served by an event loop on a thread of its own.

A test's system calls release the interpreter's lock, so the loop can answer them. Touching a memory
mapping of the mount does not: such a test belongs into a process of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import outcome
import trio

from fusefs.mount import MountSettings, serve_mount
from fusefs.port import DrivePort

Result = TypeVar("Result")
DriveT = TypeVar("DriveT", bound=DrivePort)

ANSWER_DEADLINE_S = 20.0


class MountThread(Generic[DriveT]):
    """Serves a drive from `__enter__` to `stop` or `__exit__`."""

    def __init__(
        self, make_drive: Callable[[], DriveT], mountpoint: Path, settings: MountSettings
    ) -> None:
        self._make_drive = make_drive
        self.mountpoint = mountpoint
        self._settings = settings
        self._started = threading.Event()
        self._result: outcome.Outcome[None] | None = None
        self._thread = threading.Thread(target=self._run, name="mount")
        self._scope: trio.CancelScope | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._drive: DriveT | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(ANSWER_DEADLINE_S)
        if self._result is not None:
            self._thread.join()
            self._raise_failure()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def drive(self) -> DriveT:
        """What is mounted; only to be touched through `call` while programs use the mount."""
        assert self._drive is not None
        return self._drive

    def call(self, function: Callable[..., Result], *args: object) -> Result:
        """Runs a function on the loop's thread."""
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def stop(self) -> None:
        """Ends the mount in the orderly way; raises what it failed with."""
        if self._thread.is_alive():
            assert self._scope is not None
            try:
                self.call(self._scope.cancel)
            except trio.RunFinishedError:
                pass
        self.wait()

    def wait(self) -> None:
        """Waits for the mount to end by itself."""
        self._thread.join(ANSWER_DEADLINE_S)
        assert not self._thread.is_alive(), "the mount does not end"
        self._raise_failure()

    def _raise_failure(self) -> None:
        if isinstance(self._result, outcome.Error):
            raise self._result.error

    def _run(self) -> None:
        self._result = outcome.capture(trio.run, self._serve)
        self._started.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._drive = self._make_drive()
        with trio.CancelScope() as self._scope:
            await serve_mount(self._drive, self.mountpoint, self._settings, task_status=self)

    def started(self, value: None = None) -> None:
        """What serve_mount calls when the mount answers."""
        self._started.set()
