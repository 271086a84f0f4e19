"""What the workloads of the mount bench work on: noise, real sources as archive and repository, a wheel.

Made once on the native file system, and the same for every contestant.
"""

from __future__ import annotations

import ensurepip
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from scripts.bench_parts.bench_world import copy_small_files


@dataclass(slots=True)
class Inputs:
    """The inputs of one run, and how much is done.

    Attributes:
        noise: incompressible bytes of the long file; `renew` makes others, so that no contestant
            finds a block that it has stored before.
        pages: read and written at random places.
        small_files, listed, transactions: how many.
        archive, repository: of a tree of ``tree_files`` files.
        long_repository: of a tree of ``long_files`` files.
        wheel: of pip, as it comes with Python.
    """

    noise: bytes
    pages: int
    small_files: int
    listed: int
    transactions: int
    tree_files: int
    long_files: int
    archive: Path
    repository: Path
    long_repository: Path
    wheel: Path

    def renew(self) -> None:
        self.noise = os.urandom(len(self.noise))


def make_inputs(folder: Path, is_quick: bool) -> Inputs:
    """Make everything in a new folder."""
    tree_files, long_files = (300, 1000) if is_quick else (2000, 10_000)
    source, long_source = folder / "tree", folder / "long"
    copy_small_files(source, tree_files)
    copy_small_files(long_source, long_files)
    archive = folder / "tree.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(source, "tree")
    wheels = Path(ensurepip.__file__).parent / "_bundled"
    return Inputs(
        noise=os.urandom((64 if is_quick else 1024) << 20),
        pages=500 if is_quick else 4000,
        small_files=500 if is_quick else 5000,
        listed=1000 if is_quick else 10_000,
        transactions=50 if is_quick else 200,
        tree_files=tree_files,
        long_files=long_files,
        archive=archive,
        repository=_repository(source),
        long_repository=_repository(long_source),
        wheel=next(wheels.glob("pip-*.whl")),
    )


def _repository(tree: Path) -> Path:
    author = ["-c", "user.name=Bench", "-c", "user.email=bench@example.org"]
    for command in (["init"], ["add", "--all"], ["commit", "--message", "all"]):
        git = ["git", "-C", os.fspath(tree), *author, command[0], "--quiet", *command[1:]]
        if command[0] == "add":
            git.remove("--quiet")
        subprocess.run(git, check=True, timeout=300)
    return tree
