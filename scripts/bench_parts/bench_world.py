"""Where benches run: worlds with two devices, native folders beside them, trees of real files.

Owns set-up, the memory of processes, and the choice of files. Times nothing.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.world import Device, World

SMALL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class BenchWorld:
    """A server and two mounted devices of one account, and a native folder on the same disk."""

    world: World
    first: Device
    second: Device
    native: Path

    def both_synced(self) -> None:
        """What the first sent is announced when it is done, so the second can wait for it."""
        self.first.wait("synced", 600)
        self.second.wait("synced", 600)

    def peak_memory_mib(self) -> dict[str, float]:
        """The highest resident size of each process so far."""
        return {name: peak_of(process) for name, process in self._processes().items()}

    def processor_s(self) -> dict[str, float]:
        """The processor time of each process so far: what a busy machine does not change."""
        return {name: processor_time_of(process) for name, process in self._processes().items()}

    def _processes(self) -> dict[str, int]:
        processes = {
            "server": self.world.server.process,
            "node A": self.first.process,
            "node B": self.second.process,
        }
        return {name: process.pid for name, process in processes.items() if process is not None}


@contextmanager
def bench_world(directory: Path, name: str) -> Iterator[BenchWorld]:
    """A new world; everything of it is removed at the end."""
    root = directory / name
    try:
        with World(root, deadline_s=3600) as world:
            world.server.start()
            first, second = world.enrolled("a", "b")
            first.start()
            second.start()
            native = root / "native"
            native.mkdir()
            made = BenchWorld(world, first, second, native)
            made.both_synced()
            os.sync()
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def peak_of(process: int) -> float:
    """VmHWM of a process, in MiB (proc(5))."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {process} has no memory: it has ended")


def processor_time_of(process: int) -> float:
    """User and system time of a process, in seconds (proc(5))."""
    # The second field is the program's name in parentheses, which may hold spaces.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def copy_small_files(target: Path, wanted: int) -> int:
    """Fill a native folder with so many real small files, their folders and modes; bytes of all.

    The standard library and what is installed beside it, sources first; caches only to fill up.
    """
    roots = dict.fromkeys(
        Path(sysconfig.get_path(name, vars={"base": base, "platbase": base}))
        for name in ("stdlib", "purelib")
        for base in (sysconfig.get_config_var("installed_base"), sysconfig.get_config_var("base"))
    )
    chosen: dict[Path, Path] = {}
    for with_caches in (False, True):
        for number, root in enumerate(roots):
            for file in _small_files(root, with_caches):
                if len(chosen) == wanted:
                    break
                chosen[file] = target / f"tree-{number}" / file.relative_to(root)
    if len(chosen) < wanted:
        raise SystemExit(f"this machine has only {len(chosen)} small files of Python, not {wanted}")
    size_bytes = 0
    for source, copy in chosen.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
        size_bytes += copy.lstat().st_size
    return size_bytes


def _small_files(root: Path, with_caches: bool) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        left_out = {"site-packages", "dist-packages"}
        folders[:] = sorted(set(folders) - left_out - (set() if with_caches else {"__pycache__"}))
        for name in sorted(names):
            file = Path(folder, name)
            if file.lstat().st_size <= SMALL_BYTES:
                yield file
