"""What the mount bench compares: the disk itself, the binding with nothing behind it, Atoll, its peers.

Owns how each is started, when it is at rest, and how it ends. Times nothing. Peers that are not
installed are left out, and said so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.settings import SETTINGS_FILE
from scripts.bench_parts.bench_world import processor_time_of
from tests.system.processes import LoggedProcess, eventually
from tests.system.world import World, detach, is_mount

NATIVE, NULL, ATOLL = "native", "null", "atoll"
_AT_REST_SHARE = 0.05
_REST_DEADLINE_S = 120.0
_WRITE_BACK_S = 1
"""How long rclone holds back what was closed: its own 5 s would only lengthen the run."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A folder to work in, and who serves it.

    Attributes:
        processes: ids of what serves it.
        wait_sealed: returns when what was written is stored as it stays.
        keeps_bytes: whether a long file holds what was written to it.
    """

    name: str
    folder: Path
    processes: tuple[int, ...] = ()
    wait_sealed: Callable[[], None] = lambda: None
    keeps_bytes: bool = True

    def rest(self) -> None:
        """Wait until whoever serves it does nothing any more, so that it disturbs no other.

        Raises:
            SystemExit: it does not come to rest.
        """
        self.wait_sealed()
        os.sync()
        end_s = time.monotonic() + _REST_DEADLINE_S
        while self.processes:
            before_s, at_s = self._processor_s(), time.monotonic()
            time.sleep(0.4)
            share = (self._processor_s() - before_s) / (time.monotonic() - at_s)
            if share < _AT_REST_SHARE:
                return
            if time.monotonic() > end_s:
                raise SystemExit(f"{self.name} does not come to rest")

    def _processor_s(self) -> float:
        return sum(processor_time_of(process) for process in self.processes)


@contextmanager
def contestants(root: Path) -> Iterator[list[Contestant]]:
    """Everything that this machine can mount, in a new folder; nothing of it is left at the end."""
    root.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        world = stack.enter_context(World(root / "world", deadline_s=6 * 3600))
        native = root / "native"
        native.mkdir()
        found = [Contestant(NATIVE, native)]
        for name, start in _STARTS.items():
            if name not in (NULL, ATOLL) and shutil.which(name) is None:
                print(f"{name} is not installed and is left out", file=sys.stderr)
                continue
            found.append(start(world, root))
            stack.callback(detach, found[-1].folder)
        yield found


def _null(world: World, root: Path) -> Contestant:
    mount = root / "null"
    process = _mounted(
        world, mount, [sys.executable, "-m", "scripts.bench_parts.null_file_system"], mount
    )
    return Contestant(NULL, mount, (process.pid,), keeps_bytes=False)


def _atoll(world: World, _root: Path) -> Contestant:
    world.server.start("--requests-per-second", "100000", "--request-burst", "100000")
    (device,) = world.enrolled("a")
    # Workloads remove what they made: nobody is there to approve that.
    (device.home / SETTINGS_FILE).write_text("deletion_guard_share = 1\n")
    device.start("--no-lan")
    assert device.process is not None
    assert world.server.process is not None
    return Contestant(
        ATOLL,
        device.mount,
        (device.process.pid, world.server.process.pid),
        lambda: device.wait("server", 900),
    )


def _gocryptfs(world: World, root: Path) -> Contestant:
    mount, store = root / "gocryptfs", root / "gocryptfs-store"
    store.mkdir()
    password = ["-q", "-passfile", os.fspath(world.password_file)]
    subprocess.run(["gocryptfs", *password, "-init", store], check=True, timeout=60)
    process = _mounted(world, mount, ["gocryptfs", *password, "-fg"], store, mount)
    return Contestant("gocryptfs", mount, (process.pid,))


def _rclone(world: World, root: Path) -> Contestant:
    mount, store = root / "rclone", root / "rclone-store"
    store.mkdir()
    options = ["--vfs-cache-mode", "full", "--vfs-write-back", f"{_WRITE_BACK_S}s"]
    options += [
        "--cache-dir",
        os.fspath(root / "rclone-cache"),
        "--links",
        "--dir-cache-time",
        "1h",
    ]
    process = _mounted(world, mount, ["rclone", "mount", *options], store, mount)

    # It tells nobody when it is done; what it holds back goes all at once.
    return Contestant("rclone", mount, (process.pid,), lambda: time.sleep(_WRITE_BACK_S + 0.3))


_STARTS: Mapping[str, Callable[[World, Path], Contestant]] = {
    NULL: _null,
    ATOLL: _atoll,
    "gocryptfs": _gocryptfs,
    "rclone": _rclone,
}


def _mounted(
    world: World, mount: Path, program: list[str], *arguments: str | Path
) -> LoggedProcess:
    mount.mkdir()
    process = world.spawn(f"{mount.name}.log", program, *arguments)

    def is_ready() -> bool:
        if not process.is_running:
            raise AssertionError(f"{mount.name} did not start: {process.said()}")
        return is_mount(mount)

    eventually(is_ready, f"{mount.name} is mounted", 30)
    # What it sets after mounting, such as read-ahead.
    time.sleep(1)
    return process
