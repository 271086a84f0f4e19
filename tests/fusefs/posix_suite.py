"""What every mounted drive owes to the programs in it, whatever drive is behind the mount.

`PosixSuite` is inherited by a test class that has a fixture `mount_root`: the path of a mounted
drive. Each test gets a new folder in it. Nothing here looks at the drive itself.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

_numbers = itertools.count()


def rename_with_flags(source: Path, target: Path, flags: int) -> None:
    """renameat2(2)."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def listed_xattrs(path: Path) -> list[str]:
    """Names of extended attributes, without those that the drive itself answers."""
    return [name for name in os.listxattr(path) if not name.startswith("user.atoll.")]


def run_python(program: str, *arguments: str | Path) -> str:
    """Runs a program in its own process: for what must not hold this interpreter's lock."""
    done = subprocess.run(
        [sys.executable, "-c", program, *(os.fspath(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class refused:  # noqa: N801 - it reads as a word: with refused(EEXIST)
    """Expects an OSError with one errno."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, OSError), f"not refused, {errno.errorcode[self._number]} expected"
        assert error.errno == self._number, error
        return True


class PosixSuite:
    """See the module.

    Attributes:
        many: how many entries a large folder has.
    """

    many: ClassVar[int] = 10_000

    @pytest.fixture
    def folder(self, mount_root: Path) -> Iterator[Path]:
        folder = mount_root / f"test-{next(_numbers)}"
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)

    # Contents

    def test_what_was_written_is_read(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"first line\n")
        assert (folder / "a").read_bytes() == b"first line\n"
        assert (folder / "a").stat().st_size == 11

    def test_a_large_file_reads_the_same_at_any_offset(self, folder: Path) -> None:
        chance = random.Random(4)
        data = chance.randbytes(9 * 1024 * 1024 + 77)
        (folder / "large").write_bytes(data)
        with (folder / "large").open("rb", buffering=0) as file:
            for _ in range(50):
                offset, size = chance.randrange(len(data)), chance.randrange(300_000)
                file.seek(offset)
                expected = data[offset : offset + size]
                read = b""
                while len(read) < len(expected):
                    read += file.read(size - len(read))
                assert read == expected
        assert (folder / "large").read_bytes() == data

    def test_appending_adds_at_the_end(self, folder: Path) -> None:
        path = folder / "log"
        path.write_bytes(b"one\n")
        first = os.open(path, os.O_WRONLY | os.O_APPEND)
        second = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(first, b"two\n")
        os.write(second, b"three\n")
        os.write(first, b"four\n")
        os.close(first)
        os.close(second)
        assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"

    def test_writing_in_place_keeps_the_rest(self, folder: Path) -> None:
        path = folder / "a"
        path.write_bytes(b"0123456789" * 10_000)
        descriptor = os.open(path, os.O_RDWR)
        os.pwrite(descriptor, b"XYZ", 70_001)
        os.close(descriptor)
        data = path.read_bytes()
        assert len(data) == 100_000
        assert data[69_999:70_006] == b"90XYZ45"[0:7]

    def test_writing_beyond_the_end_leaves_zeros_between(self, folder: Path) -> None:
        descriptor = os.open(folder / "sparse", os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, b"end", 100_000)
        assert os.pread(descriptor, 20, 99_990) == bytes(10) + b"end"
        assert os.fstat(descriptor).st_size == 100_003
        os.close(descriptor)

    def test_truncating_by_path_and_by_descriptor(self, folder: Path) -> None:
        path = folder / "a"
        path.write_bytes(b"0123456789")
        os.truncate(path, 4)
        assert path.read_bytes() == b"0123"
        with path.open("r+b") as file:
            file.truncate(6)
        assert path.read_bytes() == b"0123\0\0"
        os.truncate(path, 0)
        assert path.stat().st_size == 0

    def test_opening_with_truncation_empties_the_file(self, folder: Path) -> None:
        path = folder / "a"
        path.write_bytes(b"old and long")
        path.write_bytes(b"new")
        assert path.read_bytes() == b"new"

    def test_a_reader_sees_what_a_writer_wrote_before_it_closes(self, folder: Path) -> None:
        path = folder / "a"
        with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
            writer.write(b"one")
            assert reader.read(10) == b"one"
            writer.write(b"two")
            assert reader.read(10) == b"two"

    def test_syncing_a_file_and_a_folder_succeeds(self, folder: Path) -> None:
        with (folder / "a").open("wb") as file:
            file.write(b"data")
            file.flush()
            os.fsync(file.fileno())
            os.fdatasync(file.fileno())
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)

    def test_a_shared_mapping_is_written_back(self, folder: Path) -> None:
        (folder / "mapped").write_bytes(bytes(200_000))
        run_python(
            "import mmap, sys\n"
            "with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapping:\n"
            "    mapping[150_000:150_005] = b'hello'\n",
            folder / "mapped",
        )
        assert (folder / "mapped").read_bytes()[149_999:150_006] == b"\0hello\0"

    def test_reserving_space_and_copying_within_the_kernel_work(self, folder: Path) -> None:
        data = random.Random(1).randbytes(300_000)
        (folder / "source").write_bytes(data)
        shutil.copyfile(folder / "source", folder / "target")
        with (folder / "source").open("rb") as source, (folder / "range").open("wb") as target:
            copied = 0
            while copied < len(data):
                copied += os.copy_file_range(source.fileno(), target.fileno(), len(data) - copied)
        with (folder / "target").open("r+b") as target:
            os.posix_fallocate(target.fileno(), 0, 400_000)
        assert (folder / "range").read_bytes() == data
        assert (folder / "target").read_bytes() == data + bytes(100_000)

    def test_locks_hold_between_programs(self, folder: Path) -> None:
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            answer = run_python(
                "import fcntl, sys\n"
                "try:\n"
                "    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                "except BlockingIOError:\n"
                "    print('held')\n",
                folder / "lock",
            )
        assert answer == "held\n"

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_a_database_keeps_its_rows(self, folder: Path, journal: str) -> None:
        program = (
            "import sqlite3, sys\n"
            "with sqlite3.connect(sys.argv[1]) as database:\n"
            "    database.execute(f'pragma journal_mode={sys.argv[2]}')\n"
            "    database.execute('create table if not exists t (x)')\n"
            "    database.executemany('insert into t values (?)', [(i,) for i in range(2000)])\n"
            "    database.commit()\n"
            "    print(database.execute('select count(*), sum(x) from t').fetchone())\n"
            "    print(database.execute('pragma integrity_check').fetchone())\n"
        )
        assert run_python(program, folder / "a.db", journal) == "(2000, 1999000)\n('ok',)\n"
        assert run_python(program, folder / "a.db", journal) == "(4000, 3998000)\n('ok',)\n"

    # Names

    def test_creating_exclusively_refuses_an_existing_name(self, folder: Path) -> None:
        (folder / "a").touch()
        with refused(errno.EEXIST):
            os.open(folder / "a", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with refused(errno.EEXIST):
            (folder / "a").mkdir()

    def test_a_missing_name_appears_and_disappears(self, folder: Path) -> None:
        path = folder / "a"
        for _ in range(3):
            assert not path.exists()
            path.touch()
            assert path.exists()
            path.unlink()
        with refused(errno.ENOENT):
            path.unlink()

    def test_a_name_of_255_bytes_holds(self, folder: Path) -> None:
        path = folder / ("n" * 255)
        path.write_bytes(b"x")
        assert os.listdir(folder) == ["n" * 255]
        assert path.read_bytes() == b"x"
        path.rename(folder / ("m" * 255))
        assert os.listdir(folder) == ["m" * 255]

    def test_a_name_of_256_bytes_is_too_long(self, folder: Path) -> None:
        path = folder / ("é" * 128)
        (folder / "a").touch()
        with refused(errno.ENAMETOOLONG):
            path.stat()
        with refused(errno.ENAMETOOLONG):
            path.touch()
        with refused(errno.ENAMETOOLONG):
            path.mkdir()
        with refused(errno.ENAMETOOLONG):
            path.symlink_to("a")
        with refused(errno.ENAMETOOLONG):
            os.link(folder / "a", path)
        with refused(errno.ENAMETOOLONG):
            (folder / "a").rename(path)
        assert os.listdir(folder) == ["a"]

    def test_names_are_bytes(self, folder: Path) -> None:
        names = [b"\xff\xfe not utf-8", b"line\nbreak", b" ", b"\\", "näme".encode(), b"*?\"'"]
        for name in names:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(name)
        assert sorted(os.listdir(os.fsencode(folder))) == sorted(names)
        for name in names:
            with open(os.path.join(os.fsencode(folder), name), "rb") as file:
                assert file.read() == name

    def test_names_that_differ_in_case_are_two(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"small")
        (folder / "A").write_bytes(b"large")
        assert sorted(os.listdir(folder)) == ["A", "a"]
        assert (folder / "a").read_bytes() == b"small"

    # Renaming and removing

    def test_renaming_replaces_the_target(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"new")
        (folder / "b").write_bytes(b"old")
        (folder / "a").rename(folder / "b")
        assert os.listdir(folder) == ["b"]
        assert (folder / "b").read_bytes() == b"new"

    def test_renaming_without_replacing_refuses_a_taken_name(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"a")
        (folder / "b").write_bytes(b"b")
        with refused(errno.EEXIST):
            rename_with_flags(folder / "a", folder / "b", NOREPLACE)
        assert (folder / "b").read_bytes() == b"b"
        rename_with_flags(folder / "a", folder / "c", NOREPLACE)
        assert sorted(os.listdir(folder)) == ["b", "c"]

    def test_exchanging_swaps_two_names(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "file").write_bytes(b"file")
        (folder / "sub" / "inner").mkdir()
        (folder / "sub" / "inner" / "x").touch()
        rename_with_flags(folder / "file", folder / "sub" / "inner", EXCHANGE)
        assert (folder / "sub" / "inner").read_bytes() == b"file"
        assert os.listdir(folder / "file") == ["x"]
        with refused(errno.ENOENT):
            rename_with_flags(folder / "file", folder / "missing", EXCHANGE)

    def test_unknown_rename_flags_are_refused(self, folder: Path) -> None:
        (folder / "a").touch()
        with refused(errno.EINVAL):
            rename_with_flags(folder / "a", folder / "b", WHITEOUT)
        assert os.listdir(folder) == ["a"]

    def test_a_folder_moves_with_all_that_is_in_it(self, folder: Path) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "file").write_bytes(b"x")
        (folder / "other").mkdir()
        (folder / "a").rename(folder / "other" / "c")
        assert (folder / "other" / "c" / "b" / "file").read_bytes() == b"x"
        assert os.listdir(folder) == ["other"]

    def test_a_folder_cannot_move_into_itself(self, folder: Path) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        with refused(errno.EINVAL):
            (folder / "a").rename(folder / "a" / "b" / "c")

    def test_only_an_empty_folder_is_replaced_by_a_folder(self, folder: Path) -> None:
        for name in ("a", "b", "empty"):
            (folder / name).mkdir()
        (folder / "b" / "x").touch()
        with refused(errno.ENOTEMPTY):
            (folder / "a").rename(folder / "b")
        (folder / "a").rename(folder / "empty")
        assert sorted(os.listdir(folder)) == ["b", "empty"]

    def test_a_file_and_a_folder_do_not_replace_each_other(self, folder: Path) -> None:
        (folder / "folder").mkdir()
        (folder / "file").touch()
        with refused(errno.EISDIR):
            os.rename(folder / "file", folder / "folder")
        with refused(errno.ENOTDIR):
            os.rename(folder / "folder", folder / "file")

    def test_a_folder_that_is_not_empty_stays(self, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a" / "x").touch()
        with refused(errno.ENOTEMPTY):
            (folder / "a").rmdir()
        (folder / "a" / "x").unlink()
        (folder / "a").rmdir()
        assert os.listdir(folder) == []

    def test_files_and_folders_are_removed_differently(self, folder: Path) -> None:
        (folder / "folder").mkdir()
        (folder / "file").touch()
        with refused(errno.EISDIR):
            (folder / "folder").unlink()
        with refused(errno.ENOTDIR):
            (folder / "file").rmdir()

    def test_an_open_file_outlives_its_name(self, folder: Path) -> None:
        with (folder / "a").open("w+b", buffering=0) as file:
            file.write(b"before")
            (folder / "a").unlink()
            assert os.listdir(folder) == []
            file.write(b" after")
            file.seek(0)
            assert file.read() == b"before after"
            assert os.fstat(file.fileno()).st_nlink == 0
            os.ftruncate(file.fileno(), 3)
            os.fchmod(file.fileno(), 0o600)
            assert os.fstat(file.fileno()).st_size == 3
        assert not (folder / "a").exists()

    def test_a_replaced_file_stays_whole_for_its_reader(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"old" * 100_000)
        with (folder / "a").open("rb", buffering=0) as reader:
            assert reader.read(3) == b"old"
            (folder / "new").write_bytes(b"NEW" * 50_000)
            (folder / "new").rename(folder / "a")
            rest = b""
            while piece := reader.read(1 << 20):
                rest += piece
            assert rest == b"old" * 99_999
        assert (folder / "a").read_bytes() == b"NEW" * 50_000

    # Folders

    def test_many_entries_are_listed_once_each(self, folder: Path) -> None:
        names = {f"entry number {number}" for number in range(self.many)}
        for name in names:
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))
        listed = os.listdir(folder)
        assert len(listed) == self.many
        assert set(listed) == names
        with os.scandir(folder) as entries:
            assert all(entry.is_file() and entry.inode() > 1 for entry in entries)

    def test_removing_while_listing_misses_nothing(self, folder: Path) -> None:
        count = self.many // 5
        for number in range(count):
            (folder / f"{number}").touch()
        removed = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.path)
                removed += 1
        assert removed == count
        assert os.listdir(folder) == []

    def test_a_listing_starts_over_after_rewinding(self, folder: Path) -> None:
        for number in range(600):
            (folder / f"{number}").touch()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        first = os.listdir(descriptor)
        (folder / "later").touch()
        assert set(os.listdir(descriptor)) == {*first, "later"}
        os.close(descriptor)

    def test_a_listing_has_the_folder_and_its_parent(self, folder: Path) -> None:
        listing = subprocess.run(["ls", "-fa", folder], capture_output=True, text=True, check=True)
        assert listing.stdout == ".\n..\n"

    def test_deep_folders_work(self, folder: Path) -> None:
        deep = folder.joinpath(*(f"level-{level}" for level in range(60)))
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(b"deep")
        assert (deep / ".." / ".." / "level-58" / "level-59" / "file").read_bytes() == b"deep"

    # Other kinds

    def test_symbolic_links_lead_where_they_say(self, folder: Path) -> None:
        (folder / "target").write_bytes(b"there")
        (folder / "link").symlink_to("target")
        (folder / "dangling").symlink_to("nowhere/\udcff")
        assert (folder / "link").read_bytes() == b"there"
        assert (folder / "link").lstat().st_size == 6
        assert stat.S_ISLNK((folder / "link").lstat().st_mode)
        assert os.readlink(os.fsencode(folder / "dangling")) == b"nowhere/\xff"
        assert not (folder / "dangling").exists()

    def test_the_longest_symbolic_link_holds(self, folder: Path) -> None:
        (folder / "link").symlink_to("x" * 4095)
        assert len(os.readlink(folder / "link")) == 4095

    def test_hard_links_are_one_file(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "a").write_bytes(b"one")
        os.link(folder / "a", folder / "sub" / "b")
        assert (folder / "a").stat().st_nlink == 2
        assert (folder / "a").stat().st_ino == (folder / "sub" / "b").stat().st_ino
        (folder / "a").write_bytes(b"changed")
        assert (folder / "sub" / "b").read_bytes() == b"changed"
        (folder / "a").unlink()
        assert (folder / "sub" / "b").stat().st_nlink == 1
        assert (folder / "sub" / "b").read_bytes() == b"changed"

    def test_a_folder_has_no_hard_links(self, folder: Path) -> None:
        (folder / "a").mkdir()
        with refused(errno.EPERM):
            os.link(folder / "a", folder / "b")

    def test_a_fifo_carries_bytes(self, folder: Path) -> None:
        os.mkfifo(folder / "fifo", 0o640)
        assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)
        assert stat.S_IMODE((folder / "fifo").stat().st_mode) == 0o640
        writer = threading.Thread(target=(folder / "fifo").write_bytes, args=(b"through",))
        writer.start()
        assert (folder / "fifo").read_bytes() == b"through"
        writer.join()

    def test_a_socket_is_bound(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(folder / "socket"))
        assert stat.S_ISSOCK((folder / "socket").stat().st_mode)

    @pytest.mark.root
    def test_a_device_keeps_its_number(self, folder: Path) -> None:
        os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(folder / "disk", stat.S_IFBLK | 0o600, os.makedev(253, 70_000))
        assert (folder / "null").stat().st_rdev == os.makedev(1, 3)
        assert (folder / "disk").stat().st_rdev == os.makedev(253, 70_000)
        assert stat.S_ISCHR((folder / "null").stat().st_mode)
        assert stat.S_ISBLK((folder / "disk").stat().st_mode)

    # Attributes

    def test_modes_are_kept(self, folder: Path) -> None:
        path = folder / "a"
        path.touch()
        for mode in (0o600, 0o755, 0o4711, 0o000, 0o644):
            path.chmod(mode)
            assert stat.S_IMODE(path.stat().st_mode) == mode

    def test_the_umask_is_applied_once(self, folder: Path) -> None:
        old = os.umask(0o027)
        try:
            os.close(os.open(folder / "file", os.O_CREAT | os.O_WRONLY, 0o666))
            os.mkdir(folder / "folder", 0o777)
        finally:
            os.umask(old)
        assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o640
        assert stat.S_IMODE((folder / "folder").stat().st_mode) == 0o750

    @pytest.mark.root
    def test_owners_are_kept(self, folder: Path) -> None:
        (folder / "a").touch()
        os.chown(folder / "a", 12_345, 54_321)
        assert ((folder / "a").stat().st_uid, (folder / "a").stat().st_gid) == (12_345, 54_321)
        os.chown(folder / "a", -1, 7)
        assert ((folder / "a").stat().st_uid, (folder / "a").stat().st_gid) == (12_345, 7)

    @pytest.mark.root
    def test_a_folder_hands_its_group_on(self, folder: Path) -> None:
        os.chown(folder, -1, 4_242)
        folder.chmod(0o2775)
        (folder / "file").touch()
        (folder / "sub").mkdir()
        assert (folder / "file").stat().st_gid == 4_242
        assert (folder / "sub").stat().st_gid == 4_242
        assert (folder / "sub").stat().st_mode & stat.S_ISGID

    @pytest.mark.parametrize("mtime_ns", [0, 1_234_567_890_123_456_789, 4_102_444_800_000_000_001])
    def test_times_are_kept_to_the_nanosecond(self, folder: Path, mtime_ns: int) -> None:
        (folder / "a").touch()
        (folder / "sub").mkdir()
        for path in (folder / "a", folder / "sub"):
            os.utime(path, ns=(5, mtime_ns))
            assert path.stat().st_mtime_ns == mtime_ns

    def test_access_times_are_accepted_and_not_kept(self, folder: Path) -> None:
        (folder / "a").touch()
        os.utime(folder / "a", ns=(1_000, 2_000))
        subprocess.run(["touch", "-a", folder / "a"], check=True)
        assert (folder / "a").stat().st_atime_ns == (folder / "a").stat().st_mtime_ns == 2_000

    def test_changes_move_the_times(self, folder: Path) -> None:
        (folder / "a").touch()
        os.utime(folder / "a", ns=(0, 0))
        os.utime(folder, ns=(0, 0))
        with (folder / "a").open("ab") as file:
            file.write(b"x")
        assert (folder / "a").stat().st_mtime_ns > 0
        assert folder.stat().st_mtime_ns == 0
        (folder / "b").touch()
        assert folder.stat().st_mtime_ns > 0

    def test_an_inode_number_stays(self, folder: Path) -> None:
        (folder / "a").write_bytes(b"x")
        before = (folder / "a").stat().st_ino
        (folder / "a").chmod(0o600)
        (folder / "a").rename(folder / "b")
        assert (folder / "b").stat().st_ino == before

    def test_space_used_follows_the_size(self, folder: Path) -> None:
        (folder / "a").write_bytes(bytes(range(256)) * 4096)
        assert (folder / "a").stat().st_blocks * 512 >= 1024 * 1024

    def test_the_file_system_describes_itself(self, folder: Path) -> None:
        described = os.statvfs(folder)
        assert described.f_namemax == 255
        assert 0 < described.f_bavail <= described.f_blocks
        assert described.f_bsize >= 512
        assert described.f_frsize >= 512

    # Extended attributes

    def test_extended_attributes_are_kept(self, folder: Path) -> None:
        path = folder / "a"
        path.touch()
        assert listed_xattrs(path) == []
        os.setxattr(path, "user.colour", b"blue\0green")
        os.setxattr(path, "user.empty", b"")
        assert sorted(listed_xattrs(path)) == ["user.colour", "user.empty"]
        assert os.getxattr(path, "user.colour") == b"blue\0green"
        assert os.getxattr(path, "user.empty") == b""
        os.removexattr(path, "user.colour")
        assert listed_xattrs(path) == ["user.empty"]
        with refused(errno.ENODATA):
            os.getxattr(path, "user.colour")
        with refused(errno.ENODATA):
            os.removexattr(path, "user.colour")

    def test_extended_attributes_are_created_or_replaced_as_asked(self, folder: Path) -> None:
        (folder / "a").touch()
        with refused(errno.ENODATA):
            os.setxattr(folder / "a", "user.x", b"1", os.XATTR_REPLACE)
        os.setxattr(folder / "a", "user.x", b"1", os.XATTR_CREATE)
        with refused(errno.EEXIST):
            os.setxattr(folder / "a", "user.x", b"2", os.XATTR_CREATE)
        os.setxattr(folder / "a", "user.x", b"3", os.XATTR_REPLACE)
        assert os.getxattr(folder / "a", "user.x") == b"3"

    @pytest.mark.root
    @pytest.mark.parametrize("name", ["trusted.x", "security.x", "system.posix_acl_access"])
    def test_extended_attributes_of_the_system_are_not_supported(
        self, folder: Path, name: str
    ) -> None:
        (folder / "a").touch()
        with refused(errno.EOPNOTSUPP):
            os.setxattr(folder / "a", name, b"\x02\0\0\0")
        with refused(errno.EOPNOTSUPP):
            os.getxattr(folder / "a", name)
        assert listed_xattrs(folder / "a") == []

    # Programs

    @pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
    def test_git_works(self, folder: Path) -> None:
        def git(*arguments: str) -> str:
            identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]
            done = subprocess.run(
                ["git", "-C", folder, *identity, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        git("init", "-q", "-b", "main")
        for number in range(20):
            (folder / f"{number}.txt").write_text(f"{number}\n" * 50)
        git("add", ".")
        git("commit", "-q", "-m", "first")
        (folder / "3.txt").write_text("changed\n")
        git("commit", "-q", "-a", "-m", "second")
        git("repack", "-a", "-d", "-q")
        assert git("status", "--porcelain") == ""
        assert git("log", "--format=%s") == "second\nfirst\n"
        git("fsck", "--strict")

    def test_a_tree_is_archived_and_unpacked(self, folder: Path) -> None:
        (folder / "tree" / "sub").mkdir(parents=True)
        (folder / "tree" / "sub" / "file").write_bytes(b"x" * 70_000)
        (folder / "tree" / "link").symlink_to("sub/file")
        os.link(folder / "tree" / "sub" / "file", folder / "tree" / "hard")
        subprocess.run(["tar", "-C", folder / "tree", "-cf", folder / "a.tar", "."], check=True)
        (folder / "out").mkdir()
        subprocess.run(["tar", "-C", folder / "out", "-xpf", folder / "a.tar"], check=True)
        compared = subprocess.run(
            ["diff", "-r", "--no-dereference", folder / "tree", folder / "out"], check=False
        )
        assert compared.returncode == 0
        assert (folder / "out" / "hard").stat().st_nlink == 2

    def test_sed_saves_in_place(self, folder: Path) -> None:
        (folder / "a").write_text("one two\n")
        subprocess.run(["sed", "-i", "s/two/three/", folder / "a"], check=True)
        assert (folder / "a").read_text() == "one three\n"
        assert os.listdir(folder) == ["a"]
