"""Processes of a system test: started with a log, ended by their id, awaited with deadlines.

Owns how a process and a condition are waited for. Knows nothing of Atoll. Called by `world`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

LOOK_S = 0.02
"""How often a condition is looked at; a process's state can not be waited for otherwise."""


class TooLateError(AssertionError):
    """What was waited for did not come about in time."""


def eventually(
    look: Callable[[], Found], what: str, within_s: float = 20, every_s: float = LOOK_S
) -> Found:
    """The first true result of `look`.

    Raises:
        TooLateError: there was none in time; with the last result.
    """
    end = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TooLateError(f"not within {within_s:g} s: {what} (last seen: {found!r})")
        time.sleep(every_s)


class LoggedProcess:
    """One process; what it says is appended to a file."""

    def __init__(
        self, arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._said_before = output.tell()
            self._process = subprocess.Popen(
                [os.fspath(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        """What it wrote since its start."""
        with self.log.open("rb") as log:
            log.seek(self._said_before)
            return log.read().decode(errors="replace")

    def wait(self, within_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise TooLateError(
                f"process {self.pid} did not end within {within_s:g} s:\n{self.said()}"
            ) from error

    def terminate(self, within_s: float) -> int:
        """SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait(within_s)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self.is_running:
            self._process.kill()
        self._process.wait(10)
