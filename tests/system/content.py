"""What the whole-system test puts into a drive: real trees, a repository, databases, big files.

Owns how they are made, and the markers that are planted in names and contents. Knows no node.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_PIECE_BYTES = 1 << 20


def copy_library(target: Path, is_full: bool) -> int:
    """Copy the running Python's standard library to a native folder; the number of its files.

    Without tests and caches, unless all is wanted; what a package manager adds is left out.
    """
    left_out = ["site-packages", "dist-packages", "__pycache__"]
    if not is_full:
        left_out += ["idlelib", "lib2to3", "config-3.*"]
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    return sum(len(files) for _, _, files in os.walk(target))


def add_oddities(folder: Path, marker: str) -> None:
    """Modes, times, links and names that a tree of sources does not have."""
    folder.mkdir()
    for mode in (0o400, 0o644, 0o755, 0o600, 0o4755, 0o1777):
        file = folder / f"{marker}-mode-{mode:o}"
        file.write_bytes(b"%o" % mode)
        file.chmod(mode)
    (folder / "relative").symlink_to(f"{marker}-mode-644")
    (folder / "absolute").symlink_to("/etc/hostname")
    (folder / "dangling").symlink_to("nowhere/at all")
    os.utime(folder / "relative", ns=(10**18, 10**18 + 1), follow_symlinks=False)
    old = folder / "old"
    old.write_bytes(b"")
    os.utime(old, ns=(0, 123_456_789))
    os.mkfifo(folder / "pipe")
    (folder / "empty folder").mkdir()
    os.utime(folder / "empty folder", ns=(10**18, 10**18 + 987_654_321))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe not UTF-8")).write_bytes(b"x")
    (folder / ("n" * 255)).write_bytes(b"long")
    os.link(folder / f"{marker}-mode-644", folder / "second name")


def marked_file(path: Path, size_bytes: int, marker: bytes, is_compressible: bool) -> None:
    """Write a file with the marker all over it: among noise, or among more of the same."""
    with path.open("wb") as file:
        left = size_bytes
        while left > 0:
            if is_compressible:
                piece = (marker + b" is what is written here.\n") * (_PIECE_BYTES // 64)
            else:
                noise = os.urandom(_PIECE_BYTES // 16)
                piece = b"".join(noise[i : i + 4096] + marker for i in range(0, len(noise), 4096))
            file.write(piece[:left])
            left -= len(piece)


def clone_repository(source: Path, target: Path, environment: Mapping[str, str]) -> None:
    """`git clone` of a checkout; when it has no history, of a new repository with its files."""
    if not (source / ".git").exists():
        made = target.parent.parent / "repository"
        ignored = shutil.ignore_patterns(".venv*", "__pycache__", ".*_cache")
        shutil.copytree(source, made, symlinks=True, ignore=ignored)
        identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        git(made, environment, "init", "--quiet")
        git(made, environment, "add", "--all")
        git(made, environment, *identity, "commit", "--quiet", "--message", "everything")
        source = made
    git(target.parent, environment, "clone", "--quiet", "--no-local", source, target)


def git(folder: Path, environment: Mapping[str, str], *arguments: str | Path) -> str:
    """What a git command prints; it must succeed."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def write_database(path: Path, journal_mode: str, marker: str) -> list[tuple[int, str]]:
    """Make a database with many transactions, some rolled back; the rows that it must hold."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        (mode,) = database.execute(f"PRAGMA journal_mode={journal_mode}").fetchone()
        assert mode == journal_mode
        database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        for turn in range(40):
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO notes (text) VALUES (?)",
                [(f"{marker} {turn} {secrets.token_hex(100)}",) for _ in range(25)],
            )
            database.execute("ROLLBACK" if turn % 10 == 9 else "COMMIT")
        database.execute("DELETE FROM notes WHERE id % 7 = 0")
        return rows_of(database)
    finally:
        database.close()


def read_database(path: Path) -> list[tuple[int, str]]:
    """The rows of a database that is whole."""
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return rows_of(database)
    finally:
        database.close()


def rows_of(database: sqlite3.Connection) -> list[tuple[int, str]]:
    return database.execute("SELECT id, text FROM notes ORDER BY id").fetchall()
